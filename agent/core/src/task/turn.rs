//! One turn of a task: what it works with, and what comes of it.

use std::time::Duration;

use crate::{
    record::{Outputs, Timestamp},
    task::{Blame, Failure, Failures, OnTrial, RecordId, Tally, Wanted},
    topology::Retry,
};

/// What a task is given to work with, and what comes of it.
pub(crate) struct Turn<'a, P> {
    pub(crate) wall_clock: Timestamp,
    /// The worker's own; policies may say otherwise.
    pub(crate) retry: Retry,
    /// Makes a processor for a transform of the task.
    pub(crate) make: &'a mut dyn FnMut(Wanted) -> Result<P, Failure>,
    /// Versions on probation of transforms of the task.
    pub(crate) on_trial: Vec<OnTrial>,
    /// Whose fault the last failure of one of those was, and of which transform it is.
    pub(crate) blame: Option<(usize, Blame)>,
    /// What failed before and is not over yet.
    pub(crate) failures: &'a mut Failures,
    /// What each transform did so far.
    pub(crate) tallies: &'a mut [Tally],
    /// How much of the worker's time and memory it may have.
    pub(crate) share: Share<'a>,
    /// What goes to topics.
    pub(crate) produced: Produced,
    /// Whether a record was passed over.
    pub(crate) passed_over: bool,
    /// The first call in which a transform's code broke off, and how.
    pub(crate) broke: Option<(usize, String)>,
}

/// What a turn may take before other tasks have theirs.
pub(crate) struct Share<'a> {
    /// Tells the time.
    pub(crate) time: &'a dyn Fn() -> Duration,
    pub(crate) ends_at: Duration,
    /// Bytes of outputs, of what is handed over, and of what the task holds until the commit.
    pub(crate) bytes_max: usize,
    /// Bytes that punctuations have handed to other transforms of the task.
    pub(crate) handed_over: usize,
}

/// Which of the punctuations that were due were called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Punctuated {
    /// None was due.
    Nothing,
    /// Some: the share was used up. The others come first in the next turn.
    Some,
    /// All of them.
    All,
}

impl<P> Turn<'_, P> {
    /// Whether the turn has to end, for a task that holds so many bytes.
    pub(super) fn is_used_up(&self, held: usize) -> bool {
        let Share { time, ends_at, bytes_max, handed_over } = &self.share;
        held + handed_over + self.produced.outputs.bytes() >= *bytes_max || time() >= *ends_at
    }

    /// The version of a transform that is on probation, if one is.
    pub(super) fn on_trial(&self, transform: usize) -> Option<OnTrial> {
        self.on_trial.iter().find(|of| of.transform == transform).copied()
    }

    /// A call of a transform failed, and the version before one on probation was not asked.
    pub(super) fn failed(&mut self, transform: usize, failure: &Failure) {
        self.blame = None;
        if failure.kind.is_break() {
            self.tallies[transform].broke();
            self.broke.get_or_insert_with(|| (transform, failure.to_string()));
        }
    }
}

/// Whose work something is that goes out or fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doer {
    /// A record's.
    Record(RecordId),
    /// The dead letter of a record, if it is known which.
    Letter(u16, Option<RecordId>),
    /// A transform's, of no record that is known: a punctuation's, or of a call with many records.
    Transform(u16),
}

impl Doer {
    /// The work of a transform at a record, if it is known which.
    pub(super) fn new(transform: usize, record: Option<RecordId>) -> Self {
        record.map_or_else(|| Self::Transform(place(transform)), Self::Record)
    }

    /// The dead letter of what a transform failed at.
    pub(super) fn letter(transform: usize, record: Option<RecordId>) -> Self {
        Self::Letter(place(transform), record)
    }

    /// The record, if it is one's own work.
    pub(crate) const fn record(self) -> Option<RecordId> {
        match self {
            Self::Record(record) => Some(record),
            Self::Letter(..) | Self::Transform(_) => None,
        }
    }

    /// The transform, an index into those of the sub-topology.
    pub(crate) fn transform(self) -> usize {
        usize::from(match self {
            Self::Record(record) => record.transform,
            Self::Letter(transform, _) | Self::Transform(transform) => transform,
        })
    }
}

fn place(transform: usize) -> u16 {
    u16::try_from(transform).expect("few transforms")
}

/// Records to produce, and whose work each is.
#[derive(Debug, Default)]
pub(crate) struct Produced {
    pub(crate) outputs: Outputs,
    pub(crate) origins: Vec<Doer>,
}

impl Produced {
    pub(super) fn append(&mut self, other: Self) {
        self.outputs.append(other.outputs);
        self.origins.extend(other.origins);
    }
}
