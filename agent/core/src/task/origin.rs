//! Which topics a task's offsets and state are of, and how that is written beside them: a mark in
//! the metadata of the committed offsets, and a header of changelog records.
//!
//! A topic that was deleted and created again has another id, so offsets of the one before are
//! recognised. The header says up to where a task's inputs are in its state: whoever restores the
//! state from its changelog knows what it has seen, whatever became of disks and group offsets.

use std::fmt::Write;

use crate::{
    record::{Offset, TaskId, TopicId},
    task::InputPosition,
    topology::{Subtopology, Topology},
};

/// The header that the last change of each transaction carries in its changelog.
pub const SEEN_HEADER: &str = "__sidestream.inputs";

/// What the header's value begins with; a number is never used again for another layout.
const SEEN_VERSION: &str = "1";

/// What the mark begins with: a field of its own in the metadata of a committed offset.
const MARK: &str = "of1";

/// The ids of the topics that a task works with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origins {
    /// Of each input.
    pub(crate) inputs: Vec<TopicId>,
    /// Of the changelog of each store.
    pub(crate) changelogs: Vec<TopicId>,
}

/// What a committed offset says of topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The id of the topic that the offset is of.
    pub(crate) input: TopicId,
    /// Stores (their names' hashes) with the beginnings of their changelogs' ids.
    changelogs: Vec<(u32, u32)>,
}

impl Origins {
    /// The id of an input's topic.
    pub(crate) fn input(&self, input: usize) -> TopicId {
        self.inputs.get(input).copied().unwrap_or_default()
    }

    /// The mark beside the committed offset of `input`, a field that begins with a semicolon: the
    /// id of its topic and, with the first input, those of the changelogs.
    pub(crate) fn mark(&self, subtopology: &Subtopology, input: usize) -> String {
        let mut text = format!(";{MARK},{}", hex(self.input(input)));
        if input == 0 {
            for (store, &id) in subtopology.stores.iter().zip(&self.changelogs) {
                // Writing to a string does not fail.
                let _written = write!(text, ",{:08x}{:08x}", hash(&store.name), beginning(id));
            }
        }
        text
    }

    /// The value of the header: `1;TOPIC,OFFSET,ID;…` with what is read next of each input.
    pub(crate) fn seen(&self, topology: &Topology, id: TaskId, offsets: &[Offset]) -> String {
        let mut text = SEEN_VERSION.to_owned();
        let inputs = topology.subtopology(id).inputs.iter().zip(offsets).enumerate();
        for (place, (input, offset)) in inputs {
            let name = &topology.topic(input.topic).name;
            let _written = write!(text, ";{name},{offset},{}", hex(self.input(place)));
        }
        text
    }

    /// The position of the inputs at these offsets.
    pub(crate) fn positions(&self, offsets: &[Offset]) -> Vec<InputPosition> {
        let position = |(input, &offset)| InputPosition { offset, topic_id: self.input(input) };
        offsets.iter().enumerate().map(position).collect()
    }
}

impl Mark {
    /// Reads what [`Origins::mark`] wrote, wherever it stands in the metadata; nothing is known
    /// from what others have committed.
    pub(crate) fn read(metadata: &str) -> Self {
        let mut mark = Self::default();
        let mut fields = metadata.split(';').map(|field| field.split(','));
        let Some(mut fields) =
            fields.find_map(|mut field| (field.next() == Some(MARK)).then_some(field))
        else {
            return mark;
        };
        mark.input = fields.next().and_then(from_hex).unwrap_or_default();
        mark.changelogs = fields
            .filter_map(|text| {
                let (store, id) = text.split_at_checked(8)?;
                let number = |text| u32::from_str_radix(text, 16).ok();
                Some((number(store)?, number(id)?))
            })
            .collect();
        mark
    }

    /// Whether metadata has a mark: what it stands beside was committed by an agent.
    pub(crate) fn is_in(metadata: &str) -> bool {
        metadata.split(';').any(|field| field.split(',').next() == Some(MARK))
    }

    /// Whether a store had another changelog than the one with this id.
    pub(crate) fn is_of_another(&self, store: &str, changelog: TopicId) -> bool {
        let (store, id) = (hash(store), beginning(changelog));
        let of_store = self.changelogs.iter().find(|(of, _)| *of == store);
        of_store.is_some_and(|(_, before)| *before != id && *before != 0 && id != 0)
    }
}

/// Reads the value of the header, by topic; nothing from what is no such value.
pub(crate) fn read_seen(value: &[u8]) -> Vec<(&str, InputPosition)> {
    let Ok(text) = std::str::from_utf8(value) else { return Vec::new() };
    let mut parts = text.split(';');
    if parts.next() != Some(SEEN_VERSION) {
        return Vec::new();
    }
    parts
        .filter_map(|part| {
            let mut fields = part.split(',');
            let name = fields.next()?;
            let offset = fields.next()?.parse().ok()?;
            Some((name, InputPosition { offset, topic_id: from_hex(fields.next()?)? }))
        })
        .collect()
}

fn hex(id: TopicId) -> String {
    format!("{:032x}", u128::from_be_bytes(id.0))
}

fn from_hex(text: &str) -> Option<TopicId> {
    let digits = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| digits)?;
    Some(TopicId(number.to_be_bytes()))
}

fn beginning(TopicId(id): TopicId) -> u32 {
    u32::from_be_bytes([id[0], id[1], id[2], id[3]])
}

/// FNV-1a.
fn hash(name: &str) -> u32 {
    name.bytes()
        .fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::TopicIndex,
        topology::{Input, OnOutOfRange, Start, Store, Topic, TopicKind},
    };

    fn origins() -> (Origins, Topology) {
        let topics = ["lines", "my.words_1", "s-changelog"].map(|name| Topic {
            name: name.to_owned(),
            partitions: 1,
            kind: TopicKind::External,
        });
        let input = |topic| Input {
            topic: TopicIndex(topic),
            start: Start::Earliest,
            on_out_of_range: OnOutOfRange::Fail,
            readers: Vec::new(),
        };
        let subtopology = Subtopology {
            partitions: 1,
            inputs: vec![input(0), input(1)],
            transforms: Vec::new(),
            stores: vec![Store { name: "s".to_owned(), changelog: TopicIndex(2) }],
        };
        let origins = Origins {
            inputs: vec![TopicId([0xab; 16]), TopicId([1; 16])],
            changelogs: vec![TopicId([7; 16])],
        };
        (origins, Topology { topics: topics.to_vec(), subtopologies: vec![subtopology] })
    }

    #[test]
    fn a_mark_is_found_among_what_else_the_metadata_says() {
        let (origins, topology) = origins();
        let first = origins.mark(&topology.subtopologies[0], 0);
        let mark = Mark::read(&format!("1;17;0,1,s,5,20{first};more"));
        assert_eq!(mark.input, TopicId([0xab; 16]));
        assert!(mark.is_of_another("s", TopicId([8; 16])));
        assert!(!mark.is_of_another("s", TopicId([7; 16])));
        assert!(!mark.is_of_another("t", TopicId([8; 16])), "a store that is new");
        let second = format!("1;17{}", origins.mark(&topology.subtopologies[0], 1));
        assert!(Mark::is_in(&first) && Mark::is_in(&second));
        let second = Mark::read(&second);
        assert_eq!(second, Mark { input: TopicId([1; 16]), changelogs: Vec::new() });
    }

    #[test]
    fn what_was_seen_comes_back_by_topic() {
        let (origins, topology) = origins();
        let id = TaskId { subtopology: 0, partition: 0 };
        let text = origins.seen(&topology, id, &[42, 7]);
        assert_eq!(
            read_seen(text.as_bytes()),
            [
                ("lines", origins.positions(&[42, 7])[0]),
                ("my.words_1", origins.positions(&[42, 7])[1])
            ]
        );
    }

    #[test]
    fn what_others_wrote_says_nothing() {
        for text in ["", "garbage", "2;lines,5,00", "1;lines", "1;lines,x,y", "1;,,", "1;ü,1,+1"] {
            assert_eq!(read_seen(text.as_bytes()), [], "{text}");
            assert_eq!(Mark::read(text), Mark::default(), "{text}");
            assert!(!Mark::is_in(text), "{text}");
        }
        assert_eq!(read_seen(&[0xff, 0xfe]), []);
        let cut = Mark::read("1;5;of1,ab,123,ü2345678x,0000000g0000000g");
        assert_eq!(cut, Mark::default());
    }

    #[test]
    fn ids_that_are_not_known_differ_from_none() {
        let (none, one, two) = (TopicId::default(), TopicId([1; 16]), TopicId([2; 16]));
        assert!(one.differs(two) && !one.differs(one) && !one.differs(none) && !none.differs(two));
    }
}
