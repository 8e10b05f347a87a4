//! The border to Kafka.

use std::time::Duration;

use crate::{
    record::{Changes, Committed, FetchEpoch, Offset, Outputs, Records, TopicId, TopicPartition},
    task::Fault,
    topology::Start,
};

/// The partitioned log a worker reads from and commits to, as one member of the group and one
/// transactional producer. The kafka room implements it.
///
/// Batches move in and out, never single records. All calls come from the worker's thread. A call
/// may block for a bounded time; one that cannot be done now says [`LogError::Unavailable`].
pub trait Log {
    /// Waits up to `wait` for something to happen and appends it to `events`. Says nothing about
    /// partitions that are paused, and nothing fetched before the last `assign` or `seek` of its
    /// partition.
    fn poll(&mut self, wait: Duration, events: &mut Vec<Event>) -> Result<(), LogError>;

    /// Answers [`Event::Assigned`]: reads from these positions, each paused until
    /// [`resume`](Self::resume). The partitions are all that the member owns. Returns who the
    /// member is from now on.
    fn assign(&mut self, positions: &[FetchPosition]) -> Result<Membership, LogError>;

    /// Answers [`Event::Revoked`] and [`Event::Lost`]: reads nothing more.
    fn unassign(&mut self) -> Result<(), LogError>;

    /// Goes on reading these assigned partitions from other positions.
    fn seek(&mut self, positions: &[FetchPosition]) -> Result<(), LogError>;

    /// Stops reading these assigned partitions; what is fetched already may still come.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;

    /// Goes on reading these assigned partitions.
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;

    /// How long each request of the look-ups ([`committed`](Self::committed),
    /// [`start_offset`](Self::start_offset), [`bounds`](Self::bounds)) may take
    /// from now on, if that is less than what the log itself allows.
    fn hurry(&mut self, request_time_max: Duration);

    /// The group's committed offsets, in the order of `partitions`; `None` where there is none.
    /// They are stable: none is given while a transaction that may change it is open.
    fn committed(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError>;

    /// The offset that `start` means for a partition now.
    fn start_offset(&mut self, partition: TopicPartition, start: Start)
    -> Result<Offset, LogError>;

    /// First and last offset of inputs and changelogs, in the order of `partitions`. The end is
    /// the *read-uncommitted* one, for what is committed may not be visible yet.
    fn bounds(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Result<Bounds, Unreadable>>, LogError>;

    /// Starts reading a changelog partition from `offset`; what is read comes as
    /// [`Event::Changelog`]. `leader_epoch` is the epoch of the record before, or -1.
    fn restore(
        &mut self,
        partition: TopicPartition,
        offset: Offset,
        leader_epoch: i32,
    ) -> Result<(), LogError>;

    /// Reads nothing more of a changelog partition.
    fn stop_restore(&mut self, partition: TopicPartition) -> Result<(), LogError>;

    /// Hands records to the producer, in order, as part of the open transaction; opens one if
    /// there is none. They become visible when it is committed.
    fn produce(&mut self, outputs: &Outputs) -> Result<(), LogError>;

    /// Ends the open transaction (opens one if there is none) with everything in `transaction`.
    /// `Ok` means that all of it, and all that was produced, is committed for certain.
    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<Receipt, LogError>;

    /// Drops the open transaction, if there is one.
    fn abort(&mut self) -> Result<(), LogError>;

    /// Makes a new producer with the same transactional id, which settles whatever transaction
    /// the old one had open. `Ok` means that it is settled.
    fn recover(&mut self) -> Result<(), LogError>;

    /// Says that records of repartition topics below these offsets are not needed any more. A
    /// hint: failures are not reported.
    fn purge(&mut self, below: &[(TopicPartition, Offset)]);

    /// Leaves the group for good, so that others take over at once: unsubscribes, after which
    /// [`poll`](Self::poll) tells of the last revocation.
    fn leave(&mut self) -> Result<(), LogError>;
}

/// What happens to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The member owns these partitions, all that it owns, and must [`Log::assign`] them.
    Assigned(Vec<TopicPartition>),
    /// The member is about to lose all its partitions: it may still commit, then must
    /// [`Log::unassign`].
    Revoked,
    /// The member has lost all its partitions: it can't commit any more, must drop what is open
    /// and [`Log::unassign`].
    Lost,
    /// Records of an assigned partition.
    Records(Fetched),
    /// Records of a changelog partition.
    Changelog(Fetched),
    /// A partition that is read can't be read on; told once, until it is read from somewhere again.
    /// Others go on.
    Unreadable(TopicPartition, Unreadable),
    /// Something can't be done for now (brokers away); for people, told once until it is over.
    Waiting(String),
    /// What was waited for is there again.
    Recovered,
}

/// What was read of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// The partition; `None` only in a default value.
    pub partition: Option<TopicPartition>,
    /// The epoch given to the `assign` or `seek` that it was read under; 0 for a changelog.
    pub epoch: FetchEpoch,
    /// The records, maybe none.
    pub records: Records,
    /// The next offset to read: above the last record, or further on where nothing visible
    /// stands in between (markers, aborted records, compaction), when the end was seen.
    pub next: Offset,
    /// The leader epoch of the last record of a changelog, or -1.
    pub leader_epoch: i32,
}

/// Why a partition can't be read. The variants say what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Its topic is not there, or its leader is away: wait.
    ForNow(String),
    /// What was to be read may be gone: records were deleted, or the topic was created again. Look
    /// at its bounds.
    Lost(String),
    /// Nothing that this process can do will help; says what a person can do.
    Refused(String),
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

/// First and last offset of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that is still there.
    pub start: Offset,
    /// The offset after the last record or marker, committed or not.
    pub end: Offset,
    /// The topic's id.
    pub topic_id: TopicId,
}

/// All of a worker's work since its last commit, but the records already produced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction<'a> {
    /// Records still to produce.
    pub outputs: Outputs,
    /// State changes, to append to the changelog partitions.
    pub changes: Vec<(TopicPartition, &'a Changes)>,
    /// For each element of `changes`, the header [`SEEN_HEADER`](crate::task::SEEN_HEADER) of its
    /// last record; none if it is empty.
    pub seen: Vec<&'a str>,
    /// The offsets to commit, with what to store beside them: of every task that did any work.
    pub offsets: Vec<(TopicPartition, Committed)>,
    /// Whose offsets they are, as [`Log::assign`] returned it.
    pub membership: Membership,
}

/// What a commit did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// For each element of [`Transaction::changes`] that is not empty, the offset after its last
    /// record.
    pub changelog_ends: Vec<(TopicPartition, Offset)>,
}

/// The log failed. The variants say what to do about it, not what went wrong inside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The transaction did not and will not happen, and is aborted: drop the work and go back.
    #[error("the transaction was aborted: {0}")]
    Aborted(String),
    /// Nobody knows whether the transaction happened, or the producer is fenced:
    /// [`Log::recover`], then go on as after a crash.
    #[error("the outcome of the transaction is not known: {0}")]
    Unknown(String),
    /// The log can't be reached: nothing happened, try again after a while.
    #[error("the brokers can't be reached: {0}")]
    Unavailable(String),
    /// Something in the transaction is refused, whatever else happens. It is still open: abort it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing that this process can do will help; says what a person can do.
    #[error("{0}")]
    Fatal(String),
}

/// Something that a transaction holds is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What may be meant.
    pub suspects: Suspects,
    /// Whose fault it is.
    pub fault: Fault,
    /// The topic and its partition, why, and what to do about it.
    pub message: String,
}

/// What a refusal may be about. Brokers refuse a whole batch for one record in it, so there may be
/// several suspects; a log that can tell them apart at a second try has fewer of them then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suspects {
    /// One of these rows, counted over all outputs that were given for the open transaction.
    Outputs(Vec<usize>),
    /// One of these rows of a changelog partition's changes.
    Changes(TopicPartition, Vec<usize>),
    /// The offset of an input partition, or what is stored beside it.
    Offset(TopicPartition),
    /// Anything in the transaction.
    Anything,
}
