//! What a worker has to say.

use std::{ops::Range, time::Duration};

use crate::{
    ports::TransactionError,
    record::{Offset, TaskId, Timestamp, TopicPartition, TransformId},
    task::{PassedOver, Telemetry},
    topology::{Retry, Version},
};

/// The time, as the shell reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Since an arbitrary moment; never goes back.
    pub monotonic: Duration,
    /// The wall clock.
    pub wall: Timestamp,
}

/// How a worker is to work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Offsets and state belong to the transaction (true), or are committed after the outputs
    /// were delivered (false).
    pub exactly_once: bool,
    /// Commit this long after the first uncommitted work.
    pub commit_interval: Duration,
    /// After this long the brokers abort a transaction: one is committed before half of it has
    /// passed, whatever the interval is, and the rest is for the commit.
    pub transaction_timeout: Duration,
    /// Poll the log again after working for this long. A call of user code is not interrupted.
    pub turn_time_max: Duration,
    /// Commit early when outputs and state changes come to this many bytes.
    pub uncommitted_bytes_max: usize,
    /// The most records in one batch.
    pub batch_records_max: usize,
    /// Stop fetching a partition while this many bytes of it wait.
    pub buffered_bytes_max: usize,
    /// How long a task with several inputs waits for one that is empty (`max.task.idle.ms`).
    pub max_task_idle: Duration,
    /// How often the same record may fail before its task is stopped, where the error policy of
    /// its transform says nothing else; failures of no known record count as one record's until
    /// what failed is committed.
    pub retry_attempts_max: u32,
    /// How long to wait after a first failure; doubles up to a minute.
    pub retry_backoff: Duration,
    /// A store whose position is older than this can't be continued, since deletes may have been
    /// compacted away: half of the changelog's `delete.retention.ms`.
    pub position_age_max: Duration,
    /// How often repartition topics are purged.
    pub purge_interval: Duration,
}

impl Config {
    /// How long after its first work a transaction is to be committed.
    pub(super) fn commit_after(&self) -> Duration {
        self.commit_interval.min(self.open_max())
    }

    /// For how long a transaction may stay open; then nothing comes before its commit.
    pub(super) fn open_max(&self) -> Duration {
        match self.exactly_once {
            true => self.transaction_timeout / 2,
            false => Duration::MAX,
        }
    }

    /// Until when a batch that is begun `now` may be divided, in a transaction whose first work was
    /// done at `since`. Without transactions it is as long, counted from the batch.
    pub(super) fn divide_until(&self, since: Duration, now: Duration) -> Duration {
        let from = if self.exactly_once { since } else { now };
        from.saturating_add(self.transaction_timeout / 2)
    }

    /// How often to try what failed.
    pub(super) const fn retry(&self) -> Retry {
        Retry { attempts_max: self.retry_attempts_max, backoff: self.retry_backoff }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            exactly_once: true,
            commit_interval: Duration::from_millis(100),
            transaction_timeout: Duration::from_secs(10),
            turn_time_max: Duration::from_secs(1),
            uncommitted_bytes_max: 64 << 20,
            batch_records_max: 1_000,
            buffered_bytes_max: 16 << 20,
            max_task_idle: Duration::ZERO,
            retry_attempts_max: 5,
            retry_backoff: Duration::from_millis(100),
            position_age_max: Duration::from_secs(7 * 24 * 3600 / 2),
            purge_interval: Duration::from_secs(30),
        }
    }
}

/// What a turn of [`Worker::run_once`](super::Worker::run_once) did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// What happened, in order.
    pub notices: Vec<Notice>,
    /// The worker has drained: it owns nothing any more and need not be run again.
    pub done: bool,
}

/// Something that happened in a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A task changed its state.
    Task {
        /// The task.
        task: TaskId,
        /// Its state now.
        state: TaskState,
    },
    /// A task's restore went on.
    Restoring {
        /// The task.
        task: TaskId,
        /// Changelog offsets still to read, over all of its stores.
        remaining: u64,
    },
    /// A store could not be used as it was and is rebuilt from its changelog.
    Rebuilding {
        /// The task.
        task: TaskId,
        /// The store, an index into the sub-topology's stores.
        store: usize,
        /// Why.
        reason: String,
    },
    /// An attempt to commit has come to its end.
    CommitEnded {
        /// What came of it, if not a commit.
        error: Option<TransactionError>,
        /// How long it took.
        took: Duration,
    },
    /// A transaction was committed.
    Committed(Box<CommitNotice>),
    /// A transaction was dropped.
    Dropped {
        /// Why.
        reason: String,
    },
    /// A task failed and will be tried again.
    Retrying {
        /// The task.
        task: TaskId,
        /// How often the same has failed.
        attempts: u32,
        /// Why.
        reason: String,
    },
    /// Something of the cluster is not there that a task writes to, a topic for instance. The task
    /// waits for it, however long; others go on.
    Held {
        /// The task.
        task: TaskId,
        /// What is not there.
        reason: String,
    },
    /// What the group's offset of an input stands for is not there any more; the task goes on
    /// elsewhere, as the input says.
    Moved {
        /// The task.
        task: TaskId,
        /// Why, and where it goes on.
        reason: String,
    },
    /// Somebody else than an agent set the group's offset of an input further on than the task's
    /// state has come, which is taken as meant: what lies in between is left out.
    Skipped {
        /// The task.
        task: TaskId,
        /// The partition of the input.
        partition: TopicPartition,
        /// From the next offset after those that the state is known to hold to the one that the
        /// task goes on at.
        offsets: Range<Offset>,
        /// The same in words.
        reason: String,
    },
    /// Another version of a transform's code has taken over.
    Swapped {
        /// Whose.
        transform: TransformId,
        /// Which.
        version: Version,
    },
    /// A version on probation has failed, or was taken back; the one before it is in force again.
    Reverted {
        /// Whose.
        transform: TransformId,
        /// Which was taken back.
        version: Version,
        /// Why.
        reason: String,
    },
    /// Something can't be done for now.
    Waiting(String),
    /// What was waited for is there again.
    Recovered,
}

/// A transaction that was committed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommitNotice {
    /// Input records processed in it.
    pub records: u64,
    /// Output records produced in it, changelogs not counted.
    pub outputs: u64,
    /// Changelog records produced in it.
    pub changes: u64,
    /// Bytes of outputs and changes.
    pub bytes: u64,
    /// What user code said, by task and transform.
    pub telemetry: Vec<(TaskId, usize, Telemetry)>,
    /// The next offset to read of each input partition of each task in it: task, input, offset.
    pub offsets: Vec<(TaskId, usize, Offset)>,
    /// Records that failed and were skipped or dead-lettered in it.
    pub passed_over: Vec<PassedOver>,
}

/// Where a task is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// Assigned; its state is not open yet.
    Created,
    /// Its changelogs are being applied to its state.
    Restoring,
    /// It processes records.
    Running,
    /// Its partitions were revoked; it stays open until the next assignment is known.
    Suspended,
    /// It was stopped for this reason; others go on.
    Failed(String),
    /// It is gone from this worker.
    Closed,
}
