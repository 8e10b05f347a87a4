//! What a pipeline file says by one of a few names.

use crate::config::setting::Choice;

/// Whether a record's effects come exactly once, or at least once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// Outputs, state and offsets are one transaction.
    ExactlyOnce,
    /// Offsets are committed after outputs and state; a crash repeats some.
    AtLeastOnce,
}

impl Choice for Guarantee {
    const ALL: &'static [(&'static str, Self)] =
        &[("exactly_once", Self::ExactlyOnce), ("at_least_once", Self::AtLeastOnce)];
}

/// The least level to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of tracing's levels say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Choice for LogLevel {
    const ALL: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

/// In which form to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Choice for LogFormat {
    const ALL: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

/// Who gives up on a record that fails for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivesUp {
    /// The task: it stops.
    Fail,
    /// Nobody but the record itself: its task goes on without it.
    Skip,
}

impl Choice for GivesUp {
    const ALL: &'static [(&'static str, Self)] = &[("fail", Self::Fail), ("skip", Self::Skip)];
}

/// Where the entries of a store are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// On disk.
    RocksDb,
    /// In memory: restored from the changelog at every start.
    Memory,
}

impl Choice for StoreKind {
    const ALL: &'static [(&'static str, Self)] =
        &[("rocksdb", Self::RocksDb), ("memory", Self::Memory)];
}
