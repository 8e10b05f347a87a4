//! Records that go to a dead-letter topic: as the transform was given them, with headers that say
//! what happened, named as Kafka Streams names them (KIP-1034).

use crate::{
    record::{Header, Offset, PARTITION_BY_KEY, Records, TaskId, Timestamp, TopicIndex},
    task::{Doer, Failure, Fault, Produced},
};

/// How many bytes of a message a header holds at most; fewer once the letter was too large.
const MESSAGE_BYTES_MAX: usize = 4_096;
const SHORT_MESSAGE_BYTES_MAX: usize = 200;

/// What a dead letter does without, since brokers refuse a whole one. With all of it, what is left
/// says where its record stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Its time is that of its writing.
    time: bool,
    /// Its key is its place.
    key: bool,
    /// How many of [`Part`] are gone.
    parts: u8,
}

/// What is taken away from a letter that is too large, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Message = 1,
    Headers,
    Value,
}

impl Cut {
    /// Takes more away, for what the letter was refused. Says whether there was anything left.
    pub(super) fn deepen(&mut self, fault: Fault) -> bool {
        let is_time = matches!(fault, Fault::Time | Fault::Record);
        let is_key = fault == Fault::Record || self.lacks(Part::Value);
        match fault {
            Fault::Lasting | Fault::Passing => return false,
            _ if is_time && !self.time => self.time = true,
            _ if is_key && !self.key => self.key = true,
            _ if !self.lacks(Part::Value) => self.parts += 1,
            _ => return false,
        }
        true
    }

    const fn lacks(self, part: Part) -> bool {
        self.parts >= part as u8
    }
}

/// Why a record is one, and whose.
pub(super) struct DeadLetter<'a> {
    pub(super) task: TaskId,
    pub(super) transform: &'a str,
    /// The topic and offset of the input record that it stems from.
    pub(super) source: Option<(&'a str, Offset)>,
    /// The transform that handed it over inside the task, if one did: then it is not the record
    /// that stands in the source.
    pub(super) handed_over_by: Option<&'a str>,
    pub(super) failure: &'a Failure,
}

impl DeadLetter<'_> {
    /// Appends the one record of `records` to what goes to topics, without what was `cut`. Its key
    /// decides the partition, and its own headers stay in front.
    pub(super) fn append(
        &self,
        topic: TopicIndex,
        records: &Records,
        (cut, now): (Cut, Timestamp),
        origin: Doer,
        produced: &mut Produced,
    ) {
        let outputs = &mut produced.outputs;
        let said = self.headers(records, cut);
        let said = said.iter().map(|(name, value)| (Some(name.as_bytes()), Some(value.as_bytes())));
        let own = records.headers.names.iter().zip(&records.headers.values);
        let own = own.filter(|_| !cut.lacks(Part::Headers));
        let headers: Vec<Header<'_>> = own.chain(said).collect();
        outputs.headers.push(outputs.topics.len(), headers);
        outputs.topics.push(topic);
        outputs.partitions.push(PARTITION_BY_KEY);
        outputs.timestamps.push(if cut.time { now } else { records.timestamps[0] });
        match cut.key {
            true => outputs.keys.push(Some(self.place().as_bytes())),
            false => outputs.keys.append(&records.keys),
        }
        match cut.lacks(Part::Value) {
            true => outputs.values.push(None),
            false => outputs.values.append(&records.values),
        }
        produced.origins.push(origin);
    }

    /// A key for a letter that can't keep its record's.
    fn place(&self) -> String {
        match self.source {
            Some((topic, offset)) => format!("{topic}-{}-{offset}", self.task.partition),
            None => format!("task-{}", self.task),
        }
    }

    fn headers(&self, records: &Records, cut: Cut) -> Vec<(&'static str, String)> {
        let message = &self.failure.message;
        let end = message.floor_char_boundary(match cut.lacks(Part::Message) {
            true => SHORT_MESSAGE_BYTES_MAX,
            false => MESSAGE_BYTES_MAX,
        });
        let mut headers = vec![
            ("__streams.errors.exception", self.failure.kind.name().to_owned()),
            ("__streams.errors.message", message[..end].to_owned()),
        ];
        if let Some((topic, offset)) = self.source {
            headers.extend([
                ("__streams.errors.topic", topic.to_owned()),
                ("__streams.errors.partition", self.task.partition.to_string()),
                ("__streams.errors.offset", offset.to_string()),
            ]);
        }
        headers.extend(
            self.handed_over_by.map(|by| ("__streams.errors.handed.over.by", by.to_owned())),
        );
        headers.extend([
            ("__streams.errors.processor.node.id", self.transform.to_owned()),
            ("__streams.errors.task.id", self.task.to_string()),
        ]);
        headers.extend(omitted(records, cut));
        headers
    }
}

/// What a letter says of what it lacks.
fn omitted(records: &Records, cut: Cut) -> Vec<(&'static str, String)> {
    let size = |bytes: Option<Option<&[u8]>>| match bytes.flatten() {
        Some(bytes) => bytes.len().to_string(),
        None => "null".to_owned(),
    };
    let mut headers = Vec::new();
    if cut.time {
        headers.push(("__sidestream.timestamp.replaced", records.timestamps[0].to_string()));
    }
    if cut.lacks(Part::Headers) {
        headers.push(("__sidestream.headers.omitted", records.headers.names.len().to_string()));
    }
    if cut.lacks(Part::Value) {
        headers.push(("__sidestream.value.omitted", size(records.values.iter().next())));
    }
    if cut.key {
        headers.push(("__sidestream.key.omitted", size(records.keys.iter().next())));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::FailureKind;

    fn letter(cut: Cut) -> Produced {
        let mut records = Records {
            offsets: vec![7],
            timestamps: vec![-5],
            timestamp_types: vec![0],
            keys: [Some(&b"key"[..])].into_iter().collect(),
            values: [Some(&[b'x'; 10_000][..])].into_iter().collect(),
            ..Records::default()
        };
        records.headers.push(0, [(Some(&b"own"[..]), Some(&[b'y'; 5_000][..]))]);
        let failure = Failure { kind: FailureKind::Trap, record: None, message: "m".repeat(5_000) };
        let letter = DeadLetter {
            task: TaskId { subtopology: 0, partition: 3 },
            transform: "t",
            source: Some(("in", 7)),
            handed_over_by: None,
            failure: &failure,
        };
        let mut produced = Produced::default();
        let origin = Doer::letter(0, None);
        letter.append(TopicIndex(0), &records, (cut, 1_000), origin, &mut produced);
        produced
    }

    fn header(produced: &Produced, name: &str) -> Option<String> {
        let headers = &produced.outputs.headers;
        let mut pairs = headers.names.iter().zip(&headers.values);
        let (_, value) = pairs.find(|(found, _)| *found == Some(name.as_bytes()))?;
        Some(String::from_utf8(value?.to_vec()).unwrap())
    }

    #[test]
    fn a_letter_that_is_too_large_loses_a_part_with_each_refusal_until_little_is_left() {
        let mut cut = Cut::default();
        let mut sizes = vec![letter(cut).outputs.bytes()];
        while cut.deepen(Fault::Size) {
            sizes.push(letter(cut).outputs.bytes());
        }
        assert_eq!(sizes.len(), 5);
        assert!(sizes[..4].is_sorted_by(|a, b| a > b) && sizes[4] < 1_500, "{sizes:?}");
        let last = letter(cut);
        assert_eq!(header(&last, "__sidestream.value.omitted").as_deref(), Some("10000"));
        assert_eq!(header(&last, "__sidestream.headers.omitted").as_deref(), Some("1"));
        assert_eq!(header(&last, "__sidestream.key.omitted").as_deref(), Some("3"));
        assert_eq!(header(&last, "own"), None);
        assert_eq!(last.outputs.keys.iter().next(), Some(Some(&b"in-3-7"[..])));
        assert_eq!(last.outputs.values.iter().next(), Some(None));
        assert_eq!(last.outputs.timestamps, [-5]);
    }

    #[test]
    fn a_refused_time_costs_nothing_but_the_time() {
        let mut cut = Cut::default();
        assert!(cut.deepen(Fault::Time));
        let produced = letter(cut);
        assert_eq!(produced.outputs.timestamps, [1_000]);
        assert_eq!(header(&produced, "__sidestream.timestamp.replaced").as_deref(), Some("-5"));
        assert_eq!(produced.outputs.values.iter().next(), Some(Some(&[b'x'; 10_000][..])));
    }

    #[test]
    fn a_fault_that_is_no_records_takes_nothing_away() {
        let mut cut = Cut::default();
        assert!(!cut.deepen(Fault::Lasting) && !cut.deepen(Fault::Passing));
        assert_eq!(cut, Cut::default());
    }
}
