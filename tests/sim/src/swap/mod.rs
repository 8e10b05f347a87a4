//! Swaps: other versions of a transform's code come and go while everything else happens.
//!
//! A director for each process does what the agent's does: it tells every worker, brings all back
//! when one takes the version back, and keeps what passed. A ledger for each worker says what the
//! worker must do, by what it was told and what its user code did.

mod director;
mod ledger;

use std::{collections::BTreeMap, time::Duration};

use sidestream_core::{
    record::{TaskId, TransformId},
    task::{Clock, Cost},
    topology::{OnError, Topology, Version},
    worker::Notice,
};

pub(crate) use self::{
    director::{Director, Instruction},
    ledger::{Call, Ledger, VERSION_HEADER},
};
use crate::prng::Prng;

/// How a version of a transform differs from others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Behaviour {
    #[default]
    Good,
    FailsToInitialise,
    TrapsAlways,
    /// Each instance traps at its record of this number.
    TrapsAt(u64),
    /// It rejects one record in so many, always the same ones.
    Rejects(u64),
    TakesTime,
    TakesMemory,
    /// Its outputs are larger.
    EmitsMore,
    /// It is punctuated otherwise.
    OtherSchedules,
}

impl Behaviour {
    /// Whether it may stop a task.
    pub(crate) const fn fails(self) -> bool {
        match self {
            Self::FailsToInitialise | Self::TrapsAlways | Self::TrapsAt(_) | Self::Rejects(_) => {
                true
            }
            Self::Good
            | Self::TakesTime
            | Self::TakesMemory
            | Self::EmitsMore
            | Self::OtherSchedules => false,
        }
    }

    /// Whether it may take or emit too much.
    pub(crate) const fn is_dear(self) -> bool {
        matches!(self, Self::TakesTime | Self::TakesMemory | Self::EmitsMore)
    }

    /// What a call over so many records takes.
    pub(crate) fn cost(self, records: u32) -> Cost {
        let cpu = Duration::from_micros(if self == Self::TakesTime { 5_000 } else { 10 });
        Cost { cpu: cpu * records, memory_bytes: self.memory_bytes() }
    }

    pub(crate) fn memory_bytes(self) -> usize {
        if self == Self::TakesMemory { 64 << 20 } else { 1 << 20 }
    }

    /// Which punctuations it asks for where others ask for `usual`.
    pub(crate) fn schedules(
        self,
        stream: Option<u64>,
        wall: Option<u64>,
    ) -> Vec<(Clock, Duration)> {
        let (stream, wall) = match self {
            Self::OtherSchedules => (stream.xor(Some(70)), Some(wall.unwrap_or(90) + 13)),
            _ => (stream, wall),
        };
        let stream = stream.map(|ms| (Clock::StreamTime, Duration::from_millis(ms)));
        let wall = wall.map(|ms| (Clock::WallClock, Duration::from_millis(ms)));
        stream.into_iter().chain(wall).collect()
    }
}

/// How the director ends a probation that is not ended by a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It keeps the version once the workers have committed so many records with it.
    Keep { records: u64 },
    /// It takes the version back so many turns after it told the first worker.
    TakeBack { turns: u64 },
}

/// A swap that every process is told at some step.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) step: u64,
    /// Not before a worker of the process drops a transaction.
    pub(crate) after_drop: bool,
    pub(crate) transform: TransformId,
    pub(crate) behaviour: Behaviour,
    /// Whether it is compared with the version before it.
    pub(crate) compared: bool,
    pub(crate) end: End,
    /// Does not wait for the end of the swap before it.
    pub(crate) hasty: bool,
    /// After so many turns others need not wait for its end any more: it is unproven, and judged as
    /// before.
    pub(crate) patience: Option<u64>,
}

impl Planned {
    /// One that replaces a version that fails.
    fn repair(transform: TransformId) -> Self {
        Self {
            step: 0,
            after_drop: false,
            transform,
            behaviour: Behaviour::Good,
            compared: false,
            end: End::Keep { records: 0 },
            hasty: false,
            patience: None,
        }
    }
}

/// In one run of so many there are swaps.
const RUNS: u64 = 3;

/// Draws the swaps of a run: by themselves, so that what else a seed decides does not depend on
/// them. The version of each is its place, counted from 1.
pub(crate) fn draw(seed: u64, steps: u64, topology: &Topology) -> Vec<Planned> {
    let mut prng = Prng::new(seed ^ 0x5EA9);
    if !prng.one_in(RUNS) {
        return Vec::new();
    }
    let count = prng.between(1, 6);
    let mut swaps: Vec<Planned> =
        (0..count).map(|_| draw_one(&mut prng, steps, topology)).collect();
    swaps.sort_by_key(|swap| swap.step);
    let passes_over = |swap: &Planned| swap.behaviour.fails() && !may_fail(swap, topology);
    if swaps.iter().any(passes_over) {
        // What takes over from a version on probation has it kept.
        swaps.iter_mut().for_each(|swap| swap.hasty = false);
    }
    swaps
}

/// Where nothing may be punctuated, no version is that would be where others are not.
pub(crate) fn may_punctuate(swaps: &mut [Planned], may: bool) {
    for swap in swaps.iter_mut().filter(|of| !may && of.behaviour == Behaviour::OtherSchedules) {
        swap.behaviour = Behaviour::Good;
    }
}

/// Whether what a version of a swap's transform fails at stops its task, and is not passed over.
fn may_fail(swap: &Planned, topology: &Topology) -> bool {
    let id = swap.transform;
    let transforms = &topology.subtopologies[usize::from(id.subtopology)].transforms;
    transforms[id.transform].on_error.then == OnError::Fail
}

fn draw_one(prng: &mut Prng, steps: u64, topology: &Topology) -> Planned {
    let subtopology = prng.index(topology.subtopologies.len());
    let transforms = &topology.subtopologies[subtopology].transforms;
    let place = prng.index(transforms.len());
    let chosen = match prng.below(10) {
        0 | 1 => Behaviour::TrapsAlways,
        2 => Behaviour::TrapsAt(prng.between(1, 20)),
        3 | 4 => Behaviour::Rejects(prng.between(1, 8)),
        5 => Behaviour::FailsToInitialise,
        6 => Behaviour::OtherSchedules,
        7 => [Behaviour::TakesTime, Behaviour::TakesMemory, Behaviour::EmitsMore][prng.index(3)],
        _ => Behaviour::Good,
    };
    let few_or_many = [[2, 1], [20, 10], [100, 60]][prng.index(3)];
    let end = match prng.one_in(4) {
        true => End::TakeBack { turns: prng.below(few_or_many[0]) },
        false => End::Keep { records: prng.below(few_or_many[1]) },
    };
    let subtopology = u16::try_from(subtopology).expect("few of them");
    let mut swap = Planned {
        step: prng.between(5, steps.max(6) - 1),
        after_drop: prng.one_in(3),
        transform: TransformId { subtopology, transform: place },
        behaviour: chosen,
        compared: !prng.one_in(4),
        end,
        hasty: prng.one_in(4),
        patience: prng.coin().then(|| prng.below(10)),
    };
    if chosen.fails() && !may_fail(&swap, topology) {
        // Kept, it would pass over what must come out; on probation nothing may be.
        (swap.compared, swap.end) = (true, End::TakeBack { turns: prng.between(1, 100) });
    }
    swap
}

/// Versions from here on are good ones, with which a run is brought to its end.
const REPAIRS: Version = 1_000;

/// What is known of versions in a run.
#[derive(Debug, Default)]
pub(crate) struct Swaps {
    planned: Vec<Planned>,
    /// What was kept last, by the identity of processes.
    kept: BTreeMap<usize, BTreeMap<TransformId, Version>>,
    /// What a process began with.
    bases: BTreeMap<usize, BTreeMap<TransformId, Version>>,
    ledgers: BTreeMap<Owner, Ledger>,
    /// How often that happened in all workers and processes.
    pub(crate) taken_over: u64,
    pub(crate) taken_back: u64,
    pub(crate) kept_ever: u64,
}

/// A worker of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) pod: usize,
    pub(crate) worker: usize,
}

impl Swaps {
    pub(crate) fn new(planned: Vec<Planned>) -> Self {
        Self { planned, ..Self::default() }
    }

    /// Whether there is none in this run.
    pub(crate) fn is_empty(&self) -> bool {
        self.planned.is_empty()
    }

    /// A process of an identity begins with what was kept last.
    pub(crate) fn begin(&mut self, pod: usize, identity: usize) {
        self.bases.insert(pod, self.kept.get(&identity).cloned().unwrap_or_default());
    }

    fn keep(&mut self, identity: usize, transform: TransformId, version: Version) {
        self.kept_ever += 1;
        self.kept.entry(identity).or_default().insert(transform, version);
    }

    /// How a version behaves that a process knows by this number.
    pub(crate) fn behaviour(&self, pod: usize, id: TransformId, version: Version) -> Behaviour {
        let base = self.bases.get(&pod).and_then(|base| base.get(&id)).copied().unwrap_or(0);
        let version = if version == 0 { base } else { version };
        let place = usize::try_from(version).expect("small").checked_sub(1);
        place.and_then(|place| self.planned.get(place)).map_or(Behaviour::Good, |p| p.behaviour)
    }

    /// A worker says that something happened.
    pub(crate) fn told(
        &mut self,
        owner: Owner,
        notice: &Notice,
        has_lost: bool,
    ) -> Result<(), String> {
        self.taken_over += u64::from(matches!(notice, Notice::Swapped { .. }));
        self.taken_back += u64::from(matches!(notice, Notice::Reverted { .. }));
        self.ledger(owner).told(notice, has_lost)
    }

    pub(crate) fn ledger(&mut self, owner: Owner) -> &mut Ledger {
        self.ledgers.entry(owner).or_default()
    }

    fn in_force(&self, owner: Owner, id: TransformId) -> Version {
        self.ledgers.get(&owner).map_or(0, |ledger| ledger.in_force(id))
    }

    /// Whether a version that fails is in force for a task of a worker.
    pub(crate) fn may_stop(&self, owner: Owner, task: TaskId) -> bool {
        self.planned.iter().map(|planned| planned.transform).any(|id| {
            let version = self.in_force(owner, id);
            id.subtopology == task.subtopology && self.behaviour(owner.pod, id, version).fails()
        })
    }

    /// Whether the punctuations of a sub-topology may change.
    pub(crate) fn reschedule(&self, subtopology: u16) -> bool {
        self.planned.iter().any(|planned| {
            planned.transform.subtopology == subtopology
                && planned.behaviour == Behaviour::OtherSchedules
        })
    }
}
