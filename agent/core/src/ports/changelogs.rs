//! What state is restored from.

use std::time::Duration;

use super::{Bounds, PortError, Unreadable};
use crate::record::{Offset, Records, TopicPartition};

/// The reader of a worker's changelogs. It belongs to no group.
pub trait Changelogs {
    /// Waits up to `wait` for something of the partitions that are read and appends it to `events`.
    /// Where nothing is read it returns at once.
    fn poll(&mut self, wait: Duration, events: &mut Vec<ChangelogEvent>) -> Result<(), PortError>;

    /// First and last offset, in the order of `partitions`. The end is the *read-uncommitted* one,
    /// for what is committed may not be visible yet. Each request takes up to `time_max`, or what
    /// the reader itself allows if that is less.
    fn bounds(
        &mut self,
        partitions: &[TopicPartition],
        time_max: Duration,
    ) -> Result<Vec<Result<Bounds, Unreadable>>, PortError>;

    /// Reads a partition from `offset` on, without an end, until [`stop`](Self::stop).
    /// `leader_epoch` is the epoch of the record before, or -1.
    fn read(
        &mut self,
        partition: TopicPartition,
        offset: Offset,
        leader_epoch: i32,
    ) -> Result<(), PortError>;

    /// Reads nothing more of a partition.
    fn stop(&mut self, partition: TopicPartition) -> Result<(), PortError>;
}

/// What comes of changelogs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "most are batches, which are moved once")]
pub enum ChangelogEvent {
    /// Records of a partition.
    Records(ChangelogRecords),
    /// A partition can't be read on; told once, until it is read from somewhere again. Others go on.
    Unreadable(TopicPartition, Unreadable),
}

/// What was read of a changelog's partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangelogRecords {
    /// The partition.
    pub partition: TopicPartition,
    /// The records, maybe none.
    pub records: Records,
    /// The next offset to read: above the last record, or further on where nothing visible
    /// stands in between, when the end was seen.
    pub next: Offset,
    /// The leader epoch of the last record, or -1.
    pub leader_epoch: i32,
}
