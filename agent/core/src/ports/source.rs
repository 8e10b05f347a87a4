//! What a worker reads: its share of the group's partitions.

use std::time::Duration;

use super::{Bounds, PortError, TransactionError, Unreadable};
use crate::{
    record::{Committed, FetchEpoch, Offset, Records, TopicPartition},
    topology::Start,
};

/// The member of the group that a worker is, and the records of the partitions that it owns.
pub trait Source {
    /// Waits up to `wait` for something to happen and appends it to `events`. Says nothing about
    /// partitions that are paused, and nothing fetched before the last `assign` or `seek` of its
    /// partition.
    fn poll(&mut self, wait: Duration, events: &mut Vec<SourceEvent>) -> Result<(), PortError>;

    /// Answers [`SourceEvent::Assigned`]: reads from these positions, each paused until
    /// [`resume`](Self::resume). The partitions are all that the member owns. Returns who the
    /// member is from now on.
    fn assign(&mut self, positions: &[FetchPosition]) -> Result<Membership, PortError>;

    /// Answers [`SourceEvent::Revoked`] and [`SourceEvent::Lost`]: reads nothing more.
    fn unassign(&mut self) -> Result<(), PortError>;

    /// Goes on reading these assigned partitions from other positions.
    fn seek(&mut self, positions: &[FetchPosition]) -> Result<(), PortError>;

    /// Stops reading these assigned partitions; what is fetched already may still come.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), PortError>;

    /// Goes on reading these assigned partitions.
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), PortError>;

    /// The group's committed offsets, in the order of `partitions`; `None` where there is none.
    /// They are stable: none is given while a transaction that may change it is open. Each request
    /// takes up to `time_max`, or what the source itself allows if that is less.
    fn committed(
        &mut self,
        partitions: &[TopicPartition],
        time_max: Duration,
    ) -> Result<Vec<Option<Committed>>, PortError>;

    /// The offset that `start` means for a partition now; `time_max` as for
    /// [`committed`](Self::committed).
    fn start_offset(
        &mut self,
        partition: TopicPartition,
        start: Start,
        time_max: Duration,
    ) -> Result<Offset, PortError>;

    /// First and last offset of inputs, in the order of `partitions`; `time_max` as for
    /// [`committed`](Self::committed).
    fn bounds(
        &mut self,
        partitions: &[TopicPartition],
        time_max: Duration,
    ) -> Result<Vec<Result<Bounds, Unreadable>>, PortError>;

    /// Why nothing can be committed as this member any more, as far as that is known here: its
    /// partitions are lost to others. Brokers look at the generation of a transaction themselves;
    /// outside of one, that is to be done here.
    fn lost(&self, membership: &Membership) -> Option<String>;

    /// Commits offsets of this member outside of any transaction, after what they stand for was
    /// delivered ([`Sink::deliver`](super::Sink::deliver)).
    fn commit(
        &mut self,
        offsets: &[(TopicPartition, Committed)],
        membership: &Membership,
    ) -> Result<(), TransactionError>;

    /// Leaves the group for good, so that others take over at once: unsubscribes, after which
    /// [`poll`](Self::poll) tells of the last revocation.
    fn leave(&mut self) -> Result<(), PortError>;
}

/// What happens to the member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "most are batches, which are moved once")]
pub enum SourceEvent {
    /// The member owns these partitions, all that it owns, and must [`Source::assign`] them.
    Assigned(Vec<TopicPartition>),
    /// The member is about to lose all its partitions: it may still commit, then must
    /// [`Source::unassign`].
    Revoked,
    /// The member has lost all its partitions: it can't commit any more, must drop what is open
    /// and [`Source::unassign`].
    Lost,
    /// Records of an assigned partition.
    Records(Fetched),
    /// An assigned partition can't be read on; told once, until it is read from somewhere again.
    /// Others go on.
    Unreadable(TopicPartition, Unreadable),
    /// Something can't be done for now (brokers away); for people, told once until it is over.
    Waiting(String),
    /// What was waited for is there again.
    Recovered,
}

/// What was read of an assigned partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The partition.
    pub partition: TopicPartition,
    /// The epoch given to the `assign` or `seek` that it was read under.
    pub epoch: FetchEpoch,
    /// The records, maybe none.
    pub records: Records,
    /// The next offset to read: above the last record, or further on where nothing visible
    /// stands in between (markers, aborted records, compaction), when the end was seen.
    pub next: Offset,
}

/// Where to read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPosition {
    /// The partition.
    pub partition: TopicPartition,
    /// The next offset to read.
    pub offset: Offset,
    /// The epoch with which to mark what is read from here.
    pub epoch: FetchEpoch,
}

/// Who a member of the group is, from one rebalance to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The group's generation; below 0 the member is in no group.
    pub generation: i32,
    /// The member's id in it; empty if it is in no group.
    pub member: String,
}

impl Membership {
    /// Who is in no group.
    #[must_use]
    pub const fn none() -> Self {
        Self { generation: -1, member: String::new() }
    }

    /// Whether it is one of a group: brokers take what others commit unchecked.
    #[must_use]
    pub const fn is_in_group(&self) -> bool {
        self.generation >= 0 && !self.member.is_empty()
    }
}
