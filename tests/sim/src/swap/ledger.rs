//! What a worker must do about versions, by what it was told, and what its user code and its log
//! saw. What it says and commits is held against it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sidestream_core::{
    record::TransformId,
    task::{FailureKind, SampleValue, Telemetry},
    topology::{Topology, Version},
    worker::{CommitNotice, Notice, TaskState},
};

use super::{Behaviour, Instruction};
use crate::{check::Stamp, cluster::LogRecord, disk::NO_SPACE, pipeline};

/// The header that says which version emitted a record: sub-topology, transform, version.
pub(crate) const VERSION_HEADER: &[u8] = b"version";

/// A version that needs so many times the memory of the one before, or of what everybody may have,
/// is taken back at its first call.
const MEMORY_RATIO_MAX: usize = 3;
const MEMORY_FREE: usize = 2 << 20;

/// How many turns and milliseconds a version waits for its turn at most, from when the worker last
/// had no assignment, or found that the outcome of a transaction is not known.
const SWITCH_TURNS_MAX: u64 = 20;
const SWITCH_TIME_MAX: u64 = 400;

/// What is known of a worker.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    in_force: BTreeMap<TransformId, Version>,
    /// Told, and not taken over yet.
    asked: Option<Asked>,
    trials: BTreeMap<TransformId, Trial>,
    /// The director took these versions on probation back: the next report says so.
    taken_back: BTreeSet<Version>,
    /// Something failed in this turn, and it is not known in which transform.
    failures: bool,
    /// Which transforms failed at records in this turn, and whether that may be their versions' fault.
    failed: BTreeMap<TransformId, bool>,
    done: BTreeMap<(TransformId, Version), Done>,
    /// Which records each version was given since it took over or came back, and in which turn.
    given: BTreeMap<(TransformId, Version, Stamp), u64>,
    /// Which records the version before one on probation failed at as well, and in which turn.
    opinions: BTreeMap<(TransformId, Stamp), u64>,
    /// Which version of a transform was called last.
    called: BTreeMap<TransformId, Version>,
    turn: u64,
    open: Transaction,
    /// Acknowledged, and not told of yet.
    acknowledged: VecDeque<Transaction>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    transform: TransformId,
    version: Version,
    compared: bool,
    /// How many turns the worker had since.
    turns: u64,
    since: u64,
}

/// A version on probation.
#[derive(Clone, Copy, Debug)]
struct Trial {
    asked: Asked,
    before: Version,
    /// What the version before had done.
    baseline: Done,
    /// Records that are committed with it.
    records: u64,
    /// Whether anything failed since it took over that may be its fault.
    failures: bool,
}

/// What a version did in the worker.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    calls: u64,
    breaks: u64,
    /// An instance could not be initialised.
    not_made: bool,
    /// The version before it did what it failed at.
    condemned: bool,
    behaviour: Behaviour,
}

/// What was done since the last end of a transaction.
#[derive(Debug, Default)]
struct Transaction {
    versions: BTreeMap<TransformId, BTreeSet<Version>>,
    /// A version broke off, and the one before it was not asked.
    unasked: BTreeMap<TransformId, Version>,
    /// What versions had done when it was committed.
    done: BTreeMap<(TransformId, Version), Done>,
    /// Records that went through each transform.
    records: BTreeMap<TransformId, u64>,
    /// Records that were passed over, with the transform.
    letters: Vec<(TransformId, Stamp)>,
}

/// A call of user code.
pub(crate) struct Call<'a> {
    pub(crate) transform: TransformId,
    pub(crate) version: Version,
    pub(crate) behaviour: Behaviour,
    /// The records it was given.
    pub(crate) stamps: &'a [Stamp],
    pub(crate) failure: Option<FailureKind>,
    /// Whether every version fails so.
    pub(crate) is_poison: bool,
}

const fn breaks(kind: FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::Initialise
            | FailureKind::Trap
            | FailureKind::Deadline
            | FailureKind::Limit
            | FailureKind::Malformed
    )
}

impl Ledger {
    pub(crate) fn in_force(&self, id: TransformId) -> Version {
        self.in_force.get(&id).copied().unwrap_or(0)
    }

    /// The versions on probation, and how many records were committed with each.
    pub(crate) fn probations(&self) -> BTreeMap<Version, u64> {
        self.trials.values().map(|trial| (trial.asked.version, trial.records)).collect()
    }

    pub(super) fn is_asked(&self, version: Version) -> bool {
        self.asked.is_some_and(|asked| asked.version == version)
    }

    fn is_on_probation(&self, version: Version) -> bool {
        self.trials.values().any(|trial| trial.asked.version == version)
    }

    fn is_compared(&self, id: TransformId) -> bool {
        self.trials.get(&id).is_some_and(|trial| trial.asked.compared)
    }

    /// The worker is told something. Says whether it is about the version on probation.
    pub(crate) fn instructed(&mut self, instruction: &Instruction, now: u64) -> bool {
        let is_on_probation = match instruction {
            Instruction::Swap(_) => false,
            Instruction::Keep(version) | Instruction::TakeBack(version) => {
                self.is_on_probation(*version)
            }
        };
        match instruction {
            Instruction::Swap(swap) => {
                let (transform, version) = (swap.transform, swap.version);
                let compared = swap.probation.is_some();
                self.done.remove(&(transform, version));
                self.asked = Some(Asked { transform, version, compared, turns: 0, since: now });
            }
            Instruction::Keep(version) => {
                self.trials.retain(|_, trial| trial.asked.version != *version);
            }
            Instruction::TakeBack(version) => {
                self.asked = self.asked.filter(|asked| asked.version != *version);
                self.taken_back.extend(is_on_probation.then_some(*version));
            }
        }
        is_on_probation
    }

    /// A call ended.
    pub(crate) fn called(&mut self, call: &Call<'_>) {
        let Call { transform, version, stamps, .. } = *call;
        self.open.versions.entry(transform).or_default().insert(version);
        let given = stamps.iter().map(|&stamp| ((transform, version, stamp), self.turn));
        self.given.extend(given);
        self.called.insert(transform, version);
        let done = self.done.entry((transform, version)).or_default();
        done.calls += 1;
        done.behaviour = call.behaviour;
        let Some(kind) = call.failure else {
            *self.open.records.entry(transform).or_default() += stamps.len() as u64;
            return;
        };
        if breaks(kind) {
            done.breaks += 1;
            self.open.unasked.insert(transform, version);
        }
        let is_on_trial = self.trials.contains_key(&transform)
            || self.asked.is_some_and(|asked| asked.transform == transform);
        // No version is to go for what all fail at. But what is asked to be tried again is not tried on
        // the one before: there a version goes that asks for it twice as often.
        let is_nobodys = call.is_poison && is_on_trial && kind != FailureKind::Retry;
        *self.failed.entry(transform).or_default() |= !is_nobodys;
    }

    /// What a version failed at was tried on the one before it.
    pub(crate) fn opinion(&mut self, call: &Call<'_>) {
        let Call { transform, stamps, failure, is_poison, .. } = *call;
        self.open.unasked.remove(&transform);
        *self.failed.entry(transform).or_default() |= !is_poison;
        match (failure, self.called.get(&transform)) {
            (Some(_), _) => {
                let failed = stamps.iter().map(|&stamp| ((transform, stamp), self.turn));
                self.opinions.extend(failed);
            }
            (None, Some(&version)) => {
                self.done.entry((transform, version)).or_default().condemned = true;
            }
            (None, None) => {}
        }
    }

    /// An instance was not made.
    pub(crate) fn failed(&mut self, transform: TransformId, version: Version, kind: FailureKind) {
        self.something_failed();
        let done = self.done.entry((transform, version)).or_default();
        done.breaks += u64::from(breaks(kind));
        done.not_made |= breaks(kind);
    }

    pub(crate) fn something_failed(&mut self) {
        self.failures = true;
    }

    /// A record is handed to the producer.
    pub(crate) fn produced(&mut self, topology: &Topology, topic: &str, record: &LogRecord) {
        if topic == pipeline::DEAD_LETTERS {
            self.open.letters.extend(letter(topology, record));
        } else if let Some((id, version)) = version_of(record) {
            self.open.versions.entry(id).or_default().insert(version);
        }
    }

    /// The open transaction is committed for certain.
    pub(crate) fn committed(&mut self) {
        let mut transaction = std::mem::take(&mut self.open);
        transaction.done.clone_from(&self.done);
        self.acknowledged.push_back(transaction);
    }

    /// The open transaction is dropped, or nobody knows what becomes of it.
    pub(crate) fn dropped(&mut self) -> Result<(), String> {
        let open = std::mem::take(&mut self.open);
        match open.versions.into_iter().find(|(_, versions)| versions.len() > 1) {
            Some((id, versions)) => Err(format!("{id:?} worked in {versions:?} at once")),
            None => Ok(()),
        }
    }

    /// The outcome of the last transaction is not known, or there is no assignment.
    pub(crate) fn waits(&mut self, now: u64) {
        if let Some(asked) = &mut self.asked {
            (asked.turns, asked.since) = (0, now);
        }
    }

    /// The worker says that something happened.
    pub(crate) fn told(&mut self, notice: &Notice, has_lost: bool) -> Result<(), String> {
        match notice {
            Notice::Committed(commit) => self.told_of_commit(commit),
            Notice::Swapped { transform, version } => self.swapped(*transform, *version),
            Notice::Reverted { transform, version, .. } => self.reverted(*transform, *version),
            Notice::Task { task, state: TaskState::Failed(reason) } => {
                // Unless the version before failed at something as well, or it was a transform that
                // comes before, or the disk.
                let is_to_blame = |(id, trial): (&TransformId, &Trial)| {
                    trial.asked.compared
                        && id.subtopology == task.subtopology
                        && !self.opinions.keys().any(|(of, _)| of == id)
                        && !self.failed.keys().any(|of| is_behind(*id, *of))
                };
                let excused = has_lost || reason.contains(NO_SPACE);
                match self.trials.iter().any(is_to_blame) && !excused {
                    true => Err(format!("{task} was stopped in a probation: {reason}")),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// The report of a turn is at its end, and the worker says `probation`. While it
    /// `stops`, no version takes over.
    pub(crate) fn reported(
        &mut self,
        probations: &BTreeMap<Version, u64>,
        (now, stops): (u64, bool),
    ) -> Result<(), String> {
        if let Some(asked) = &mut self.asked {
            asked.turns += 1;
            let late = now > asked.since + SWITCH_TIME_MAX;
            if late && asked.turns > SWITCH_TURNS_MAX && !stops {
                return Err(format!("{asked:?} does not take over"));
            }
        }
        if !self.taken_back.is_empty() {
            return Err(format!("{:?} were not taken back as it was told", self.taken_back));
        }
        self.turn += 1;
        let may_fail: Vec<TransformId> =
            self.trials.keys().copied().filter(|id| self.may_have_failed(*id)).collect();
        for id in may_fail {
            self.trials.entry(id).and_modify(|trial| trial.failures = true);
        }
        self.failures = false;
        self.failed.clear();
        let expected = self.probations();
        match *probations == expected {
            true => Ok(()),
            false => Err(format!("the probations are {probations:?}, not {expected:?}")),
        }
    }

    fn told_of_commit(&mut self, commit: &CommitNotice) -> Result<(), String> {
        let transaction = self.acknowledged.pop_front().ok_or("nobody made this commit")?;
        for (&id, versions) in &transaction.versions {
            let in_force = self.in_force(id);
            if *versions != BTreeSet::from([in_force]) {
                return Err(format!("{versions:?} of {id:?} are committed, not {in_force}"));
            }
        }
        for (task, transform, said) in &commit.telemetry {
            let id = TransformId { subtopology: task.subtopology, transform: *transform };
            let in_force = self.in_force(id);
            if versions_in(said).any(|version| version != in_force) {
                return Err(format!("{said:?} of {id:?} is told, not of {in_force}"));
            }
        }
        for (id, stamp) in &transaction.letters {
            let version = self.in_force(*id);
            if !self.given.contains_key(&(*id, version, *stamp)) {
                return Err(format!("{stamp:?} was passed over by {version}, which never saw it"));
            }
            if self.is_compared(*id) && !self.opinions.contains_key(&(*id, *stamp)) {
                return Err(format!("{stamp:?} was passed over by {version} alone"));
            }
        }
        for (&id, trial) in &mut self.trials {
            trial.records += transaction.records.get(&id).copied().unwrap_or(0);
            let done = transaction.done.get(&(id, trial.asked.version));
            let must_go = done.is_some_and(|done| trial.must_go(done));
            if must_go && transaction.versions.contains_key(&id) {
                return Err(format!("{trial:?} is committed, but it must go"));
            }
            let unasked = transaction.unasked.get(&id) == Some(&trial.asked.version);
            if unasked && trial.asked.compared {
                return Err(format!("{trial:?} broke off, and {} was not asked", trial.before));
            }
        }
        Ok(())
    }

    fn swapped(&mut self, transform: TransformId, version: Version) -> Result<(), String> {
        let asked = self.asked.take();
        let asked = asked
            .filter(|asked| (asked.transform, asked.version) == (transform, version))
            .ok_or_else(|| format!("{version} took over, and not {asked:?}"))?;
        let before = self.in_force.insert(transform, version).unwrap_or(0);
        let baseline = self.done.get(&(transform, before)).copied().unwrap_or_default();
        let trial = Trial { asked, before, baseline, records: 0, failures: false };
        self.trials.insert(transform, trial);
        self.forget_given(transform);
        Ok(())
    }

    /// Other code of a transform runs since some time in this turn.
    fn forget_given(&mut self, transform: TransformId) {
        let turn = self.turn;
        self.given.retain(|(of, ..), given| *of != transform || *given == turn);
        self.opinions.retain(|(of, _), given| *of != transform || *given == turn);
    }

    fn reverted(&mut self, transform: TransformId, version: Version) -> Result<(), String> {
        let trial = self.trials.remove(&transform);
        let trial = trial
            .filter(|trial| trial.asked.version == version)
            .ok_or_else(|| format!("{version} went, which is not on probation: {trial:?}"))?;
        if !self.taken_back.remove(&version) && !self.may_go(&trial) {
            return Err(format!("{trial:?} was taken back without cause"));
        }
        self.in_force.insert(transform, trial.before);
        self.forget_given(transform);
        Ok(())
    }

    /// Whether a worker may take a version back by itself.
    fn may_go(&self, trial: &Trial) -> bool {
        let done = self.done.get(&(trial.asked.transform, trial.asked.version));
        let is_dear = done.is_some_and(|done| done.behaviour.is_dear());
        let has_failed = trial.failures || self.may_have_failed(trial.asked.transform);
        trial.asked.compared && (has_failed || is_dear)
    }

    /// Whether something failed in this turn for which a transform's version may go: its own work,
    /// or what one behind it was handed.
    fn may_have_failed(&self, id: TransformId) -> bool {
        let may_be_its =
            |(of, own): (&TransformId, &bool)| is_behind(*of, id) || (*of == id && *own);
        self.failures || self.failed.iter().any(may_be_its)
    }
}

/// Whether a transform comes behind another one of the same tasks.
fn is_behind(id: TransformId, of: TransformId) -> bool {
    id.subtopology == of.subtopology && id.transform > of.transform
}

impl Trial {
    /// Whether a version that did this must be taken back.
    fn must_go(&self, done: &Done) -> bool {
        let before = self.baseline;
        let broke = done.not_made && before.breaks == 0;
        let free = before.behaviour.memory_bytes().max(MEMORY_FREE);
        let needs = before.calls > 0
            && done.calls > 0
            && done.behaviour.memory_bytes() > MEMORY_RATIO_MAX * free;
        self.asked.compared && (done.condemned || broke || needs)
    }
}

/// Which version emitted a record.
fn version_of(record: &LogRecord) -> Option<(TransformId, Version)> {
    let text = header(record, VERSION_HEADER)?;
    let mut parts = text.split('.');
    let subtopology = parts.next()?.parse().ok()?;
    let transform = parts.next()?.parse().ok()?;
    Some((TransformId { subtopology, transform }, parts.next()?.parse().ok()?))
}

/// Which transform passed over which record, as a dead letter says.
fn letter(topology: &Topology, record: &LogRecord) -> Option<(TransformId, Stamp)> {
    let said = |name: &str| header(record, format!("__streams.errors.{name}").as_bytes());
    let (name, topic) = (said("processor.node.id")?, said("topic")?);
    let subtopologies = topology.subtopologies.iter().zip(0u16..);
    let (id, input) = subtopologies.into_iter().find_map(|(definition, subtopology)| {
        let transform = definition.transforms.iter().position(|of| of.name == name)?;
        let mut inputs = definition.inputs.iter();
        let input = inputs.position(|input| topology.topic(input.topic).name == topic)?;
        Some((TransformId { subtopology, transform }, u32::try_from(input).ok()?))
    })?;
    Some((id, (input, said("partition")?.parse().ok()?, said("offset")?.parse().ok()?)))
}

fn header<'a>(record: &'a LogRecord, name: &[u8]) -> Option<&'a str> {
    let (_, value) = record.headers.iter().find(|(found, _)| found == name)?;
    std::str::from_utf8(value.as_deref()?).ok()
}

/// The versions whose user code said this.
fn versions_in(said: &Telemetry) -> impl Iterator<Item = Version> {
    said.samples.iter().filter_map(|sample| match sample.value {
        SampleValue::Count(version) => Some(version),
        SampleValue::Observation(_) => None,
    })
}
