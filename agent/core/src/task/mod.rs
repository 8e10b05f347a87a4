//! Partition *n* of every input of a sub-topology, with its state and its processors.

mod dead_letter;
mod division;
mod failures;
mod opinion;
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
    queue::Readiness,
    run::{Part, Produced, Punctuated, Share, Task, Turn, empty_position, store_positions},
};
pub use self::{
    processor::{
        Clock, Cost, Effects, Failure, FailureKind, Level, LogLine, Processor, Punctuation, Sample,
        SampleValue, Schedule, Setup, Telemetry,
    },
    state::{Savepoint, State},
    store::{Entries, Position, Scan, StateStore, Stateless, StoreError, StorePosition, TopicId},
    tally::Tally,
};
