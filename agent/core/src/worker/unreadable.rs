//! Partitions that can't be read on, while all others can.

use super::{Environment, Notice, Slot, TaskState, Worker, WorkerError, start::Step};
use crate::{
    ports::Unreadable,
    record::{TaskId, TopicId, TopicIndex, TopicPartition},
    task::{Failed, Origins},
};

impl<E: Environment> Worker<E> {
    /// An input can't be read on. What concerns it is its task's alone.
    pub(super) fn on_unreadable_input(
        &mut self,
        partition: TopicPartition,
        why: Unreadable,
    ) -> Result<(), WorkerError> {
        let Some(id) = self.sources.get(&partition).map(|(id, _)| *id) else { return Ok(()) };
        let is_read = self.assigned && matches!(self.tasks.get(&id), Some(Slot::Running(_)));
        self.on_unreadable(id, is_read, why)
    }

    /// The same of a changelog.
    pub(super) fn on_unreadable_changelog(
        &mut self,
        partition: TopicPartition,
        why: Unreadable,
    ) -> Result<(), WorkerError> {
        let Some((id, _)) = self.store_of(partition) else { return Ok(()) };
        let is_read = match self.tasks.get(&id) {
            Some(Slot::Starting(starting)) => matches!(starting.step, Step::Restoring(..)),
            Some(Slot::Running(_) | Slot::Failed(_)) | None => false,
        };
        self.on_unreadable(id, is_read, why)
    }

    fn on_unreadable(
        &mut self,
        id: TaskId,
        is_read: bool,
        why: Unreadable,
    ) -> Result<(), WorkerError> {
        match why {
            Unreadable::ForNow(reason) => self.notice(Notice::Waiting(reason)),
            Unreadable::Lost(reason) if is_read => self.look_again(id, &reason)?,
            Unreadable::Refused(reason) if is_read => {
                self.drop_own_work(id, &reason)?;
                self.stop_task(id, reason)?;
            }
            // It will be looked for when it is read again.
            Unreadable::Lost(_) | Unreadable::Refused(_) => {}
        }
        Ok(())
    }

    /// These topics were looked at for tasks that start. Others that read a topic of the same name
    /// which was deleted since start again: it may be that nobody else tells them.
    pub(super) fn told_of_topics(
        &mut self,
        told: &[(TopicIndex, TopicId)],
    ) -> Result<(), WorkerError> {
        let gone = |&id: &TaskId| {
            let origins = self.reads_from(id)?;
            let mut inputs = self.topology.subtopology(id).inputs.iter().enumerate();
            let gone = inputs.find(|(place, input)| {
                let before = origins.input(*place);
                told.iter().any(|&(topic, now)| topic == input.topic && before.differs(now))
            });
            gone.map(|(_, input)| (id, input.topic))
        };
        let gone: Vec<(TaskId, TopicIndex)> = self.tasks.keys().filter_map(gone).collect();
        for (id, topic) in gone {
            let name = &self.topology.topic(topic).name;
            let reason = format!("the topic `{name}` was deleted and created again");
            self.look_again(id, &reason)?;
        }
        Ok(())
    }

    /// The topics that a task reads from, if it is that far.
    fn reads_from(&self, id: TaskId) -> Option<&Origins> {
        match self.tasks.get(&id)? {
            Slot::Running(task) => Some(task.origins()),
            Slot::Starting(starting) => match &starting.step {
                Step::Restoring(group, _) => Some(&group.origins),
                Step::Open | Step::Offsets | Step::Bounds(_) => None,
            },
            Slot::Failed(_) => None,
        }
    }

    /// What a task reads may be gone. It starts again, which tells: it stops, goes on elsewhere, or
    /// reads on if all of it is there.
    fn look_again(&mut self, id: TaskId, reason: &str) -> Result<(), WorkerError> {
        self.drop_own_work(id, reason)?;
        let (now, backoff) = (self.now.monotonic, self.config.retry_backoff);
        let failures = self.failures.entry(id).or_default();
        let attempts = failures.count(now, backoff, Failed::default());
        let retry_at = failures.retry_at;
        if attempts > self.config.retry_attempts_max {
            return self.stop_task(id, format!("{reason}; gave up after {attempts} attempts"));
        }
        self.restart_task(id)?;
        if let Some(starting) = self.starting_mut(id) {
            starting.retry_at = retry_at;
        }
        self.task_state(id, TaskState::Created);
        self.notice(Notice::Retrying { task: id, attempts, reason: reason.to_owned() });
        Ok(())
    }

    /// Drops the open transaction if a task that is to be closed has worked in it.
    fn drop_own_work(&mut self, id: TaskId, reason: &str) -> Result<(), WorkerError> {
        match self.tasks.get(&id) {
            Some(Slot::Running(task)) if task.has_work() => {
                self.abort(&format!("task {id}: {reason}"))
            }
            _ => Ok(()),
        }
    }
}
