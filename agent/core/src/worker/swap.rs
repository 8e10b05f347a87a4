//! Another version of a transform's code takes over between two transactions, and goes again if it
//! does worse on probation.

use std::collections::BTreeMap;

use super::{
    Environment, Notice, Probation, Ratios, Slot, Starting, TaskState, Worker, WorkerError,
    trial::Trial,
};
use crate::{
    record::{TaskId, TransformId},
    task::{Blame, OnTrial, RecordId, Tally},
    topology::{Topology, Version},
};

/// Another version of a transform's code that is to take over.
#[derive(Debug)]
pub struct Swap<P> {
    /// Whose code.
    pub transform: TransformId,
    /// Which version; [`Environment::processor`] knows it.
    pub version: Version,
    /// Processors that were made ahead. Other tasks make theirs when they work next.
    pub processors: BTreeMap<TaskId, P>,
    /// How much worse than the version in force it may be; `None` if it is not compared.
    pub probation: Option<Ratios>,
}

/// The code that a worker's tasks run.
pub(super) struct Code<P> {
    versions: Vec<Vec<Version>>,
    tallies: Vec<Vec<Tally>>,
    /// It takes over as soon as no work is open.
    asked: Option<Swap<P>>,
    /// Versions on probation: one of a transform at most, the latest last.
    trials: Vec<Trial>,
}

impl<P> Code<P> {
    pub(super) fn new(topology: &Topology) -> Self {
        fn each<T: Clone + Default>(topology: &Topology) -> Vec<Vec<T>> {
            let subtopologies = topology.subtopologies.iter();
            subtopologies.map(|of| vec![T::default(); of.transforms.len()]).collect()
        }
        Self { versions: each(topology), tallies: each(topology), asked: None, trials: Vec::new() }
    }

    /// The versions in force of the transforms of a task, and what they did so far.
    pub(super) fn of(&mut self, task: TaskId) -> (&[Version], &mut [Tally]) {
        let subtopology = usize::from(task.subtopology);
        (&self.versions[subtopology], &mut self.tallies[subtopology])
    }

    fn tally(&mut self, id: TransformId) -> &mut Tally {
        &mut self.tallies[usize::from(id.subtopology)][id.transform]
    }

    /// Puts a version in force. Returns the one before, and what that did.
    fn put(&mut self, id: TransformId, version: Version, tally: Tally) -> (Version, Tally) {
        let before = std::mem::replace(
            &mut self.versions[usize::from(id.subtopology)][id.transform],
            version,
        );
        (before, std::mem::replace(self.tally(id), tally))
    }

    /// The open transaction came to its end.
    pub(super) fn ended(&mut self, committed: bool) {
        for trial in &mut self.trials {
            let id = trial.transform;
            trial.ended(&self.tallies[usize::from(id.subtopology)][id.transform], committed);
        }
    }

    /// The code of a transform broke off, and no record is to blame.
    pub(super) fn broke(&mut self, id: TransformId, how: String) {
        if let Some(trial) = self.trials.iter_mut().find(|trial| trial.transform == id) {
            trial.broke(how);
        }
    }

    /// What the tasks of a sub-topology have to know of versions on probation.
    pub(super) fn on_trial(&self, subtopology: u16) -> Vec<OnTrial> {
        self.compared_in(subtopology).map(Trial::on_trial).collect()
    }

    /// An output of a transform was refused: whether that of the version before had been as well,
    /// nobody can try, so one on probation has to go.
    pub(super) fn refused(&self, id: TaskId, transform: usize) -> Option<(usize, Blame)> {
        let on_trial = self.on_trial(id.subtopology);
        let is_on_trial = on_trial.iter().any(|of| of.transform == transform && !of.may_reject);
        let how = "what the new version emits was refused, so nothing was passed over; correct the \
                   module, or swap with `--accept failures`";
        is_on_trial.then(|| (transform, Blame::Version(how.to_owned())))
    }

    /// Work of a task failed for a reason: that of a transform's version if `blame` says so.
    pub(super) fn failed(&mut self, id: TaskId, reason: &str, blame: Option<&(usize, Blame)>) {
        for trial in self.trials.iter_mut().filter(|of| of.is_compared_in(id.subtopology)) {
            let own = blame.filter(|(transform, _)| *transform == trial.transform.transform);
            trial.failed(reason, own.and_then(|(_, blame)| blame.of_version()));
        }
    }

    /// Versions on probation that are compared in the tasks of a sub-topology, the latest first.
    fn compared_in(&self, subtopology: u16) -> impl Iterator<Item = &Trial> {
        self.trials.iter().rev().filter(move |trial| trial.is_compared_in(subtopology))
    }

    /// A version on probation that has failed in the tasks of a sub-topology, if one has, and why.
    fn verdict(&self, subtopology: u16) -> Option<(Version, String)> {
        self.compared_in(subtopology).find_map(|trial| {
            let tally = &self.tallies[usize::from(subtopology)][trial.transform.transform];
            Some((trial.version, trial.verdict(tally)?))
        })
    }

    /// Ends the probation of a version, if it is on one.
    fn take_trial(&mut self, version: Version) -> Option<Trial> {
        let place = self.trials.iter().position(|trial| trial.version == version)?;
        Some(self.trials.remove(place))
    }
}

impl<E: Environment> Worker<E> {
    /// Asks for another version of a transform's code. It takes over in one of the next turns,
    /// after what the one in force has processed is committed or dropped; tasks that were stopped
    /// are tried again with it. One that was asked for before and has not taken over is forgotten;
    /// one of the same transform on probation is kept.
    pub fn swap(&mut self, swap: Swap<E::Processor>) {
        self.code.asked = Some(swap);
    }

    /// Ends the probation of a version: only limits and policies stop it from now on. Says whether
    /// it was on probation.
    pub fn keep(&mut self, version: Version) -> bool {
        self.code.take_trial(version).is_some()
    }

    /// Drops the open transaction and brings the code back that was in force before a version that
    /// is on probation. One that has not taken over yet never does. Without effect on others.
    pub fn revert(&mut self, version: Version, reason: &str) -> Result<(), WorkerError> {
        if self.code.asked.as_ref().is_some_and(|asked| asked.version == version) {
            self.code.asked = None;
        }
        self.revert_trial(version, reason)
    }

    /// How far the versions have come that are on probation.
    #[must_use]
    pub fn probations(&self) -> Vec<Probation> {
        self.code.trials.iter().map(Trial::progress).collect()
    }

    /// Lets the version that was asked for take over, once no work of the one before it is open.
    pub(super) fn switch(&mut self) -> Result<(), WorkerError> {
        if self.code.asked.is_none() || self.drain.is_some() {
            return Ok(());
        }
        if self.has_work() && self.assigned && self.recover_at.is_none() {
            self.commit()?;
        }
        if self.has_work() {
            return Ok(());
        }
        let Some(swap) = self.code.asked.take() else { return Ok(()) };
        let Swap { transform, version, processors, probation } = swap;
        let before = self.code.put(transform, version, Tally::default());
        self.code.trials.retain(|trial| trial.transform != transform);
        let trial = Trial::new(transform, (version, before.0), before.1, probation);
        self.code.trials.push(trial);
        self.replace_processors(transform, processors);
        self.notice(Notice::Swapped { transform, version });
        Ok(())
    }

    fn has_work(&self) -> bool {
        self.tasks.values().any(|slot| matches!(slot, Slot::Running(task) if task.has_work()))
    }

    fn replace_processors(
        &mut self,
        transform: TransformId,
        mut processors: BTreeMap<TaskId, E::Processor>,
    ) {
        let wall = self.now.wall;
        let mut stopped = Vec::new();
        for (id, slot) in &mut self.tasks {
            if id.subtopology != transform.subtopology {
                continue;
            }
            if let Some(failures) = self.failures.get_mut(id) {
                failures.forget(transform.transform);
            }
            match slot {
                Slot::Running(task) => {
                    task.replace(transform.transform, processors.remove(id), wall);
                }
                Slot::Failed(store) => {
                    let starting = store.take().map_or_else(Starting::new, Starting::again);
                    *slot = Slot::Starting(Box::new(starting));
                    stopped.push(*id);
                }
                Slot::Starting(_) => {}
            }
        }
        stopped.into_iter().for_each(|id| self.task_state(id, TaskState::Created));
    }

    /// Brings the old code back if one on probation has failed in the tasks of a sub-topology.
    /// Says whether it did.
    pub(super) fn judge(&mut self, subtopology: u16) -> Result<bool, WorkerError> {
        match self.code.verdict(subtopology) {
            Some((version, reason)) => self.revert_trial(version, &reason).map(|()| true),
            None => Ok(false),
        }
    }

    /// A task of a sub-topology would have to be stopped: while one of its transforms is on
    /// probation, that is to blame, unless the version before it fails alike, or it comes after the
    /// one that the `record` failed in, to which it hands nothing. Says whether it was.
    pub(super) fn blame_trial(
        &mut self,
        subtopology: u16,
        reason: &str,
        (blame, record): (Option<&(usize, Blame)>, Option<RecordId>),
    ) -> Result<bool, WorkerError> {
        let cleared = match blame {
            Some((transform, Blame::Record)) => Some(*transform),
            Some((_, Blame::Version(_))) | None => None,
        };
        let last = record.map_or(usize::MAX, |record| usize::from(record.transform));
        let is_blamed = |trial: &&Trial| {
            let transform = trial.transform.transform;
            Some(transform) != cleared && transform <= last
        };
        let version = self.code.compared_in(subtopology).find(is_blamed).map(|of| of.version);
        match version {
            Some(version) => self.revert_trial(version, reason).map(|()| true),
            None => Ok(false),
        }
    }

    fn revert_trial(&mut self, version: Version, reason: &str) -> Result<(), WorkerError> {
        let Some(Trial { transform, before, baseline, .. }) = self.code.take_trial(version) else {
            return Ok(());
        };
        if self.has_work() {
            self.abort(&format!("version {version} is taken back: {reason}"))?;
        }
        self.code.put(transform, before, baseline);
        self.replace_processors(transform, BTreeMap::new());
        self.notice(Notice::Reverted { transform, version, reason: reason.to_owned() });
        Ok(())
    }

    /// A record's output was refused, which is as good as a failure of the record.
    pub(super) fn count_refused(&mut self, id: TransformId) {
        self.code.tally(id).failed();
    }
}
