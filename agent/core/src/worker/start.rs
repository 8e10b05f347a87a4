//! What a task goes through before it runs: its state is opened, its committed offsets are read,
//! and its stores are restored from their changelogs (`restore`).
//!
//! The order matters. Stable committed offsets come first, the ends of the changelogs after them,
//! and read-uncommitted: whatever the group's offsets stand for then lies below those ends.
//!
//! Opening state and asking brokers takes time that running tasks lack: steps are taken in portions,
//! never while a commit is due, and rest for as long as they took.

use std::time::Duration;

use super::{
    ChangelogBounds, Committed, Environment, Log, RETRY, Slot, Worker, WorkerError, check::Check,
    restore::Restore,
};
use crate::{
    record::{TaskId, TopicPartition},
    task::{StateStore, Stateless, StoreError},
};

/// While tasks run, no step of another begins after those of a turn have taken this long.
const PORTION: Duration = Duration::from_millis(100);

/// While tasks run, a request of a step may take this part of a transaction's timeout.
const REQUEST_SHARE: u32 = 10;

/// A task that is not ready yet.
pub(super) struct Starting {
    /// Its state, once it is open.
    pub(super) store: Option<Box<dyn StateStore>>,
    pub(super) step: Step,
    retry_at: Duration,
}

pub(super) enum Step {
    Open,
    Offsets,
    Bounds(Group),
    Restoring(Group, Restore),
}

/// What the group knows of a task.
pub(super) struct Group {
    pub(super) committed: Vec<Committed>,
    /// Some input has no committed offset yet.
    pub(super) fresh: bool,
}

impl Starting {
    /// A task whose state has to be opened.
    pub(super) fn new() -> Self {
        Self { store: None, step: Step::Open, retry_at: Duration::ZERO }
    }

    /// A task whose state is open, but may be behind.
    pub(super) fn again(store: Box<dyn StateStore>) -> Self {
        Self { store: Some(store), step: Step::Offsets, retry_at: Duration::ZERO }
    }

    /// When to go on; `None` while it waits for the log.
    pub(super) fn next_step(&self) -> Option<Duration> {
        match self.step {
            Step::Open | Step::Offsets | Step::Bounds(_) => Some(self.retry_at),
            Step::Restoring(..) => None,
        }
    }
}

impl<L: Log, E: Environment> Worker<L, E> {
    /// Takes tasks that start as far as they go now: every one if none runs yet.
    pub(super) fn start_tasks(&mut self) -> Result<(), WorkerError> {
        if !self.assigned || self.recover_at.is_some() || self.drain.is_some() {
            return Ok(());
        }
        let others_wait = !self.running().is_empty();
        if others_wait && (self.commit_is_due() || self.start_at > self.now.monotonic) {
            return Ok(());
        }
        let began = self.now.monotonic;
        let until = if others_wait { began.saturating_add(PORTION) } else { Duration::MAX };
        self.take_steps(until)?;
        self.look_at_clock();
        let took = self.now.monotonic.saturating_sub(began);
        let rest = if others_wait { took } else { Duration::ZERO };
        self.start_at = self.now.monotonic.saturating_add(rest);
        Ok(())
    }

    /// Takes steps of tasks that start; the last one begins before `until`.
    fn take_steps(&mut self, until: Duration) -> Result<(), WorkerError> {
        let hurry = until < Duration::MAX;
        for id in self.starting(|step| matches!(step, Step::Open)) {
            self.open(id)?;
            self.look_at_clock();
            if self.now.monotonic >= until {
                return Ok(());
            }
        }
        let tasks = self.starting(|step| matches!(step, Step::Offsets));
        if !tasks.is_empty() {
            self.log.hurry(self.request_time_max(hurry));
            self.read_offsets(&tasks, until)?;
            self.look_at_clock();
        }
        let tasks = self.starting(|step| matches!(step, Step::Bounds(_)));
        if !tasks.is_empty() && self.now.monotonic < until {
            self.log.hurry(self.request_time_max(hurry));
            self.read_bounds(&tasks)?;
        }
        Ok(())
    }

    fn request_time_max(&self, hurry: bool) -> Duration {
        if hurry { self.config.transaction_timeout / REQUEST_SHARE } else { Duration::MAX }
    }

    fn starting(&self, at: impl Fn(&Step) -> bool) -> Vec<TaskId> {
        let due =
            |starting: &Starting| at(&starting.step) && starting.retry_at <= self.now.monotonic;
        let tasks = self.tasks.iter();
        tasks
            .filter(|(_, slot)| matches!(slot, Slot::Starting(starting) if due(starting)))
            .map(|(&id, _)| id)
            .collect()
    }

    pub(super) fn starting_mut(&mut self, id: TaskId) -> Option<&mut Starting> {
        match self.tasks.get_mut(&id) {
            Some(Slot::Starting(starting)) => Some(starting),
            _ => None,
        }
    }

    pub(super) fn retry_later(&mut self, tasks: &[TaskId]) {
        let retry_at = self.now.monotonic + RETRY;
        for &id in tasks {
            if let Some(starting) = self.starting_mut(id) {
                starting.retry_at = retry_at;
            }
        }
    }

    fn open(&mut self, id: TaskId) -> Result<(), WorkerError> {
        let stateless = self.topology.subtopology(id).stores.is_empty();
        let opened = match stateless {
            true => Ok(Box::new(Stateless) as Box<dyn StateStore>),
            false => self.environment.open(id),
        };
        match opened {
            Ok(store) => {
                self.tasks.insert(id, Slot::Starting(Box::new(Starting::again(store))));
                Ok(())
            }
            Err(StoreError::Busy) => {
                self.retry_later(&[id]);
                Ok(())
            }
            Err(
                error @ (StoreError::Corrupt { .. } | StoreError::Failed(_) | StoreError::Slow(_)),
            ) => self.stop_task(id, error.to_string()),
        }
    }

    /// Reads the stable committed offsets of these tasks; what has none starts where its input
    /// says.
    fn read_offsets(&mut self, tasks: &[TaskId], until: Duration) -> Result<(), WorkerError> {
        let partitions: Vec<TopicPartition> =
            tasks.iter().flat_map(|&id| self.partitions_of(id)).collect();
        let committed = match self.log.committed(&partitions) {
            Ok(committed) => committed,
            Err(error) => {
                self.retry_later(tasks);
                return self.postpone(error);
            }
        };
        let mut committed = committed.into_iter();
        for (place, &id) in tasks.iter().enumerate() {
            if place > 0 && (self.clock)().monotonic >= until {
                return Ok(());
            }
            let inputs = self.topology.subtopology(id).inputs.len();
            let found: Vec<Option<Committed>> = committed.by_ref().take(inputs).collect();
            match self.resolve(id, &found) {
                Ok(group) => {
                    if let Some(starting) = self.starting_mut(id) {
                        starting.step = Step::Bounds(group);
                    }
                }
                Err(error) => {
                    // Those after it would meet the same, each for as long.
                    self.retry_later(&tasks[place..]);
                    return self.postpone(error);
                }
            }
        }
        Ok(())
    }

    fn resolve(
        &mut self,
        id: TaskId,
        found: &[Option<Committed>],
    ) -> Result<Group, super::LogError> {
        let topology = std::sync::Arc::clone(&self.topology);
        let mut committed = Vec::with_capacity(found.len());
        for (input, found) in topology.subtopology(id).inputs.iter().zip(found) {
            committed.push(match found {
                Some(found) => found.clone(),
                None => {
                    let partition = TopicPartition::new(input.topic, id.partition);
                    let offset = self.log.start_offset(partition, input.start)?;
                    Committed { offset, metadata: String::new() }
                }
            });
        }
        Ok(Group { committed, fresh: found.iter().any(Option::is_none) })
    }

    /// Reads how far the changelogs of these tasks go, and starts to restore what is missing.
    fn read_bounds(&mut self, tasks: &[TaskId]) -> Result<(), WorkerError> {
        let changelogs: Vec<TopicPartition> =
            tasks.iter().flat_map(|&id| self.changelogs_of(id)).collect();
        let bounds = match changelogs.is_empty() {
            true => Ok(Vec::new()),
            false => self.log.changelog_bounds(&changelogs),
        };
        let bounds = match bounds {
            Ok(bounds) => bounds,
            Err(error) => {
                self.retry_later(tasks);
                return self.postpone(error);
            }
        };
        let mut bounds = bounds.into_iter();
        for &id in tasks {
            let stores = self.topology.subtopology(id).stores.len();
            let of_task: Vec<ChangelogBounds> = bounds.by_ref().take(stores).collect();
            self.begin_restore(id, &of_task)?;
        }
        Ok(())
    }

    fn begin_restore(&mut self, id: TaskId, bounds: &[ChangelogBounds]) -> Result<(), WorkerError> {
        match self.check_position(id, bounds) {
            Ok(Check::Continue(position)) => self.restore_from(id, position, bounds),
            Ok(Check::Rebuild { store, reason }) => self.rebuild(id, Some(store), &reason),
            Ok(Check::Refuse(reason)) => self.stop_task(id, reason),
            Err(error) => self.store_failed(id, error),
        }
    }

    /// Makes a task read its group's offsets and the missing tail of its changelogs again.
    pub(super) fn restart_task(&mut self, id: TaskId) -> Result<(), WorkerError> {
        self.stop_restores(id)?;
        let starting = match self.tasks.remove(&id) {
            Some(Slot::Running(task)) => Starting::again(task.close()),
            Some(Slot::Starting(starting)) => match starting.store {
                Some(store) => Starting::again(store),
                None => Starting::new(),
            },
            Some(failed @ Slot::Failed(_)) => {
                self.tasks.insert(id, failed);
                return Ok(());
            }
            None => return Ok(()),
        };
        self.tasks.insert(id, Slot::Starting(Box::new(starting)));
        self.forget_seeks(id);
        Ok(())
    }
}
