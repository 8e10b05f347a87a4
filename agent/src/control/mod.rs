//! How an agent is watched, questioned and told what to do: the control service over gRPC, probes
//! and metrics over HTTP, and the client that the command line uses.
//!
//! The control service listens on a Unix socket in the state directory that only the agent's user
//! can open, or on an address; beyond this machine only with TLS, and a token or clients'
//! certificates. Without the token only the standard health service answers, whose probes can't
//! bring one. Those who may only read have an entrance of their own, where they are told to have one.
//! Probes and metrics are read-only and listen where they are told to. Every listener has a bound of
//! connections, and clients that say nothing do not keep theirs.
//!
//! What it asks the agent for is [`Operator`]; the composition implements it.

mod access;
mod certificates;
pub mod client;
mod connections;
mod events;
#[doc(hidden)]
pub mod fuzz;
mod http;
pub mod proto;
mod renewal;
mod roles;
mod scan;
mod server;
mod service;
mod socket;
#[cfg(test)]
mod tests;
mod uploads;
mod validity;

use std::{io, ops::Bound, path::PathBuf};

use tokio::sync::mpsc;

pub use self::{
    events::{Events, now_ms},
    server::{Server, check},
};

/// The first digits of a module's digest, for people.
pub(crate) fn short_digest(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// What the control service does it with: the agent. Calls may block for a bounded time.
pub trait Operator: Send + Sync + 'static {
    /// What it does now.
    fn status(&self) -> proto::Status;

    /// Whether the loops of all workers turn; why not.
    fn live(&self) -> Result<(), String>;

    /// Whether it does its work, or waits for a restore as it should; why not.
    fn ready(&self) -> Result<(), String>;

    /// Tells all workers to rest, or to go on.
    fn pause(&self, pause: bool);

    /// Whether every worker rests and has committed everything.
    fn rests(&self) -> bool;

    /// Commits, and ends the process; leaves the group, if that is said, else as configured.
    fn drain(&self, leave: Option<bool>);

    /// Tries stopped tasks again, all of them unless some are named, and says what came of each.
    fn retry(&self, tasks: &[String]) -> Result<Vec<proto::Retried>, Refusal>;

    /// Which task a key belongs to, if it is that of records that were partitioned as usual.
    fn owner(&self, store: &str, key: &[u8]) -> Result<proto::Owner, Refusal>;

    /// The partitions of the tasks here that have the store, in order.
    fn partitions(&self, store: &str) -> Result<Vec<i32>, Refusal>;

    /// Values of keys from the task of a partition.
    fn get(&self, store: &str, partition: i32, keys: &[Vec<u8>])
    -> Result<proto::Reading, Refusal>;

    /// Entries of the task of a partition, and whether there are more.
    fn scan(&self, store: &str, partition: i32, range: &Range) -> Result<Page, Refusal>;

    /// Begins to swap a transform's module; answers at once, and tells how it goes on. The queue is
    /// bounded, and the swap goes on if its reader goes away.
    fn swap(
        &self,
        request: proto::SwapRequest,
    ) -> Result<mpsc::Receiver<proto::SwapUpdate>, Refusal>;

    /// Begins to take a transform back to a version that ran before; as [`swap`](Self::swap).
    fn rollback(
        &self,
        request: proto::RollbackRequest,
    ) -> Result<mpsc::Receiver<proto::SwapUpdate>, Refusal>;

    /// All metrics as text, and its content type.
    fn metrics(&self) -> (String, &'static str);
}

/// Which entries to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The lower bound of the keys.
    pub from: Bound<Vec<u8>>,
    /// The upper bound of the keys.
    pub to: Bound<Vec<u8>>,
    /// Highest key first.
    pub reverse: bool,
    /// How many entries at most.
    pub entries_max: usize,
    /// How many bytes of keys and values at most; the first entry comes whatever its size.
    pub bytes_max: usize,
}

/// Entries of one task, of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// What they stand for.
    pub position: proto::Position,
    /// The entries.
    pub entries: Vec<proto::Entry>,
    /// Whether there are more in the range.
    pub more: bool,
}

/// A question could not be answered. The variants say what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Ask for something that is there, or another agent.
    #[error("{0}")]
    NotFound(String),
    /// Ask again later.
    #[error("{0}")]
    NotReady(String),
    /// Wait until what is under way has ended.
    #[error("{0}")]
    Busy(String),
    /// Ask otherwise.
    #[error("{0}")]
    Invalid(String),
    /// Look at the agent's log.
    #[error("{0}")]
    Failed(String),
}

/// The control interface can't be set up. The variants say what to look at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or is not one of this machine.
    #[error("can't listen on {address}: {source}; correct `{key}` in the pipeline file")]
    Listen {
        /// The key that names it.
        key: &'static str,
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// Another process answers on the socket.
    #[error(
        "another process listens on {}: stop it, or correct `control.listen` or `control.read_only.listen`",
        .0.display()
    )]
    InUse(PathBuf),
    /// A file of the pipeline's `control` can't be used.
    #[error("`{key}` {path}: {reason}", path = .path.display())]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Renew the certificate.
    #[error("{0}")]
    Ended(String),
    /// Its threads can't be started: look at the machine's limits.
    #[error("can't start the control interface: {0}")]
    Runtime(#[source] io::Error),
}
