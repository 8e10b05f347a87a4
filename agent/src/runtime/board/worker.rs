//! What one worker does, and what it is told.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sidestream_core::{
    record::{Offset, TaskId, Timestamp},
    topology::{Topology, Version},
    worker::{Probation, Swap, TaskPosition, TaskState},
};

use super::TOLD_TURN_TIME;
use crate::{
    doing::Doing, lock::Held, modules::measured::Measured, telemetry::metrics::WorkerMetrics,
};

/// How many transactions in a row may be dropped before the worker does not count as ready.
pub(super) const DROPPED_MAX: u32 = 3;
/// For how long after the last one; a worker that still fails tries once a minute.
const DROPPED_TIME: Duration = Duration::from_secs(120);
/// How long it may wait for something before it does not count as ready.
pub(super) const WAITING_TIME_MAX: Duration = Duration::from_secs(10);
/// For how long what it last said to wait for counts: calls end within this time, and say it again.
const WAITING_TOLD_TIME: Duration = Duration::from_secs(15);

/// What one worker does.
pub(crate) struct WorkerBoard {
    pub(crate) metrics: Arc<WorkerMetrics>,
    /// What its thread is in.
    pub(crate) doing: Arc<Doing>,
    /// Its thread runs: its loop has to turn.
    runs: AtomicBool,
    /// It was told that its loop does not turn.
    pub(super) stands: AtomicBool,
    /// It was told to pause and has committed everything.
    pub(crate) rests: AtomicBool,
    /// How many turns were seen, and when there were more than before.
    pub(super) seen: Mutex<(u64, Instant)>,
    view: Mutex<View>,
    /// There is something in `mail`.
    has_mail: AtomicBool,
    mail: Mutex<Vec<Instruction>>,
}

/// What is known of a worker.
#[derive(Default)]
pub(crate) struct View {
    /// It has had an assignment of the group.
    pub(crate) joined: bool,
    pub(crate) waiting: Option<Waiting>,
    /// Transactions that were dropped since the last commit.
    pub(crate) dropped: Option<Dropped>,
    pub(crate) tasks: BTreeMap<TaskId, TaskView>,
    /// What came of each version that it was told to swap in, until that is decided everywhere.
    pub(crate) swapped: BTreeMap<Version, SwapState>,
    /// How many records each of those has processed and committed on probation.
    pub(crate) on_probation: BTreeMap<Version, u64>,
}

/// Something that can't be done for now, and is tried again.
pub(crate) struct Waiting {
    /// What it is.
    pub(crate) reason: String,
    pub(super) since: Instant,
    last: Instant,
}

/// Transactions that were dropped in a row.
pub(crate) struct Dropped {
    count: u32,
    /// When the last one was.
    last: Instant,
    /// Why it was.
    reason: String,
}

/// How far a worker is with a swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SwapState {
    /// The version runs, on probation.
    TakenOver,
    /// The version before it runs again, for this reason.
    TakenBack(String),
    /// The version runs for good.
    Kept,
}

/// What a worker is told before a turn.
pub(crate) enum Instruction {
    /// Let another version take over.
    Swap(Box<Swap<Measured>>),
    /// A version has passed its probation.
    Keep(Version),
    /// Bring the version before it back.
    TakeBack {
        /// Which is not to run any more.
        version: Version,
        /// Why.
        reason: String,
    },
    /// Try tasks again that were stopped.
    Retry(Vec<TaskId>),
}

/// What is known of a task.
pub(crate) struct TaskView {
    pub(crate) state: TaskState,
    /// What its last failure was.
    pub(crate) failure: String,
    pub(crate) restore_remaining: u64,
    /// Empty until it runs.
    pub(crate) offsets: Vec<Offset>,
    pub(crate) stream_time: Option<Timestamp>,
    /// How often it was stopped.
    pub(crate) stops: u64,
}

impl WorkerBoard {
    pub(super) fn new(metrics: &Arc<WorkerMetrics>) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            doing: Arc::default(),
            runs: AtomicBool::new(false),
            stands: AtomicBool::new(false),
            rests: AtomicBool::new(false),
            seen: Mutex::new((0, Instant::now())),
            view: Mutex::default(),
            has_mail: AtomicBool::new(false),
            mail: Mutex::default(),
        }
    }

    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.held()
    }

    /// Tells it something before one of its next turns.
    pub(crate) fn post(&self, instruction: Instruction) {
        self.mail.held().push(instruction);
        self.has_mail.store(true, Ordering::Release);
    }

    /// Whether it has not read yet what it was told.
    pub(crate) fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    /// What it was told since this was asked last.
    pub(crate) fn take_mail(&self) -> Vec<Instruction> {
        if !self.has_mail() {
            return Vec::new();
        }
        let mut mail = self.mail.held();
        self.has_mail.store(false, Ordering::Release);
        std::mem::take(&mut *mail)
    }

    /// How far it is with the swap to a version; `None` before it begins.
    pub(crate) fn swap_state(&self, version: Version) -> Option<SwapState> {
        self.view().swapped.get(&version).cloned()
    }

    /// Takes in how far it is with a swap.
    pub(crate) fn set_swap_state(&self, version: Version, state: SwapState) {
        self.view().swapped.insert(version, state);
    }

    /// Takes in how far versions are that are on probation.
    pub(crate) fn set_probations(&self, probations: &[Probation]) {
        if !probations.is_empty() {
            let of = probations.iter().map(|of| (of.version, of.records));
            self.view().on_probation.extend(of);
        }
    }

    /// It is decided what becomes of a version.
    pub(crate) fn forget_swap(&self, version: Version) {
        let mut view = self.view();
        view.swapped.remove(&version);
        view.on_probation.remove(&version);
    }

    /// How long ago its loop was last seen to turn.
    pub(crate) fn turned_ago(&self) -> Duration {
        let turns = self.metrics.turns.load(Ordering::Relaxed);
        let mut seen = self.seen.held();
        if seen.0 != turns {
            *seen = (turns, Instant::now());
        }
        seen.1.elapsed()
    }

    /// Its thread begins. It may have been long since the board was made.
    pub(crate) fn begins(&self) {
        *self.seen.held() = (self.metrics.turns.load(Ordering::Relaxed), Instant::now());
        self.runs.store(true, Ordering::Relaxed);
    }

    /// Its thread has ended.
    pub(crate) fn ends(&self) {
        self.runs.store(false, Ordering::Relaxed);
    }

    /// What its loop has not come back from for a while, and for how long.
    pub(crate) fn stands_in(&self, topology: Option<&Topology>) -> Option<(Duration, String)> {
        let ago = self.turned_ago();
        if ago < TOLD_TURN_TIME || !self.runs.load(Ordering::Relaxed) {
            return None;
        }
        let told = self.doing.told(topology);
        Some((ago, told.unwrap_or_else(|| "in its own code".to_owned())))
    }

    /// Whether its loop has turned in time, or what it stands in; `number` is the worker's.
    pub(crate) fn turns(
        &self,
        number: usize,
        topology: &Topology,
        time_max: Duration,
    ) -> Result<(), String> {
        match self.stands_in(Some(topology)) {
            Some((ago, call)) if ago > time_max => {
                let seconds = ago.as_secs();
                Err(format!("worker {number} has not turned for {seconds} s: it is {call}"))
            }
            _ => Ok(()),
        }
    }

    /// Takes in how far its tasks are.
    pub(crate) fn set_positions(&self, joined: bool, positions: Vec<TaskPosition>) {
        let mut view = self.view();
        view.joined |= joined;
        for position in positions {
            if let Some(task) = view.tasks.get_mut(&position.task) {
                task.offsets = position.offsets;
                task.stream_time = Some(position.stream_time).filter(|&time| time >= 0);
            }
        }
    }
}

impl View {
    /// A transaction was dropped.
    pub(crate) fn drop_one(&mut self, reason: &str) {
        let count = self.dropped.as_ref().map_or(0, |dropped| dropped.count).saturating_add(1);
        let reason = reason.to_owned();
        self.dropped = Some(Dropped { count, last: Instant::now(), reason });
    }

    /// Something can't be done for now. Says whether it is another thing than before.
    pub(crate) fn wait_for(&mut self, reason: &str) -> bool {
        let (now, before) = (Instant::now(), self.waiting.take());
        let is_new = before.as_ref().is_none_or(|before| before.reason != reason);
        let since = before.filter(Waiting::is_told).map_or(now, |before| before.since);
        self.waiting = Some(Waiting { reason: reason.to_owned(), since, last: now });
        is_new
    }

    /// What keeps it from its work, other than a restore and tasks that were stopped.
    pub(super) fn hindrance(&self) -> Option<String> {
        let waiting = self.waiting.as_ref();
        if !self.joined {
            let waiting =
                waiting.map_or(String::new(), |waiting| format!("; it waits: {}", waiting.reason));
            return Some(format!("has had no assignment of the group yet{waiting}"));
        }
        let starts = self.tasks.iter().find(|(_, task)| task.state == TaskState::Created);
        if let (Some((task, _)), Some(Waiting { reason, .. })) = (starts, waiting) {
            return Some(format!("can't start task {task} yet; it waits: {reason}"));
        }
        match &self.dropped {
            Some(Dropped { count, last, reason })
                if *count >= DROPPED_MAX && last.elapsed() < DROPPED_TIME =>
            {
                Some(format!(
                    "has dropped its last {count} transactions, their records are processed \
                     again: {reason}"
                ))
            }
            _ => {
                let long = waiting.filter(|waiting| waiting.is_told() && waiting.is_long());
                long.map(|Waiting { reason, .. }| format!("waits: {reason}"))
            }
        }
    }
}

impl Waiting {
    /// Whether it was said of late, so that it can be taken to be so still.
    fn is_told(&self) -> bool {
        self.last.elapsed() < WAITING_TOLD_TIME
    }

    fn is_long(&self) -> bool {
        self.since.elapsed() >= WAITING_TIME_MAX
    }
}
