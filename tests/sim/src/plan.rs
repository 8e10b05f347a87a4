//! What a seed decides before a run begins: the pipeline, the load, and how often what fails.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use sidestream_core::{
    record::{TaskId, TopicIndex, TopicPartition},
    task::FailureKind,
    topology::{OnOutOfRange, Subtopology, Topology},
    worker::Config,
};

use crate::{
    change::{self, Change},
    cluster::LogRecord,
    loss::{self, Loss},
    odd,
    pipeline::{self, Shape},
    places,
    poison::Policies,
    prng::Prng,
    refusals::Refusals,
    slow::{self, Slow},
    swap::{self, Planned},
};

/// How long the simulated brokers wait for whom, in milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Timeouts {
    pub(crate) transaction: u64,
    pub(crate) session: u64,
    pub(crate) rebalance: u64,
    pub(crate) delete_retention: u64,
}

/// How often what fails: once in so many chances, never for 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// A process is killed at one of its calls; this many lives in ten end so.
    pub(crate) crashes_in_ten: u64,
    /// A commit is aborted.
    pub(crate) abort: u64,
    /// The end of a transaction gets no answer.
    pub(crate) unknown: u64,
    /// A call finds the brokers away.
    pub(crate) unavailable: u64,
    /// What was fetched before a seek is delivered after it.
    pub(crate) stale: u64,
    /// A batch begins below the position that was asked for.
    pub(crate) overlap: u64,
    /// A worker stands still in a call while others work.
    pub(crate) pause: u64,
    /// A process stands still between two turns, and is thought dead.
    pub(crate) stop: u64,
    /// A record fails once or twice, then not any more.
    pub(crate) transient: u64,
    /// A new processor fails to initialise.
    pub(crate) initialise: u64,
    /// A read of a store finds damage.
    pub(crate) corrupt: u64,
    /// A store can't be opened for a while.
    pub(crate) open: u64,
    /// One that is closed can't be flushed.
    pub(crate) flush: u64,
    /// A changelog is compacted.
    pub(crate) compact: u64,
    /// A partition gets a new leader.
    pub(crate) leader: u64,
    /// A process is told to stop, or another one comes with the same identity.
    pub(crate) restart: u64,
    /// A long time passes while a process is down, or restores.
    pub(crate) leap: u64,
    /// Wall clocks differ and jump.
    pub(crate) clocks: bool,
    /// They jump by years, and to the end of their range.
    pub(crate) years: bool,
}

/// Records that come into an input partition together.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) partition: TopicPartition,
    pub(crate) records: Vec<LogRecord>,
    /// `None` without a transaction, else whether it commits.
    pub(crate) transaction: Option<bool>,
}

/// What a seed decides.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) shape: Shape,
    pub(crate) topology: Arc<Topology>,
    pub(crate) config: Config,
    pub(crate) timeouts: Timeouts,
    /// How long calls take, if that is much.
    pub(crate) slow: Option<Slow>,
    pub(crate) faults: Faults,
    pub(crate) identities: usize,
    pub(crate) workers: usize,
    pub(crate) static_members: bool,
    /// Applied changes outlive a crash of the process, as with a log of RocksDB's own.
    pub(crate) durable: bool,
    /// For how many steps there are faults.
    pub(crate) steps: u64,
    pub(crate) arrivals: Vec<Arrival>,
    /// At which steps the processes that are there then are paused (true) or resumed.
    pub(crate) pauses: Vec<(u64, bool)>,
    /// Other versions of transforms' code.
    pub(crate) swaps: Vec<Planned>,
    /// What the pipeline becomes.
    pub(crate) change: Option<Change>,
    /// At which step an operator leaves records out.
    pub(crate) skip_at: Option<u64>,
    /// It may be asked for other places to start at than the pipeline's.
    pub(crate) any_start: bool,
    /// Records that always fail and stop their task, by partition and place among its records (aborted ones too).
    pub(crate) poison: BTreeSet<Vec<u8>>,
    /// Failures by chance say which record failed, and a task has no more attempts than one record
    /// needs: many records of a batch may fail, and none may stop the task.
    pub(crate) named: bool,
    /// What brokers refuse, and how they say it.
    pub(crate) refusals: Refusals,
    /// After how many records an instance of user code is used up, and how it fails then.
    pub(crate) leak: Option<(u64, FailureKind)>,
    /// In place of an end without faults, something is lost.
    pub(crate) loss: Option<Loss>,
    /// A marker is written once in so many chances: fast or slowly.
    pub(crate) marker: u64,
}

impl Plan {
    /// A plan without load or faults.
    #[cfg(test)]
    pub(crate) fn calm(topology: Topology) -> Self {
        let mut plan = Self::new(0, &mut Prng::new(0));
        plan.topology = Arc::new(topology);
        plan.faults = Faults::default();
        plan.static_members = true;
        plan.durable = true;
        plan.timeouts.transaction = 60_000;
        plan.slow = None;
        plan.arrivals.clear();
        plan.poison = [b"poison".to_vec()].into();
        plan.swaps.clear();
        plan.change = None;
        plan.skip_at = None;
        plan.any_start = true;
        plan.loss = None;
        plan.named = false;
        plan.leak = None;
        plan.refusals = Refusals::default();
        plan.config.exactly_once = true;
        plan
    }

    /// Draws the plan of a seed.
    pub(crate) fn new(seed: u64, prng: &mut Prng) -> Self {
        let (shape, nameless, loss) = shape(seed, prng);
        let topology = Arc::new(pipeline::topology(&shape));
        let (arrivals, mut poison) = arrivals(seed, prng, &shape, &topology);
        let refusals = refusals(seed, nameless, &shape, &topology);
        if shape.policies.rate > 0 || refusals.stops() || change::is_drawn(seed) {
            poison.clear();
        }
        let mut timeouts = timeouts(prng);
        let mut config = config(prng, &timeouts);
        let mut faults = faults(prng);
        fails_for_good(!poison.is_empty() || refusals.stops(), &mut config, &mut faults);
        let fails = shape.policies.rate > 0;
        let slow = Slow::draw(seed, timeouts.transaction, fails).filter(|_| !refusals.stops());
        if slow.is_some() {
            poison.clear();
            slow::slow_down(seed, &mut timeouts, &mut config, &mut faults);
        }
        faults.years = odd::is_extreme(seed);
        let is_free = poison.is_empty() && !refusals.stops() && slow.is_none();
        let leak = leak(seed).filter(|_| is_free && !change::is_drawn(seed));
        let named = is_free && leak.is_none() && seed % NAMED == NAMED - 1;
        fails_by_chance((leak.is_some(), named), &mut config, &mut faults);
        if seed % AT_LEAST_ONCE == AT_LEAST_ONCE - 1 {
            without_transactions(&mut timeouts, &mut config, &mut faults);
        }
        let crew = (prng.between(1, 3), prng.between(1, 2));
        // One waits while another is slow, as nobody would in truth: so there is no other.
        let (identities, workers) = if slow.is_some() { (1, 1) } else { crew };
        let (static_members, durable) = (prng.coin(), prng.coin());
        let steps = prng.between(150, 500);
        let may_swap = !refusals.stops() && leak.is_none() && slow.is_none_or(|of| of.hang == 0);
        let mut swaps = if may_swap { swaps(seed, steps, &topology) } else { Vec::new() };
        swap::may_punctuate(&mut swaps, !nameless); // As in `shape`.
        if !swaps.is_empty() && (faults.transient, faults.initialise, faults.corrupt) == (0, 0, 0) {
            config.retry_attempts_max = 3; // Nothing but a version fails: it soon stops its task.
        }
        let mut plan = Self {
            seed,
            config,
            timeouts,
            slow,
            faults,
            identities: identities.try_into().expect("small"),
            workers: workers.try_into().expect("small"),
            static_members,
            durable,
            steps,
            swaps,
            change: None,
            skip_at: None,
            any_start: false,
            shape,
            topology,
            arrivals,
            pauses: pauses(seed),
            poison,
            named,
            refusals,
            leak,
            loss,
            marker: [3, 12][index_of(seed, 2)],
        };
        if change::is_drawn(seed) {
            change::draw(seed, &mut plan);
        }
        plan.skip_at = places::skip_at(&plan);
        if plan.config.retry_attempts_max == ATTEMPTS_MAX && plan.slow.is_none() {
            (plan.faults.open, plan.faults.flush) = disk_faults(seed);
        }
        plan
    }
}

impl Plan {
    /// All tasks that there are.
    pub(crate) fn tasks(&self) -> Vec<TaskId> {
        let subtopologies = self.topology.subtopologies.iter().zip(0u16..);
        let tasks = |(of, subtopology): (&Subtopology, u16)| {
            (0..of.partitions).map(move |partition| TaskId { subtopology, partition })
        };
        subtopologies.flat_map(tasks).collect()
    }
}

/// The pipeline of a run, whether its failures may name no record, and what is lost in the end.
fn shape(seed: u64, prng: &mut Prng) -> (Shape, bool, Option<Loss>) {
    let mut shape = Shape::draw(prng);
    if seed % AT_LEAST_ONCE != AT_LEAST_ONCE - 1 {
        shape.starts = places::starts(seed);
    }
    if seed % POLICIES == 1 && !change::is_drawn(seed) {
        shape.policies = Policies::draw(seed);
    }
    let nameless = seed % NAMELESS == 1 && !shape.chained;
    if nameless {
        shape.does_not_punctuate(); // What a record and that did could not be told apart.
    }
    let loss = loss::draw(seed);
    if loss.is_some() && seed.is_multiple_of(3) {
        shape.on_out_of_range = [OnOutOfRange::Earliest, OnOutOfRange::Latest][index_of(seed, 2)];
    }
    (shape, nameless, loss)
}

/// The swaps of a run whose pipeline stays.
fn swaps(seed: u64, steps: u64, topology: &Topology) -> Vec<Planned> {
    match change::is_drawn(seed) {
        true => Vec::new(),
        false => swap::draw(seed, steps, topology),
    }
}

/// In one seed of so many, some transforms pass over what fails for good.
const POLICIES: u64 = 4;

/// In one seed of so many, which have policies and one transform in a task, a refusal names no
/// record.
const NAMELESS: u64 = 2 * POLICIES;

/// What fails for good is told from what fails by chance by how often it fails.
const fn fails_for_good(does: bool, config: &mut Config, faults: &mut Faults) {
    if does {
        config.retry_attempts_max = 5;
        (faults.transient, faults.initialise, faults.corrupt) = (0, 0, 0);
    }
}

/// What fails by chance, where instances leak or failures name their records.
const fn fails_by_chance((leaks, named): (bool, bool), config: &mut Config, faults: &mut Faults) {
    if leaks {
        config.retry_attempts_max = 1; // No failure may be counted.
        (faults.transient, faults.initialise, faults.corrupt) = (0, 0, 0);
    } else if named {
        config.retry_attempts_max = FAILURES_MAX + 1;
        (faults.transient, faults.initialise, faults.corrupt) = (3, 0, 0);
    }
    if faults.leap > 0 && faults.compact == 0 {
        faults.compact = 50; // Time only matters to what is compacted.
    }
}

/// What brokers refuse, where the pipeline stays as it is.
fn refusals(seed: u64, nameless: bool, shape: &Shape, topology: &Topology) -> Refusals {
    match change::is_drawn(seed) {
        true => Refusals::default(),
        false => Refusals::draw(seed, nameless, shape, topology),
    }
}

/// In one seed of eleven, after how many records an instance fails at whatever comes.
fn leak(seed: u64) -> Option<(u64, FailureKind)> {
    let mut prng = Prng::new(seed ^ 0x1EAC);
    let kinds = [FailureKind::Limit, FailureKind::Trap, FailureKind::Reject, FailureKind::Retry];
    let leak = (prng.between(1, 30), kinds[prng.index(kinds.len())]);
    prng.one_in(11).then_some(leak)
}

/// One seed in so many runs at least once.
pub(crate) const AT_LEAST_ONCE: u64 = 6;

/// In one seed of so many, failures say which record failed.
const NAMED: u64 = 5;

/// How often a record fails by chance at most.
pub(crate) const FAILURES_MAX: u32 = 2;

/// Without transactions nothing keeps a member that stood still from overwriting what others wrote
/// meanwhile; so here nobody stands still, and rebalances wait for all.
fn without_transactions(timeouts: &mut Timeouts, config: &mut Config, faults: &mut Faults) {
    config.exactly_once = false;
    (faults.pause, faults.stop, timeouts.rebalance) = (0, 0, NEVER);
    // What a dropped commit leaves behind only shows when there are some, and crashes.
    (faults.abort, faults.crashes_in_ten) = (4, 8);
}

/// Longer than any run.
const NEVER: u64 = 1 << 40;

pub(crate) fn index_of(number: u64, length: usize) -> usize {
    usize::try_from(number % length as u64).expect("below a length")
}

fn config(prng: &mut Prng, timeouts: &Timeouts) -> Config {
    Config {
        exactly_once: true,
        commit_interval: Duration::from_millis(prng.between(1, 120)),
        transaction_timeout: Duration::from_millis(timeouts.transaction),
        turn_time_max: Duration::from_millis(20),
        uncommitted_bytes_max: prng.between(200, 4_000).try_into().expect("small"),
        batch_records_max: prng.between(1, 24).try_into().expect("small"),
        buffered_bytes_max: prng.between(100, 5_000).try_into().expect("small"),
        max_task_idle: Duration::from_millis(if prng.coin() { 0 } else { prng.between(1, 60) }),
        retry_attempts_max: ATTEMPTS_MAX,
        retry_backoff: Duration::from_millis(prng.between(1, 30)),
        position_age_max: Duration::from_millis(POSITION_AGE_MAX),
        purge_interval: Duration::from_millis(prng.between(20, 400)),
    }
}

/// How often what fails by chance may do so, where nothing else is to be seen.
pub(crate) const ATTEMPTS_MAX: u32 = 60;

/// How often a disk has no room when a store is opened, and when it is flushed. Drawn by itself, as
/// are pauses.
fn disk_faults(seed: u64) -> (u64, u64) {
    let mut prng = Prng::new(seed ^ 0xD15C);
    let (open, flush) = (prng.between(2, 12), prng.between(1, 6));
    (if prng.one_in(3) { open } else { 0 }, if prng.one_in(3) { flush } else { 0 })
}

/// Stands for half of a changelog's `delete.retention.ms`, scaled down to a run's length.
pub(crate) const POSITION_AGE_MAX: u64 = 4_000;

fn timeouts(prng: &mut Prng) -> Timeouts {
    Timeouts {
        transaction: prng.between(300, 2_000),
        session: prng.between(100, 1_500),
        rebalance: prng.between(200, 2_000),
        delete_retention: 2 * POSITION_AGE_MAX,
    }
}

/// Each kind of fault is there or not, often or rarely: runs with few kinds of faults get
/// further into what those lead to than runs with all of them.
fn faults(prng: &mut Prng) -> Faults {
    let calm = prng.one_in(20);
    let mut rate = |low: u64, high: u64| match calm || prng.coin() {
        true => 0,
        false => prng.between(low, high),
    };
    Faults {
        crashes_in_ten: rate(5, 10),
        abort: rate(2, 20),
        unknown: rate(2, 20),
        unavailable: rate(8, 60),
        stale: rate(1, 3),
        overlap: rate(2, 20),
        pause: rate(15, 100),
        stop: rate(40, 200),
        transient: rate(4, 60),
        initialise: rate(6, 40),
        corrupt: rate(200, 1_000),
        open: 0,
        flush: 0,
        compact: rate(20, 100),
        leader: rate(20, 200),
        restart: rate(60, 300),
        leap: rate(2, 10),
        clocks: rate(1, 1) == 1,
        years: false,
    }
}

/// In one run of four, when processes are paused, and when they go on. Drawn by itself, so that
/// what else a seed decides does not depend on it.
fn pauses(seed: u64) -> Vec<(u64, bool)> {
    let mut prng = Prng::new(seed ^ 0x9a05e);
    if !prng.one_in(4) {
        return Vec::new();
    }
    let mut step = 0;
    let turns = prng.between(1, 8);
    (0..2 * turns)
        .map(|turn| {
            step += prng.between(5, 60);
            (step, turn % 2 == 0)
        })
        .collect()
}

/// Draws what comes into the external inputs. Values are unique, so that records can be told
/// apart wherever they turn up.
fn arrivals(
    seed: u64,
    prng: &mut Prng,
    shape: &Shape,
    topology: &Topology,
) -> (Vec<Arrival>, BTreeSet<Vec<u8>>) {
    let mut odd = odd::is_extreme(seed).then(|| Prng::new(seed ^ 0x0DD));
    let keys = prng.between(1, 6);
    let batches = prng.between(10, 60);
    let drift = prng.between(1, 40);
    let mut poison = BTreeSet::new();
    let poisoned = prng.one_in(8);
    let mut clock = 1_000i64;
    let mut arrivals = Vec::new();
    let mut serial = 0u64;
    for _ in 0..batches {
        let input = prng.index(shape.inputs);
        let input = &topology.subtopologies[0].inputs[input];
        let partitions = u64::try_from(shape.partitions).expect("not negative");
        let partition = i32::try_from(prng.below(partitions)).expect("small");
        let transaction = prng.one_in(4).then(|| !prng.one_in(3));
        let mut records = Vec::new();
        for _ in 0..prng.between(1, 8) {
            serial += 1;
            clock += i64::try_from(prng.below(drift)).expect("small");
            let late = i64::try_from(prng.below(60)).expect("small");
            let key = format!("k{}", prng.below(keys)).into_bytes();
            let value = format!("v{serial}").into_bytes();
            if poisoned && poison.is_empty() && transaction.is_none() && prng.one_in(40) {
                poison.insert(value.clone());
            }
            let odd = odd.as_mut().and_then(odd::odd_timestamp);
            records.push(LogRecord {
                timestamp: odd.unwrap_or(clock - late),
                key: (!prng.one_in(15)).then_some(key),
                value: (poison.contains(&value) || !prng.one_in(6)).then_some(value),
                headers: prng.one_in(3).then(|| (b"h".to_vec(), None)).into_iter().collect(),
            });
        }
        let partition = TopicPartition::new(TopicIndex(input.topic.0), partition);
        arrivals.push(Arrival { partition, records, transaction });
    }
    (arrivals, poison)
}
