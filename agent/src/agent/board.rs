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

use tracing::{error, warn};

use super::{
    doing::Doing,
    ends::{Ends, HELD_TIME_MAX, KnownEnd},
    measured::Measured,
};
use crate::{
    control::Events,
    kafka::PartitionEnd,
    telemetry::metrics::{Metrics, WorkerMetrics},
};

/// How long a worker's turn may take before its loop counts as stuck: calls of several modules and
/// of Kafka, each with its own limit, fit in it many times.
const TURN_TIME_MAX: Duration = Duration::from_secs(120);
/// How long it may take before the worker does not count as ready any more.
pub(super) const READY_TURN_TIME_MAX: Duration = Duration::from_secs(30);
/// How long it may take before it is told what the worker is in.
const TOLD_TURN_TIME: Duration = Duration::from_secs(3);
/// How many transactions in a row may be dropped before the worker does not count as ready.
const DROPPED_MAX: u32 = 3;
/// For how long after the last one; a worker that still fails tries once a minute.
const DROPPED_TIME: Duration = Duration::from_secs(120);

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
    starting: Mutex<Starting>,
    ends: Mutex<Ends>,
    /// What is wrong with the cluster, as far as it was seen.
    trouble: Mutex<Option<String>>,
}

/// How far the start is.
#[derive(Default)]
struct Starting {
    /// What is done.
    step: &'static str,
    /// What that waits for.
    waiting: Option<String>,
}

/// What one worker does.
pub(super) struct WorkerBoard {
    pub(super) metrics: Arc<WorkerMetrics>,
    /// What its thread is in.
    pub(super) doing: Arc<Doing>,
    /// Its thread runs: its loop has to turn.
    runs: AtomicBool,
    /// It was told that its loop does not turn.
    stands: AtomicBool,
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
    /// Transactions that were dropped since the last commit.
    pub(super) dropped: Option<Dropped>,
    pub(super) tasks: BTreeMap<TaskId, TaskView>,
    /// What came of each version that it was told to swap in, until that is decided everywhere.
    pub(super) swapped: BTreeMap<Version, SwapState>,
    /// How many records each of those has processed and committed on probation.
    pub(super) on_probation: BTreeMap<Version, u64>,
}

/// Transactions that were dropped in a row.
pub(super) struct Dropped {
    count: u32,
    /// When the last one was.
    last: Instant,
    /// Why it was.
    reason: String,
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

    /// Its thread begins. It may have been long since the board was made.
    pub(super) fn begins(&self) {
        *lock(&self.seen) = (self.metrics.turns.load(Ordering::Relaxed), Instant::now());
        self.runs.store(true, Ordering::Relaxed);
    }

    /// Its thread has ended.
    pub(super) fn ends(&self) {
        self.runs.store(false, Ordering::Relaxed);
    }

    /// What its loop has not come back from for a while, and for how long.
    pub(super) fn stands_in(&self, topology: Option<&Topology>) -> Option<(Duration, String)> {
        let ago = self.turned_ago();
        if ago < TOLD_TURN_TIME || !self.runs.load(Ordering::Relaxed) {
            return None;
        }
        let told = self.doing.told(topology);
        Some((ago, told.unwrap_or_else(|| "in its own code".to_owned())))
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
            doing: Arc::default(),
            runs: AtomicBool::new(false),
            stands: AtomicBool::new(false),
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
            starting: Mutex::default(),
            ends: Mutex::default(),
            trouble: Mutex::default(),
        }
    }

    /// The start has come to a step; `waiting` says what that waits for, if anything. Says whether
    /// that is something new.
    pub(super) fn starts(&self, step: &'static str, waiting: Option<String>) -> bool {
        let mut starting = lock(&self.starting);
        let is_new = starting.waiting != waiting;
        *starting = Starting { step, waiting: waiting.clone() };
        drop(starting);
        if let Some(reason) = waiting.filter(|_| is_new) {
            self.events.tell("waiting", reason);
        }
        is_new
    }

    /// That the agent is starting, and what it is at or waits for.
    pub(super) fn starting(&self) -> String {
        let starting = lock(&self.starting);
        match (&starting.waiting, starting.step) {
            (Some(reason), step) => format!("the agent is starting: {step}; it waits: {reason}"),
            (None, "") => "the agent is starting".to_owned(),
            (None, step) => format!("the agent is starting: {step}"),
        }
    }

    /// Takes in what is wrong with the cluster, as far as it can be seen.
    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        let before = std::mem::replace(&mut *lock(&self.trouble), trouble.clone());
        if before == trouble {
            return;
        }
        if let Some(trouble) = trouble {
            warn!(trouble, "the cluster");
            self.events.tell("cluster_trouble", trouble);
        }
    }

    /// What is wrong with the cluster, as far as it can be seen.
    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// Whether there is something that a look at the cluster may explain.
    pub(super) fn is_in_doubt(&self) -> bool {
        let waits = |view: &View| !view.joined || view.waiting.is_some() || view.dropped.is_some();
        self.ends_failure().is_some() || self.workers.iter().any(|worker| waits(&worker.view()))
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
            self.turns(number, worker, TURN_TIME_MAX)?;
        }
        Ok(())
    }

    /// Whether the loop of a worker has turned in time; what it stands in.
    pub(super) fn turns(
        &self,
        number: usize,
        worker: &WorkerBoard,
        time_max: Duration,
    ) -> Result<(), String> {
        match worker.stands_in(self.topology.get().map(Arc::as_ref)) {
            Some((ago, call)) if ago > time_max => {
                let seconds = ago.as_secs();
                Err(format!("worker {number} has not turned for {seconds} s: it is {call}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether every worker has an assignment, none of its tasks was stopped, and brokers answer.
    pub(super) fn works(&self) -> Result<(), String> {
        for (number, worker) in self.workers.iter().enumerate() {
            self.turns(number, worker, READY_TURN_TIME_MAX)?;
            let view = worker.view();
            for (task, known) in &view.tasks {
                if let TaskState::Failed(reason) = &known.state {
                    return Err(format!("task {task} was stopped: {reason}"));
                }
            }
            if let Some(reason) = view.hindrance() {
                return Err(self.explained(format!("worker {number} {reason}")));
            }
        }
        match self.ends_failure() {
            Some(failure) => Err(self.explained(failure)),
            None => Ok(()),
        }
    }

    /// With what is wrong with the cluster, if anything was found.
    fn explained(&self, reason: String) -> String {
        match self.trouble() {
            Some(trouble) => format!("{reason}; {trouble}"),
            None => reason,
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
    pub(super) fn set_ends(&self, ends: Result<HashMap<TopicPartition, PartitionEnd>, String>) {
        let held = lock(&self.ends).set(ends);
        held.into_iter().for_each(|(partition, end)| self.tell_of_hold(partition, end));
    }

    /// Tells that what an input holds can't be read for long.
    fn tell_of_hold(&self, partition: TopicPartition, end: PartitionEnd) {
        let Some(topology) = self.topology.get() else { return };
        let topic = &topology.topic(partition.topic).name;
        let (number, PartitionEnd { stable, last }) = (partition.partition, end);
        let message = format!(
            "partition {number} of `{topic}`: a producer has not ended its transaction for {} s; what \
             stands from offset {stable} to {last} can't be read before it does. It ends with the \
             producer's transaction.timeout.ms; one that doesn't hangs on the brokers: \
             `kafka-transactions.sh find-hanging --topic {topic} --partition {number}` tells which, \
             and `abort` ends it",
            HELD_TIME_MAX.as_secs()
        );
        warn!(message, "an input");
        self.events.tell("input_held_back", message);
    }

    /// Tells, once each time, of workers whose loop has not turned for long, and where they stand.
    pub(super) fn tell_of_standstill(&self) {
        for (number, worker) in self.workers.iter().enumerate() {
            let stands = self.turns(number, worker, READY_TURN_TIME_MAX).err();
            let was_told = worker.stands.swap(stands.is_some(), Ordering::Relaxed);
            if let Some(message) = stands.filter(|_| !was_told) {
                error!(message, "a worker stands");
                self.events.tell_of(number, String::new(), "worker_stands", message);
            }
        }
    }

    /// Where a partition ended when it was last looked up.
    pub(super) fn end(&self, partition: TopicPartition) -> Option<KnownEnd> {
        lock(&self.ends).of(partition)
    }

    fn ends_failure(&self) -> Option<String> {
        lock(&self.ends).failure().map(str::to_owned)
    }
}

impl View {
    /// A transaction was dropped.
    pub(super) fn drop_one(&mut self, reason: &str) {
        let count = self.dropped.as_ref().map_or(0, |dropped| dropped.count).saturating_add(1);
        let reason = reason.to_owned();
        self.dropped = Some(Dropped { count, last: Instant::now(), reason });
    }

    /// What keeps it from its work, other than a restore and tasks that were stopped.
    fn hindrance(&self) -> Option<String> {
        let waiting = self.waiting.as_ref();
        if !self.joined {
            let waiting = waiting.map_or(String::new(), |reason| format!("; it waits: {reason}"));
            return Some(format!("has had no assignment of the group yet{waiting}"));
        }
        let starts = self.tasks.iter().find(|(_, task)| task.state == TaskState::Created);
        if let (Some((task, _)), Some(reason)) = (starts, waiting) {
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
            _ => None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{super::doing::Call, *};

    fn board() -> Board {
        let board = Board::new(Arc::new(Metrics::new(1, [])), Arc::default());
        board.started.store(true, Ordering::Relaxed);
        board.workers[0].begins();
        board
    }

    fn check_works(board: &Board, expected: &str) {
        let said = board.works().map_or_else(|reason| reason, |()| "fine".to_owned());
        assert_eq!(said, expected);
    }

    fn task(state: TaskState) -> (TaskId, TaskView) {
        let view = TaskView {
            state,
            failure: String::new(),
            restore_remaining: 0,
            offsets: Vec::new(),
            stream_time: None,
            stops: 0,
        };
        (TaskId { subtopology: 0, partition: 1 }, view)
    }

    #[test]
    fn what_a_start_waits_for_is_told_and_is_news_once() {
        let board = board();
        assert_eq!(board.starting(), "the agent is starting");
        assert!(!board.starts("looking at the topics", None));
        assert_eq!(board.starting(), "the agent is starting: looking at the topics");
        let refused = || Some("127.0.0.1:1 refuses connections".to_owned());
        assert!(board.starts("looking at the topics", refused()));
        assert!(!board.starts("looking at the topics", refused()));
        let told = "the agent is starting: looking at the topics; it waits: 127.0.0.1:1 refuses \
            connections";
        assert_eq!(board.starting(), told);
        assert_eq!(board.events.after(0, 9).events.len(), 1);
    }

    #[test]
    fn a_worker_that_waits_does_not_count_as_ready_and_says_for_what() {
        let board = board();
        let own = &board.workers[0];
        check_works(&board, "worker 0 has had no assignment of the group yet");
        board.set_trouble(Some("`__consumer_offsets` can't be made".to_owned()));
        check_works(
            &board,
            "worker 0 has had no assignment of the group yet; `__consumer_offsets` can't be made",
        );
        board.set_trouble(None);
        own.view().joined = true;
        check_works(&board, "fine");
        own.view().tasks.extend([task(TaskState::Created)]);
        own.view().waiting = Some("a transaction has not ended".to_owned());
        check_works(
            &board,
            "worker 0 can't start task 0_1 yet; it waits: a transaction has not ended",
        );
        own.view().tasks.extend([task(TaskState::Running)]);
        check_works(&board, "fine");
        (1..DROPPED_MAX).for_each(|_| own.view().drop_one("timed out"));
        check_works(&board, "fine");
        own.view().drop_one("timed out");
        let told = "worker 0 has dropped its last 3 transactions, their records are processed again: \
            timed out";
        check_works(&board, told);
    }

    #[test]
    fn a_worker_that_does_not_turn_is_told_with_the_call_it_stands_in() {
        let board = board();
        let own = &board.workers[0];
        own.view().joined = true;
        let (task, view) = task(TaskState::Running);
        own.view().tasks.insert(task, view);
        let stood = |seconds| {
            let since = Instant::now().checked_sub(Duration::from_secs(seconds));
            *lock(&own.seen) = (0, since.expect("the machine runs for longer"));
        };
        let during = own.doing.begin_of(Call::Punctuate, task, Some(0));
        stood(31);
        check_works(
            &board,
            "worker 0 has not turned for 31 s: it is in a punctuation for task 0_1",
        );
        assert_eq!(board.live(), Ok(()));
        (0..2).for_each(|_| board.tell_of_standstill());
        assert_eq!(board.events.after(0, 9).events.len(), 1, "once");
        drop(during);
        stood(121);
        let told = "worker 0 has not turned for 121 s: it is in its own code";
        assert_eq!(board.live(), Err(told.to_owned()));
        own.ends();
        assert_eq!(board.live(), Ok(()), "it has drained");
        own.begins();
        check_works(&board, "fine");
        stood(121);
        assert_eq!(board.live(), Err(told.to_owned()));
        own.metrics.turns.store(1, Ordering::Relaxed);
        check_works(&board, "fine");
        board.tell_of_standstill();
        assert_eq!(board.live(), Ok(()));
    }
}
