//! What the workers do, as others see it. Workers write here after a turn that did something, and
//! now and then; nothing is written for a record.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sidestream_core::{
    record::{Offset, TaskId, Timestamp, TopicPartition},
    topology::Topology,
    worker::{Probation, Swap, TaskPosition, TaskState, Version},
};

use super::measured::Measured;
use crate::{
    control::Events,
    telemetry::metrics::{Metrics, WorkerMetrics},
};

/// How long a worker's turn may take before its loop counts as stuck: calls of several modules and
/// of Kafka, each with its own limit, fit in it many times.
const TURN_TIME_MAX: Duration = Duration::from_secs(120);

/// What the workers do, and what they were told.
pub(super) struct Board {
    pub(super) workers: Vec<WorkerBoard>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: Arc<Events>,
    /// Set once the topics were looked at.
    pub(super) topology: OnceLock<Arc<Topology>>,
    /// All workers run.
    pub(super) started: AtomicBool,
    paused: AtomicBool,
    ends: Mutex<Ends>,
}

/// Where the inputs of the tasks end.
#[derive(Default)]
struct Ends {
    offsets: HashMap<TopicPartition, Offset>,
    /// Why they could not be looked up the last time.
    failure: Option<String>,
}

/// What one worker does.
pub(super) struct WorkerBoard {
    pub(super) metrics: Arc<WorkerMetrics>,
    /// It was told to pause and has committed everything.
    pub(super) rests: AtomicBool,
    /// How many turns were seen, and when there were more than before.
    seen: Mutex<(u64, Instant)>,
    view: Mutex<View>,
    /// There is something in `mail`.
    has_mail: AtomicBool,
    mail: Mutex<Vec<Instruction>>,
}

/// What is known of a worker.
#[derive(Default)]
pub(super) struct View {
    /// It has had an assignment of the group.
    pub(super) joined: bool,
    pub(super) waiting: Option<String>,
    pub(super) tasks: BTreeMap<TaskId, TaskView>,
    /// What came of each version that it was told to swap in, until that is decided everywhere.
    pub(super) swapped: BTreeMap<Version, SwapState>,
    /// How many records each of those has processed and committed on probation.
    pub(super) on_probation: BTreeMap<Version, u64>,
}

/// How far a worker is with a swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SwapState {
    /// The version runs, on probation.
    TakenOver,
    /// The version before it runs again, for this reason.
    TakenBack(String),
    /// The version runs for good.
    Kept,
}

/// What a worker is told before a turn.
pub(super) enum Instruction {
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
pub(super) struct TaskView {
    pub(super) state: TaskState,
    /// What its last failure was.
    pub(super) failure: String,
    pub(super) restore_remaining: u64,
    /// Empty until it runs.
    pub(super) offsets: Vec<Offset>,
    pub(super) stream_time: Option<Timestamp>,
    /// How often it was stopped.
    pub(super) stops: u64,
}

impl WorkerBoard {
    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells it something before one of its next turns.
    pub(super) fn post(&self, instruction: Instruction) {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner).push(instruction);
        self.has_mail.store(true, Ordering::Release);
    }

    /// Whether it has not read yet what it was told.
    pub(super) fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    /// What it was told since this was asked last.
    pub(super) fn take_mail(&self) -> Vec<Instruction> {
        if !self.has_mail() {
            return Vec::new();
        }
        let mut mail = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_mail.store(false, Ordering::Release);
        std::mem::take(&mut *mail)
    }

    /// How far it is with the swap to a version; `None` before it begins.
    pub(super) fn swap_state(&self, version: Version) -> Option<SwapState> {
        self.view().swapped.get(&version).cloned()
    }

    /// Takes in how far it is with a swap.
    pub(super) fn set_swap_state(&self, version: Version, state: SwapState) {
        self.view().swapped.insert(version, state);
    }

    /// Takes in how far versions are that are on probation.
    pub(super) fn set_probations(&self, probations: &[Probation]) {
        if !probations.is_empty() {
            let of = probations.iter().map(|of| (of.version, of.records));
            self.view().on_probation.extend(of);
        }
    }

    /// It is decided what becomes of a version.
    pub(super) fn forget_swap(&self, version: Version) {
        let mut view = self.view();
        view.swapped.remove(&version);
        view.on_probation.remove(&version);
    }

    /// How long ago its loop was last seen to turn.
    pub(super) fn turned_ago(&self) -> Duration {
        let turns = self.metrics.turns.load(Ordering::Relaxed);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != turns {
            *seen = (turns, Instant::now());
        }
        seen.1.elapsed()
    }

    /// Takes in how far its tasks are.
    pub(super) fn set_positions(&self, joined: bool, positions: Vec<TaskPosition>) {
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

impl Board {
    pub(super) fn new(metrics: Arc<Metrics>, events: Arc<Events>) -> Self {
        let worker = |metrics: &Arc<WorkerMetrics>| WorkerBoard {
            metrics: Arc::clone(metrics),
            rests: AtomicBool::new(false),
            seen: Mutex::new((0, Instant::now())),
            view: Mutex::default(),
            has_mail: AtomicBool::new(false),
            mail: Mutex::default(),
        };
        Self {
            workers: metrics.workers.iter().map(worker).collect(),
            metrics,
            events,
            topology: OnceLock::new(),
            started: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            ends: Mutex::default(),
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(super) fn pause(&self, pause: bool) {
        if self.paused.swap(pause, Ordering::Relaxed) != pause {
            match pause {
                true => self.events.tell("paused", "no further batch is begun"),
                false => self.events.tell("resumed", ""),
            }
        }
    }

    /// Whether the loops of all workers turn.
    pub(super) fn live(&self) -> Result<(), String> {
        if !self.started.load(Ordering::Relaxed) {
            return Ok(());
        }
        for (number, worker) in self.workers.iter().enumerate() {
            let ago = worker.turned_ago();
            if ago > TURN_TIME_MAX {
                let seconds = ago.as_secs();
                return Err(format!("worker {number} has not turned for {seconds} s"));
            }
        }
        Ok(())
    }

    /// Whether every worker has an assignment, none of its tasks was stopped, and brokers answer.
    pub(super) fn works(&self) -> Result<(), String> {
        self.live()?;
        for (number, worker) in self.workers.iter().enumerate() {
            let view = worker.view();
            if !view.joined {
                return Err(format!("worker {number} has had no assignment yet"));
            }
            for (task, known) in &view.tasks {
                if let TaskState::Failed(reason) = &known.state {
                    return Err(format!("task {task} was stopped: {reason}"));
                }
            }
        }
        match self.ends_failure() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// The partitions that this agent's tasks read.
    pub(super) fn inputs(&self) -> Vec<TopicPartition> {
        let Some(topology) = self.topology.get() else { return Vec::new() };
        let mut inputs = Vec::new();
        for worker in &self.workers {
            for &task in worker.view().tasks.keys() {
                let topics = topology.subtopology(task).inputs.iter();
                inputs.extend(topics.map(|i| TopicPartition::new(i.topic, task.partition)));
            }
        }
        inputs
    }

    /// Takes in where partitions end, in place of what was known.
    pub(super) fn set_ends(&self, ends: Result<HashMap<TopicPartition, Offset>, String>) {
        let mut known = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        match ends {
            Ok(offsets) => *known = Ends { offsets, failure: None },
            Err(failure) => known.failure = Some(failure),
        }
    }

    /// Where a partition ended when it was last looked up.
    pub(super) fn end(&self, partition: TopicPartition) -> Option<Offset> {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.offsets.get(&partition).copied()
    }

    fn ends_failure(&self) -> Option<String> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).failure.clone()
    }
}
