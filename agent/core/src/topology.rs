//! What a pipeline consists of, with every name turned into an index once.

use std::time::Duration;

use crate::record::{TaskId, Timestamp, TopicIndex, TopicPartition};

/// A pipeline, ready to run: its topics are known to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Every topic that is read, written or restored from.
    pub topics: Vec<Topic>,
    /// The parts that share nothing but topics.
    pub subtopologies: Vec<Subtopology>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: i32,
    /// Whose it is.
    pub kind: TopicKind,
}

/// Whose a topic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicKind {
    /// The user's: the agent reads or writes it, never creates it.
    External,
    /// The agent's, between two sub-topologies; purged below the committed offset.
    Repartition,
    /// The agent's, with the state of a store; compacted.
    Changelog,
}

/// Transforms that work in one task, because they share an input or hand records over inside the
/// process. Its inputs are co-partitioned: all have [`Subtopology::partitions`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subtopology {
    /// How many tasks it has.
    pub partitions: i32,
    /// The topics it reads.
    pub inputs: Vec<Input>,
    /// Its transforms, each after those that hand records to it.
    pub transforms: Vec<Transform>,
    /// The stores of all its transforms.
    pub stores: Vec<Store>,
}

/// A topic that a sub-topology reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The topic.
    pub topic: TopicIndex,
    /// Where to start when the group has no offset.
    pub start: Start,
    /// What to do when what the group's offset stands for is not there.
    pub on_out_of_range: OnOutOfRange,
    /// Which transforms get its records.
    pub readers: Vec<Reader>,
}

/// An input of a transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// An index into [`Subtopology::transforms`].
    pub transform: usize,
    /// Which of the transform's inputs it is.
    pub input: u32,
}

/// Where to start reading a partition for which the group has no offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At its first record.
    Earliest,
    /// After its last record.
    Latest,
    /// At the first record of this time or later.
    At(Timestamp),
}

/// What to do about a partition whose committed offset can't be read on from: retention was
/// quicker, records were lost, or the topic was deleted and created again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOutOfRange {
    /// Its task stops, and says what can be done.
    #[default]
    Fail,
    /// It is read from its first record that is there.
    Earliest,
    /// It is read from after its last record.
    Latest,
}

/// A named step of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    /// Its name.
    pub name: String,
    /// The names of its inputs (topics or transforms), in the order of their indices.
    pub inputs: Vec<String>,
    /// Its outputs.
    pub outputs: Vec<Output>,
    /// Its stores: indices into [`Subtopology::stores`].
    pub stores: Vec<usize>,
    /// What becomes of records that it fails at.
    pub on_error: ErrorPolicy,
}

/// What becomes of a record that a transform fails at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorPolicy {
    /// How often a record may fail before `then` applies. Without it the worker's own number
    /// counts where the module asks to retry or the task is to be stopped; else there is no other
    /// attempt.
    pub retry: Option<Retry>,
    /// What comes after the last attempt.
    pub then: OnError,
}

/// How often to try, and how long to wait in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often the same may fail.
    pub attempts_max: u32,
    /// The wait after the first failure; doubles up to a minute.
    pub backoff: Duration,
}

/// What comes after the last attempt at a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The task stops at the record.
    #[default]
    Fail,
    /// The record counts as processed and is told of.
    Skip,
    /// As [`OnError::Skip`], and the record goes to this topic, in the same transaction.
    DeadLetter(TopicIndex),
}

/// A named output of a transform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Where it goes.
    pub route: Route,
    /// Keep only the last record for each key and transaction, as Kafka Streams' record cache
    /// does for a table. Only for topics.
    pub latest_per_key: bool,
}

/// Where an output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To a topic.
    Topic(TopicIndex),
    /// To other transforms of the same task, in the same transaction.
    Transforms(Vec<Reader>),
}

/// A store of a sub-topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Its name, unique in the pipeline.
    pub name: String,
    /// Its changelog.
    pub changelog: TopicIndex,
}

impl Topology {
    /// The topic behind an index of this topology.
    #[must_use]
    pub fn topic(&self, index: TopicIndex) -> &Topic {
        &self.topics[usize::from(index.0)]
    }

    /// The sub-topology of a task of this topology.
    #[must_use]
    pub fn subtopology(&self, task: TaskId) -> &Subtopology {
        &self.subtopologies[usize::from(task.subtopology)]
    }

    /// Which task reads a partition, and as which of its inputs; `None` if no task does.
    #[must_use]
    pub fn reader(&self, source: TopicPartition) -> Option<(TaskId, usize)> {
        self.subtopologies.iter().zip(0u16..).find_map(|(subtopology, index)| {
            let input = subtopology.inputs.iter().position(|i| i.topic == source.topic)?;
            Some((TaskId { subtopology: index, partition: source.partition }, input))
        })
    }
}

/// A version of a transform's code, as the shell counts them. Each transform starts with 0.
pub type Version = u64;
