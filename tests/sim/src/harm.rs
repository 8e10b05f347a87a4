//! What tasks that fail cost the others of their worker: the work of one transaction, then they work
//! alone.

use std::collections::{BTreeMap, BTreeSet};

use sidestream_core::{
    record::TaskId,
    worker::{Notice, TaskState},
};

/// How often the work of a task may be dropped for one other task, until that one commits: once, and
/// once more for what it fails at in another way.
const HARM_MAX: u32 = 2;

/// What a worker's tasks did to each other.
#[derive(Debug, Default)]
pub(crate) struct Harm {
    /// Tasks with calls in the open transaction.
    open: BTreeSet<TaskId>,
    /// Those of the transaction that was dropped last in this turn.
    dropped: BTreeSet<TaskId>,
    /// How often the first one's failures cost the second one its work.
    done: BTreeMap<(TaskId, TaskId), u32>,
}

impl Harm {
    /// A task is called.
    pub(crate) fn called(&mut self, task: TaskId) {
        self.open.insert(task);
    }

    /// The open transaction is committed.
    pub(crate) fn committed(&mut self) {
        self.open.clear();
    }

    /// The open transaction is dropped.
    pub(crate) fn dropped(&mut self) {
        self.dropped = std::mem::take(&mut self.open);
    }

    /// A turn is over, in which this was told.
    pub(crate) fn told(&mut self, notices: &[Notice]) -> Result<(), String> {
        let victims = std::mem::take(&mut self.dropped);
        for notice in notices {
            match notice {
                Notice::Committed(commit) => {
                    for (task, ..) in &commit.offsets {
                        self.done.retain(|(culprit, _), _| culprit != task);
                    }
                }
                Notice::Task { task, state: TaskState::Running | TaskState::Closed } => {
                    self.done.retain(|(culprit, victim), _| culprit != task && victim != task);
                }
                _ => {}
            }
        }
        // Of several drops it is not known which was whose, and others have other causes.
        let mut reasons = notices.iter().filter_map(|notice| match notice {
            Notice::Dropped { reason } => Some(reason),
            _ => None,
        });
        let (Some(reason), None) = (reasons.next(), reasons.next()) else { return Ok(()) };
        let is_culprit = |task: &&TaskId| reason.starts_with(&format!("task {task}: "));
        let failed = notices.iter().filter_map(|notice| match notice {
            Notice::Retrying { task, .. } => Some(task),
            _ => None,
        });
        let Some(&culprit) = failed.into_iter().find(is_culprit) else { return Ok(()) };
        for victim in victims.into_iter().filter(|&victim| victim != culprit) {
            let times = self.done.entry((culprit, victim)).or_default();
            *times += 1;
            if *times > HARM_MAX {
                return Err(format!(
                    "the work of {victim} was dropped {times} times for {culprit}"
                ));
            }
        }
        Ok(())
    }
}
