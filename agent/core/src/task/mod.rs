//! Partition *n* of every input of a sub-topology, with its state and its processors.

mod dead_letter;
mod division;
#[cfg(test)]
mod division_tests;
mod failures;
#[doc(hidden)]
pub mod fuzz;
mod opinion;
mod origin;
mod part;
mod processor;
mod queue;
mod routing;
mod run;
#[cfg(test)]
mod schedules_tests;
mod state;
mod store;
mod tally;
#[cfg(test)]
mod testing;
mod time;
mod turn;
mod writes;

pub use self::{
    failures::Fault,
    origin::SEEN_HEADER,
    processor::{
        Clock, Cost, Effects, Failure, FailureKind, Level, LogLine, Processor, Punctuation, Sample,
        SampleValue, Schedule, Setup, Telemetry,
    },
    state::{Savepoint, State},
    store::{
        Entries, InputPosition, Position, Scan, StateStore, Stateless, StoreError, StorePosition,
    },
    tally::Tally,
    turn::PassedOver,
};
pub(crate) use self::{
    failures::{Failed, Failures, RecordId, Verdict, judge},
    opinion::{Blame, OnTrial, Wanted},
    origin::{Mark, Origins, read_seen},
    part::{Part, empty_position, store_positions},
    queue::Readiness,
    run::Task,
    turn::{Division, Doer, Produced, Punctuated, Share, Turn},
};
