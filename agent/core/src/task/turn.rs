//! One turn of a task: what it works with, and what comes of it.

use std::time::Duration;

use crate::{
    record::{Outputs, TaskId, Timestamp, TopicIndex},
    task::{Blame, Failure, FailureKind, Failures, OnTrial, RecordId, Tally, Wanted},
    topology::Retry,
};

/// Records of one transform that failed in one way and were passed over, in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// The task.
    pub task: TaskId,
    /// An index into the transforms of its sub-topology.
    pub transform: usize,
    /// How they failed.
    pub kind: FailureKind,
    /// The topic that they went to; `None` if they were skipped.
    pub dead_letters: Option<TopicIndex>,
    /// How many.
    pub count: u64,
    /// What happened at the first of them, and where it was, for people.
    pub first: String,
}

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
    /// Batches that are divided because calls fail.
    pub(crate) division: Division,
}

/// How far batches are divided in one turn. Calls that fail by their time limit take so long that no
/// transaction lasts until each record of a batch has been judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Division {
    /// After this moment no part is begun, unless it is a record that is about to be judged.
    pub(super) ends_at: Duration,
    /// How many records the parts begin with at most: fewer, the more often the time was used up.
    pub(super) part_records_max: usize,
    /// Whether neither batches nor parts can be smaller.
    pub(super) is_smallest: bool,
    /// Whether a call failed.
    pub(super) has_failed: bool,
    /// How many records were given up that will be known to be, even if the work is dropped.
    pub(super) judged: u32,
    /// Whether it ended for want of time. No record failed then: the work is to be dropped, and to
    /// be tried again in smaller parts.
    pub(crate) is_out_of_time: bool,
}

impl Division {
    /// Whether another try would come no further than this one, which ended for want of time.
    pub(crate) const fn is_vain(&self) -> bool {
        self.is_smallest && self.judged == 0
    }
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

    /// Whether the time is used up in which batches may be divided.
    pub(super) fn is_out_of_time(&self) -> bool {
        (self.share.time)() >= self.division.ends_at
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
