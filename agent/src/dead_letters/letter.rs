//! What a record of a dead-letter topic says: a letter, or the mark that one was put back.

use sidestream_core::record::{Offset, Timestamp};

use crate::kafka::{StoredHeader, StoredRecord};

/// What the names of the headers begin with that say what happened, as Kafka Streams names them.
const ERRORS: &str = "__streams.errors.";
/// The first of them that a letter gets; what stands before it is the record's own.
const EXCEPTION: &str = "__streams.errors.exception";
/// What a letter says that had to do without a part of its record, and the time that it has not.
const OMITTED: [&str; 3] =
    ["__sidestream.value.omitted", "__sidestream.headers.omitted", "__sidestream.key.omitted"];
const REPLACED_TIME: &str = "__sidestream.timestamp.replaced";
/// The header of a mark: the offset of the letter, of the same partition, that was put back.
const PUT_BACK: &str = "__sidestream.put.back";

/// Where a record stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: Offset,
}

/// A dead letter: a record that a transform failed at for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Where it stands.
    pub place: Place,
    /// The record's time, also where brokers did not take it for the letter; -1 if it has none.
    pub timestamp: Timestamp,
    /// How the transform failed, in one word.
    pub exception: String,
    /// What was said about it; may be empty.
    pub message: String,
    /// The transform, if it says so; letters of Kafka Streams do not.
    pub transform: Option<String>,
    /// The task, as Kafka Streams writes it.
    pub task: Option<String>,
    /// The input record that it is or stems from; nothing if a punctuation caused it.
    pub source: Option<Place>,
    /// The transform that handed it over inside the task: then it is not the record in `source`.
    pub handed_over_by: Option<String>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// All of its headers, in order.
    pub headers: Vec<StoredHeader>,
}

/// What a record of a dead-letter topic is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Letter(Box<Letter>),
    Mark(Mark),
    /// Somebody else's.
    Other,
}

/// That a letter of the same partition was put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Where the mark itself stands.
    pub(super) offset: Offset,
    /// The letter's offset.
    pub(super) letter: Offset,
    /// When it was put back.
    pub(super) time: Timestamp,
    /// The topic that it was put into.
    pub(super) to: String,
}

impl Content {
    /// Reads a record of partition `partition` of `topic`.
    pub(super) fn of(record: StoredRecord, topic: &str, partition: i32) -> Self {
        let headers = &record.headers[first_said(&record.headers).unwrap_or(0)..];
        let text = |name: &str| {
            let value = header(headers, name)?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let Some(exception) = text(EXCEPTION) else {
            let letter = text(PUT_BACK).and_then(|offset| offset.parse().ok());
            return letter.map_or(Self::Other, |letter| {
                let to = record.value.as_deref().unwrap_or_default();
                let to = String::from_utf8_lossy(to).into_owned();
                Self::Mark(Mark { offset: record.offset, letter, time: record.timestamp, to })
            });
        };
        let said = |name: &str| text(&format!("{ERRORS}{name}"));
        let number = |name: &str| said(name).and_then(|number| number.parse::<i64>().ok());
        let source = said("topic").zip(number("partition")).zip(number("offset"));
        let source = source.and_then(|((topic, partition), offset)| {
            Some(Place { topic, partition: i32::try_from(partition).ok()?, offset })
        });
        Self::Letter(Box::new(Letter {
            place: Place { topic: topic.to_owned(), partition, offset: record.offset },
            timestamp: text(REPLACED_TIME)
                .and_then(|time| time.parse().ok())
                .unwrap_or(record.timestamp),
            message: said("message").unwrap_or_default(),
            transform: said("processor.node.id"),
            task: said("task.id"),
            handed_over_by: said("handed.over.by"),
            exception,
            source,
            key: record.key,
            value: record.value,
            headers: record.headers,
        }))
    }
}

impl Letter {
    /// The headers that the record had before it became a letter. If it was one before, what was
    /// said then is its own.
    #[must_use]
    pub fn own_headers(&self) -> Vec<StoredHeader> {
        let first = first_said(&self.headers).unwrap_or(self.headers.len());
        let (own, said) = self.headers.split_at(first);
        let is_said = |name: &[u8]| {
            let ours = OMITTED.iter().chain([&REPLACED_TIME]);
            name.starts_with(ERRORS.as_bytes()) || ours.into_iter().any(|of| of.as_bytes() == name)
        };
        let others = said.iter().filter(|(name, _)| !is_said(name));
        own.iter().chain(others).cloned().collect()
    }

    /// Whether it lacks a part of its record, since brokers did not take the whole of it.
    #[must_use]
    pub fn is_cut_down(&self) -> bool {
        let said = &self.headers[first_said(&self.headers).unwrap_or(self.headers.len())..];
        OMITTED.iter().any(|name| said.iter().any(|(is, _)| is == name.as_bytes()))
    }

    /// The topic that the record came from, partition and all, if it is one that stands there.
    #[must_use]
    pub fn home(&self) -> Option<&Place> {
        self.source.as_ref().filter(|_| self.handed_over_by.is_none())
    }
}

impl Mark {
    /// Whether it stands where a replay puts it.
    pub(super) const fn is_behind_its_letter(&self) -> bool {
        0 <= self.letter && self.letter < self.offset
    }

    /// The parts of the record that is a mark: its key, its value and its header. The key is
    /// nobody else's, so that marks outlive a topic's compaction.
    pub(super) fn record(letter: Offset, to: &str) -> (Vec<u8>, Vec<u8>, [StoredHeader; 1]) {
        let offset = letter.to_string();
        let key = format!("{PUT_BACK}:{offset}").into_bytes();
        let header = (PUT_BACK.as_bytes().to_vec(), Some(offset.into_bytes()));
        (key, to.as_bytes().to_vec(), [header])
    }
}

/// Where the headers begin that made a letter of a record, if they did.
fn first_said(headers: &[StoredHeader]) -> Option<usize> {
    headers.iter().rposition(|(name, _)| name == EXCEPTION.as_bytes())
}

/// The value of the last header of this name.
fn header<'a>(headers: &'a [StoredHeader], name: &str) -> Option<&'a [u8]> {
    let (_, value) = headers.iter().rfind(|(other, _)| other == name.as_bytes())?;
    value.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&str, &str)]) -> Vec<StoredHeader> {
        let pair = |(name, value): &(&str, &str)| {
            (name.as_bytes().to_vec(), Some(value.as_bytes().to_vec()))
        };
        all.iter().map(pair).collect()
    }

    fn content(all: &[(&str, &str)]) -> Content {
        let record = StoredRecord { offset: 7, headers: headers(all), ..StoredRecord::default() };
        Content::of(record, "bad", 2)
    }

    fn letter(all: &[(&str, &str)]) -> Letter {
        match content(all) {
            Content::Letter(letter) => *letter,
            other => panic!("{other:?} is no letter"),
        }
    }

    const LETTER: [(&str, &str); 8] = [
        ("trace", "1"),
        ("__streams.errors.exception", "trap"),
        ("__streams.errors.message", "unreachable"),
        ("__streams.errors.topic", "words"),
        ("__streams.errors.partition", "3"),
        ("__streams.errors.offset", "41"),
        ("__streams.errors.processor.node.id", "count"),
        ("__streams.errors.task.id", "0_3"),
    ];

    #[test]
    fn a_letter_that_was_cut_down_says_so_and_knows_its_records_time() {
        let time = ("__sidestream.timestamp.replaced", "41");
        let whole = [&LETTER[..], &[time]].concat();
        let whole = letter(&whole);
        assert_eq!((whole.timestamp, whole.is_cut_down()), (41, false));
        assert_eq!(whole.own_headers(), headers(&[("trace", "1")]));
        let cut = [&LETTER[..], &[("__sidestream.value.omitted", "1000000")]].concat();
        let cut = letter(&cut);
        assert!(cut.is_cut_down());
        assert_eq!(cut.own_headers(), headers(&[("trace", "1")]));
    }

    #[test]
    fn a_letter_says_what_happened_and_where_it_came_from() {
        let letter = letter(&LETTER);
        let source = Place { topic: "words".to_owned(), partition: 3, offset: 41 };
        assert_eq!(letter.place, Place { topic: "bad".to_owned(), partition: 2, offset: 7 });
        assert_eq!((letter.exception.as_str(), letter.message.as_str()), ("trap", "unreachable"));
        assert_eq!(letter.transform.as_deref(), Some("count"));
        assert_eq!(letter.task.as_deref(), Some("0_3"));
        assert_eq!(letter.home(), Some(&source));
        assert_eq!(letter.own_headers(), headers(&LETTER[..1]));
    }

    #[test]
    fn what_was_handed_over_or_caused_by_a_punctuation_has_no_home() {
        let handed = [&LETTER[..], &[("__streams.errors.handed.over.by", "split")]].concat();
        let handed = letter(&handed);
        assert_eq!((handed.home(), handed.source.is_some()), (None, true));
        let caused = letter(&LETTER[..3]);
        assert_eq!((caused.home(), &caused.source), (None, &None));
    }

    #[test]
    fn a_letter_that_was_one_before_keeps_what_was_said_then() {
        let before = [("trace", "1"), ("__streams.errors.exception", "reject")];
        let twice = [&before[..], &LETTER[1..], &[("late", "2")]].concat();
        let twice = letter(&twice);
        assert_eq!(twice.exception, "trap");
        let caused = letter(&[&LETTER[..], &LETTER[1..3]].concat());
        assert_eq!((caused.source, caused.transform), (None, None), "that was said before");
        assert_eq!(twice.own_headers(), headers(&[before[0], before[1], ("late", "2")]));
    }

    #[test]
    fn a_mark_names_its_letter_and_other_records_are_nothing() {
        let (key, value, headers) = Mark::record(41, "words");
        let record = StoredRecord {
            offset: 50,
            timestamp: 9,
            key: Some(key),
            value: Some(value),
            headers: headers.to_vec(),
        };
        let mark = Mark { offset: 50, letter: 41, time: 9, to: "words".to_owned() };
        assert!(mark.is_behind_its_letter());
        for letter in [50, 51, -1, i64::MIN] {
            assert!(!Mark { letter, ..mark.clone() }.is_behind_its_letter(), "{letter}");
        }
        assert_eq!(Content::of(record, "bad", 2), Content::Mark(mark));
        assert_eq!(content(&[("__sidestream.put.back", "x")]), Content::Other);
        assert_eq!(content(&[("trace", "1")]), Content::Other);
        let letter_of_mark = [&[("__sidestream.put.back", "1")], &LETTER[1..]].concat();
        assert!(matches!(content(&letter_of_mark), Content::Letter(_)), "it was put elsewhere");
    }
}
