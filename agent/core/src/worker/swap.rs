//! Another version of a transform's code takes over between two transactions, and goes again if it
//! does worse on probation.

use std::collections::BTreeMap;

use super::{
    Environment, Log, Notice, Probation, Ratios, Slot, Starting, TaskState, Worker, WorkerError,
    trial::Trial,
};
use crate::{
    record::{TaskId, TransformId},
    task::Tally,
    topology::Topology,
};

/// A version of a transform's code, as the shell counts them. Each transform starts with 0.
pub type Version = u64;

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
    trial: Option<Trial>,
}

impl<P> Code<P> {
    pub(super) fn new(topology: &Topology) -> Self {
        fn each<T: Clone + Default>(topology: &Topology) -> Vec<Vec<T>> {
            let subtopologies = topology.subtopologies.iter();
            subtopologies.map(|of| vec![T::default(); of.transforms.len()]).collect()
        }
        Self { versions: each(topology), tallies: each(topology), asked: None, trial: None }
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
        if let Some(trial) = &mut self.trial {
            let id = trial.transform;
            trial.ended(&self.tallies[usize::from(id.subtopology)][id.transform], committed);
        }
    }

    /// The code of a transform broke off.
    pub(super) fn broke(&mut self, id: TransformId, how: String) {
        if let Some(trial) = self.trial.as_mut().filter(|trial| trial.transform == id) {
            trial.broke.get_or_insert(how);
        }
    }

    /// Why the version on probation has failed in the tasks of a sub-topology, if it has.
    fn verdict(&self, subtopology: u16) -> Option<String> {
        let trial = self.trial.as_ref().filter(|of| of.is_compared_in(subtopology))?;
        trial.verdict(&self.tallies[usize::from(subtopology)][trial.transform.transform])
    }

    fn is_on_probation(&self, version: Version) -> bool {
        self.trial.as_ref().is_some_and(|trial| trial.version == version)
    }
}

impl<L: Log, E: Environment> Worker<L, E> {
    /// Asks for another version of a transform's code. It takes over in one of the next turns,
    /// after what the one in force has processed is committed or dropped; tasks that were stopped
    /// are tried again with it. One that was asked for before and has not taken over is forgotten;
    /// one on probation is kept.
    pub fn swap(&mut self, swap: Swap<E::Processor>) {
        self.code.asked = Some(swap);
    }

    /// Ends the probation of a version: only limits and policies stop it from now on. Says whether
    /// it was on probation.
    pub fn keep(&mut self, version: Version) -> bool {
        let is_on_probation = self.code.is_on_probation(version);
        if is_on_probation {
            self.code.trial = None;
        }
        is_on_probation
    }

    /// Drops the open transaction and brings the code back that was in force before a version that
    /// is on probation. One that has not taken over yet never does. Without effect on others.
    pub fn revert(&mut self, version: Version, reason: &str) -> Result<(), WorkerError> {
        if self.code.asked.as_ref().is_some_and(|asked| asked.version == version) {
            self.code.asked = None;
        }
        match self.code.is_on_probation(version) {
            true => self.revert_trial(reason),
            false => Ok(()),
        }
    }

    /// How far the version has come that is on probation.
    #[must_use]
    pub fn probation(&self) -> Option<Probation> {
        self.code.trial.as_ref().map(Trial::progress)
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
        self.code.trial = Some(Trial::new(transform, (version, before.0), before.1, probation));
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

    /// Brings the old code back if the one on probation has failed in the tasks of a sub-topology.
    /// Says whether it did.
    pub(super) fn judge(&mut self, subtopology: u16) -> Result<bool, WorkerError> {
        match self.code.verdict(subtopology) {
            Some(reason) => self.revert_trial(&reason).map(|()| true),
            None => Ok(false),
        }
    }

    /// A task of a sub-topology would have to be stopped: while one of its transforms is on
    /// probation, that is to blame. Says whether it was.
    pub(super) fn blame_trial(
        &mut self,
        subtopology: u16,
        reason: &str,
    ) -> Result<bool, WorkerError> {
        let is_of = |trial: &Trial| trial.is_compared_in(subtopology);
        match self.code.trial.as_ref().is_some_and(is_of) {
            true => self.revert_trial(reason).map(|()| true),
            false => Ok(false),
        }
    }

    fn revert_trial(&mut self, reason: &str) -> Result<(), WorkerError> {
        let Some(Trial { transform, version, before, baseline, .. }) = self.code.trial.take()
        else {
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
