//! All workers of a run. One runs at a time, but others can be let run in the middle of a call of
//! its log, as if its thread or its process had been held up there.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    sync::Arc,
};

use sidestream_core::{
    record::TaskId,
    task::PassedOver,
    worker::{Notice, Report, TaskState, Worker, WorkerError},
};

use crate::{
    check,
    disk::NO_SPACE,
    environment::SimEnvironment,
    log::{FENCED, SimLog},
    swap::{Director, Instruction, Owner},
    world::{Interrupt, State, World},
};

type SimWorker = Worker<SimEnvironment>;

/// How deep workers are held up within one another.
const DEPTH_MAX: u32 = 2;

struct Slot {
    owner: Owner,
    /// `None` while it runs, and after its end.
    worker: Option<Box<SimWorker>>,
    done: bool,
    /// How many turns it took since it was paused, if it is.
    paused: Option<u64>,
    /// What it is told before its next turn.
    mail: VecDeque<Instruction>,
}

/// The workers.
#[derive(Default)]
pub(crate) struct Crew {
    slots: RefCell<Vec<Slot>>,
    /// By process; none in a run without swaps.
    directors: RefCell<BTreeMap<usize, Director>>,
    depth: Cell<u32>,
}

impl Crew {
    /// Starts the workers of a process.
    pub(crate) fn start(self: &Rc<Self>, world: &World, pod: usize) {
        let plan = Arc::clone(&world.lock().plan);
        if !plan.swaps.is_empty() {
            let mut state = world.lock();
            let identity = state.pods[pod].identity;
            state.swaps.begin(pod, identity);
            let director = Director::new(plan.seed, pod, identity, plan.workers);
            self.directors.borrow_mut().insert(pod, director);
        }
        for worker in 0..plan.workers {
            let ports = SimLog::ports(world, self, pod, worker);
            let owner = Owner { pod, worker };
            let environment = SimEnvironment { world: world.clone(), owner };
            let topology = Arc::clone(&plan.topology);
            let clock = world.clone();
            let clock = Box::new(move || clock.lock().clocks(pod));
            let worker = Worker::new(plan.config.clone(), topology, ports, environment, clock);
            let (worker, mail) = (Some(Box::new(worker)), VecDeque::new());
            let slot = Slot { owner, worker, done: false, paused: None, mail };
            self.slots.borrow_mut().push(slot);
        }
    }

    /// The places of workers that can run: not dead, not running, not standing still.
    fn ready(&self, state: &State) -> Vec<usize> {
        let slots = self.slots.borrow();
        let ready = |slot: &Slot| {
            let pod = &state.pods[slot.owner.pod];
            slot.worker.is_some() && !slot.done && pod.alive && !pod.stopped
        };
        (0..slots.len()).filter(|&place| ready(&slots[place])).collect()
    }

    /// Lets some workers run while the caller's stands still.
    pub(crate) fn run_others(&self, world: &World, turns: u64) {
        if self.depth.get() >= DEPTH_MAX {
            return;
        }
        self.depth.set(self.depth.get() + 1);
        for _ in 0..turns {
            self.turn_some(world);
            if world.lock().violation.is_some() {
                break;
            }
        }
        self.depth.set(self.depth.get() - 1);
    }

    /// Whether a worker stands still in a call.
    pub(crate) fn is_held_up(&self) -> bool {
        self.depth.get() > 0
    }

    /// Lets one worker run once. Returns whether there was one.
    pub(crate) fn turn_some(&self, world: &World) -> bool {
        let mut state = world.lock();
        let ready = self.ready(&state);
        if ready.is_empty() {
            state.pass(5);
            return false;
        }
        let place = ready[state.prng.index(ready.len())];
        drop(state);
        self.turn(world, place);
        true
    }

    fn turn(&self, world: &World, place: usize) {
        let (owner, worker, mail, rests) = {
            let slot = &mut self.slots.borrow_mut()[place];
            let turns = slot.paused.as_mut().map_or(0, |turns| {
                *turns += 1;
                *turns
            });
            // What was processed before the pause is committed in the first turn after it.
            (slot.owner, slot.worker.take(), std::mem::take(&mut slot.mail), turns > 1)
        };
        let Some(mut worker) = worker else { return };
        let pod = owner.pod;
        let depth = self.depth.get();
        let result = catch_unwind(AssertUnwindSafe(|| take_turn(world, owner, &mut worker, mail)));
        self.depth.set(depth);
        match result {
            Ok(Ok(report)) => {
                let done = report.done;
                observe(&mut world.lock(), owner, &report, rests);
                world.lock().told_of_skips(owner, &report.notices);
                world.lock().turned(owner, &report.notices, rests);
                self.hold_to_ledger(world, owner, &worker, &report);
                let alive = world.lock().pods[pod].alive;
                let slot = &mut self.slots.borrow_mut()[place];
                slot.worker = alive.then_some(worker);
                slot.done = done;
            }
            Ok(Err(error)) => {
                let mut state = world.lock();
                state.note(pod, format_args!("fails: {error}"));
                // A process that was replaced may have taken the identity back before its end.
                let text = error.to_string();
                let is_right = text.contains(FENCED) || state.may_end(&text);
                if !state.faulty && !is_right {
                    state.violate(format_args!("p{pod} fails without a fault: {error}"));
                }
                if text.contains(NO_SPACE) {
                    state.violate(format_args!("p{pod} fails for a task's store: {error}"));
                }
                state.kill(pod);
            }
            Err(payload) => match payload.downcast_ref::<Interrupt>() {
                Some(Interrupt::Killed) => {}
                Some(Interrupt::Violated) => resume_unwind(payload),
                None => {
                    let text = payload
                        .downcast_ref::<String>()
                        .map(String::as_str)
                        .or_else(|| payload.downcast_ref::<&str>().copied())
                        .unwrap_or("unknown");
                    world.lock().violate(format_args!("p{pod} panicked: {text}"));
                }
            },
        }
        self.bury(&world.lock());
        self.direct(world, pod);
    }

    /// Holds what a worker says of versions against what it must do.
    fn hold_to_ledger(&self, world: &World, owner: Owner, worker: &SimWorker, report: &Report) {
        let mut state = world.lock();
        if state.swaps.is_empty() {
            return;
        }
        let probations = worker.probations().into_iter();
        let probations = probations.map(|of| (of.version, of.records)).collect();
        let mut directors = self.directors.borrow_mut();
        let stops = directors.get(&owner.pod).is_none_or(|director| director.stops);
        let now = state.now;
        if !worker.is_assigned() {
            state.swaps.ledger(owner).waits(now);
        }
        if let Err(text) = state.swaps.ledger(owner).reported(&probations, (now, stops)) {
            state.violate(format_args!("{owner:?}: {text}"));
        }
        if report.notices.iter().any(|notice| matches!(notice, Notice::Dropped { .. }))
            && let Some(director) = directors.get_mut(&owner.pod)
        {
            director.dropped();
        }
    }

    /// Lets the director of a process tell its workers what is to be done now.
    fn direct(&self, world: &World, pod: usize) {
        let mut directors = self.directors.borrow_mut();
        let Some(director) = directors.get_mut(&pod) else { return };
        let mut slots = self.slots.borrow_mut();
        let mut own: Vec<&mut Slot> =
            slots.iter_mut().filter(|slot| slot.owner.pod == pod).collect();
        let has_mail: Vec<bool> = own.iter().map(|slot| !slot.mail.is_empty()).collect();
        for (worker, instruction) in director.step(world, &has_mail) {
            own[worker].mail.push_back(instruction);
        }
    }

    /// A process is told of the swaps of a step.
    pub(crate) fn swap(&self, world: &World, pod: usize, step: u64) {
        if let Some(director) = self.directors.borrow_mut().get_mut(&pod) {
            director.arrive(&world.lock().swaps, step);
        }
    }

    /// There are no faults any more.
    pub(crate) fn calm_down(&self) {
        self.directors.borrow_mut().values_mut().for_each(Director::calm_down);
    }

    /// Which swap is not at its end.
    pub(crate) fn unsettled(&self, state: &State) -> Option<String> {
        self.directors.borrow().values().find_map(|director| director.unsettled(&state.swaps))
    }

    /// Drops the workers of processes that died.
    pub(crate) fn bury(&self, state: &State) {
        for slot in self.slots.borrow_mut().iter_mut() {
            if !state.pods[slot.owner.pod].alive {
                slot.worker = None;
                slot.mail.clear();
            }
        }
        self.directors.borrow_mut().retain(|pod, _| state.pods[*pod].alive);
    }

    /// Lets the workers of a process rest, or go on, and try again what was stopped of `tasks`.
    pub(crate) fn pause(&self, pod: usize, pause: bool, tasks: &[TaskId]) {
        for slot in self.slots.borrow_mut().iter_mut().filter(|slot| slot.owner.pod == pod) {
            let Some(worker) = &mut slot.worker else { continue };
            if pause {
                worker.pause();
            } else {
                worker.resume();
                worker.retry(tasks);
            }
            slot.paused = pause.then_some(0);
        }
    }

    /// Asks the workers of a process to stop.
    pub(crate) fn drain(&self, pod: usize, leave: bool) {
        for slot in self.slots.borrow_mut().iter_mut().filter(|slot| slot.owner.pod == pod) {
            if let Some(worker) = &mut slot.worker {
                worker.drain(leave);
            }
        }
        if let Some(director) = self.directors.borrow_mut().get_mut(&pod) {
            director.stops = true;
        }
    }

    /// Whether all workers of a process have stopped.
    pub(crate) fn is_done(&self, pod: usize) -> bool {
        self.slots.borrow().iter().filter(|slot| slot.owner.pod == pod).all(|slot| slot.done)
    }
}

/// A worker is told what it has to know, and takes a turn.
fn take_turn(
    world: &World,
    owner: Owner,
    worker: &mut SimWorker,
    mail: VecDeque<Instruction>,
) -> Result<Report, WorkerError> {
    for instruction in mail {
        let mut state = world.lock();
        let now = state.now;
        let is_on_probation = state.swaps.ledger(owner).instructed(&instruction, now);
        state.note(owner.pod, format_args!("worker {} is told {instruction:?}", owner.worker));
        drop(state);
        match instruction {
            Instruction::Swap(swap) => worker.swap(*swap),
            Instruction::Keep(version) => {
                if worker.keep(version) != is_on_probation {
                    world.violate(format_args!("{owner:?} keeps {version}, or not"));
                }
            }
            Instruction::TakeBack(version) => worker.revert(version, "an operator does")?,
        }
    }
    worker.run_once()
}

/// What is told of a stopped task holds until it is closed, or tried anew.
fn note_told(state: &mut State, of: (Owner, TaskId), told: &TaskState) -> Result<(), String> {
    let before = state.told.insert(of, told.clone());
    match (before, told) {
        (Some(TaskState::Failed(_)), TaskState::Suspended) => {
            Err(format!("{} is stopped, and is told to be suspended", of.1))
        }
        _ => Ok(()),
    }
}

/// Checks what a worker says of itself; one that `rests` may process nothing.
fn observe(state: &mut State, owner: Owner, report: &Report, rests: bool) {
    let pod = owner.pod;
    for notice in &report.notices {
        if !state.swaps.is_empty() {
            let has_lost = matches!(notice, Notice::Task { task, .. } if state.has_lost(*task));
            if let Err(text) = state.swaps.told(owner, notice, has_lost) {
                state.violate(format_args!("{owner:?}: {text}"));
            }
        }
        if let Notice::Task { task, state: told } = notice
            && let Err(text) = note_told(state, (owner, *task), told)
        {
            state.violate(format_args!("{owner:?}: {text}"));
        }
        match notice {
            Notice::Committed(commit) => {
                state.note(pod, format_args!("committed {:?}", commit.offsets));
                if let Some((task, ..)) = commit.offsets.iter().find(|(task, ..)| {
                    matches!(state.told.get(&(owner, *task)), Some(TaskState::Failed(_)))
                }) {
                    state.violate(format_args!("{task} goes on although it is stopped"));
                }
                if rests && commit.records > 0 {
                    state.violate(format_args!("p{pod} processed records while it was paused"));
                }
                for (task, _, _) in &commit.offsets {
                    state.strikes.remove(task);
                }
                for PassedOver { task, transform, kind, count, .. } in &commit.passed_over {
                    let told = (*task, *transform, kind.name());
                    *state.passed_over.entry(told).or_default() += count;
                }
                for (task, _, telemetry) in &commit.telemetry {
                    for line in &telemetry.lines {
                        let is_new = state.lines.insert(line.message.clone());
                        if !is_new && !state.has_lost(*task) {
                            let message = &line.message;
                            state.violate(format_args!("published twice: {message}"));
                        }
                    }
                }
            }
            Notice::Task { task, state: TaskState::Failed(reason) } => {
                let now = state.now;
                state.time_sheet(owner).runs(*task, now, false);
                state.note(pod, format_args!("{task} failed: {reason}"));
                let may_stop = state.swaps.may_stop(owner, *task);
                if !may_stop && !state.is_poisoned(*task) && !state.has_lost(*task) {
                    state.violate(format_args!("{task} failed without cause: {reason}"));
                }
            }
            Notice::Task { task, state: TaskState::Running } => {
                let (now, disk) = (state.now, state.pods[pod].disk);
                state.last_disk.insert(*task, disk); // Another one may have opened it in vain.
                state.time_sheet(owner).runs(*task, now, true);
                state.note(pod, format_args!("{task} runs"));
                if !state.has_lost(*task)
                    && let Err(text) = check::task(state, pod, *task)
                {
                    state.violate(format_args!("{text}"));
                }
            }
            other => {
                if let Notice::Task { task, .. } = other {
                    let now = state.now;
                    state.time_sheet(owner).runs(*task, now, false);
                }
                state.note(pod, format_args!("{other:?}"));
            }
        }
    }
}
