//! Running tasks process what waits for them.

use std::time::Duration;

use super::{
    Environment, Failed, Fetched, Log, LogError, Notice, Slot, TaskState, Worker, WorkerError,
};
use crate::{
    record::{Outputs, TaskId},
    task::{Clock, FailedRecord, Failure, FailureKind, Readiness, StoreError, Task},
};

/// How many batches a task processes in one turn, before the log is polled again.
const BATCHES_MAX: usize = 8;

impl<L: Log, E: Environment> Worker<L, E> {
    pub(super) fn on_records(&mut self, fetched: Fetched) -> Result<(), WorkerError> {
        let Fetched { partition: Some(source), epoch, records, next, .. } = fetched else {
            return Ok(());
        };
        if !self.assigned {
            return Ok(()); // Fetched before everything was revoked.
        }
        let Some(&(id, input)) = self.sources.get(&source) else { return Ok(()) };
        let Some(Slot::Running(task)) = self.tasks.get_mut(&id) else { return Ok(()) };
        if !task.push(input, records, epoch, next) {
            return Ok(());
        }
        if task.has_work() {
            self.transaction.begin(self.now.monotonic);
        }
        let queue = &mut task.queues()[input];
        if queue.bytes() > self.config.buffered_bytes_max && !queue.paused {
            queue.paused = true;
            if let Err(error) = self.log.pause(&[source]) {
                return self.postpone(error);
            }
        }
        Ok(())
    }

    /// Whether tasks may work at all now.
    fn may_work(&self) -> bool {
        self.assigned
            && self.recover_at.is_none()
            && self.drain.is_none()
            && !self.paused
            && self.rest.retry_at <= self.now.monotonic
    }

    /// When the next task can work; `None` if only the log can bring work.
    pub(super) fn next_work(&mut self) -> Option<Duration> {
        if !self.assigned || self.recover_at.is_some() {
            return None;
        }
        let (now, idle_max) = (self.now, self.config.idle_max);
        let failures = &self.failures;
        let mut next: Option<Duration> = None;
        for (id, slot) in &mut self.tasks {
            let at = match slot {
                Slot::Starting(starting) => starting.next_step(),
                Slot::Running(_) if self.paused => None,
                Slot::Running(task) => {
                    let punctuation = task.next_wall_punctuation().map(|at| {
                        let ahead = u64::try_from(at.saturating_sub(now.wall)).unwrap_or(0);
                        now.monotonic + Duration::from_millis(ahead)
                    });
                    let records = match task.readiness(now.monotonic, idle_max) {
                        Readiness::Empty => None,
                        Readiness::Wait(until) => Some(until),
                        Readiness::Ready => Some(now.monotonic),
                    };
                    let first = [punctuation, records].into_iter().flatten().min();
                    let retry_at =
                        failures.get(id).map_or(Duration::ZERO, |failures| failures.retry_at);
                    first.map(|at| at.max(retry_at))
                }
                Slot::Failed(_) => None,
            };
            next = [next, at].into_iter().flatten().min();
        }
        next.map(|at| at.max(self.rest.retry_at))
    }

    /// Lets every running task work, until each has nothing to do, has done its share, or the
    /// transaction is full.
    pub(super) fn work(&mut self) -> Result<(), WorkerError> {
        let tasks: Vec<TaskId> = self.tasks.keys().copied().collect();
        for id in tasks {
            for _ in 0..BATCHES_MAX {
                if !self.may_work() || self.transaction_is_full() {
                    return Ok(());
                }
                if !self.work_one(id)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Lets a task process one batch, and its punctuations by the wall clock. Returns whether
    /// there may be more to do.
    fn work_one(&mut self, id: TaskId) -> Result<bool, WorkerError> {
        let now = self.now;
        if self.failures.get(&id).is_some_and(|failures| failures.retry_at > now.monotonic) {
            return Ok(false);
        }
        let Some(Slot::Running(task)) = self.tasks.get_mut(&id) else { return Ok(false) };
        let environment = &mut self.environment;
        let mut make = |transform| environment.processor(id, transform);
        let mut outputs = Outputs::default();
        let before = task.bytes();
        let result = task.prepare(now.wall, &mut make).and_then(|()| {
            let ready = task.readiness(now.monotonic, self.config.idle_max) == Readiness::Ready;
            if ready {
                task.process(self.config.batch_records_max, now.wall, &mut outputs)?;
            }
            task.punctuate(Clock::WallClock, now.wall, &mut outputs)?;
            Ok(ready)
        });
        if task.has_work() {
            self.transaction.begin(now.monotonic);
            self.transaction.bytes += task.bytes().saturating_sub(before);
        }
        match result {
            Ok(more) => {
                self.unpause(id)?;
                self.produce(id, &outputs)?;
                Ok(more)
            }
            Err(failure) => {
                self.fail(id, &failure)?;
                Ok(false)
            }
        }
    }

    fn produce(&mut self, id: TaskId, outputs: &Outputs) -> Result<(), WorkerError> {
        if outputs.is_empty() {
            return Ok(());
        }
        self.transaction.produced(outputs);
        match self.log.produce(outputs) {
            Ok(()) => Ok(()),
            Err(LogError::Refused { message, .. }) => {
                let kind = FailureKind::Malformed;
                self.fail(id, &Failure { kind, record: None, message })
            }
            Err(error) => self.handle(error),
        }
    }

    /// Goes on fetching partitions of which not much waits any more.
    fn unpause(&mut self, id: TaskId) -> Result<(), WorkerError> {
        let Some(Slot::Running(task)) = self.tasks.get_mut(&id) else { return Ok(()) };
        let inputs = &self.topology.subtopology(id).inputs;
        let mut resumed = Vec::new();
        for (queue, input) in task.queues().iter_mut().zip(inputs) {
            if queue.paused && queue.bytes() <= self.config.buffered_bytes_max / 2 {
                queue.paused = false;
                resumed.push(crate::record::TopicPartition::new(input.topic, id.partition));
            }
        }
        if resumed.is_empty() {
            return Ok(());
        }
        self.log.resume(&resumed).or_else(|error| self.postpone(error))
    }

    /// A task failed: the transaction is dropped, and the task tried again later or stopped.
    pub(super) fn fail(&mut self, id: TaskId, failure: &Failure) -> Result<(), WorkerError> {
        let (failed, damage) = match self.tasks.get_mut(&id) {
            Some(Slot::Running(task)) => {
                let over_at = task.queues().iter().map(|queue| queue.position()).collect();
                let failed = Failed { record: task.take_failed_record(), over_at };
                (failed, task.take_state_failure())
            }
            _ => (Failed::default(), None),
        };
        let reason = self.describe(id, failure, failed.record);
        self.abort(&format!("task {id}: {reason}"))?;
        if let Some(damage @ StoreError::Corrupt { .. }) = damage {
            return self.store_failed(id, damage);
        }
        let (now, backoff) = (self.now.monotonic, self.config.retry_backoff);
        let attempts = self.failures.entry(id).or_default().count(now, backoff, failed);
        if attempts >= self.config.attempts_max {
            self.stop_task(id, format!("{reason}; gave up after {attempts} attempts"))
        } else {
            self.notice(Notice::Retrying { task: id, attempts, reason });
            Ok(())
        }
    }

    fn describe(&self, id: TaskId, failure: &Failure, record: Option<FailedRecord>) -> String {
        let subtopology = self.topology.subtopology(id);
        let topics = subtopology.inputs.iter();
        let topics = topics.map(|input| self.topology.topic(input.topic).name.as_str());
        let topics: Vec<&str> = topics.collect();
        let place = record.map_or(String::new(), |record| {
            let transform = &subtopology.transforms[record.transform];
            let input = transform.inputs.get(record.input).map_or("", String::as_str);
            let (name, offset) = (&transform.name, record.offset);
            format!(" at offset {offset} of input `{input}` of `{name}`")
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
