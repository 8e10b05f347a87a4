//! What flows through the agent: records in, emitted records out, changes of state.

use std::fmt;

use crate::column::Column;

/// A position in a partition of the log.
pub type Offset = i64;

/// Milliseconds since 1970-01-01 UTC, as in Kafka's records.
pub type Timestamp = i64;

/// The time of a partition that has seen no record yet, as in Kafka Streams.
pub const NO_TIMESTAMP: Timestamp = -1;

/// The end of the year 9999. What stands behind it is no moment but a sign for "never": stream time
/// does not follow it, for it could never go on from there.
pub const TIMESTAMP_MAX: Timestamp = 253_402_300_799_999;

/// What stream time takes a record's timestamp for: [`NO_TIMESTAMP`] unless it is a moment.
#[must_use]
pub const fn time_told_by(timestamp: Timestamp) -> Timestamp {
    match timestamp {
        0..=TIMESTAMP_MAX => timestamp,
        _ => NO_TIMESTAMP,
    }
}

/// A topic: an index into [`Topology::topics`](crate::topology::Topology::topics).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicIndex(pub u16);

/// A topic's id in the cluster (a UUID); all zero where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// Whether both are known, and are the ids of two topics.
    #[must_use]
    pub fn differs(self, other: Self) -> bool {
        self != other && self != Self::default() && other != Self::default()
    }
}

/// Rises with each `assign` or `seek` of a partition.
pub type FetchEpoch = u64;

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: Offset,
    /// What was stored with it.
    pub metadata: String,
}

/// A partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicIndex,
    /// The partition's number.
    pub partition: i32,
}

impl TopicPartition {
    /// Partition `partition` of `topic`.
    #[must_use]
    pub const fn new(topic: TopicIndex, partition: i32) -> Self {
        Self { topic, partition }
    }
}

/// A task: partition `partition` of every input of sub-topology `subtopology`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// An index into [`Topology::subtopologies`](crate::topology::Topology::subtopologies).
    pub subtopology: u16,
    /// The partition.
    pub partition: i32,
}

impl fmt::Display for TaskId {
    /// Writes it as Kafka Streams does: `0_3` is partition 3 of sub-topology 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.subtopology, self.partition)
    }
}

/// A transform: its place in a sub-topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransformId {
    /// An index into [`Topology::subtopologies`](crate::topology::Topology::subtopologies).
    pub subtopology: u16,
    /// An index into
    /// [`Subtopology::transforms`](crate::topology::Subtopology::transforms).
    pub transform: usize,
}

/// Whose clock a timestamp is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TimestampType {
    /// The producer's.
    CreateTime = 0,
    /// The broker's.
    LogAppendTime = 1,
    /// Nobody's: the record has no timestamp.
    None = 2,
}

/// The headers of many records: how many each has, then all of them in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// The number of headers of each record; empty if no record has any.
    pub counts: Vec<u32>,
    /// The names (never null), of all records after one another.
    pub names: Column,
    /// The values, in step with the names.
    pub values: Column,
}

/// A header: its name (never null) and its value.
pub type Header<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

impl Headers {
    /// Appends the headers of a record before which there are `row` records.
    pub fn push<'a>(&mut self, row: usize, headers: impl IntoIterator<Item = Header<'a>>) {
        let before = self.names.len();
        for (name, value) in headers {
            self.names.push(name);
            self.values.push(value);
        }
        let count = u32::try_from(self.names.len() - before).expect("fewer than 2^32 headers");
        if count > 0 && self.counts.is_empty() {
            self.counts.resize(row, 0);
        }
        if count > 0 || !self.counts.is_empty() {
            self.counts.push(count);
        }
    }

    /// Forgets everything, keeps the buffers.
    pub fn clear(&mut self) {
        self.counts.clear();
        self.names.clear();
        self.values.clear();
    }

    /// How many bytes the headers hold in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.counts.len() * size_of::<u32>() + self.names.bytes() + self.values.bytes()
    }
}

/// Records as columns; all of `offsets`, `timestamps`, `timestamp_types`, `keys` and `values` have
/// one row for each record, in ascending order of offset when they come from one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Where each record stands in its partition.
    pub offsets: Vec<Offset>,
    /// Its time.
    pub timestamps: Vec<Timestamp>,
    /// Whose time; the number of a [`TimestampType`].
    pub timestamp_types: Vec<u8>,
    /// Its key.
    pub keys: Column,
    /// Its value.
    pub values: Column,
    /// Its headers.
    pub headers: Headers,
}

impl Records {
    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// How many bytes they hold in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.len() * 17 + self.keys.bytes() + self.values.bytes() + self.headers.bytes()
    }
}

/// Records of one task for one transform, in the order in which to process them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The task's partition.
    pub partition: i32,
    /// Stream time before the first record.
    pub stream_time: Timestamp,
    /// The wall clock; it stands still within a batch.
    pub wall_clock: Timestamp,
    /// What the first record stems from.
    pub origin: Origin,
    /// For each record the transform's input it came by (an index into its inputs).
    pub inputs: Vec<u32>,
    /// The records. One handed over by another transform has the offset of the record that
    /// caused it.
    pub records: Records,
}

/// What a record stems from. No two records that a transform of a task is given have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The punctuation that caused it, if it was one: transform, schedule and the time it was due.
    pub punctuation: Option<(usize, u32, Timestamp)>,
    /// The task's input whose record caused it otherwise (an index into those of the
    /// sub-topology).
    pub input: usize,
    /// Where that record stands.
    pub offset: Offset,
    /// How many records of the same origin the transform was given before it.
    pub sibling: u32,
}

/// As [`Emits::timestamps`]: the time of the record that caused the emit.
pub const TIMESTAMP_OF_CAUSE: Timestamp = i64::MIN;
/// As [`Emits::partitions`]: the partition that the key decides, as the Java client places it.
pub const PARTITION_BY_KEY: i32 = -1;
/// As one of [`Headers::counts`] in [`Emits::headers`]: the headers of the record that caused the
/// emit, unchanged; none in a punctuation.
pub const HEADERS_OF_CAUSE: u32 = u32::MAX;
/// As [`Emits::causes`]: no record; a punctuation emitted it.
pub const NO_CAUSE: i32 = -1;

/// Records that a transform emitted, as columns with one row for each.
///
/// The host has checked them: columns have equal lengths, causes are rows of the batch (or
/// [`NO_CAUSE`]), outputs are indices of the transform's outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Emits {
    /// The row of the batch that caused each.
    pub causes: Vec<i32>,
    /// The transform's output it goes to.
    pub outputs: Vec<u32>,
    /// Its key.
    pub keys: Column,
    /// Its value.
    pub values: Column,
    /// Its headers, or [`HEADERS_OF_CAUSE`]; that for all of them if `None`.
    pub headers: Option<Headers>,
    /// Its time, or [`TIMESTAMP_OF_CAUSE`].
    pub timestamps: Vec<Timestamp>,
    /// Its partition, or [`PARTITION_BY_KEY`].
    pub partitions: Vec<i32>,
}

impl Emits {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.outputs.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// How many bytes they hold in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let headers = self.headers.as_ref().map_or(0, Headers::bytes);
        self.len() * 20 + self.keys.bytes() + self.values.bytes() + headers
    }
}

/// Records to produce, as columns with one row for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outputs {
    /// Where each goes.
    pub topics: Vec<TopicIndex>,
    /// Its partition, or [`PARTITION_BY_KEY`].
    pub partitions: Vec<i32>,
    /// Its time.
    pub timestamps: Vec<Timestamp>,
    /// Its key.
    pub keys: Column,
    /// Its value.
    pub values: Column,
    /// Its headers.
    pub headers: Headers,
}

impl Outputs {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Appends all of `other`.
    pub fn append(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        let rows = self.len();
        if !(self.headers.counts.is_empty() && other.headers.counts.is_empty()) {
            self.headers.counts.resize(rows, 0);
            self.headers.counts.extend(&other.headers.counts);
            self.headers.counts.resize(rows + other.len(), 0);
            self.headers.names.append(&other.headers.names);
            self.headers.values.append(&other.headers.values);
        }
        self.topics.extend(other.topics);
        self.partitions.extend(other.partitions);
        self.timestamps.extend(other.timestamps);
        self.keys.append(&other.keys);
        self.values.append(&other.values);
    }

    /// How many bytes they hold in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.len() * 14 + self.keys.bytes() + self.values.bytes() + self.headers.bytes()
    }
}

/// Changes of one store, as columns: the last one for each key, in a fixed order. Also what its
/// changelog says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The keys, never null.
    pub keys: Column,
    /// The new values; null deletes.
    pub values: Column,
}

impl Changes {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}
