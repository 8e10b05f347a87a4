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
    Environment, Notice, RETRY, Slot, TaskState, Worker, WorkerError,
    check::{Check, Place},
    restore::Restore,
};
use crate::{
    ports::{Bounds, PortError, Unreadable},
    record::{Committed, TaskId, TopicId, TopicIndex, TopicPartition},
    task::{Failed, Mark, Origins, StateStore, Stateless, StoreError},
    topology::{OnOutOfRange, Start},
};

/// While tasks run, no step of another begins after those of a turn have taken this long.
const PORTION: Duration = Duration::from_millis(100);

/// While tasks run, a request of a step may take this part of a transaction's timeout.
const REQUEST_SHARE: u32 = 10;

/// How long to wait before a partition that can't be read for now is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How often state that can't be read or written is opened again: with waits that double from a
/// tenth of a second up to a minute, for some minutes.
const OPENED_MAX: u32 = 12;

/// How far a partition goes, if it can be read.
type Found = Result<Bounds, Unreadable>;

/// A task that is not ready yet.
pub(super) struct Starting {
    /// Its state, once it is open.
    pub(super) store: Option<Box<dyn StateStore>>,
    pub(super) step: Step,
    /// The topics that it worked with before, if it did here.
    pub(super) before: Origins,
    /// Why it can't go on from these committed offsets, if they are still the same.
    refused: Option<(Vec<Option<Committed>>, String)>,
    pub(super) retry_at: Duration,
}

pub(super) enum Step {
    Open,
    Offsets,
    Bounds(Vec<Option<Committed>>),
    Restoring(Box<Group>, Restore),
}

/// What the group knows of a task.
pub(super) struct Group {
    /// As it was read.
    found: Vec<Option<Committed>>,
    /// Where each input is read on.
    pub(super) committed: Vec<Committed>,
    /// The topics that they are of, and those of the stores.
    pub(super) origins: Origins,
    /// Some input has no committed offset yet, another one from now on, or one that no agent has
    /// committed.
    pub(super) fresh: bool,
    /// Inputs that are read from elsewhere than the group's offset says, as they are told to.
    pub(super) moved: Vec<usize>,
    /// Inputs whose offset was committed by a task that knew the topic.
    pub(super) known: Vec<usize>,
}

impl Group {
    /// Whether it has an offset of an input.
    pub(super) fn has(&self, place: usize) -> bool {
        self.found[place].is_some()
    }

    /// Whether it has one that an agent has committed: those mark theirs.
    pub(super) fn has_own(&self, place: usize) -> bool {
        self.found[place].as_ref().is_some_and(|found| Mark::is_in(&found.metadata))
    }
}

impl Starting {
    /// A task whose state has to be opened.
    pub(super) fn new() -> Self {
        let (before, retry_at) = (Origins::default(), Duration::ZERO);
        Self { store: None, step: Step::Open, before, refused: None, retry_at }
    }

    /// A task whose state is open, but may be behind.
    pub(super) fn again(store: Box<dyn StateStore>) -> Self {
        Self { store: Some(store), step: Step::Offsets, ..Self::new() }
    }

    /// When to go on; `None` while it waits for its changelogs.
    pub(super) fn next_step(&self) -> Option<Duration> {
        match self.step {
            Step::Open | Step::Offsets | Step::Bounds(_) => Some(self.retry_at),
            Step::Restoring(..) => None,
        }
    }
}

impl<E: Environment> Worker<E> {
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
        for id in self.starting(|step| matches!(step, Step::Open)) {
            self.open(id)?;
            self.look_at_clock();
            if self.now.monotonic >= until {
                return Ok(());
            }
        }
        let tasks = self.starting(|step| matches!(step, Step::Offsets));
        if !tasks.is_empty() {
            self.read_offsets(&tasks)?;
            self.look_at_clock();
        }
        let tasks = self.starting(|step| matches!(step, Step::Bounds(_)));
        if !tasks.is_empty() && self.now.monotonic < until {
            self.read_bounds(&tasks, until)?;
        }
        Ok(())
    }

    /// How long a request of a step may take.
    fn request_time_max(&self) -> Duration {
        match self.running().is_empty() {
            true => Duration::MAX,
            false => self.config.transaction_timeout / REQUEST_SHARE,
        }
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
                if let Some(starting) = self.starting_mut(id) {
                    (starting.store, starting.step) = (Some(store), Step::Offsets);
                }
                Ok(())
            }
            Err(StoreError::Busy) => {
                self.retry_later(&[id]);
                Ok(())
            }
            Err(error @ (StoreError::Corrupt { .. } | StoreError::Slow(_))) => {
                self.stop_task(id, error.to_string())
            }
            Err(error @ StoreError::Failed(_)) => self.open_later(id, &error),
        }
    }

    /// The state of a task can't be read or written: it is given back and opened anew after a
    /// while, for a full disk may have room again by then. After some attempts the task stops.
    pub(super) fn open_later(&mut self, id: TaskId, error: &StoreError) -> Result<(), WorkerError> {
        self.restart_task(id)?;
        let (now, backoff) = (self.now.monotonic, self.config.retry_backoff);
        let failures = self.failures.entry(id).or_default();
        let attempts = failures.count(now, backoff, Failed::default());
        let retry_at = failures.retry_at;
        if attempts >= OPENED_MAX {
            return self.stop_task(id, format!("{error}; gave up after {attempts} attempts"));
        }
        let Some(starting) = self.starting_mut(id) else { return Ok(()) };
        let before = std::mem::take(&mut starting.before);
        let anew = Starting { before, retry_at, ..Starting::new() };
        if let Some(store) = std::mem::replace(starting, anew).store {
            self.environment.close(id, store);
        }
        self.task_state(id, TaskState::Created);
        self.notice(Notice::Retrying { task: id, attempts, reason: error.to_string() });
        Ok(())
    }

    /// Reads the stable committed offsets of these tasks.
    fn read_offsets(&mut self, tasks: &[TaskId]) -> Result<(), WorkerError> {
        let partitions: Vec<TopicPartition> =
            tasks.iter().flat_map(|&id| self.partitions_of(id)).collect();
        let time_max = self.request_time_max();
        let committed = match self.ports.source.committed(&partitions, time_max) {
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
            let Some(starting) = self.starting_mut(id) else { continue };
            match starting.refused.take() {
                Some((before, reason)) if before == found => self.stop_task(id, reason)?,
                _ => starting.step = Step::Bounds(found),
            }
        }
        Ok(())
    }

    /// A task can't go on from the committed offsets as they were read. If they are read once more
    /// and are the same, that is true, and it stops; if not, others have gone on meanwhile, and
    /// what was held against them is newer than they are.
    pub(super) fn refuse(&mut self, id: TaskId, reason: String) -> Result<(), WorkerError> {
        let Some(starting) = self.starting_mut(id) else { return Ok(()) };
        let found = match &starting.step {
            Step::Bounds(found) => found.clone(),
            Step::Restoring(group, _) => group.found.clone(),
            Step::Open | Step::Offsets => return Ok(()),
        };
        self.restart_task(id)?;
        if let Some(starting) = self.starting_mut(id) {
            starting.refused = Some((found, reason));
        }
        Ok(())
    }

    /// Reads how far the inputs and changelogs of these tasks go, and starts to restore what is
    /// missing, the last one before `until`.
    fn read_bounds(&mut self, tasks: &[TaskId], until: Duration) -> Result<(), WorkerError> {
        let asked: Vec<_> = tasks.iter().flat_map(|&id| self.partitions_of(id)).collect();
        let (inputs, changelogs) = match self.bounds_of(tasks, &asked) {
            Ok(bounds) => bounds,
            Err(error) => {
                self.retry_later(tasks);
                return self.postpone(error);
            }
        };
        let told = |(at, found): (&TopicPartition, &Result<Bounds, _>)| {
            found.as_ref().ok().map(|bounds: &Bounds| (at.topic, bounds.topic_id))
        };
        let told: Vec<(TopicIndex, TopicId)> = asked.iter().zip(&inputs).filter_map(told).collect();
        let (mut inputs, mut changelogs) = (inputs.into_iter(), changelogs.into_iter());
        let mut found = Vec::with_capacity(tasks.len());
        for (place, &id) in tasks.iter().enumerate() {
            if place > 0 && (self.clock)().monotonic >= until {
                break;
            }
            let subtopology = self.topology.subtopology(id);
            let of_inputs = inputs.by_ref().take(subtopology.inputs.len());
            let of_stores = changelogs.by_ref().take(subtopology.stores.len());
            let of_task: Vec<Found> = of_inputs.chain(of_stores).collect();
            match of_task.into_iter().collect::<Result<Vec<Bounds>, _>>() {
                Ok(bounds) => found.push((id, bounds)),
                Err(Unreadable::Refused(reason)) => self.stop_task(id, reason)?,
                Err(Unreadable::ForNow(reason) | Unreadable::Lost(reason)) => {
                    let retry_at = self.now.monotonic + LOOK_AGAIN;
                    if let Some(starting) = self.starting_mut(id) {
                        (starting.step, starting.retry_at) = (Step::Offsets, retry_at);
                    }
                    self.notice(Notice::Waiting(reason));
                }
            }
        }
        self.begin_restores(found, until)?;
        self.told_of_topics(&told)
    }

    /// How far the inputs of these tasks go, and then their changelogs.
    fn bounds_of(
        &mut self,
        tasks: &[TaskId],
        inputs: &[TopicPartition],
    ) -> Result<(Vec<Found>, Vec<Found>), PortError> {
        let changelogs: Vec<_> = tasks.iter().flat_map(|&id| self.changelogs_of(id)).collect();
        let time_max = self.request_time_max();
        let inputs = self.ports.source.bounds(inputs, time_max)?;
        self.look_at_clock(); // From here on deletes may be compacted away.
        let changelogs = match changelogs.is_empty() {
            true => Vec::new(),
            false => self.ports.changelogs.bounds(&changelogs, time_max)?,
        };
        Ok((inputs, changelogs))
    }

    /// Goes on with tasks whose inputs, then changelogs, have these bounds. Brokers are asked before
    /// the first of them runs.
    fn begin_restores(
        &mut self,
        found: Vec<(TaskId, Vec<Bounds>)>,
        until: Duration,
    ) -> Result<(), WorkerError> {
        let mut groups = Vec::with_capacity(found.len());
        for (place, (id, bounds)) in found.into_iter().enumerate() {
            if place > 0 && (self.clock)().monotonic >= until {
                break;
            }
            let Some(starting) = self.starting_mut(id) else { continue };
            let Step::Bounds(found) = &starting.step else { continue };
            let (found, before) = (found.clone(), starting.before.clone());
            let (inputs, changelogs) = bounds.split_at(found.len());
            match self.find_group(id, (found, &before), inputs, changelogs) {
                Ok(Ok(group)) => groups.push((id, group, changelogs.to_vec())),
                Ok(Err(reason)) => self.refuse(id, reason)?,
                Err(error) => {
                    self.retry_later(&[id]);
                    self.postpone(error)?;
                    break; // Those after it would meet the same, each for as long.
                }
            }
        }
        groups
            .into_iter()
            .try_for_each(|(id, group, changelogs)| self.begin_restore(id, group, &changelogs))
    }

    fn begin_restore(
        &mut self,
        id: TaskId,
        group: Group,
        changelogs: &[Bounds],
    ) -> Result<(), WorkerError> {
        match self.check_position(id, &group, changelogs) {
            Ok(Check::Continue(position)) => self.restore_from(id, group, position, changelogs),
            Ok(Check::Rebuild { store, reason }) => self.rebuild(id, Some(store), &reason),
            Ok(Check::Refuse(reason)) => self.refuse(id, reason),
            Err(error) => self.store_failed(id, error),
        }
    }

    /// Where the inputs of a task are read on; what has no offset starts where its input says. The
    /// inner error says why the task can't go on.
    fn find_group(
        &mut self,
        id: TaskId,
        (found, before): (Vec<Option<Committed>>, &Origins),
        inputs: &[Bounds],
        changelogs: &[Bounds],
    ) -> Result<Result<Group, String>, PortError> {
        let topology = std::sync::Arc::clone(&self.topology);
        if let Some(reason) = self.other_changelog(id, &found, changelogs) {
            return Ok(Err(reason));
        }
        let ids = |bounds: &[Bounds]| bounds.iter().map(|bounds| bounds.topic_id).collect();
        let mut group = Group {
            found: found.clone(),
            committed: Vec::with_capacity(found.len()),
            origins: Origins { inputs: ids(inputs), changelogs: ids(changelogs) },
            fresh: false,
            moved: Vec::new(),
            known: Vec::new(),
        };
        for (place, input) in topology.subtopology(id).inputs.iter().enumerate() {
            let partition = TopicPartition::new(input.topic, id.partition);
            let found = found[place].as_ref();
            let bounds = &inputs[place];
            let (start, metadata, lost) =
                match self.place(partition, found, before.input(place), bounds) {
                    Place::Here(committed) => {
                        if Mark::read(&committed.metadata).input == bounds.topic_id {
                            group.known.push(place);
                        }
                        group.fresh |= !group.has_own(place);
                        group.committed.push(committed);
                        continue;
                    }
                    Place::Nowhere => (input.start, String::new(), None),
                    Place::Lost { reason, remedy, metadata } => match input.on_out_of_range {
                        OnOutOfRange::Fail => return Ok(Err(format!("{reason}; {remedy}"))),
                        OnOutOfRange::Earliest => (Start::Earliest, metadata, Some(reason)),
                        OnOutOfRange::Latest => (Start::Latest, metadata, Some(reason)),
                    },
                };
            let offset =
                self.ports.source.start_offset(partition, start, self.request_time_max())?;
            group.committed.push(Committed { offset, metadata });
            group.fresh = true;
            if let Some(reason) = lost {
                group.moved.push(place);
                let reason = format!("{reason}; it goes on at offset {offset}");
                self.notice(Notice::Moved { task: id, reason });
            }
        }
        Ok(Ok(group))
    }

    /// Makes a task read its group's offsets and the missing tail of its changelogs again.
    pub(super) fn restart_task(&mut self, id: TaskId) -> Result<(), WorkerError> {
        self.stop_restores(id)?;
        let starting = match self.tasks.remove(&id) {
            Some(Slot::Running(task)) => {
                let before = task.origins().clone();
                Starting { before, ..Starting::again(task.close()) }
            }
            Some(Slot::Starting(starting)) => {
                let Starting { store, before, .. } = *starting;
                let again = store.map_or_else(Starting::new, Starting::again);
                Starting { before, ..again }
            }
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
