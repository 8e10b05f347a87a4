//! What a task goes through before it runs: its state is opened, its committed offsets are read,
//! and its stores are restored from their changelogs.
//!
//! The order matters. Stable committed offsets come first, the ends of the changelogs after them,
//! and read-uncommitted: whatever the group's offsets stand for then lies below those ends.

use std::time::Duration;

use super::{
    ChangelogBounds, Committed, Environment, Fetched, Log, Notice, RETRY, Slot, TaskState, Worker,
    WorkerError, check::Check,
};
use crate::{
    record::{Changes, NO_TIMESTAMP, Offset, TaskId, TopicPartition},
    task::{Position, StateStore, Stateless, StoreError, Task},
};

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
    fresh: bool,
}

pub(super) struct Restore {
    position: Position,
    /// Where each store's restore ends.
    ends: Vec<Offset>,
}

impl Restore {
    fn offset(&self, store: usize) -> Offset {
        self.position.stores[store].as_ref().map_or(0, |position| position.offset)
    }

    fn is_done(&self, store: usize) -> bool {
        self.offset(store) >= self.ends[store]
    }

    fn remaining(&self) -> u64 {
        let left = self.ends.iter().enumerate().map(|(store, end)| end - self.offset(store));
        left.filter_map(|offsets| u64::try_from(offsets).ok()).sum()
    }
}

impl Starting {
    /// A task whose state has to be opened.
    pub(super) fn new() -> Self {
        Self { store: None, step: Step::Open, retry_at: Duration::ZERO }
    }

    /// A task whose state is open, but may be behind.
    fn again(store: Box<dyn StateStore>) -> Self {
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
    /// Takes every task that starts as far as it goes now.
    pub(super) fn start_tasks(&mut self) -> Result<(), WorkerError> {
        if !self.assigned || self.recover_at.is_some() || self.drain.is_some() {
            return Ok(());
        }
        for id in self.starting(|step| matches!(step, Step::Open)) {
            self.open(id)?;
        }
        let tasks = self.starting(|step| matches!(step, Step::Offsets));
        if !tasks.is_empty() {
            self.read_offsets(&tasks)?;
        }
        let tasks = self.starting(|step| matches!(step, Step::Bounds(_)));
        if !tasks.is_empty() {
            self.read_bounds(&tasks)?;
        }
        Ok(())
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

    fn starting_mut(&mut self, id: TaskId) -> Option<&mut Starting> {
        match self.tasks.get_mut(&id) {
            Some(Slot::Starting(starting)) => Some(starting),
            _ => None,
        }
    }

    fn retry_later(&mut self, tasks: &[TaskId]) {
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
            Err(error @ (StoreError::Corrupt { .. } | StoreError::Failed(_))) => {
                self.stop_task(id, error.to_string())
            }
        }
    }

    /// Reads the stable committed offsets of these tasks; what has none starts where its input
    /// says.
    fn read_offsets(&mut self, tasks: &[TaskId]) -> Result<(), WorkerError> {
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
        for &id in tasks {
            let inputs = self.topology.subtopology(id).inputs.len();
            let found: Vec<Option<Committed>> = committed.by_ref().take(inputs).collect();
            match self.resolve(id, &found) {
                Ok(group) => {
                    if let Some(starting) = self.starting_mut(id) {
                        starting.step = Step::Bounds(group);
                    }
                }
                Err(error) => {
                    self.retry_later(&[id]);
                    self.postpone(error)?;
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

    fn restore_from(
        &mut self,
        id: TaskId,
        position: Position,
        bounds: &[ChangelogBounds],
    ) -> Result<(), WorkerError> {
        let changelogs = self.changelogs_of(id);
        let restore = Restore { position, ends: bounds.iter().map(|bounds| bounds.end).collect() };
        for (store, &changelog) in changelogs.iter().enumerate() {
            if restore.is_done(store) {
                continue;
            }
            let epoch = restore.position.stores[store]
                .as_ref()
                .map_or(-1, |position| position.leader_epoch);
            if let Err(error) = self.log.restore(changelog, restore.offset(store), epoch) {
                self.stop_restores(id)?;
                self.retry_later(&[id]);
                return self.postpone(error);
            }
        }
        let remaining = restore.remaining();
        let Some(starting) = self.starting_mut(id) else { return Ok(()) };
        let step = std::mem::replace(&mut starting.step, Step::Offsets);
        if let Step::Bounds(group) = step {
            starting.step = Step::Restoring(group, restore);
        }
        if remaining > 0 {
            self.task_state(id, TaskState::Restoring);
            self.notice(Notice::Restoring { task: id, remaining });
            return Ok(());
        }
        self.finish_restore(id)
    }

    pub(super) fn on_changelog(&mut self, fetched: Fetched) -> Result<(), WorkerError> {
        let Some(changelog) = fetched.partition else { return Ok(()) };
        let Some((id, store)) = self.store_of(changelog) else { return Ok(()) };
        let now = self.now.wall;
        let Some(starting) = self.starting_mut(id) else { return Ok(()) };
        let Starting { store: Some(state), step: Step::Restoring(_, restore), .. } = starting
        else {
            return Ok(());
        };
        if restore.is_done(store) {
            return Ok(());
        }
        match restore_batch(state.as_mut(), restore, store, fetched, now) {
            Ok(()) => {}
            Err(error) => return self.store_failed(id, error),
        }
        let (remaining, store_done) = (restore.remaining(), restore.is_done(store));
        self.notice(Notice::Restoring { task: id, remaining });
        if store_done {
            self.log.stop_restore(changelog).or_else(|error| self.postpone(error))?;
        }
        match remaining {
            0 => self.finish_restore(id),
            _ => Ok(()),
        }
    }

    /// All stores are where the group's offsets are: the task runs.
    fn finish_restore(&mut self, id: TaskId) -> Result<(), WorkerError> {
        let now = self.now.wall;
        let Some(Slot::Starting(mut starting)) = self.tasks.remove(&id) else { return Ok(()) };
        let (Some(mut state), Step::Restoring(group, restore)) =
            (starting.store.take(), starting.step)
        else {
            return Ok(());
        };
        let offsets: Vec<Offset> = group.committed.iter().map(|at| at.offset).collect();
        let stores = restore.ends.len();
        let position = Position { inputs: offsets.clone(), committed_at: now, ..restore.position };
        let applied = match stores {
            0 => Ok(()),
            _ => state.apply(&vec![Changes::default(); stores], &position),
        };
        if let Err(error) = applied {
            self.tasks.insert(id, Slot::Starting(Box::new(Starting::again(state))));
            return self.store_failed(id, error);
        }
        let topology = std::sync::Arc::clone(&self.topology);
        let mut task = Task::new(id, topology, &group.committed, state);
        if group.fresh {
            task.touch();
            self.transaction.begin(self.now.monotonic);
        }
        self.tasks.insert(id, Slot::Running(Box::new(task)));
        self.read_from(id, &offsets);
        self.seek()?;
        self.task_state(id, TaskState::Running);
        Ok(())
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

    /// Empties a store (all of the task's for `None`) and restores it from the beginning.
    pub(super) fn rebuild(
        &mut self,
        id: TaskId,
        store: Option<usize>,
        reason: &str,
    ) -> Result<(), WorkerError> {
        self.stop_restores(id)?;
        let stores = self.topology.subtopology(id).stores.len();
        let Some(starting) = self.starting_mut(id) else { return Ok(()) };
        let Some(state) = &mut starting.store else { return Ok(()) };
        let which = store.map_or(0..stores, |store| store..store + 1);
        let result = which.clone().try_for_each(|store| state.reset(store));
        starting.step = Step::Offsets;
        if let Err(error) = result {
            return self.stop_task(id, error.to_string());
        }
        for store in which {
            let reason = reason.to_owned();
            self.notice(Notice::Rebuilding { task: id, store, reason });
        }
        Ok(())
    }

    /// Reads nothing more of the changelogs of a task.
    pub(super) fn stop_restores(&mut self, id: TaskId) -> Result<(), WorkerError> {
        let restoring = match self.tasks.get(&id) {
            Some(Slot::Starting(starting)) => match &starting.step {
                Step::Restoring(_, restore) => {
                    (0..restore.ends.len()).filter(|&store| !restore.is_done(store)).collect()
                }
                Step::Bounds(_) => (0..self.topology.subtopology(id).stores.len()).collect(),
                Step::Open | Step::Offsets => Vec::new(),
            },
            _ => Vec::new(),
        };
        let changelogs = self.changelogs_of(id);
        for store in restoring {
            self.log.stop_restore(changelogs[store]).or_else(|error| self.postpone(error))?;
        }
        Ok(())
    }

    fn changelogs_of(&self, id: TaskId) -> Vec<TopicPartition> {
        let stores = self.topology.subtopology(id).stores.iter();
        stores.map(|store| TopicPartition::new(store.changelog, id.partition)).collect()
    }

    fn store_of(&self, changelog: TopicPartition) -> Option<(TaskId, usize)> {
        let subtopologies = self.topology.subtopologies.iter().zip(0u16..);
        subtopologies.into_iter().find_map(|(subtopology, index)| {
            let mut stores = subtopology.stores.iter();
            let store = stores.position(|store| store.changelog == changelog.topic)?;
            let partition = changelog.partition;
            Some((TaskId { subtopology: index, partition }, store))
        })
    }
}

/// Applies what was read of a changelog, together with the position it brings the store to.
fn restore_batch(
    state: &mut dyn StateStore,
    restore: &mut Restore,
    store: usize,
    fetched: Fetched,
    now: i64,
) -> Result<(), StoreError> {
    let Some(at) = &mut restore.position.stores[store] else { return Ok(()) };
    if fetched.records.keys.lengths().iter().any(|&length| length < 0) {
        let message = "the changelog has a record without a key; it was not written by the agent";
        return Err(StoreError::Failed(message.to_owned()));
    }
    at.offset = at.offset.max(fetched.next);
    if fetched.leader_epoch >= 0 {
        at.leader_epoch = fetched.leader_epoch;
    }
    restore.position.inputs.clear();
    restore.position.committed_at = now.max(NO_TIMESTAMP);
    let mut changes = vec![Changes::default(); restore.ends.len()];
    changes[store] = Changes { keys: fetched.records.keys, values: fetched.records.values };
    state.apply(&changes, &restore.position)
}
