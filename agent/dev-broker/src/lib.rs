//! An in-memory Kafka broker for demonstrations, development and tests: one node, no Java, and
//! nothing is kept when it ends.
//!
//! It speaks what the agent's clients need of Kafka's protocol (classic groups with static members,
//! transactions of protocol version 1, administration) with Kafka's own rules and error codes; one
//! suite of checks holds it and Apache Kafka to the same behaviour. There is no security, no
//! replication and no storage.
//!
//! - `log`, `topics`, `group`, `transactions`: what a broker knows, pure, time passed in.
//! - `cluster`: all of that in one value.
//! - `requests`: each request of the protocol as a change of that value.
//! - `dispatch`, `connection`, `bounded`: which requests there are, in which versions, and their
//!   frames.

mod bounded;
mod cluster;
mod connection;
mod dispatch;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod group;
mod log;
mod refusal;
mod requests;
mod server;
mod topics;
mod transactions;

pub use self::{
    error::Error,
    server::{DevBroker, Options},
};
