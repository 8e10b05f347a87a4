//! All workers of a run. One runs at a time, but others can be let run in the middle of a call of
//! its log, as if its thread or its process had been held up there.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    sync::Arc,
};

use sidestream_core::worker::{Notice, PassedOver, Report, TaskState, Worker};

use crate::{
    check,
    environment::SimEnvironment,
    log::{FENCED, SimLog},
    world::{Interrupt, State, World},
};

type SimWorker = Worker<SimLog, SimEnvironment>;

/// How deep workers are held up within one another.
const DEPTH_MAX: u32 = 2;

struct Slot {
    pod: usize,
    /// `None` while it runs, and after its end.
    worker: Option<Box<SimWorker>>,
    done: bool,
    /// How many turns it took since it was paused, if it is.
    paused: Option<u64>,
}

/// The workers.
#[derive(Default)]
pub(crate) struct Crew {
    slots: RefCell<Vec<Slot>>,
    depth: Cell<u32>,
}

impl Crew {
    /// Starts the workers of a process.
    pub(crate) fn start(self: &Rc<Self>, world: &World, pod: usize) {
        let plan = Arc::clone(&world.lock().plan);
        for worker in 0..plan.workers {
            let log = SimLog::new(world, self, pod, worker);
            let environment = SimEnvironment { world: world.clone(), pod };
            let topology = Arc::clone(&plan.topology);
            let worker = Worker::new(plan.config.clone(), topology, log, environment);
            let slot = Slot { pod, worker: Some(Box::new(worker)), done: false, paused: None };
            self.slots.borrow_mut().push(slot);
        }
    }

    /// The places of workers that can run: not dead, not running, not standing still.
    fn ready(&self, state: &State) -> Vec<usize> {
        let slots = self.slots.borrow();
        let ready = |slot: &Slot| {
            let pod = &state.pods[slot.pod];
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
        let (pod, worker, rests) = {
            let slot = &mut self.slots.borrow_mut()[place];
            let turns = slot.paused.as_mut().map_or(0, |turns| {
                *turns += 1;
                *turns
            });
            // What was processed before the pause is committed in the first turn after it.
            (slot.pod, slot.worker.take(), turns > 1)
        };
        let Some(mut worker) = worker else { return };
        let now = world.lock().clocks(pod);
        let depth = self.depth.get();
        let result = catch_unwind(AssertUnwindSafe(|| worker.run_once(now)));
        self.depth.set(depth);
        match result {
            Ok(Ok(report)) => {
                let done = report.done;
                observe(&mut world.lock(), pod, &report, rests);
                let alive = world.lock().pods[pod].alive;
                let slot = &mut self.slots.borrow_mut()[place];
                slot.worker = alive.then_some(worker);
                slot.done = done;
            }
            Ok(Err(error)) => {
                let mut state = world.lock();
                state.note(pod, format_args!("fails: {error}"));
                // A process that was replaced may have taken the identity back before its end.
                let fenced = error.to_string().contains(FENCED);
                if !state.faulty && !fenced {
                    state.violate(format_args!("p{pod} fails without a fault: {error}"));
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
    }

    /// Drops the workers of processes that died.
    pub(crate) fn bury(&self, state: &State) {
        for slot in self.slots.borrow_mut().iter_mut() {
            if !state.pods[slot.pod].alive {
                slot.worker = None;
            }
        }
    }

    /// Lets the workers of a process rest, or go on.
    pub(crate) fn pause(&self, pod: usize, pause: bool) {
        for slot in self.slots.borrow_mut().iter_mut().filter(|slot| slot.pod == pod) {
            let Some(worker) = &mut slot.worker else { continue };
            if pause {
                worker.pause();
            } else {
                worker.resume();
            }
            slot.paused = pause.then_some(0);
        }
    }

    /// Asks the workers of a process to stop.
    pub(crate) fn drain(&self, pod: usize, leave: bool) {
        for slot in self.slots.borrow_mut().iter_mut().filter(|slot| slot.pod == pod) {
            if let Some(worker) = &mut slot.worker {
                worker.drain(leave);
            }
        }
    }

    /// Whether all workers of a process have stopped.
    pub(crate) fn is_done(&self, pod: usize) -> bool {
        self.slots.borrow().iter().filter(|slot| slot.pod == pod).all(|slot| slot.done)
    }
}

/// Checks what a worker says of itself; one that `rests` may process nothing.
fn observe(state: &mut State, pod: usize, report: &Report, rests: bool) {
    for notice in &report.notices {
        match notice {
            Notice::Committed(commit) => {
                state.note(pod, format_args!("committed {:?}", commit.offsets));
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
                for (_, _, telemetry) in &commit.telemetry {
                    for line in &telemetry.lines {
                        if !state.lines.insert(line.message.clone()) {
                            let message = &line.message;
                            state.violate(format_args!("published twice: {message}"));
                        }
                    }
                }
            }
            Notice::Task { task, state: TaskState::Failed(reason) } => {
                state.note(pod, format_args!("{task} failed: {reason}"));
                if !state.is_poisoned(*task) && !state.has_lost(*task) {
                    state.violate(format_args!("{task} failed without cause: {reason}"));
                }
            }
            Notice::Task { task, state: TaskState::Running } => {
                state.note(pod, format_args!("{task} runs"));
                if !state.has_lost(*task)
                    && let Err(text) = check::task(state, pod, *task)
                {
                    state.violate(format_args!("{text}"));
                }
            }
            other => state.note(pod, format_args!("{other:?}")),
        }
    }
}
