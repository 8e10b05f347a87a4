//! User code, in wasmtime.
//!
//! An [`Engine`] turns the bytes of a file into a [`Module`]: looks at what it is, compiles it (or
//! takes it from the cache), checks that it imports nothing that isn't granted and exports a world
//! that the agent speaks. A module is instantiated for each task: a [`Guest`] is one instance,
//! initialised, behind the core's [`Processor`](sidestream_core::task::Processor).
//!
//! Everything a guest says is taken as hostile: each call has a deadline, each growth a limit, each
//! answer is checked before it counts. Whatever goes wrong ends that call with a
//! [`Failure`](sidestream_core::task::Failure) and that instance with it, never the process.
//!
//! - [`engine`](self): engine, module, instance; `compiler`, `bounds` and `cache` behind them.
//! - `bindings`: what `wit/transform.wit` says, as Rust.
//! - `host`: what a guest can call: stores and telemetry; `wasi`: a closed one.
//! - `limits`, `weight`, `answer`, `failure`: what holds it, counts what it takes of the host, checks
//!   it, and says what went wrong.

mod answer;
mod bindings;
mod bounds;
mod cache;
mod clock;
mod compiler;
mod config;
mod engine;
mod error;
mod failure;
#[doc(hidden)]
pub mod fuzz;
mod host;
mod imports;
mod instance;
mod limits;
mod module;
mod telemetry;
mod text;
mod wasi;
mod weight;

pub use self::{
    clock::thread_cpu_time,
    compiler::compile_in_this_process,
    config::{COMPILE_VERB, Compile, Config},
    engine::Engine,
    error::Error,
    instance::{Context, Guest, Output, Store},
    module::{Digest, Module, World},
};
