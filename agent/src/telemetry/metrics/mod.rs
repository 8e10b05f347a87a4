//! What the agent counts. Recorded for each batch and each commit, never for a record: an addition
//! to an atomic, without a lock. Labels are workers, transforms, tasks, stores and topics of one
//! pipeline, so that there are only so many series; those of a task leave with it.

pub mod names;
#[cfg(test)]
mod tests;
mod text;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use sidestream_core::{
    ports::TransactionError,
    task::{FailureKind, Sample, SampleValue},
};

use crate::lock::Held;

pub use self::text::{CONTENT_TYPE, Text};

/// How many names of metrics of its own a transform's module may use in the life of the agent.
const MODULE_NAMES_MAX: usize = 200;

/// How long calls and commits take, in seconds.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What modules observe may be anything.
const ANYTHING: &[f64] =
    &[0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0];

/// A metric, described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What tells its series apart.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only rises.
    Counter,
    /// It rises and falls.
    Gauge,
    /// Observations, counted by size.
    Histogram,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// What it has come to.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Observations, counted by size.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One more than bounds.
    buckets: Vec<AtomicU64>,
    /// The bits of a floating point number.
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum: AtomicU64::new(0f64.to_bits()) }
    }

    /// Takes an observation, unless it is infinite or no number: nothing could be told from the sum
    /// any more.
    pub fn observe(&self, value: f64) {
        if !value.is_finite() {
            return;
        }
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let sum = |bits| (f64::from_bits(bits) + value).clamp(f64::MIN, f64::MAX);
        let add = |bits| Some(sum(bits).to_bits());
        // Always `Ok`, since the closure always gives a value.
        self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok();
    }

    fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    fn snapshot(&self) -> (Vec<u64>, f64) {
        let buckets = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        (buckets, f64::from_bits(self.sum.load(Ordering::Relaxed)))
    }
}

/// What one worker counts.
#[derive(Debug)]
pub struct WorkerMetrics {
    /// Turns of its loop: told apart from the rest by being stored, not added to, in each turn.
    pub turns: AtomicU64,
    /// See [`names::RECORDS`].
    pub records: Counter,
    /// See [`names::OUTPUT_RECORDS`].
    pub outputs: Counter,
    /// See [`names::CHANGELOG_RECORDS`].
    pub changes: Counter,
    /// See [`names::COMMITTED_BYTES`].
    pub bytes: Counter,
    /// See [`names::DROPPED_TRANSACTIONS`].
    pub dropped: Counter,
    /// See [`names::RESTORED_RECORDS`].
    pub restored: Counter,
    /// See [`names::REBUILDS`].
    pub rebuilds: Counter,
    commits: [Counter; OUTCOMES.len()],
    commit_seconds: Histogram,
}

/// What may come of an attempt to commit.
const OUTCOMES: [&str; 6] = ["committed", "aborted", "unknown", "unavailable", "refused", "fatal"];

impl WorkerMetrics {
    fn new() -> Self {
        Self {
            turns: AtomicU64::new(0),
            records: Counter::default(),
            outputs: Counter::default(),
            changes: Counter::default(),
            bytes: Counter::default(),
            dropped: Counter::default(),
            restored: Counter::default(),
            rebuilds: Counter::default(),
            commits: Default::default(),
            commit_seconds: Histogram::new(SECONDS),
        }
    }

    /// Counts an attempt to commit.
    pub fn commit(&self, error: Option<&TransactionError>, took: Duration) {
        let outcome = match error {
            None => 0,
            Some(TransactionError::Aborted(_)) => 1,
            Some(TransactionError::Unknown(_)) => 2,
            Some(TransactionError::Unavailable(_)) => 3,
            Some(TransactionError::Refused { .. }) => 4,
            Some(TransactionError::Fatal(_)) => 5,
        };
        self.commits[outcome].add(1);
        self.commit_seconds.observe(took.as_secs_f64());
    }
}

/// What one transform's module costs.
#[derive(Debug)]
pub struct TransformMetrics {
    name: String,
    records: Counter,
    batches: Counter,
    batch_seconds: Histogram,
    cpu_nanoseconds: Counter,
    memory_bytes: AtomicI64,
    failures: Mutex<BTreeMap<FailureKind, u64>>,
    /// By how they failed, and whether they were dead-lettered.
    passed_over: Mutex<BTreeMap<(FailureKind, bool), u64>>,
    swaps: Mutex<BTreeMap<&'static str, u64>>,
    swap_pause: Histogram,
    own: Mutex<Own>,
    own_dropped: Counter,
}

/// What a transform has come to since the start of the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// See [`names::TRANSFORM_RECORDS`].
    pub records: u64,
    /// See [`names::FAILURES`], whatever kind.
    pub failures: u64,
    /// See [`names::PASSED_OVER`], the ones that went nowhere.
    pub skipped: u64,
    /// See [`names::PASSED_OVER`], the ones with a dead letter.
    pub dead_lettered: u64,
    /// See [`names::GUEST_CPU_SECONDS`].
    pub cpu: Duration,
}

/// The metrics of a module's own.
#[derive(Debug, Default)]
struct Own {
    counters: BTreeMap<String, u64>,
    histograms: BTreeMap<String, Histogram>,
}

impl TransformMetrics {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            records: Counter::default(),
            batches: Counter::default(),
            batch_seconds: Histogram::new(SECONDS),
            cpu_nanoseconds: Counter::default(),
            memory_bytes: AtomicI64::new(0),
            failures: Mutex::default(),
            passed_over: Mutex::default(),
            swaps: Mutex::default(),
            swap_pause: Histogram::new(SECONDS),
            own: Mutex::default(),
            own_dropped: Counter::default(),
        }
    }

    /// Counts a call of the module with so many records.
    pub fn call(&self, records: u64, took: Duration, cpu: Duration) {
        self.records.add(records);
        self.batches.add(1);
        self.batch_seconds.observe(took.as_secs_f64());
        self.cpu_nanoseconds.add(u64::try_from(cpu.as_nanos()).unwrap_or(0));
    }

    /// Counts a call that failed.
    pub fn failure(&self, kind: FailureKind) {
        let mut failures = self.failures.held();
        *failures.entry(kind).or_default() += 1;
    }

    /// Counts records that failed and were passed over in a committed transaction.
    pub fn passed_over(&self, kind: FailureKind, dead_lettered: bool, count: u64) {
        let mut passed_over = self.passed_over.held();
        *passed_over.entry((kind, dead_lettered)).or_default() += count;
    }

    /// What it has come to since the start, for those who ask about the transform as a whole.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let failures = self.failures.held();
        let failures = failures.values().sum();
        let passed_over = self.passed_over.held();
        let of = |letters: bool| {
            let of = passed_over.iter().filter(|((_, lettered), _)| *lettered == letters);
            of.map(|(_, count)| count).sum()
        };
        Totals {
            records: self.records.get(),
            failures,
            skipped: of(false),
            dead_lettered: of(true),
            cpu: Duration::from_nanos(self.cpu_nanoseconds.get()),
        }
    }

    /// Counts a swap, by what it came to.
    pub fn swap(&self, outcome: &'static str) {
        let mut swaps = self.swaps.held();
        *swaps.entry(outcome).or_default() += 1;
    }

    /// Notes for how long a worker did nothing of the transform while another module took over.
    pub fn swap_pause(&self, pause: Duration) {
        self.swap_pause.observe(pause.as_secs_f64());
    }

    /// Notes that an instance's memory has changed from `before` to `now` bytes.
    pub fn memory(&self, before: usize, now: usize) {
        let change = i64::try_from(now).unwrap_or(0) - i64::try_from(before).unwrap_or(0);
        self.memory_bytes.fetch_add(change, Ordering::Relaxed);
    }

    /// Takes samples of the module's own metrics, once they are committed.
    pub fn samples(&self, samples: &[Sample]) {
        if samples.is_empty() {
            return;
        }
        let mut own = self.own.held();
        for Sample { name, value } in samples {
            let known = own.counters.contains_key(name) || own.histograms.contains_key(name);
            if !known && own.counters.len() + own.histograms.len() >= MODULE_NAMES_MAX {
                self.own_dropped.add(1);
                continue;
            }
            match *value {
                SampleValue::Count(by) => {
                    let sum = own.counters.entry(name.clone()).or_default();
                    *sum = sum.saturating_add(by);
                }
                SampleValue::Observation(value) => {
                    let new = || Histogram::new(ANYTHING);
                    own.histograms.entry(name.clone()).or_insert_with(new).observe(value);
                }
            }
        }
    }
}

/// Everything that is counted as it happens.
#[derive(Debug)]
pub struct Metrics {
    /// What each worker counts.
    pub workers: Vec<Arc<WorkerMetrics>>,
    transforms: Vec<Arc<TransformMetrics>>,
}

impl Metrics {
    /// For an agent with so many workers and these transforms.
    pub fn new<'a>(workers: usize, transforms: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            workers: (0..workers).map(|_| Arc::new(WorkerMetrics::new())).collect(),
            transforms: transforms
                .into_iter()
                .map(|name| Arc::new(TransformMetrics::new(name)))
                .collect(),
        }
    }

    /// What the module of the transform of this name costs.
    #[must_use]
    pub fn transform(&self, name: &str) -> Option<Arc<TransformMetrics>> {
        self.transforms.iter().find(|transform| transform.name == name).cloned()
    }

    /// Writes all that was counted.
    pub fn write(&self, text: &mut Text) {
        self.write_workers(text);
        self.write_transforms(text);
    }

    fn write_workers(&self, text: &mut Text) {
        type Of = fn(&WorkerMetrics) -> u64;
        let counters: [(&Metric, Of); 8] = [
            (&names::WORKER_TURNS, |worker| worker.turns.load(Ordering::Relaxed)),
            (&names::RECORDS, |worker| worker.records.get()),
            (&names::OUTPUT_RECORDS, |worker| worker.outputs.get()),
            (&names::CHANGELOG_RECORDS, |worker| worker.changes.get()),
            (&names::COMMITTED_BYTES, |worker| worker.bytes.get()),
            (&names::DROPPED_TRANSACTIONS, |worker| worker.dropped.get()),
            (&names::RESTORED_RECORDS, |worker| worker.restored.get()),
            (&names::REBUILDS, |worker| worker.rebuilds.get()),
        ];
        let workers: Vec<_> =
            self.workers.iter().enumerate().map(|(n, w)| (n.to_string(), w)).collect();
        for (metric, of) in counters {
            text.metric(metric);
            for (number, worker) in &workers {
                text.sample(metric, &[number], of(worker));
            }
        }
        text.metric(&names::COMMITS);
        for (number, worker) in &workers {
            for (outcome, count) in OUTCOMES.iter().zip(&worker.commits) {
                text.sample(&names::COMMITS, &[number, outcome], count.get());
            }
        }
        text.metric(&names::COMMIT_SECONDS);
        for (number, worker) in &workers {
            text.histogram(&names::COMMIT_SECONDS, &[number], &worker.commit_seconds);
        }
    }

    fn write_transforms(&self, text: &mut Text) {
        text.metric(&names::TRANSFORM_RECORDS);
        for of in &self.transforms {
            text.sample(&names::TRANSFORM_RECORDS, &[&of.name], of.records.get());
        }
        text.metric(&names::BATCHES);
        for of in &self.transforms {
            text.sample(&names::BATCHES, &[&of.name], of.batches.get());
        }
        text.metric(&names::BATCH_SECONDS);
        for of in &self.transforms {
            text.histogram(&names::BATCH_SECONDS, &[&of.name], &of.batch_seconds);
        }
        text.metric(&names::GUEST_CPU_SECONDS);
        for of in &self.transforms {
            let cpu = Duration::from_nanos(of.cpu_nanoseconds.get()).as_secs_f64();
            text.sample(&names::GUEST_CPU_SECONDS, &[&of.name], cpu);
        }
        text.metric(&names::GUEST_MEMORY);
        for of in &self.transforms {
            let bytes = of.memory_bytes.load(Ordering::Relaxed).max(0);
            text.sample(&names::GUEST_MEMORY, &[&of.name], bytes);
        }
        text.metric(&names::FAILURES);
        for of in &self.transforms {
            for (kind, count) in &*of.failures.held() {
                text.sample(&names::FAILURES, &[&of.name, kind.name()], count);
            }
        }
        text.metric(&names::PASSED_OVER);
        for of in &self.transforms {
            let counts = of.passed_over.held();
            for (&(kind, dead_lettered), count) in &*counts {
                let policy = if dead_lettered { "dead_letter" } else { "skip" };
                text.sample(&names::PASSED_OVER, &[&of.name, kind.name(), policy], count);
            }
        }
        self.write_swaps(text);
        self.write_own(text);
    }

    fn write_swaps(&self, text: &mut Text) {
        text.metric(&names::SWAPS);
        for of in &self.transforms {
            for (outcome, count) in &*of.swaps.held() {
                text.sample(&names::SWAPS, &[&of.name, outcome], count);
            }
        }
        text.metric(&names::SWAP_PAUSE);
        for of in &self.transforms {
            text.histogram(&names::SWAP_PAUSE, &[&of.name], &of.swap_pause);
        }
    }

    fn write_own(&self, text: &mut Text) {
        let own = |of: &TransformMetrics, write: &mut dyn FnMut(&Own)| {
            write(&of.own.held());
        };
        text.metric(&names::MODULE_COUNTER);
        for of in &self.transforms {
            own(of, &mut |own| {
                for (name, count) in &own.counters {
                    text.sample(&names::MODULE_COUNTER, &[&of.name, name], count);
                }
            });
        }
        text.metric(&names::MODULE_HISTOGRAM);
        for of in &self.transforms {
            own(of, &mut |own| {
                for (name, histogram) in &own.histograms {
                    text.histogram(&names::MODULE_HISTOGRAM, &[&of.name, name], histogram);
                }
            });
        }
        text.metric(&names::MODULE_DROPPED);
        for of in &self.transforms {
            text.sample(&names::MODULE_DROPPED, &[&of.name], of.own_dropped.get());
        }
    }
}
