//! One run: faults for a while, then none, then everything must be as if there had been none.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use crate::{
    check,
    cluster::Delayed,
    crew::Crew,
    disk::Disk,
    odd::odd_skew,
    plan::{Arrival, Plan},
    prng::Prng,
    world::{POINTS, Pod, State, World},
};

/// What a run did; equal for equal seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Stands for everything that happened.
    pub hash: u64,
    /// How many lines of trace that was.
    pub lines: u64,
    /// How often a process was killed.
    pub kills: u64,
    /// How often a worker took another version of a transform's code over.
    pub taken_over: u64,
    /// How often a worker took one back.
    pub taken_back: u64,
    /// How often a process kept one.
    pub kept: u64,
    /// How many milliseconds went by in it.
    pub milliseconds: u64,
}

/// A run that broke a rule.
#[derive(Clone, Debug, thiserror::Error)]
#[error("seed {seed}: {violation}")]
pub struct Violation {
    /// The seed.
    pub seed: u64,
    /// The rule that was broken.
    pub violation: String,
    /// The last lines of the trace.
    pub tail: Vec<String>,
}

/// How many turns a worker has, without faults, to finish everything: all may be in one partition.
const FINISH_TURNS_MAX: u64 = 3_000;

/// How many turns a worker has to stop.
const DRAIN_TURNS_MAX: u64 = 2_000;

/// A run under way.
pub(crate) struct Run {
    pub(crate) world: World,
    pub(crate) crew: Rc<Crew>,
    /// The process of each identity, and the disk it has.
    pub(crate) current: Vec<Option<usize>>,
    pub(crate) disks: Vec<usize>,
    /// A copy of a disk from some time ago.
    pub(crate) snapshot: Option<Disk>,
    arrivals: std::vec::IntoIter<Arrival>,
    external: u64,
}

/// Runs `seed`.
///
/// # Errors
///
/// The first rule that was broken.
pub fn run(seed: u64) -> Result<Outcome, Box<Violation>> {
    let mut prng = Prng::new(seed);
    let plan = Plan::new(seed, &mut prng);
    let world = World::new(plan, prng);
    let result = catch_unwind(AssertUnwindSafe(|| Run::new(&world).go()));
    let mut state = world.lock();
    if let (Err(payload), None) = (&result, &state.violation) {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.unwrap_or_else(|| "the simulator panicked".to_owned());
        state.violate(format_args!("{text}"));
    }
    match &state.violation {
        Some(violation) => Err(Box::new(Violation {
            seed,
            violation: violation.clone(),
            tail: state.trace.tail(),
        })),
        None => Ok(Outcome {
            hash: state.trace.hash(),
            lines: state.trace.lines(),
            kills: state.kills,
            taken_over: state.swaps.taken_over,
            taken_back: state.swaps.taken_back,
            kept: state.swaps.kept_ever,
            milliseconds: state.now,
        }),
    }
}

impl Run {
    fn new(world: &World) -> Self {
        let mut state = world.lock();
        let plan = state.plan.clone();
        state.disks = vec![Disk::default(); plan.identities];
        let text = format!("{plan:?}");
        state.trace.line(0, format_args!("{text}"));
        drop(state);
        Self {
            world: world.clone(),
            crew: Rc::new(Crew::default()),
            current: vec![None; plan.identities],
            disks: (0..plan.identities).collect(),
            snapshot: None,
            arrivals: plan.arrivals.clone().into_iter(),
            external: 0,
        }
    }

    fn go(&mut self) {
        let steps = self.world.lock().plan.steps;
        let identities = self.current.len();
        let share = steps.div_ceil(self.arrivals.len().max(1) as u64 + 1).max(1);
        for step in 0..steps {
            if step % share == 0 {
                self.arrive();
            }
            self.change(step);
            self.skip(step);
            for identity in 0..identities {
                self.trouble(identity, step);
            }
            self.crew.turn_some(&self.world);
            if self.world.lock().violation.is_some() {
                return;
            }
        }
        let loss = self.world.lock().plan.loss;
        if let Some(loss) = loss {
            self.calm_down();
            self.lose(loss);
            return;
        }
        self.finish();
        if self.world.lock().violation.is_none() {
            check::everything(&mut self.world.lock());
        }
    }

    /// The next records come into an input.
    fn arrive(&mut self) -> bool {
        let Some(Arrival { partition, records, transaction }) = self.arrivals.next() else {
            return false;
        };
        let mut state = self.world.lock();
        let now = state.now;
        let Some(commit) = transaction else {
            let log = state.cluster.partition_mut(partition);
            records.into_iter().for_each(|record| log.append(0, record));
            return true;
        };
        self.external += 1;
        let id = format!("external-{}", self.external);
        let epoch = state.cluster.init_producer(&id).expect("a new id");
        for record in records {
            state.cluster.produce(&id, epoch, partition, record).expect("it is its first");
        }
        let due = now + state.prng.below(200);
        state.cluster.coordinator.delay(Delayed { due, id, epoch, commit });
        true
    }

    /// What may happen to a process between two turns.
    fn trouble(&mut self, identity: usize, step: u64) {
        let Some(pod) = self.current[identity] else {
            self.start(identity);
            return;
        };
        let mut state = self.world.lock();
        let faults = state.faults().clone();
        if !state.pods[pod].alive {
            if state.prng.one_in(faults.leap) {
                state.leap(pod, "is down");
            }
            // Where time leaps, a process is away for long: others take over meanwhile.
            let back = if faults.leap > 0 { 20 } else { 8 };
            if state.prng.one_in(back) {
                drop(state);
                self.start(identity);
            }
            return;
        }
        if state.pods[pod].stopped {
            let wakes = state.prng.one_in(15);
            state.pods[pod].stopped = !wakes;
            state.disturb(pod);
            return;
        }
        if state.prng.one_in(faults.stop) {
            state.note(pod, format_args!("is stopped"));
            state.pods[pod].stopped = true;
        }
        if faults.clocks && state.prng.one_in(40) {
            let skew = i64::try_from(state.prng.below(1_000)).expect("small") - 500;
            state.jump(pod, skew);
        }
        if faults.years && state.prng.one_in(30) {
            let skew = odd_skew(&mut state.prng, faults.compact > 0);
            state.jump(pod, skew);
        }
        if state.prng.one_in(60) {
            self.snapshot = Some(state.disks[state.pods[pod].disk].clone());
        }
        if state.prng.one_in(faults.restart) {
            let choices = if state.plan.config.exactly_once { 4 } else { 2 };
            let choice = state.prng.below(choices);
            drop(state);
            self.restart(identity, pod, choice);
            return;
        }
        let pauses = state.plan.pauses.clone();
        let tasks = state.plan.tasks();
        drop(state);
        if let Some((_, pause)) = pauses.iter().find(|(at, _)| *at == step) {
            self.crew.pause(pod, *pause, &tasks);
        }
        self.crew.swap(&self.world, pod, step);
        if self.crew.is_done(pod) {
            self.end(identity, pod);
        }
    }

    /// A process is asked to stop, or another one comes with its identity and another disk.
    fn restart(&mut self, identity: usize, pod: usize, choice: u64) {
        match choice {
            0 | 1 => {
                self.world.lock().note(pod, format_args!("is asked to stop, leave: {choice}"));
                self.crew.drain(pod, choice == 1);
            }
            _ => {
                let mut state = self.world.lock();
                state.note(pod, format_args!("is replaced"));
                state.pods[pod].stopped = choice == 2;
                let disk = self.snapshot.take().unwrap_or_default();
                self.disks[identity] = state.disks.len();
                state.disks.push(disk);
                drop(state);
                self.start(identity);
            }
        }
    }

    /// A process ended by itself.
    pub(crate) fn end(&mut self, identity: usize, pod: usize) {
        let mut state = self.world.lock();
        state.note(pod, format_args!("has stopped"));
        let open = std::mem::take(&mut state.pods[pod].open);
        if !open.is_empty() {
            state.violate(format_args!("p{pod} stopped with {open:?} open"));
        }
        state.pods[pod].alive = false;
        self.crew.bury(&state);
        self.current[identity] = None;
    }

    /// Starts a process on the disk of its identity.
    pub(crate) fn start(&mut self, identity: usize) {
        let mut state = self.world.lock();
        let pod = state.pods.len();
        let kill = kill_plan(&mut state);
        let skew = match state.plan.faults.clocks {
            true => i64::try_from(state.prng.below(1_000)).expect("small") - 500,
            false => 0,
        };
        state.pods.push(Pod {
            identity,
            disk: self.disks[identity],
            alive: true,
            stopped: false,
            kill,
            skew,
            open: std::collections::BTreeSet::new(),
            asked: std::collections::BTreeMap::new(),
        });
        let disk = self.disks[identity];
        state.note(pod, format_args!("starts on disk {disk}, to be killed at {kill:?}"));
        drop(state);
        self.current[identity] = Some(pod);
        self.crew.start(&self.world, pod);
    }

    /// No more faults: everything is processed, then everybody stops.
    fn finish(&mut self) {
        self.calm_down();
        while self.arrive() {}
        let workers = self.current.len() * self.world.lock().plan.workers;
        for _ in 0..FINISH_TURNS_MAX * workers.max(2) as u64 {
            if self.is_finished() {
                self.drain_all();
                return;
            }
            self.keep_up();
            self.crew.turn_some(&self.world);
            if self.world.lock().violation.is_some() {
                return;
            }
        }
        let mut state = self.world.lock();
        let text = match check::is_finished(&state) {
            true => self.crew.unsettled(&state).unwrap_or_default(),
            false => check::unfinished(&state),
        };
        state.violate(format_args!("no progress without faults: {text}"));
    }

    /// Processes that died or have ended come again.
    pub(crate) fn keep_up(&mut self) {
        for identity in 0..self.current.len() {
            let alive = |pod: &usize| self.world.lock().pods[*pod].alive;
            match self.current[identity].filter(alive) {
                None => self.start(identity),
                Some(pod) if self.crew.is_done(pod) => self.end(identity, pod),
                Some(_) => {}
            }
        }
    }

    fn is_finished(&self) -> bool {
        let state = self.world.lock();
        self.crew.unsettled(&state).is_none() && check::is_finished(&state)
    }

    fn calm_down(&mut self) {
        let mut state = self.world.lock();
        let now = state.now;
        state.trace.line(now, format_args!("no more faults"));
        state.faulty = false;
        for pod in 0..state.pods.len() {
            self.crew.pause(pod, false, &[]);
            state.pods[pod].stopped = false;
            let identity = state.pods[pod].identity;
            if self.current[identity] != Some(pod) {
                state.kill(pod); // One that was replaced.
            }
        }
        for current in &mut self.current {
            *current = current.filter(|&pod| state.pods[pod].alive);
        }
        self.crew.bury(&state);
        self.crew.calm_down();
    }

    fn drain_all(&mut self) {
        let pods: Vec<usize> = self.current.iter().copied().flatten().collect();
        for &pod in &pods {
            self.crew.drain(pod, true);
        }
        for _ in 0..DRAIN_TURNS_MAX {
            self.crew.turn_some(&self.world);
            if self.world.lock().violation.is_some() {
                return;
            }
            // One may die yet: of another process of its identity, which was there before.
            let world = self.world.clone();
            let dies = |pod: usize| !world.lock().pods[pod].alive;
            if pods.iter().all(|&pod| self.crew.is_done(pod) || dies(pod)) {
                for identity in 0..self.current.len() {
                    if let Some(pod) = self.current[identity].filter(|&pod| !dies(pod)) {
                        self.end(identity, pod);
                    }
                }
                self.settle();
                return;
            }
        }
        self.world.lock().violate(format_args!("a process does not stop"));
    }

    /// The last markers are written.
    pub(crate) fn settle(&self) {
        let mut state = self.world.lock();
        for _ in 0..10_000 {
            if !state.cluster.coordinator.is_busy() {
                return;
            }
            state.pass(5);
        }
        state.violate(format_args!("a transaction stays open"));
    }
}

/// Where a new process is to be killed: anywhere, or at some visit of a certain point, for some
/// points are rare.
fn kill_plan(state: &mut State) -> Option<(Option<&'static str>, u64)> {
    let rate = state.faults().crashes_in_ten;
    if state.prng.below(10) >= rate {
        return None;
    }
    Some(match state.prng.one_in(3) {
        true => (None, state.prng.between(1, 400)),
        false => (Some(POINTS[state.prng.index(POINTS.len())]), state.prng.between(1, 6)),
    })
}
