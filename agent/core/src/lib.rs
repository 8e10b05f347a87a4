//! The pure core of Sidestream. It does no I/O, has no clock, draws no random number, spawns nothing
//! and awaits nothing: a worker is handed what tells the time, effects go out through a few traits.
//!
//! Read in this order:
//!
//! - [`mod@column`], [`record`]: the vocabulary. Records travel as columns, many at a time.
//! - [`topology`]: what a pipeline consists of, as indices: topics, sub-topologies, transforms,
//!   stores.
//! - [`task`]: partition *n* of every input of a sub-topology, with its state and its processors.
//!   Defines the traits [`Processor`](task::Processor) (user code) and
//!   [`StateStore`](task::StateStore) (committed state).
//! - [`ports`]: the borders to Kafka: [`Source`](ports::Source), [`Changelogs`](ports::Changelogs)
//!   and [`Sink`](ports::Sink).
//! - [`worker`]: the loop that drives tasks from transaction to transaction. Defines the trait
//!   [`Environment`](worker::Environment) (what makes stores and processors).
//!
//! The one idea: a transaction is a value. A worker processes records into outputs, state changes
//! and offsets, commits them as one transaction, and only then applies the changes to
//! the store. Whatever goes wrong before that, the value is dropped and the worker goes back to
//! the committed offsets.

pub mod column;
pub mod partitioner;
pub mod ports;
pub mod record;
pub mod task;
pub mod topology;
pub mod worker;
