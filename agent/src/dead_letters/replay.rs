//! Letters go back to where they came from, each once.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Content, DeadLetters, End, Error, Letter, Part, Place, Progress, Selection, Watch,
    letter::Mark, marks::Marks, problem,
};
use crate::kafka::{self, NewRecord, TopicWriter};

/// The most letters of one transaction, and the most bytes.
const TRANSACTION_LETTERS_MAX: u64 = 100;
const TRANSACTION_BYTES_MAX: usize = 1 << 20;
/// The most topics that letters go back to at once.
const TARGETS_MAX: usize = 1_000;

/// Which letters to put back, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Which ones.
    pub selection: Selection,
    /// Also those that were put back before.
    pub again: bool,
    /// Put them all into this topic, by their keys, instead of where they came from.
    pub to: Option<String>,
    /// Also into topics that the pipeline does not read, if letters say that they came from there.
    pub anywhere: bool,
    /// Put nothing back; say what would be.
    pub dry_run: bool,
}

/// What was put back, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// How many letters went (or would go) to each topic.
    pub put_back: BTreeMap<String, u64>,
    /// How many of those that are meant were put back before, and were left alone.
    pub before: u64,
    /// How many records say that a letter was put back, and were not written by a replay; they don't
    /// count.
    pub foreign_marks: u64,
    /// How many of those that are meant can't go back.
    pub homeless: Homeless,
    /// Places at which there is no letter. If there are any, nothing was put back.
    pub missing: Vec<Place>,
    /// How many letters there are, in all topics of the pipeline, that were not put back yet.
    pub left: u64,
}

/// How many letters can't go back, by the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Homeless {
    /// They were handed over by another transform inside the task.
    pub handed_over: u64,
    /// They do not say which record they stem from: a punctuation caused them.
    pub without_source: u64,
    /// They say that they came from a topic that the pipeline does not read.
    pub elsewhere: u64,
    /// They lack a part of their record, since brokers did not take the whole of it.
    pub cut_down: u64,
}

/// What is to be done about a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    NotMeant,
    PutBackBefore,
    HandedOver,
    WithoutSource,
    Elsewhere,
    CutDown,
    /// Into this topic; into the partition that its key decides, or into this one if there is such.
    PutBack(String, Option<i32>),
}

impl Replay {
    /// A letter says where it came from, but whoever may write to its topic may say anything: without
    /// being told to, none goes where the pipeline does not read.
    fn decide(&self, letter: &Letter, is_put_back: bool, inputs: &BTreeSet<String>) -> Decision {
        match (&self.to, letter.home()) {
            _ if !self.selection.takes(letter) => Decision::NotMeant,
            _ if is_put_back && !self.again => Decision::PutBackBefore,
            _ if letter.is_cut_down() => Decision::CutDown,
            (Some(to), _) => Decision::PutBack(to.clone(), None),
            (None, Some(home)) if !self.anywhere && !inputs.contains(&home.topic) => {
                Decision::Elsewhere
            }
            (None, Some(home)) => Decision::PutBack(home.topic.clone(), Some(home.partition)),
            (None, None) if letter.handed_over_by.is_some() => Decision::HandedOver,
            (None, None) => Decision::WithoutSource,
        }
    }
}

impl DeadLetters {
    /// Puts letters back: with key, value, time and headers as they were, into the topic and
    /// partition that they came from. A replay that dies, or is done again, puts no letter back
    /// twice. It looks at what is there at its start: what fails again is not met again.
    pub fn replay(&mut self, replay: &Replay, watch: Watch<'_>) -> Result<Replayed, Error> {
        // Whoever takes the name over has ended what a replay before it left open, so that its
        // marks are seen below, and a replay that still runs can't commit any more.
        let name = format!("{}-dead-letters", self.application);
        let (mut writer, end) = match replay.dry_run {
            true => (None, End::Committed),
            false => (Some(TopicWriter::new(&self.config, &name)?), End::Settled),
        };
        let parts = self.parts(end, |_, _| true)?;
        let mut progress = Progress::new(watch, &parts, if replay.dry_run { 2 } else { 3 });
        let marks = self.marks(&parts, &mut progress)?;
        let planned = self.plan(replay, (&parts, &marks), &mut progress)?;
        let partitions = self.check_targets(&planned)?;
        let Some(writer) = writer.as_mut().filter(|_| planned.missing.is_empty()) else {
            return Ok(planned);
        };
        let mut act = Act { writer, partitions, open: (0, 0), written: 0, committed: 0 };
        let inputs = self.inputs.clone();
        let done = self.walk(&parts, &mut progress, &mut |part, content| match content {
            Content::Letter(letter) => {
                let is_put_back = marks.contains(part, letter.place.offset);
                let decision = replay.decide(&letter, is_put_back, &inputs);
                act.put_back(&letter, decision)
            }
            Content::Mark(_) | Content::Other => Ok(()),
        });
        done.and_then(|()| act.commit()).map_err(|error| {
            let committed = act.committed;
            Error::Kafka(kafka::Error::Fatal(format!(
                "{error}; {committed} letters are known to be put back, and are not put back again"
            )))
        })?;
        Ok(planned)
    }

    /// What putting back will come to.
    fn plan(
        &mut self,
        replay: &Replay,
        (parts, marks): (&[Part], &Marks),
        progress: &mut Progress<'_>,
    ) -> Result<Replayed, Error> {
        let mut planned = Replayed { foreign_marks: marks.foreign, ..Replayed::default() };
        let inputs = self.inputs.clone();
        let mut missing: BTreeSet<Place> = replay.selection.places.iter().cloned().collect();
        self.walk(parts, progress, &mut |part, content| {
            let Content::Letter(letter) = content else { return Ok(()) };
            missing.remove(&letter.place);
            let is_put_back = marks.contains(part, letter.place.offset);
            planned.add(replay.decide(&letter, is_put_back, &inputs), is_put_back)
        })?;
        planned.missing = missing.into_iter().collect();
        Ok(planned)
    }

    /// How many partitions each target has. Refuses what is no place for a letter.
    fn check_targets(&self, planned: &Replayed) -> Result<BTreeMap<String, i32>, Error> {
        let names: Vec<&str> = planned.put_back.keys().map(String::as_str).collect();
        let described = self.admin.describe_topics(&names)?;
        let mut partitions = BTreeMap::new();
        for (name, topic) in described {
            if self.topics.iter().any(|topic| topic.name == name) {
                return Err(problem(
                    format!("`{name}` is a dead-letter topic of this pipeline"),
                    "name a topic that is read, with `--to`",
                ));
            }
            if name.ends_with("-changelog") && !self.inputs.contains(&name) {
                return Err(problem(
                    format!("`{name}` is the changelog of a store, which its agent alone writes"),
                    "name a topic that is read, with `--to`",
                ));
            }
            let Some(topic) = topic else {
                let count = planned.put_back[&name];
                return Err(problem(
                    format!("the topic `{name}`, which {count} letters go back to, is not there"),
                    "create it, or name another one with `--to`; nothing was put back",
                ));
            };
            partitions.insert(name, topic.partitions);
        }
        Ok(partitions)
    }
}

impl Replayed {
    fn add(&mut self, decision: Decision, is_put_back: bool) -> Result<(), Error> {
        if !is_put_back && !matches!(decision, Decision::PutBack(..)) {
            self.left += 1;
        }
        match decision {
            Decision::NotMeant => {}
            Decision::PutBackBefore => self.before += 1,
            Decision::HandedOver => self.homeless.handed_over += 1,
            Decision::WithoutSource => self.homeless.without_source += 1,
            Decision::Elsewhere => self.homeless.elsewhere += 1,
            Decision::CutDown => self.homeless.cut_down += 1,
            Decision::PutBack(topic, _) => {
                *self.put_back.entry(topic).or_default() += 1;
                if self.put_back.len() > TARGETS_MAX {
                    return Err(problem(
                        format!("the letters go back to more than {TARGETS_MAX} topics"),
                        "choose some of them, with `--transform` or `--partition`",
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Writes letters and their marks.
struct Act<'a> {
    writer: &'a mut TopicWriter,
    partitions: BTreeMap<String, i32>,
    /// How many letters are in the open transaction, and how many bytes.
    open: (u64, usize),
    written: u64,
    committed: u64,
}

impl Act<'_> {
    fn put_back(&mut self, letter: &Letter, decision: Decision) -> Result<(), Error> {
        let Decision::PutBack(topic, partition) = decision else { return Ok(()) };
        let there = self.partitions.get(&topic).copied().unwrap_or(0);
        let partition = partition.filter(|partition| (0..there).contains(partition));
        let headers = letter.own_headers();
        self.writer.write(&NewRecord {
            topic: &topic,
            partition,
            timestamp: Some(letter.timestamp).filter(|time| *time >= 0),
            key: letter.key.as_deref(),
            value: letter.value.as_deref(),
            headers: &headers,
        })?;
        self.mark(&letter.place, &topic)?;
        self.written += 1;
        self.open.0 += 1;
        self.open.1 += size(letter);
        match self.open {
            (letters, bytes)
                if letters >= TRANSACTION_LETTERS_MAX || bytes >= TRANSACTION_BYTES_MAX =>
            {
                self.commit()
            }
            _ => Ok(()),
        }
    }

    fn mark(&mut self, place: &Place, to: &str) -> Result<(), Error> {
        let (key, value, headers) = Mark::record(place.offset, to);
        Ok(self.writer.write(&NewRecord {
            topic: &place.topic,
            partition: Some(place.partition),
            timestamp: None,
            key: Some(&key),
            value: Some(&value),
            headers: &headers,
        })?)
    }

    fn commit(&mut self) -> Result<(), Error> {
        self.writer.commit()?;
        self.open = (0, 0);
        self.committed = self.written;
        Ok(())
    }
}

fn size(letter: &Letter) -> usize {
    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let headers = letter.headers.iter().map(|(name, value)| name.len() + length(value));
    length(&letter.key) + length(&letter.value) + headers.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::{super::selection::tests::letter, *};

    fn check(replay: &Replay, letter: &Letter, is_put_back: bool, expected: &Decision) {
        let inputs = BTreeSet::from(["words".to_owned()]);
        assert_eq!(&replay.decide(letter, is_put_back, &inputs), expected, "{replay:?} {letter:?}");
    }

    #[test]
    fn a_letter_goes_back_once_and_to_where_it_came_from() {
        let (all, home) = (Replay::default(), Decision::PutBack("words".to_owned(), Some(1)));
        check(&all, &letter(7), false, &home);
        check(&all, &letter(7), true, &Decision::PutBackBefore);
        check(&Replay { again: true, ..all.clone() }, &letter(7), true, &home);
        let selection = Selection { offset: Some(6), ..Selection::default() };
        check(&Replay { selection, ..all }, &letter(7), false, &Decision::NotMeant);
    }

    #[test]
    fn what_has_no_topic_goes_only_where_it_is_told_to() {
        let by = Some("split".to_owned());
        let handed_over = Letter { handed_over_by: by, ..letter(7) };
        let without_source = Letter { source: None, ..letter(7) };
        let to = Replay { to: Some("again".to_owned()), ..Replay::default() };
        check(&Replay::default(), &handed_over, false, &Decision::HandedOver);
        check(&Replay::default(), &without_source, false, &Decision::WithoutSource);
        for letter in [handed_over, without_source, letter(7)] {
            check(&to, &letter, false, &Decision::PutBack("again".to_owned(), None));
        }
    }

    #[test]
    fn what_says_that_it_came_from_elsewhere_goes_there_only_if_that_is_said() {
        let place = Place { topic: "payments".to_owned(), partition: 0, offset: 3 };
        let forged = Letter { source: Some(place), ..letter(7) };
        check(&Replay::default(), &forged, false, &Decision::Elsewhere);
        check(&Replay::default(), &forged, true, &Decision::PutBackBefore);
        let anywhere = Replay { anywhere: true, ..Replay::default() };
        let there = Decision::PutBack("payments".to_owned(), Some(0));
        check(&anywhere, &forged, false, &there);
        let to = Replay { to: Some("words".to_owned()), ..Replay::default() };
        check(&to, &forged, false, &Decision::PutBack("words".to_owned(), None));
    }

    #[test]
    fn what_is_left_was_never_put_back() {
        let mut planned = Replayed::default();
        let home = || Decision::PutBack("words".to_owned(), Some(1));
        for (decision, is_put_back) in [
            (home(), false),
            (home(), true),
            (Decision::NotMeant, false),
            (Decision::NotMeant, true),
            (Decision::HandedOver, false),
            (Decision::PutBackBefore, true),
        ] {
            planned.add(decision, is_put_back).unwrap();
        }
        assert_eq!((planned.left, planned.before, planned.homeless.handed_over), (2, 1, 1));
        assert_eq!(planned.put_back["words"], 2);
    }

    #[test]
    fn the_size_of_a_letter_counts_all_that_it_carries() {
        let headers = vec![(b"name".to_vec(), Some(b"v".to_vec())), (b"null".to_vec(), None)];
        let letter = Letter { value: Some(vec![0; 10]), headers, ..letter(0) };
        assert_eq!(size(&letter), 3 + 10 + 5 + 4);
    }
}
