//! The border to user code.

use std::time::Duration;

use crate::{
    record::{Batch, Emits, Timestamp},
    task::State,
};

/// One instance of a transform's module, for one task. The guest room implements it over a WASM
/// component.
///
/// A processor's memory is never state: after any error, and after every dropped transaction, the
/// task throws it away and asks for a new one.
pub trait Processor {
    /// What the module asked for when it was initialised.
    fn setup(&self) -> &Setup;

    /// Handles the records of `batch` in order. Reads and writes go to `state`; what it emits
    /// comes back.
    fn process(&mut self, batch: &Batch, state: &mut State) -> Result<Effects, Failure>;

    /// Handles a punctuation that is due.
    fn punctuate(&mut self, due: &Punctuation, state: &mut State) -> Result<Effects, Failure>;

    /// What the last call took, failed or not.
    fn cost(&self) -> Cost;
}

/// What a call of a processor took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Processor time of the calling thread.
    pub cpu: Duration,
    /// The memory that the instance has after it.
    pub memory_bytes: usize,
}

/// What a module asked for when it was initialised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// Whether it wants the headers of its records.
    pub headers: bool,
    /// Its punctuations, by index.
    pub schedules: Vec<Schedule>,
}

/// A punctuation that comes again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// By which time.
    pub clock: Clock,
    /// How far apart; at least a millisecond.
    pub interval: Duration,
}

/// By which time a punctuation is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The highest timestamp of the task's records so far. The first record sets it off.
    StreamTime,
    /// The machine's clock.
    WallClock,
}

/// A punctuation that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Punctuation {
    /// Which of [`Setup::schedules`].
    pub schedule: u32,
    /// The time it was due for; after a pause there is one call for all that were missed.
    pub time: Timestamp,
    /// The task's partition.
    pub partition: i32,
    /// Stream time now.
    pub stream_time: Timestamp,
    /// The wall clock now.
    pub wall_clock: Timestamp,
}

/// What a call of a processor did besides its changes of state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// The records it emitted.
    pub emits: Emits,
    /// What it said and counted; published when the transaction is committed.
    pub telemetry: Telemetry,
}

/// What user code said and counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Telemetry {
    /// Log lines, in order.
    pub lines: Vec<LogLine>,
    /// Samples of its own metrics, in order.
    pub samples: Vec<Sample>,
}

impl Telemetry {
    /// How many bytes it holds in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let lines = self.lines.iter().map(|line| size_of::<LogLine>() + line.message.len());
        let samples = self.samples.iter().map(|sample| size_of::<Sample>() + sample.name.len());
        lines.chain(samples).sum()
    }
}

/// A log line of user code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How grave.
    pub level: Level,
    /// What it said, bounded and cleaned by the host.
    pub message: String,
}

/// How grave a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For following a single record.
    Trace,
    /// For finding a fault.
    Debug,
    /// Worth knowing.
    Info,
    /// Wrong, and dealt with.
    Warn,
    /// Wrong, and not dealt with.
    Error,
}

/// A sample of a metric of user code.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// The sample.
    pub value: SampleValue,
}

/// The value of a [`Sample`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SampleValue {
    /// Added to a counter.
    Count(u64),
    /// Observed by a histogram.
    Observation(f64),
}

/// A call of a processor failed. Nothing it did counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct Failure {
    /// What happened.
    pub kind: FailureKind,
    /// The row of the batch that failed, if the module named one.
    pub record: Option<usize>,
    /// Why, for people.
    pub message: String,
}

/// How a call of a processor failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// The module asked for the record to be tried again.
    Retry,
    /// The module refused the record.
    Reject,
    /// The module could not be instantiated or initialised.
    Initialise,
    /// The module trapped.
    Trap,
    /// It ran longer than it may.
    Deadline,
    /// It wanted more memory, tables, stack or host memory than it may have.
    Limit,
    /// What it answered makes no sense: columns that don't match, an output that isn't there.
    Malformed,
    /// Kafka refuses a record that it emitted: too large, no such partition.
    Refused,
    /// The memory that all modules share is used up.
    Budget,
    /// The state behind it failed.
    State,
}

impl FailureKind {
    /// A word for metrics and headers that stays as it is.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Reject => "reject",
            Self::Initialise => "initialise",
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Limit => "limit",
            Self::Malformed => "malformed",
            Self::Refused => "refused",
            Self::Budget => "budget",
            Self::State => "state",
        }
    }

    /// Whether the code broke off, rather than to refuse a record or to lack something.
    #[must_use]
    pub const fn is_break(self) -> bool {
        match self {
            Self::Initialise | Self::Trap | Self::Deadline | Self::Limit | Self::Malformed => true,
            Self::Retry | Self::Reject | Self::Refused | Self::Budget | Self::State => false,
        }
    }

    /// Whether a record may be to blame, so that without it others go through.
    #[must_use]
    pub const fn is_of_record(self) -> bool {
        match self {
            Self::Retry
            | Self::Reject
            | Self::Trap
            | Self::Deadline
            | Self::Limit
            | Self::Malformed
            | Self::Refused => true,
            Self::Initialise | Self::Budget | Self::State => false,
        }
    }
}

impl std::fmt::Display for FailureKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Retry => "module asks to retry",
            Self::Reject => "module rejects the record",
            Self::Initialise => "module does not initialise",
            Self::Trap => "module trapped",
            Self::Deadline => "module ran out of time",
            Self::Limit => "module went over a limit",
            Self::Malformed => "module gave a malformed answer",
            Self::Refused => "an output is refused",
            Self::Budget => "modules have used up their memory",
            Self::State => "state store failed",
        })
    }
}
