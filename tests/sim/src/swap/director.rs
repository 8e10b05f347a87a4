//! Drives the swaps of a process, as the agent does: one at a time (mostly), the same in every
//! worker, and back everywhere when one worker takes it back.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use sidestream_core::{
    record::{TaskId, TransformId},
    topology::Version,
    worker::{Ratios, Swap},
};

use super::{End, Owner, Planned, REPAIRS, Swaps};
use crate::{guest::SimProcessor, prng::Prng, world::World};

/// How long a probation may last once there are no faults any more.
const CALM_TURNS_MAX: u64 = 300;

/// A version that there is not.
const NOBODYS: Version = REPAIRS - 1;

/// What a worker is told before its next turn.
pub(crate) enum Instruction {
    Swap(Box<Swap<SimProcessor>>),
    Keep(Version),
    TakeBack(Version),
}

impl fmt::Debug for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Swap(swap) => {
                let Swap { transform, version, processors, probation } = swap.as_ref();
                let ahead: Vec<&TaskId> = processors.keys().collect();
                let compared = probation.is_some();
                write!(f, "swap {transform:?} {version}, compared: {compared}, with {ahead:?}")
            }
            Self::Keep(version) => write!(f, "keep {version}"),
            Self::TakeBack(version) => write!(f, "take back {version}"),
        }
    }
}

/// What to tell, by the place of the worker in its process.
type Orders = Vec<(usize, Instruction)>;

/// The director of a process.
pub(crate) struct Director {
    pod: usize,
    identity: usize,
    workers: usize,
    prng: Prng,
    /// The process was asked to stop: no swap goes on.
    pub(crate) stops: bool,
    waiting: VecDeque<Version>,
    /// Those that wait for a dropped transaction.
    armed: Vec<Version>,
    active: Vec<Active>,
    repairs: Version,
}

/// A swap under way.
#[derive(Clone, Copy, Debug)]
struct Active {
    transform: TransformId,
    version: Version,
    compared: bool,
    end: End,
    phase: Phase,
    turns: u64,
    patience: Option<u64>,
    /// Others need not wait for its end.
    unproven: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Workers take it over, and it is on probation.
    Trying,
    /// It stays: all are told.
    Keeping,
    /// It goes: all are told.
    TakingBack,
}

/// Where a worker is in a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Pending,
    OnProbation,
    Kept,
    /// It took the version back, or never over.
    Back,
}

impl Director {
    pub(crate) fn new(seed: u64, pod: usize, identity: usize, workers: usize) -> Self {
        Self {
            pod,
            identity,
            workers,
            prng: Prng::new(seed ^ (pod as u64) << 32),
            stops: false,
            waiting: VecDeque::new(),
            armed: Vec::new(),
            active: Vec::new(),
            repairs: 0,
        }
    }

    /// The process is told of the swaps of a step.
    pub(crate) fn arrive(&mut self, swaps: &Swaps, step: u64) {
        for (planned, version) in swaps.planned.iter().zip(1..) {
            match planned.step == step {
                true if planned.after_drop => self.armed.push(version),
                true => self.waiting.push_back(version),
                false => {}
            }
        }
    }

    /// A worker of the process dropped a transaction.
    pub(crate) fn dropped(&mut self) {
        self.waiting.extend(self.armed.drain(..));
    }

    /// There are no faults any more: no other swap begins.
    pub(crate) fn calm_down(&mut self) {
        self.waiting.clear();
        self.armed.clear();
    }

    /// What is under way or has to be done, if anything.
    pub(crate) fn unsettled(&self, swaps: &Swaps) -> Option<String> {
        if self.stops {
            return None;
        }
        let repair = self.to_repair(swaps).map(|id| format!("{id:?} is to be repaired"));
        let first = self.active.first();
        first.map(|active| format!("{active:?} of p{} is under way", self.pod)).or(repair)
    }

    /// Goes on; `has_mail` says which workers have not heard yet what they were told.
    pub(crate) fn step(&mut self, world: &World, has_mail: &[bool]) -> Orders {
        if self.stops {
            return Orders::new();
        }
        let mut orders = Orders::new();
        for active in std::mem::take(&mut self.active) {
            let next = self.go_on(world, active, has_mail, &mut orders);
            self.active.extend(next);
        }
        let next = self.waiting.front().copied();
        let planned = next.and_then(|version| self.planned(world, version));
        let is_busy = self.active.iter().any(|active| !active.unproven);
        if let (Some(version), Some(planned)) = (next, planned)
            && (!is_busy || planned.hasty)
        {
            let id = planned.transform;
            let before = self.active.iter_mut().find(|active| active.transform == id);
            if let Some(unproven) = before.filter(|_| !planned.hasty) {
                // The version before it runs when the next one takes over.
                (unproven.end, unproven.unproven) = (End::TakeBack { turns: 0 }, false);
            } else {
                self.waiting.pop_front();
                self.active.retain(|active| active.transform != id);
                orders.extend(self.begin(world, version, &planned));
            }
        } else if self.active.is_empty() && !world.lock().faulty {
            let broken = self.to_repair(&world.lock().swaps);
            if let Some(transform) = broken {
                let version = REPAIRS + self.repairs;
                self.repairs += 1;
                orders.extend(self.begin(world, version, &Planned::repair(transform)));
            }
        }
        orders
    }

    fn planned(&self, world: &World, version: Version) -> Option<Planned> {
        let place = usize::try_from(version).ok()?.checked_sub(1)?;
        world.lock().swaps.planned.get(place).cloned()
    }

    /// A transform of which a worker runs a version that fails.
    fn to_repair(&self, swaps: &Swaps) -> Option<TransformId> {
        let mut transforms = swaps.planned.iter().map(|planned| planned.transform);
        transforms.find(|&id| {
            self.owners()
                .any(|owner| swaps.behaviour(self.pod, id, swaps.in_force(owner, id)).fails())
        })
    }

    fn owners(&self) -> impl Iterator<Item = Owner> {
        let pod = self.pod;
        (0..self.workers).map(move |worker| Owner { pod, worker })
    }

    fn begin(&mut self, world: &World, version: Version, planned: &Planned) -> Orders {
        let &Planned { transform, compared, end, patience, .. } = planned;
        let phase = Phase::Trying;
        let (turns, unproven) = (0, false);
        let active = Active { transform, version, compared, end, phase, turns, patience, unproven };
        self.active.push(active);
        let workers = 0..self.workers;
        workers.map(|worker| (worker, self.swap(world, worker, active))).collect()
    }

    /// A swap for a worker, with some of its instances.
    fn swap(&mut self, world: &World, worker: usize, active: Active) -> Instruction {
        let Active { transform, version, compared, .. } = active;
        let partitions = {
            let state = world.lock();
            state.plan.topology.subtopologies[usize::from(transform.subtopology)].partitions
        };
        let mut processors = BTreeMap::new();
        for partition in 0..partitions {
            let task = TaskId { subtopology: transform.subtopology, partition };
            let owner = Owner { pod: self.pod, worker };
            if self.prng.coin()
                && let Ok(made) =
                    SimProcessor::new(world, owner, (task, transform.transform), version)
            {
                processors.insert(task, made);
            }
        }
        let ratios =
            Ratios { failures: Some(2.0), cpu: Some(3.0), memory: Some(3.0), output: Some(3.0) };
        let probation = compared.then_some(ratios);
        Instruction::Swap(Box::new(Swap { transform, version, processors, probation }))
    }

    /// Takes a swap under way further; it is returned unless it has ended.
    fn go_on(
        &mut self,
        world: &World,
        mut active: Active,
        has_mail: &[bool],
        orders: &mut Orders,
    ) -> Option<Active> {
        active.turns += 1;
        let standings: Vec<Standing> = {
            let state = world.lock();
            let owners = self.owners().zip(has_mail);
            owners.map(|(owner, mail)| standing(&state.swaps, owner, &active, *mail)).collect()
        };
        let all = |wanted: Standing| standings.iter().all(|found| *found == wanted);
        match active.phase {
            Phase::Trying if self.must_go(world, &active, &standings) => {
                active.phase = Phase::TakingBack;
                let order = |worker| (worker, Instruction::TakeBack(active.version));
                orders.extend((0..self.workers).map(order));
            }
            Phase::Trying if all(Standing::OnProbation) && self.has_passed(world, &active) => {
                active.phase = Phase::Keeping;
                let mut state = world.lock();
                state.note(self.pod, format_args!("keeps {active:?}"));
                state.swaps.keep(self.identity, active.transform, active.version);
            }
            Phase::Trying => {
                let is_long = active.patience.is_some_and(|turns| active.turns > turns);
                active.unproven = is_long && all(Standing::OnProbation);
            }
            Phase::Keeping => orders.extend(self.keep(world, active, &standings, has_mail)),
            Phase::TakingBack => {}
        }
        let is_over = match active.phase {
            Phase::Trying => false,
            Phase::Keeping => all(Standing::Kept),
            Phase::TakingBack => all(Standing::Back),
        };
        (!is_over).then_some(active)
    }

    fn must_go(&self, world: &World, active: &Active, standings: &[Standing]) -> bool {
        let is_over = match active.end {
            End::TakeBack { turns } => active.turns > turns,
            End::Keep { .. } => active.turns > CALM_TURNS_MAX && !world.lock().faulty,
        };
        let repairs = active.version >= REPAIRS;
        (is_over && !repairs) || standings.contains(&Standing::Back)
    }

    fn has_passed(&self, world: &World, active: &Active) -> bool {
        let End::Keep { records } = active.end else { return false };
        let mut state = world.lock();
        let of_worker =
            |owner| state.swaps.ledger(owner).probations().get(&active.version).copied();
        self.owners().filter_map(of_worker).sum::<u64>() >= records
    }

    /// Tells those that run the version that it stays, and it again to those that took it back
    /// meanwhile.
    fn keep(
        &mut self,
        world: &World,
        active: Active,
        standings: &[Standing],
        has_mail: &[bool],
    ) -> Orders {
        let mut orders = Orders::new();
        for (worker, standing) in standings.iter().enumerate().filter(|(at, _)| !has_mail[*at]) {
            match standing {
                Standing::OnProbation => {
                    if self.prng.one_in(3) {
                        orders.push((worker, Instruction::Keep(NOBODYS)));
                    }
                    orders.push((worker, Instruction::Keep(active.version)));
                }
                Standing::Back => {
                    let again = Active { compared: false, ..active };
                    orders.push((worker, self.swap(world, worker, again)));
                }
                Standing::Kept | Standing::Pending => {}
            }
        }
        orders
    }
}

fn standing(swaps: &Swaps, owner: Owner, active: &Active, has_mail: bool) -> Standing {
    let Some(ledger) = swaps.ledgers.get(&owner) else { return Standing::Pending };
    let is_on_probation = ledger.probations().contains_key(&active.version);
    if has_mail || ledger.is_asked(active.version) {
        Standing::Pending
    } else if is_on_probation {
        Standing::OnProbation
    } else if ledger.in_force(active.transform) == active.version {
        Standing::Kept
    } else {
        Standing::Back
    }
}
