//! Partition *n* of every input of a sub-topology, with its state and its processors.

mod processor;
mod state;
mod store;

pub use self::{
    processor::{
        Clock, Effects, Failure, FailureKind, Level, LogLine, Processor, Punctuation, Sample,
        SampleValue, Schedule, Setup, Telemetry,
    },
    state::{Savepoint, State},
    store::{Entries, Position, Scan, StateStore, StoreError, StorePosition, TopicId},
};
