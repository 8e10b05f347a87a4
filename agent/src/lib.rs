//! The adapters around [`sidestream_core`], and what wires them together.
//!
//! - [`config`]: the pipeline file and the environment, read into one validated value.
//! - [`plan`]: a pipeline and the topics as they are ⇒ a topology.
//! - [`kafka`]: rdkafka ⇒ [`Ports`](sidestream_core::ports::Ports).
//! - [`state`]: RocksDB and memory ⇒ [`StateStore`](sidestream_core::task::StateStore).
//! - [`guest`]: wasmtime ⇒ [`Processor`](sidestream_core::task::Processor).
//! - [`control`]: tonic ⇒ status, commands, reads of state, events; probes and metrics.
//! - [`telemetry`]: how the process logs, and what it counts.
//! - `settings`: a pipeline's settings ⇒ those of the rooms above.
//! - `modules`: what modules there are: files, versions on disk, compiled code.
//! - `runtime`: the workers' threads, and what they tell.
//! - `rollout`: one module replaces another.
//! - `operator`: what the control interface asks of the agent.
//! - [`dead_letters`]: records that were put aside, and back.
//! - [`app`]: the composition: builds the rooms, starts the workers, drains them.
//! - [`private`]: folders that nobody else can enter.
//! - `lock`: locks whose holder may have panicked.
//! - [`cli`]: the verbs.
//!
//! An adapter names no other adapter.

pub mod app;
pub mod cli;
pub mod config;
pub mod control;
pub mod crash_point;
pub mod dead_letters;
mod doing;
pub mod guest;
pub mod kafka;
mod lock;
pub mod modules;
mod operator;
pub mod plan;
pub mod private;
mod rollout;
mod runtime;
mod settings;
pub mod state;
pub mod telemetry;
