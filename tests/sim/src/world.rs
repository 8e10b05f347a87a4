//! Everything there is in a run besides the code under test: time, brokers, processes, disks, and
//! the points at which a process may die.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Arguments,
    panic::resume_unwind,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sidestream_core::{
    record::{Offset, TaskId, Timestamp, TopicId, TopicIndex, TopicPartition},
    task::{Position, StorePosition},
    worker::{Now, TaskState},
};

use crate::{
    age::Asked,
    change::Before,
    check,
    cluster::{Cluster, Fate},
    disk::{Disk, TaskFiles},
    places::Places,
    plan::{ATTEMPTS_MAX, Faults, POSITION_AGE_MAX, Plan},
    prng::Prng,
    swap::{Owner, Swaps},
    time::TimeSheet,
    trace::Trace,
};

/// What unwinds a worker's stack in place of a return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// The worker's process was killed.
    Killed,
    /// A rule was broken; the run is over.
    Violated,
}

/// One life of a process.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) identity: usize,
    pub(crate) disk: usize,
    pub(crate) alive: bool,
    /// Stands still: nobody hears of it.
    pub(crate) stopped: bool,
    /// Where it is to be killed: at which point (any for `None`), after how many visits.
    pub(crate) kill: Option<(Option<&'static str>, u64)>,
    /// How far its wall clock is off.
    pub(crate) skew: i64,
    /// Tasks whose state is open.
    pub(crate) open: BTreeSet<TaskId>,
    /// What is known of the state of tasks whose changelogs were asked for.
    pub(crate) asked: BTreeMap<TaskId, Asked>,
}

/// The points at which a process may be told to die; any call of a trait is one.
pub(crate) const POINTS: [&str; 24] = [
    "log.poll",
    "log.assign",
    "log.assigned",
    "log.unassign",
    "log.seek",
    "log.committed",
    "log.bounds",
    "log.restore",
    "log.produce",
    "commit.begin",
    "commit.produced",
    "commit.offsets",
    "commit.ended",
    "commit.acknowledged",
    "log.abort",
    "log.recover",
    "store.open",
    "store.apply",
    "store.applied",
    "store.reset",
    "store.flush",
    "store.close",
    "guest.new",
    "guest.process",
];

/// The state of a run.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) plan: Arc<Plan>,
    pub(crate) prng: Prng,
    pub(crate) trace: Trace,
    /// Milliseconds since the run began.
    pub(crate) now: u64,
    /// Whether faults still happen.
    pub(crate) faulty: bool,
    pub(crate) cluster: Cluster,
    pub(crate) pods: Vec<Pod>,
    pub(crate) disks: Vec<Disk>,
    /// The process of each member of the group.
    pub(crate) members: BTreeMap<String, usize>,
    /// How often each record failed by chance, by task, transform, input and offset.
    pub(crate) failed: BTreeMap<(TaskId, usize, u32, i64), u32>,
    /// How often each task failed by chance since its last commit.
    pub(crate) strikes: BTreeMap<TaskId, u32>,
    /// Log lines of user code that were published.
    pub(crate) lines: BTreeSet<String>,
    /// How many records workers told to have passed over, by task, transform and kind.
    pub(crate) passed_over: BTreeMap<(TaskId, usize, &'static str), u64>,
    /// Where each task was open last.
    pub(crate) last_disk: BTreeMap<TaskId, usize>,
    /// Open records of changelogs that a position went past: none of them may be committed.
    pub(crate) passed: BTreeSet<(TopicPartition, Offset)>,
    /// Topics that were lost, or parts of them: what stops a task for good.
    pub(crate) lost: BTreeSet<TopicIndex>,
    /// What workers did with their time.
    pub(crate) time_sheets: BTreeMap<Owner, TimeSheet>,
    /// What the pipeline was, if it changed.
    pub(crate) before: Option<Before>,
    /// Topics that were deleted and created again, and when.
    pub(crate) recreated: BTreeMap<TopicIndex, u64>,
    /// Tasks that must stop, whatever becomes of the others.
    pub(crate) must_stop: BTreeSet<TaskId>,
    /// From where on partitions were read.
    pub(crate) places: Places,
    /// The topic that got more partitions, if one did.
    pub(crate) grown: Option<String>,
    /// What was told of each task last, by worker.
    pub(crate) told: BTreeMap<(Owner, TaskId), TaskState>,
    /// Versions of transforms' code, and what workers do about them.
    pub(crate) swaps: Swaps,
    /// Whether workers are held against the whole of what happened; not in contract tests.
    pub(crate) checks_workers: bool,
    pub(crate) violation: Option<String>,
    pub(crate) kills: u64,
    calm: Faults,
}

/// How often a task fails by chance between two commits.
const STRIKES_MAX: u32 = 4;

/// The wall clock at the beginning of a run.
const WALL_START: Timestamp = 1_700_000_000_000;

impl State {
    /// The faults of now.
    pub(crate) fn faults(&self) -> &Faults {
        if self.faulty { &self.plan.faults } else { &self.calm }
    }

    /// Whether a task may fail by chance once more: failures of a few records in a row would stop
    /// it, which is right, but not what is looked for.
    pub(crate) fn strike(&mut self, task: TaskId) -> bool {
        let strikes = self.strikes.entry(task).or_default();
        *strikes += 1;
        *strikes <= STRIKES_MAX
    }

    /// Adds a line to the trace.
    pub(crate) fn note(&mut self, pod: usize, text: Arguments<'_>) {
        self.trace.line(self.now, format_args!("p{pod} {text}"));
    }

    /// A rule was broken; the first one is kept.
    pub(crate) fn violate(&mut self, text: Arguments<'_>) {
        self.trace.line(self.now, format_args!("VIOLATION {text}"));
        self.violation.get_or_insert_with(|| text.to_string());
    }

    /// What a process reads from its clocks.
    pub(crate) fn clocks(&self, pod: usize) -> Now {
        let now = std::time::Duration::from_millis(self.now);
        let wall = WALL_START + i64::try_from(self.now).expect("runs are short");
        Now { monotonic: now, wall: wall.saturating_add(self.pods[pod].skew) }
    }

    /// The files of a task on a process's disk.
    pub(crate) fn files(&mut self, pod: usize, task: TaskId) -> &mut TaskFiles {
        let stores = self.plan.topology.subtopology(task).stores.len();
        let disk = &mut self.disks[self.pods[pod].disk];
        disk.tasks.entry(task).or_insert_with(|| TaskFiles::new(stores))
    }

    /// Lets time pass and what is due happen.
    pub(crate) fn pass(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        let (pods, members) = (&self.pods, &self.members);
        self.cluster.advance(self.now, |member| {
            members.get(member).is_some_and(|&pod| pods[pod].alive && !pods[pod].stopped)
        });
        let marker = if self.faulty { self.plan.marker } else { 3 };
        if self.prng.one_in(marker) {
            let choice = self.prng.next();
            self.cluster.write_some_marker(choice);
        }
        if self.prng.one_in(self.faults().compact) {
            let choice = self.prng.next();
            self.cluster.compact(choice);
        }
        if self.prng.one_in(self.faults().leader) {
            let place = self.prng.index(self.cluster.partitions.len());
            if let Some(log) = self.cluster.partitions.values_mut().nth(place) {
                log.leader_epoch += 1;
            }
        }
        if let Some(violation) = self.cluster.group.violation.take() {
            self.violate(format_args!("{violation}"));
        }
    }

    /// Lets a long time pass, in which changelogs are compacted: deletes that were compacted
    /// before may be gone after it.
    pub(crate) fn leap(&mut self, pod: usize, what: &str) {
        let milliseconds = self.prng.between(1_000, 5 * POSITION_AGE_MAX);
        self.note(pod, format_args!("{what} for {milliseconds} ms"));
        self.cluster.compact_all();
        self.pass(milliseconds);
        self.cluster.compact_all();
        self.stood_still();
    }

    /// Whether the process dies here.
    fn dies(&mut self, pod: usize, point: &'static str) -> bool {
        let faulty = self.faulty;
        let Some((at, visits)) = &mut self.pods[pod].kill else { return false };
        if !faulty || at.is_some_and(|at| at != point) {
            return false;
        }
        *visits = visits.saturating_sub(1);
        *visits == 0
    }

    /// Kills a process: what its disk was not told to keep is lost.
    pub(crate) fn kill(&mut self, pod: usize) {
        if !self.pods[pod].alive {
            return;
        }
        self.note(pod, format_args!("is killed"));
        self.kills += 1;
        self.pods[pod].alive = false;
        let (disk, durable) = (self.pods[pod].disk, self.plan.durable);
        self.disks[disk].crash(&mut self.prng, durable);
        if self.checks_workers
            && !self.plan.config.exactly_once
            && let Err(text) = check::disks(self)
        {
            self.violate(format_args!("{text}"));
        }
    }

    /// A position only rises, and only over what was committed.
    pub(crate) fn check_apply(&mut self, task: TaskId, before: &Position, after: &Position) {
        if !self.checks_workers {
            return;
        }
        let plan = Arc::clone(&self.plan);
        let stores = &plan.topology.subtopology(task).stores;
        for (place, store) in stores.iter().enumerate() {
            let from = before.stores[place].as_ref().map_or(0, |position| position.offset);
            let Some(to) = after.stores[place].as_ref().map(|position| position.offset) else {
                continue;
            };
            let partition = TopicPartition::new(store.changelog, task.partition);
            let log = self.cluster.partition(partition);
            let id = before.stores[place].as_ref().map(|position| position.topic_id);
            if id.is_some_and(|id| id != self.topic_id(store.changelog)) || from < log.start {
                let (name, start) = (&store.name, log.start);
                self.violate(format_args!(
                    "{name} of {task} at {from} goes on with another changelog, from {start} on"
                ));
                continue;
            }
            if to < from || to > log.end() {
                let end = log.end();
                self.violate(format_args!(
                    "the position of {} of {task} went from {from} to {to}; the end is {end}",
                    store.name
                ));
                continue;
            }
            let undecided: Vec<Offset> = (from..to)
                .filter(|&offset| {
                    let entry = &log.entries[usize::try_from(offset).expect("not negative")];
                    entry.fate == Fate::Open
                        && !self.cluster.coordinator.will_commit(entry.producer)
                })
                .collect();
            if undecided.last() == Some(&(to - 1)) {
                self.violate(format_args!(
                    "{} of {task} was applied up to {to} before the commit was certain",
                    store.name
                ));
            }
            // Others may lie in between, of members that can't commit any more.
            self.passed.extend(undecided.into_iter().map(|offset| (partition, offset)));
        }
    }

    /// Whether a position of a task is no lower than where the task was open last. One that is was
    /// committed by a process that stood still since, while others went on.
    pub(crate) fn is_ahead(&self, task: TaskId, position: &Position) -> bool {
        let offset = |of: &Option<StorePosition>| of.as_ref().map_or(0, |of| of.offset);
        let last = self.last_disk.get(&task).and_then(|&disk| self.disks[disk].tasks.get(&task));
        last.is_none_or(|files| {
            let stores = files.contents().position.stores.iter().zip(&position.stores);
            stores.into_iter().all(|(last, new)| offset(new) >= offset(last))
        })
    }

    /// The id of a topic; another one once it was created again.
    pub(crate) fn topic_id(&self, topic: TopicIndex) -> TopicId {
        let recreated = self.recreated.contains_key(&topic);
        let id = u8::try_from(topic.0 + 1).expect("few topics");
        TopicId([if recreated { id + 128 } else { id }; 16])
    }

    /// Whether a task reads a topic, or keeps state in one, that was lost.
    pub(crate) fn has_lost(&self, task: TaskId) -> bool {
        let subtopology = self.plan.topology.subtopology(task);
        let changelogs = subtopology.stores.iter().map(|store| store.changelog);
        let mut topics = changelogs.chain(subtopology.inputs.iter().map(|input| input.topic));
        topics.any(|topic| self.lost.contains(&topic))
    }

    /// Whether brokers say, by chance and wrongly, that a place in an input is not there.
    pub(crate) fn doubts(&mut self, partition: TopicPartition) -> bool {
        // Only where a task has attempts enough.
        let rate = if self.plan.config.retry_attempts_max < ATTEMPTS_MAX {
            0
        } else {
            20 * self.faults().overlap
        };
        let reader = self.plan.topology.reader(partition).map(|(task, _)| task);
        self.prng.one_in(rate) && reader.is_some_and(|task| self.strike(task))
    }
}

/// The world of a run; clones are the same world.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<State>>);

impl World {
    /// A world in which nothing happened yet.
    pub(crate) fn new(plan: Plan, prng: Prng) -> Self {
        let cluster = Cluster::new(&plan.topology, &plan.timeouts);
        Self(Arc::new(Mutex::new(State {
            cluster,
            swaps: Swaps::new(plan.swaps.clone()),
            plan: Arc::new(plan),
            prng,
            trace: Trace::default(),
            now: 0,
            faulty: true,
            pods: Vec::new(),
            disks: Vec::new(),
            members: BTreeMap::new(),
            failed: BTreeMap::new(),
            strikes: BTreeMap::new(),
            lines: BTreeSet::new(),
            passed_over: BTreeMap::new(),
            last_disk: BTreeMap::new(),
            passed: BTreeSet::new(),
            lost: BTreeSet::new(),
            time_sheets: BTreeMap::new(),
            before: None,
            recreated: BTreeMap::new(),
            must_stop: BTreeSet::new(),
            places: Places::default(),
            grown: None,
            told: BTreeMap::new(),
            checks_workers: true,
            violation: None,
            kills: 0,
            calm: Faults::default(),
        })))
    }

    /// The state, for as short as possible: never across a point.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A point at which time passes, others act, and the process may be killed.
    pub(crate) fn point(&self, pod: usize, point: &'static str) {
        let mut state = self.lock();
        let milliseconds = state.prng.below(4) / 2;
        if !matches!(point, "log.poll" | "guest.process") {
            state.note(pod, format_args!("{point}"));
        }
        state.pass(milliseconds);
        if state.dies(pod, point) {
            state.kill(pod);
        }
        drop(state);
        self.survive(pod);
    }

    /// Unwinds if the process is dead or the run is over.
    pub(crate) fn survive(&self, pod: usize) {
        let state = self.lock();
        let interrupt = match (&state.violation, state.pods[pod].alive) {
            (Some(_), _) => Interrupt::Violated,
            (None, false) => Interrupt::Killed,
            (None, true) => return,
        };
        drop(state);
        resume_unwind(Box::new(interrupt));
    }

    /// Ends the run: a rule was broken.
    pub(crate) fn violate(&self, text: Arguments<'_>) -> ! {
        self.lock().violate(text);
        resume_unwind(Box::new(Interrupt::Violated));
    }
}
