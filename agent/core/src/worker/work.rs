//! Running tasks process what waits for them.

use std::time::Duration;

use super::{Environment, Fetched, Log, LogError, Slot, Worker, WorkerError};
use crate::{
    record::{TaskId, TransformId},
    task::{Clock, Produced, Readiness, Turn, Wanted},
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
        let failures = self.failures.entry(id).or_default();
        if failures.retry_at > now.monotonic {
            return Ok(false);
        }
        let Some(Slot::Running(task)) = self.tasks.get_mut(&id) else { return Ok(false) };
        let environment = &mut self.environment;
        let records_max = failures.batch_records_max(self.config.batch_records_max);
        let on_trial = self.code.on_trial(id.subtopology);
        let (versions, tallies) = self.code.of(id);
        let mut turn = Turn {
            wall_clock: now.wall,
            retry: self.config.retry(),
            make: &mut |wanted| match wanted {
                Wanted::ToWork(transform) => {
                    environment.processor(id, transform, versions[transform])
                }
                Wanted::ToTry(of) => environment.witness(id, of.transform, of.before),
            },
            on_trial,
            blame: None,
            failures,
            tallies,
            produced: Produced::default(),
            passed_over: false,
            broke: None,
        };
        let before = task.bytes();
        let result = task.prepare(&mut turn).and_then(|()| {
            let ready = task.readiness(now.monotonic, self.config.idle_max) == Readiness::Ready;
            if ready {
                task.process(records_max, &mut turn)?;
            }
            task.punctuate(Clock::WallClock, &mut turn)?;
            Ok(ready)
        });
        let Turn { produced, passed_over, broke, blame, .. } = turn;
        if let Some((transform, how)) = broke {
            self.code.broke(TransformId { subtopology: id.subtopology, transform }, how);
        }
        let is_smaller = records_max < self.config.batch_records_max;
        self.transaction.is_urgent |= passed_over || (is_smaller && task.has_work());
        if task.has_work() {
            self.transaction.begin(now.monotonic);
            self.transaction.bytes += task.bytes().saturating_sub(before);
        }
        match result {
            Ok(_) if self.judge(id.subtopology)? => Ok(false),
            Ok(more) => {
                self.unpause(id)?;
                self.produce(id, produced)?;
                Ok(more)
            }
            Err(failure) => {
                self.fail(id, &failure, blame.as_ref())?;
                Ok(false)
            }
        }
    }

    fn produce(&mut self, id: TaskId, produced: Produced) -> Result<(), WorkerError> {
        let Produced { outputs, origins } = produced;
        if outputs.is_empty() {
            return Ok(());
        }
        self.transaction.produced(&outputs);
        self.transaction.origins.push((id, origins));
        match self.log.produce(&outputs) {
            Ok(()) => Ok(()),
            Err(LogError::Refused { row, message }) => self.refused(Some(id), row, message),
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
}
