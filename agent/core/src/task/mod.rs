//! Partition *n* of every input of a sub-topology, with its state and its processors.

mod dead_letter;
mod division;
mod failures;
mod opinion;
mod origin;
mod processor;
mod queue;
mod routing;
mod run;
mod state;
mod store;
mod tally;
mod time;

pub(crate) use self::{
    failures::{Failed, Failures, RecordId, Verdict, judge},
    opinion::{Blame, OnTrial, Wanted},
    origin::{Mark, Origins, read_seen},
    queue::Readiness,
    run::{Part, Produced, Punctuated, Share, Task, Turn, empty_position, store_positions},
};
pub use self::{
    origin::SEEN_HEADER,
    processor::{
        Clock, Cost, Effects, Failure, FailureKind, Level, LogLine, Processor, Punctuation, Sample,
        SampleValue, Schedule, Setup, Telemetry,
    },
    state::{Savepoint, State},
    store::{
        Entries, InputPosition, Position, Scan, StateStore, Stateless, StoreError, StorePosition,
        TopicId,
    },
    tally::Tally,
};
