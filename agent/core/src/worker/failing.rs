//! Tasks that fail: the transaction is dropped, and what failed is tried again later, given up, or
//! stops its task.

use super::{Environment, Log, Notice, Slot, TaskState, Worker, WorkerError};
use crate::{
    record::{TaskId, TransformId},
    task::{Blame, Failed, Failure, FailureKind, RecordId, Task, Verdict, judge},
    topology::ErrorPolicy,
};

impl<L: Log, E: Environment> Worker<L, E> {
    /// A row of the open transaction's outputs is refused, or one that is not known: the work of the
    /// record that caused it failed. `producing` is the task that the outputs were taken from, if it
    /// was one. Where the record can't be told, the transaction is dropped, and its work comes back
    /// in smaller ones, until one has no other record.
    pub(super) fn refused(
        &mut self,
        producing: Option<TaskId>,
        row: Option<usize>,
        message: String,
    ) -> Result<(), WorkerError> {
        let origin = match row {
            Some(row) => self.transaction.origin(row),
            None => self.transaction.only_origin(),
        };
        let Some(id) = origin.map(|(id, _)| id).or(producing) else {
            return self.abort(&message);
        };
        if let Some(Slot::Running(task)) = self.tasks.get_mut(&id) {
            task.blame(origin.and_then(|(_, record)| record));
        }
        if let Some((_, Some(record))) = origin {
            let transform = usize::from(record.transform);
            self.count_refused(TransformId { subtopology: id.subtopology, transform });
        }
        let record = origin.and_then(|(_, record)| record);
        let blame = record.and_then(|record| self.code.refused(id, record.transform.into()));
        let failure = Failure { kind: FailureKind::Refused, record: None, message };
        self.fail(id, &failure, blame.as_ref())
    }

    /// A task failed: the transaction is dropped. What failed is tried again later or given up,
    /// or the task is stopped. `blame` says whether a version on probation has to go for it.
    pub(super) fn fail(
        &mut self,
        id: TaskId,
        failure: &Failure,
        blame: Option<&(usize, Blame)>,
    ) -> Result<(), WorkerError> {
        let (failed, damage) = match self.tasks.get_mut(&id) {
            Some(Slot::Running(task)) => {
                let failed =
                    Failed { record: task.take_failed_record(), over_at: task.positions() };
                (failed, task.take_state_failure())
            }
            _ => (Failed::default(), None),
        };
        let reason = self.describe(id, failure, failed.record);
        self.code.failed(id, &reason, blame);
        self.abort(&format!("task {id}: {reason}"))?;
        if let Some(damage) = damage {
            return self.store_failed(id, damage);
        }
        if self.judge(id.subtopology)? {
            return Ok(());
        }
        let policy = failed.record.map_or(ErrorPolicy::default(), |record| {
            let transforms = &self.topology.subtopology(id).transforms;
            transforms[usize::from(record.transform)].on_error
        });
        let (now, retry) = (self.now.monotonic, self.config.retry());
        let backoff = policy.retry.unwrap_or(retry).backoff;
        let failures = self.failures.entry(id).or_default();
        let attempts = failures.count(now, backoff, failed.clone());
        match (judge(policy, failure.kind, attempts, retry), failed.record) {
            (Verdict::GiveUp, Some(record)) => {
                failures.give_up(record, failed.over_at, failure.clone());
                failures.retry_at = now;
                Ok(())
            }
            (Verdict::Retry, _) => {
                self.notice(Notice::Retrying { task: id, attempts, reason });
                Ok(())
            }
            (Verdict::Stop | Verdict::GiveUp, _) => {
                let mut reason = format!("{reason}; gave up after {attempts} attempts");
                if failed.record.is_some() {
                    reason += ": swap in a module that copes with it, or give the transform an \
                               `on_error`";
                }
                match self.blame_trial(id.subtopology, &reason, blame)? {
                    true => Ok(()),
                    false => self.stop_task(id, reason),
                }
            }
        }
    }

    fn describe(&self, id: TaskId, failure: &Failure, record: Option<RecordId>) -> String {
        let subtopology = self.topology.subtopology(id);
        let topics = subtopology.inputs.iter();
        let topics = topics.map(|input| self.topology.topic(input.topic).name.as_str());
        let topics: Vec<&str> = topics.collect();
        let place = record.map_or(String::new(), |record| {
            let transform = &subtopology.transforms[usize::from(record.transform)].name;
            let (topic, offset) = (topics[usize::from(record.input)], record.offset);
            format!(" in `{transform}` at offset {offset} of `{topic}`")
        });
        format!("{failure}{place}, reading partition {} of {}", id.partition, topics.join(", "))
    }

    /// Stops a task for good: it reads nothing more, and keeps its state as it is.
    pub(super) fn stop_task(&mut self, id: TaskId, reason: String) -> Result<(), WorkerError> {
        self.stop_restores(id)?;
        let store = match self.tasks.remove(&id) {
            Some(Slot::Running(task)) => Some(Task::close(*task)),
            Some(Slot::Starting(starting)) => starting.store,
            Some(Slot::Failed(store)) => store,
            None => None,
        };
        self.tasks.insert(id, Slot::Failed(store));
        self.task_state(id, TaskState::Failed(reason));
        let partitions: Vec<_> = self.partitions_of(id);
        self.forget_seeks(id);
        self.log.pause(&partitions).or_else(|error| self.postpone(error))
    }
}
