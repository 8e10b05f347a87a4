//! Committed state, in RocksDB and in memory.
//!
//! - [`Stores`] owns the state of every task of the process. A worker opens a task's state, holds
//!   it alone while it works, and drops it to give it back; a state that was given back stays open
//!   for a while, so that the next worker has it at once.
//! - Each task has one RocksDB, with a column family for each of its stores and the default one
//!   for the position. Changes and position are one write batch, so that neither is ever ahead of
//!   the other. Stores of the kind [`StoreKind::Memory`] lie beside it and end with the process.
//! - One memory budget, [`Config::memory_bytes_max`], holds the block caches and memtables of all
//!   of them.
//!
//! On disk:
//!
//! ```text
//! <directory>/lock                            held by the process; names its pid
//! <directory>/format                          the version of all that follows
//! <directory>/identity                        who the agent is, and its highest worker number
//! <directory>/<application>/0_3/              the RocksDB of task 0_3
//! <directory>/<application>/0_3.corrupt-1/    one that was damaged and set aside
//! ```

mod database;
mod directory;
#[doc(hidden)]
pub mod fuzz;
mod memory;
mod position;
mod probe;
mod read;
mod resources;
mod stores;
mod task;

use std::{io, path::PathBuf, time::Duration};

pub use self::{
    database::{POSITION_KEY, STORE_PREFIX},
    directory::FORMAT_VERSION,
    probe::probe,
    read::{Found, Query, ReadError, Reading},
    stores::{Opened, StoreSize, Stores, Usage, folder_name},
};

/// Where and how state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The state directory. One process uses it at a time.
    pub directory: PathBuf,
    /// The pipeline's application id; its state has a folder of its own.
    pub application: String,
    /// The agent's identity, if it is given from outside; otherwise one is made once and kept.
    pub identity: Option<String>,
    /// How many bytes the block caches and memtables of all tasks may take together.
    pub memory_bytes_max: usize,
    /// How many tasks stay open after they were given back.
    pub kept_open_max: usize,
    /// How long a task stays open after it was given back.
    pub kept_open_time_max: Duration,
}

impl Config {
    /// The defaults for an application with its state in `directory`: 128 MiB of memory, 32 tasks
    /// kept open for five minutes.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, application: impl Into<String>) -> Self {
        Self {
            directory: directory.into(),
            application: application.into(),
            identity: None,
            memory_bytes_max: 128 << 20,
            kept_open_max: 32,
            kept_open_time_max: Duration::from_secs(300),
        }
    }
}

/// What the state of a task consists of, by name, so that it is recognised when the pipeline has
/// changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskStores {
    /// The stores, in the order of their indices.
    pub stores: Vec<StoreSpec>,
    /// The topics of the sub-topology's inputs, in the order of their indices.
    pub inputs: Vec<String>,
}

/// A store of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSpec {
    /// Its name, unique in the pipeline.
    pub name: String,
    /// Where it lives.
    pub kind: StoreKind,
}

/// Where a store lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreKind {
    /// In RocksDB, on disk.
    #[default]
    RocksDb,
    /// In the process's memory; restored from its changelog after a restart.
    Memory,
}

/// The state directory can't be used. The variants say what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process uses it: stop that one, or use another directory.
    #[error(
        "the state directory {path} is in use by {holder}: stop that process, or give each agent \
         a state directory of its own"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who, as far as it is known.
        holder: String,
    },
    /// A newer version wrote it: run that one, or use another directory.
    #[error(
        "the state in {path} has the format {found}, written by {writer}; this is {} and knows \
         formats up to {FORMAT_VERSION}: run the newer version, or use an empty directory and let \
         the state be restored from its changelogs",
        directory::writer()
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// The version of its format.
        found: u32,
        /// What wrote it, by name and version.
        writer: String,
    },
    /// What is there can't be understood, or a given value can't be used: a person must look.
    #[error("{0}")]
    Unusable(String),
    /// It can't be read or written: look at permissions and free space.
    #[error("can't {action} {path}: {source}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}
