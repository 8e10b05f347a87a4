//! A worker's thread.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use sidestream_core::{
    topology::Topology,
    worker::{Config, Now, Worker, WorkerError},
};
use tracing::{error, info};

use super::{board::Board, environment::Environment, notices::Teller, watch::Watcher};
use crate::kafka::KafkaPorts;

/// Tells the workers of a process to stop.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicU8>);

const RUNNING: u8 = 0;
const STOP_AND_STAY: u8 = 1;
const STOP_AND_LEAVE: u8 = 2;

impl Stop {
    /// Asks the workers to commit and stop; with `leave` to leave the group for good, else to
    /// keep the membership for a restart. The first call counts.
    pub fn request(&self, leave: bool) {
        let how = if leave { STOP_AND_LEAVE } else { STOP_AND_STAY };
        // Somebody else having asked first is as good.
        self.0.compare_exchange(RUNNING, how, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    /// Whether the workers were asked to stop.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed) != RUNNING
    }

    fn leave(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            RUNNING => None,
            how => Some(how == STOP_AND_LEAVE),
        }
    }
}

/// What a worker runs with.
pub(crate) struct Setup {
    pub(crate) worker: usize,
    pub(crate) config: Config,
    pub(crate) topology: Arc<Topology>,
    pub(crate) ports: KafkaPorts,
    pub(crate) environment: Environment,
    pub(crate) stop: Stop,
    pub(crate) board: Arc<Board>,
    /// The stack a guest may use, on top of what a thread needs itself.
    pub(crate) guest_stack_bytes: usize,
    /// How many lines of a transform are logged in a second.
    pub(crate) log_lines_per_second_max: u32,
}

/// Starts the thread of a worker. It ends when the worker has drained, or with the reason why it
/// can't go on; then it asks the others to stop.
pub(crate) fn start(setup: Setup) -> std::io::Result<JoinHandle<Result<(), String>>> {
    setup.board.workers[setup.worker].begins();
    std::thread::Builder::new()
        .name(format!("worker-{}", setup.worker))
        .stack_size((2 << 20) + setup.guest_stack_bytes)
        .spawn(move || {
            let (stop, board) = (setup.stop.clone(), Arc::clone(&setup.board));
            let _at_exit = AtExit { stop, board, worker: setup.worker };
            run(setup)
        })
}

/// What comes when a worker's thread ends, also by a panic.
struct AtExit {
    stop: Stop,
    board: Arc<Board>,
    worker: usize,
}

impl Drop for AtExit {
    fn drop(&mut self) {
        self.board.workers[self.worker].ends();
        self.stop.request(false);
    }
}

fn run(setup: Setup) -> Result<(), String> {
    let lines_max = setup.log_lines_per_second_max;
    let Setup { worker: number, config, topology, ports, environment, stop, board, .. } = setup;
    let mut teller = Teller::new(number, Arc::clone(&board), Arc::clone(&topology), lines_max);
    let mut watcher = Watcher::new(number, board, Arc::clone(&topology));
    let start = Instant::now();
    let clock = Box::new(move || now(start));
    let mut worker = Worker::new(config, topology, ports.into(), environment, clock);
    loop {
        if let Some(leave) = stop.leave() {
            worker.drain(leave);
        }
        let paused =
            watcher.instruct(&mut worker).map_err(|reason| cannot_go_on(number, &reason))?;
        let report = worker.run_once().map_err(|reason| cannot_go_on(number, &reason))?;
        let elapsed = start.elapsed();
        watcher.turned(&worker, &report.notices, paused, elapsed);
        report.notices.into_iter().for_each(|notice| teller.tell(notice, elapsed));
        if report.done {
            info!(worker = number, "drained");
            return Ok(());
        }
    }
}

fn cannot_go_on(worker: usize, reason: &WorkerError) -> String {
    error!(worker, %reason, "a worker can't go on");
    reason.to_string()
}

fn now(start: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Now { monotonic: start.elapsed(), wall: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX) }
}
