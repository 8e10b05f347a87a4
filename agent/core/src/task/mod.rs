//! Partition *n* of every input of a sub-topology, with its state and its processors.

mod processor;
mod queue;
mod routing;
mod run;
mod state;
mod store;
mod time;

pub(crate) use self::{
    processor::FailedRecord,
    queue::Readiness,
    run::{Part, Task, empty_position, store_positions},
};
pub use self::{
    processor::{
        Clock, Effects, Failure, FailureKind, Level, LogLine, Processor, Punctuation, Sample,
        SampleValue, Schedule, Setup, Telemetry,
    },
    state::{Savepoint, State},
    store::{Entries, Position, Scan, StateStore, Stateless, StoreError, StorePosition, TopicId},
};
