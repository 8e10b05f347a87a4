//! A worker that is to rest for a while, and how far its tasks are.

use super::{Environment, Slot, Worker};
use crate::record::{Offset, TaskId, Timestamp};

/// How far a task that runs is, by what is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskPosition {
    /// The task.
    pub task: TaskId,
    /// The next offset to read of each of its inputs.
    pub offsets: Vec<Offset>,
    /// The highest timestamp of its records, below 0 if it had none.
    pub stream_time: Timestamp,
}

impl<E: Environment> Worker<E> {
    /// Begins no further batch and calls no punctuation until [`resume`](Self::resume). What is
    /// processed already is committed in the next turn. The worker stays a member of its group and
    /// keeps its tasks; those that start still do, up to their first record.
    pub const fn pause(&mut self) {
        self.paused = true;
    }

    /// Goes on after a [`pause`](Self::pause).
    pub const fn resume(&mut self) {
        self.paused = false;
    }

    /// Whether something is processed and not committed yet.
    #[must_use]
    pub const fn has_open_work(&self) -> bool {
        self.transaction.since.is_some()
    }

    /// Whether an assignment of the group is in force, be it of no partition.
    #[must_use]
    pub const fn is_assigned(&self) -> bool {
        self.assigned
    }

    /// How far the tasks are that run.
    #[must_use]
    pub fn task_positions(&self) -> Vec<TaskPosition> {
        let position = |(&task, slot): (&TaskId, &Slot<E::Processor>)| match slot {
            Slot::Running(running) => Some(TaskPosition {
                task,
                offsets: running.committed_offsets().to_vec(),
                stream_time: running.committed_stream_time(),
            }),
            Slot::Starting(_) | Slot::Failed(_) => None,
        };
        self.tasks.iter().filter_map(position).collect()
    }
}
