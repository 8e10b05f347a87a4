//! Restoring the stores of a task from their changelogs, and emptying those that have to be read
//! from the beginning.

use super::{
    Environment, Notice, Now, Slot, TaskState, Worker, WorkerError,
    check::is_too_slow,
    start::{Group, Starting, Step},
};
use crate::{
    ports::{Bounds, ChangelogRecords},
    record::{Changes, Offset, Records, TaskId, TopicPartition},
    task::{InputPosition, Position, SEEN_HEADER, StateStore, StoreError, Task, read_seen},
    topology::Topology,
};

/// A restore under way.
pub(super) struct Restore {
    position: Position,
    /// When it was asked where it ends.
    began: Now,
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

impl<E: Environment> Worker<E> {
    pub(super) fn restore_from(
        &mut self,
        id: TaskId,
        group: Group,
        position: Position,
        bounds: &[Bounds],
    ) -> Result<(), WorkerError> {
        let changelogs = self.changelogs_of(id);
        let ends = bounds.iter().map(|bounds| bounds.end).collect();
        let restore = Restore { position, began: self.now, ends };
        for (store, &changelog) in changelogs.iter().enumerate() {
            if restore.is_done(store) {
                continue;
            }
            let epoch = restore.position.stores[store]
                .as_ref()
                .map_or(-1, |position| position.leader_epoch);
            if let Err(error) = self.ports.changelogs.read(changelog, restore.offset(store), epoch)
            {
                self.stop_restores(id)?;
                self.retry_later(&[id]);
                return self.postpone(error);
            }
        }
        let remaining = restore.remaining();
        let Some(starting) = self.starting_mut(id) else { return Ok(()) };
        starting.step = Step::Restoring(Box::new(group), restore);
        if remaining > 0 {
            self.task_state(id, TaskState::Restoring);
            self.notice(Notice::Restoring { task: id, remaining });
            return Ok(());
        }
        self.finish_restore(id)
    }

    /// Whether any changelog is read.
    pub(super) fn is_restoring(&self) -> bool {
        self.tasks.values().any(|slot| {
            matches!(slot, Slot::Starting(starting) if matches!(starting.step, Step::Restoring(..)))
        })
    }

    pub(super) fn on_restored(&mut self, fetched: ChangelogRecords) -> Result<(), WorkerError> {
        let changelog = fetched.partition;
        let Some((id, store)) = self.store_of(changelog) else { return Ok(()) };
        if fetched.records.keys.lengths().iter().any(|&length| length < 0) {
            let name = &self.topology.topic(changelog.topic).name;
            let reason = format!(
                "the changelog `{name}` has a record without a key, which the agent did not write; \
                 let nobody else write to it"
            );
            return self.stop_task(id, reason);
        }
        let topology = std::sync::Arc::clone(&self.topology);
        let now = self.now;
        let age_max = self.config.position_age_max;
        let Some(starting) = self.starting_mut(id) else { return Ok(()) };
        let Starting { store: Some(state), step: Step::Restoring(group, restore), .. } = starting
        else {
            return Ok(());
        };
        if restore.is_done(store) {
            return Ok(());
        }
        if is_too_slow(&restore.position, restore.began, now, age_max) {
            return self.restore_too_slow(id, store);
        }
        see(&mut restore.position.inputs, &fetched.records, &topology, (id, group));
        match restore_batch(state.as_mut(), restore, store, fetched) {
            Ok(()) => {}
            Err(error) => return self.store_failed(id, error),
        }
        if let Some(Slot::Starting(starting)) = self.tasks.get(&id)
            && let Step::Restoring(group, restore) = &starting.step
            && let Some(reason) = self.disagrees(id, &restore.position.inputs, group)
        {
            return self.refuse(id, reason);
        }
        let Some(Slot::Starting(starting)) = self.tasks.get(&id) else { return Ok(()) };
        let Step::Restoring(_, restore) = &starting.step else { return Ok(()) };
        let (remaining, store_done) = (restore.remaining(), restore.is_done(store));
        self.notice(Notice::Restoring { task: id, remaining });
        if store_done {
            self.ports.changelogs.stop(changelog).or_else(|error| self.postpone(error))?;
        }
        match remaining {
            0 => self.finish_restore(id),
            _ => Ok(()),
        }
    }

    /// What is read now may lack deletes of what was read before, so the store is read anew.
    ///
    /// This is no failure of the task, and has no limit of its own: each attempt lasts half of the
    /// time for which deletes are kept, brokers that were slow or away may be quick by then, and a
    /// task that is stopped would never be done. So each attempt says what would help.
    fn restore_too_slow(&mut self, id: TaskId, store: usize) -> Result<(), WorkerError> {
        let changelog = self.topology.subtopology(id).stores[store].changelog;
        let reason = format!(
            "its restore took longer than {} ms, so deletes may be missing from `{}`; if this \
             comes again, give brokers, network and disk more throughput, or run the pipeline with \
             more partitions under a new application id",
            self.config.position_age_max.as_millis(),
            self.topology.topic(changelog).name
        );
        self.rebuild(id, Some(store), &reason)
    }

    /// All stores are where the group's offsets are: the task runs.
    fn finish_restore(&mut self, id: TaskId) -> Result<(), WorkerError> {
        let Some(Slot::Starting(mut starting)) = self.tasks.remove(&id) else { return Ok(()) };
        let (Some(mut state), Step::Restoring(group, restore)) =
            (starting.store.take(), starting.step)
        else {
            return Ok(());
        };
        let offsets: Vec<Offset> = group.committed.iter().map(|at| at.offset).collect();
        let stores = restore.ends.len();
        // What was written since the restore began is further on.
        let committed_at = restore.began.wall;
        let seen = restore.position.inputs;
        let skipped = self.skipped(id, &seen, &group);
        let inputs = positions(&group, &seen, &offsets);
        let position = Position { stores: restore.position.stores, inputs, committed_at };
        let applied = match stores {
            0 => Ok(()),
            _ => state.apply(&vec![Changes::default(); stores], &position),
        };
        if let Err(error) = applied {
            self.tasks.insert(id, Slot::Starting(Box::new(Starting::again(state))));
            return self.store_failed(id, error);
        }
        let topology = std::sync::Arc::clone(&self.topology);
        let mut task = Task::new(id, topology, (&group.committed, group.origins), state);
        if group.fresh {
            task.touch();
            self.transaction.begin(self.now.monotonic);
        }
        self.tasks.insert(id, Slot::Running(Box::new(task)));
        skipped.into_iter().for_each(|notice| self.notice(notice));
        self.read_from(id, &offsets);
        self.seek()?;
        self.task_state(id, TaskState::Running);
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
                Step::Restoring(..) | Step::Bounds(_) => true,
                Step::Open | Step::Offsets => false,
            },
            _ => false,
        };
        // Also those at their end: what brought them there may not be in the state.
        for changelog in self.changelogs_of(id).into_iter().filter(|_| restoring) {
            self.ports.changelogs.stop(changelog).or_else(|error| self.postpone(error))?;
        }
        Ok(())
    }

    pub(super) fn changelogs_of(&self, id: TaskId) -> Vec<TopicPartition> {
        let stores = self.topology.subtopology(id).stores.iter();
        stores.map(|store| TopicPartition::new(store.changelog, id.partition)).collect()
    }

    pub(super) fn store_of(&self, changelog: TopicPartition) -> Option<(TaskId, usize)> {
        let subtopologies = self.topology.subtopologies.iter().zip(0u16..);
        subtopologies.into_iter().find_map(|(subtopology, index)| {
            let mut stores = subtopology.stores.iter();
            let store = stores.position(|store| store.changelog == changelog.topic)?;
            let partition = changelog.partition;
            Some((TaskId { subtopology: index, partition }, store))
        })
    }
}

/// How far the inputs are in the state of a task that begins at these offsets. Where none of them is
/// an agent's yet that is as far as before: nobody is held to a beginning that is never committed, and
/// what is left out is told until it is.
fn positions(group: &Group, seen: &[InputPosition], offsets: &[Offset]) -> Vec<InputPosition> {
    let mut inputs = group.origins.positions(offsets);
    for (place, at) in inputs.iter_mut().enumerate() {
        if !group.has_own(place) {
            *at = seen.get(place).copied().unwrap_or_default();
        }
    }
    inputs
}

/// Takes note of what the state of a task has seen of its inputs, as its changelog says. Compaction
/// may have taken some of the headers, so it has seen this much at least.
fn see(
    seen: &mut Vec<InputPosition>,
    records: &Records,
    topology: &Topology,
    (id, group): (TaskId, &Group),
) {
    let inputs = &topology.subtopology(id).inputs;
    seen.resize(inputs.len(), InputPosition::default());
    let headers = records.headers.names.iter().zip(&records.headers.values);
    let values = headers
        .filter(|(name, _)| *name == Some(SEEN_HEADER.as_bytes()))
        .filter_map(|(_, value)| value);
    for (name, at) in values.flat_map(read_seen) {
        let is_of = |input: &crate::topology::Input| topology.topic(input.topic).name == name;
        let Some(place) = inputs.iter().position(is_of) else { continue };
        // Of a topic that was created again since, offsets are another matter.
        let is_of_before = |at: &InputPosition| at.topic_id.differs(group.origins.input(place));
        let before = &mut seen[place];
        if match is_of_before(&at) == is_of_before(before) {
            true => at.offset > before.offset,
            false => is_of_before(before) || before.offset == 0,
        } {
            *before = at;
        }
    }
}

/// Applies what was read of a changelog, together with the position it brings the store to.
fn restore_batch(
    state: &mut dyn StateStore,
    restore: &mut Restore,
    store: usize,
    fetched: ChangelogRecords,
) -> Result<(), StoreError> {
    let Some(at) = &mut restore.position.stores[store] else { return Ok(()) };
    at.offset = at.offset.max(fetched.next);
    if fetched.leader_epoch >= 0 {
        at.leader_epoch = fetched.leader_epoch;
    }
    let mut changes = vec![Changes::default(); restore.ends.len()];
    changes[store] = Changes { keys: fetched.records.keys, values: fetched.records.values };
    state.apply(&changes, &restore.position)
}
