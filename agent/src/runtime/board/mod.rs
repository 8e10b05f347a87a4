//! What the workers do, as others see it. Workers write here after a turn that did something, and
//! now and then; nothing is written for a record.

mod names;
mod worker;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sidestream_core::{record::TopicPartition, topology::Topology, worker::TaskState};

use tracing::{error, warn};

use self::names::Names;
pub(crate) use self::worker::{Instruction, SwapState, TaskView, View, WorkerBoard};
use super::ends::{Ends, HELD_TIME_MAX, KnownEnd};
use crate::{control::Events, kafka::PartitionEnd, lock::Held, telemetry::metrics::Metrics};

/// How long a worker's turn may take before its loop counts as stuck: calls of several modules and
/// of Kafka, each with its own limit, fit in it many times.
const TURN_TIME_MAX: Duration = Duration::from_secs(120);
/// How long it may take before the worker does not count as ready any more.
pub(crate) const READY_TURN_TIME_MAX: Duration = Duration::from_secs(30);
/// How long it may take before it is told what the worker is in.
const TOLD_TURN_TIME: Duration = Duration::from_secs(3);

/// What the workers do, and what they were told.
pub(crate) struct Board {
    pub(crate) workers: Vec<WorkerBoard>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Arc<Events>,
    /// What the versions of transforms' code are called.
    pub(crate) names: Names,
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

impl Board {
    pub(crate) fn new(metrics: Arc<Metrics>, events: Arc<Events>) -> Self {
        Self {
            workers: metrics.workers.iter().map(WorkerBoard::new).collect(),
            metrics,
            events,
            names: Names::default(),
            paused: AtomicBool::new(false),
            starting: Mutex::default(),
            ends: Mutex::default(),
            trouble: Mutex::default(),
        }
    }

    /// The start has come to a step; `waiting` says what that waits for, if anything. Says whether
    /// that is something new.
    pub(crate) fn starts(&self, step: &'static str, waiting: Option<String>) -> bool {
        let mut starting = self.starting.held();
        let is_new = starting.waiting != waiting;
        *starting = Starting { step, waiting: waiting.clone() };
        drop(starting);
        if let Some(reason) = waiting.filter(|_| is_new) {
            self.events.tell("waiting", reason);
        }
        is_new
    }

    /// That the agent is starting, and what it is at or waits for.
    pub(crate) fn starting(&self) -> String {
        let starting = self.starting.held();
        match (&starting.waiting, starting.step) {
            (Some(reason), step) => format!("the agent is starting: {step}; it waits: {reason}"),
            (None, "") => "the agent is starting".to_owned(),
            (None, step) => format!("the agent is starting: {step}"),
        }
    }

    /// Takes in what is wrong with the cluster, as far as it can be seen.
    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        let before = std::mem::replace(&mut *self.trouble.held(), trouble.clone());
        if before == trouble {
            return;
        }
        if let Some(trouble) = trouble {
            warn!(trouble, "the cluster");
            self.events.tell("cluster_trouble", trouble);
        }
    }

    /// What is wrong with the cluster, as far as it can be seen.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.held().clone()
    }

    /// Whether there is something that a look at the cluster may explain.
    pub(crate) fn is_in_doubt(&self) -> bool {
        let waits = |view: &View| !view.joined || view.waiting.is_some() || view.dropped.is_some();
        self.ends_failure().is_some() || self.workers.iter().any(|worker| waits(&worker.view()))
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(crate) fn pause(&self, pause: bool) {
        if self.paused.swap(pause, Ordering::Relaxed) != pause {
            match pause {
                true => self.events.tell("paused", "no further batch is begun"),
                false => self.events.tell("resumed", ""),
            }
        }
    }

    /// Whether the loops of all workers turn.
    pub(crate) fn live(&self, topology: &Topology) -> Result<(), String> {
        let mut workers = self.workers.iter().enumerate();
        workers.try_for_each(|(number, worker)| worker.turns(number, topology, TURN_TIME_MAX))
    }

    /// Whether every worker has an assignment, none of its tasks was stopped, and brokers answer.
    pub(crate) fn works(&self, topology: &Topology) -> Result<(), String> {
        for (number, worker) in self.workers.iter().enumerate() {
            worker.turns(number, topology, READY_TURN_TIME_MAX)?;
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
    pub(crate) fn inputs(&self, topology: &Topology) -> Vec<TopicPartition> {
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
    pub(crate) fn set_ends(
        &self,
        topology: &Topology,
        ends: Result<HashMap<TopicPartition, PartitionEnd>, String>,
    ) {
        let held = self.ends.held().set(ends);
        held.into_iter().for_each(|(partition, end)| self.tell_of_hold(topology, partition, end));
    }

    /// Tells that what an input holds can't be read for long.
    fn tell_of_hold(&self, topology: &Topology, partition: TopicPartition, end: PartitionEnd) {
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
    pub(crate) fn tell_of_standstill(&self, topology: &Topology) {
        for (number, worker) in self.workers.iter().enumerate() {
            let stands = worker.turns(number, topology, READY_TURN_TIME_MAX).err();
            let was_told = worker.stands.swap(stands.is_some(), Ordering::Relaxed);
            if let Some(message) = stands.filter(|_| !was_told) {
                error!(message, "a worker stands");
                self.events.tell_of(number, String::new(), "worker_stands", message);
            }
        }
    }

    /// Where a partition ended when it was last looked up.
    pub(crate) fn end(&self, partition: TopicPartition) -> Option<KnownEnd> {
        self.ends.held().of(partition)
    }

    fn ends_failure(&self) -> Option<String> {
        self.ends.held().failure().map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use sidestream_core::record::TaskId;

    use super::{
        worker::{DROPPED_MAX, WAITING_TIME_MAX},
        *,
    };
    use crate::doing::Call;

    fn board() -> Board {
        let board = Board::new(Arc::new(Metrics::new(1, [])), Arc::default());
        board.workers[0].begins();
        board
    }

    fn check_works(board: &Board, expected: &str) {
        let said =
            board.works(&Topology::default()).map_or_else(|reason| reason, |()| "fine".to_owned());
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
        assert!(own.view().wait_for("a transaction has not ended"));
        check_works(
            &board,
            "worker 0 can't start task 0_1 yet; it waits: a transaction has not ended",
        );
        own.view().tasks.extend([task(TaskState::Running)]);
        check_works(&board, "fine");
        let long_ago = Instant::now().checked_sub(WAITING_TIME_MAX);
        let waits = |since| {
            let mut view = own.view();
            assert!(!view.wait_for("a transaction has not ended"), "it is no news");
            view.waiting.iter_mut().for_each(|waiting| waiting.since = since);
        };
        waits(Instant::now());
        check_works(&board, "fine");
        waits(long_ago.expect("the machine runs for longer"));
        check_works(&board, "worker 0 waits: a transaction has not ended");
        own.view().waiting = None;
        (1..DROPPED_MAX).for_each(|_| own.view().drop_one("timed out"));
        check_works(&board, "fine");
        own.view().drop_one("timed out");
        let told = "worker 0 has dropped its last 3 transactions, their records are processed again: \
            timed out";
        check_works(&board, told);
    }

    #[test]
    fn a_worker_that_does_not_turn_is_told_with_the_call_it_stands_in() {
        let (board, topology) = (board(), Topology::default());
        let own = &board.workers[0];
        own.view().joined = true;
        let (task, view) = task(TaskState::Running);
        own.view().tasks.insert(task, view);
        let stood = |seconds| {
            let since = Instant::now().checked_sub(Duration::from_secs(seconds));
            *own.seen.held() = (0, since.expect("the machine runs for longer"));
        };
        let during = own.doing.begin_of(Call::Punctuate, task, Some(0));
        stood(31);
        check_works(
            &board,
            "worker 0 has not turned for 31 s: it is in a punctuation for task 0_1",
        );
        assert_eq!(board.live(&topology), Ok(()));
        (0..2).for_each(|_| board.tell_of_standstill(&topology));
        assert_eq!(board.events.after(0, 9).events.len(), 1, "once");
        drop(during);
        stood(121);
        let told = "worker 0 has not turned for 121 s: it is in its own code";
        assert_eq!(board.live(&topology), Err(told.to_owned()));
        own.ends();
        assert_eq!(board.live(&topology), Ok(()), "it has drained");
        own.begins();
        check_works(&board, "fine");
        stood(121);
        assert_eq!(board.live(&topology), Err(told.to_owned()));
        own.metrics.turns.store(1, Ordering::Relaxed);
        check_works(&board, "fine");
        board.tell_of_standstill(&topology);
        assert_eq!(board.live(&topology), Ok(()));
    }
}
