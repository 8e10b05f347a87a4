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
    worker::{TaskPosition, TaskState, Version},
};

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
}

/// What is known of a worker.
#[derive(Default)]
pub(super) struct View {
    /// It has had an assignment of the group.
    pub(super) joined: bool,
    pub(super) waiting: Option<String>,
    pub(super) tasks: BTreeMap<TaskId, TaskView>,
    /// What came of the last swap that it was told to make.
    pub(super) swapped: Option<Swapped>,
}

/// What came of a swap in a worker.
pub(super) struct Swapped {
    pub(super) version: Version,
    /// Why the version was taken back, if it was.
    pub(super) reverted: Option<String>,
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
}

impl WorkerBoard {
    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
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
