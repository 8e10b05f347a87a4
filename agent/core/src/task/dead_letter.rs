//! Records that go to a dead-letter topic: as the transform was given them, with headers that say
//! what happened, named as Kafka Streams names them (KIP-1034).

use crate::{
    record::{Header, Offset, PARTITION_BY_KEY, Records, TaskId, TopicIndex},
    task::{Failure, Produced},
};

/// How many bytes of a message a header holds at most.
const MESSAGE_BYTES_MAX: usize = 4_096;

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
    /// Appends the one record of `records` to what goes to topics. Its key decides the partition,
    /// and its own headers stay in front.
    pub(super) fn append(&self, topic: TopicIndex, records: &Records, produced: &mut Produced) {
        let outputs = &mut produced.outputs;
        let said = self.headers();
        let said = said.iter().map(|(name, value)| (Some(name.as_bytes()), Some(value.as_bytes())));
        let own = records.headers.names.iter().zip(&records.headers.values);
        let headers: Vec<Header<'_>> = own.chain(said).collect();
        outputs.headers.push(outputs.topics.len(), headers);
        outputs.topics.push(topic);
        outputs.partitions.push(PARTITION_BY_KEY);
        outputs.timestamps.push(records.timestamps[0]);
        outputs.keys.append(&records.keys);
        outputs.values.append(&records.values);
        // Nobody's: a dead letter that is refused in turn has no other place to go to.
        produced.origins.push(None);
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        let message = &self.failure.message;
        let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
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
        headers
    }
}
