//! What guests may take.

use std::{path::PathBuf, time::Duration};

use sidestream_core::task::Level;

/// The first argument of a program that is to compile (see [`Compile::InProcess`]); the second one is
/// how many bytes of memory it may have.
pub const COMPILE_VERB: &str = "compile";

/// Where modules are compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compile {
    /// In this process, where nothing bounds what it takes: for modules that are known.
    InThisProcess,
    /// In a process of this program, which does what
    /// [`compile_in_this_process`](super::compile_in_this_process) does when [`COMPILE_VERB`] is its
    /// first argument. It is bounded, and gives way to others.
    InProcess(PathBuf),
}

/// The limits of guests, and where their compiled code is kept. Every instance has them for itself
/// unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The largest file that is taken as a module, in bytes.
    pub module_bytes_max: usize,
    /// Where modules are compiled.
    pub compile: Compile,
    /// How long a module may take to compile, in a process of its own.
    pub compile_time_max: Duration,
    /// How much memory that process may have, in bytes.
    pub compile_memory_bytes_max: u64,
    /// A private folder for compiled code; it is made if it isn't there. `None` compiles every
    /// time.
    pub cache_folder: Option<PathBuf>,
    /// Compiled code beyond this many bytes is deleted from the folder, the oldest first.
    pub cache_bytes_max: u64,
    /// How much memory an instance may have, over all its linear memories.
    pub memory_bytes_max: usize,
    /// How much memory all instances of the process may have together.
    pub memory_total_bytes_max: usize,
    /// How many calls run at once: one for each worker. While less memory is left than this many
    /// instances take, an instance is let go after its call and made anew for the next one.
    pub calls_at_once_max: usize,
    /// How many elements its tables may have together.
    pub table_elements_max: usize,
    /// How many core instances it may have, those that link it included. (One made from Python has
    /// about 23.)
    pub instances_max: usize,
    /// How many memories it may have. Each takes four gigabytes of addresses, however small it is.
    pub memories_max: usize,
    /// How many tables it may have.
    pub tables_max: usize,
    /// How much stack its code may use. A worker's thread needs a megabyte on top of it.
    pub stack_bytes_max: usize,
    /// How long a call may take, that of initialise too.
    pub batch_time_max: Duration,
    /// How many bytes it may hand over in one call: in host calls and its answer, in what it emits
    /// and in changes of state, with what each record and change takes of the host.
    pub output_bytes_max: usize,
    /// How large a record may be that it emits or writes: key, value and headers. What Kafka's
    /// producer takes at most (`message.max.bytes`) is a good choice.
    pub record_bytes_max: usize,
    /// How many entries a scan yields at most.
    pub scan_entries_max: usize,
    /// How many bytes a scan yields at most; the first entry comes whatever its size.
    pub scan_bytes_max: usize,
    /// How many keys it may look up at a time.
    pub get_keys_max: usize,
    /// How many punctuations it may ask for.
    pub schedules_max: usize,
    /// The lowest level of log lines that are kept.
    pub log_level_min: Level,
    /// How many log lines of a call are kept.
    pub log_lines_max: usize,
    /// How many bytes of a log line or failure message are kept.
    pub log_line_bytes_max: usize,
    /// How many metrics of its own it may have.
    pub metrics_max: usize,
    /// How many observations of histograms in one call are kept.
    pub observations_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            module_bytes_max: 64 << 20,
            compile: Compile::InThisProcess,
            compile_time_max: Duration::from_secs(120),
            compile_memory_bytes_max: 1 << 30,
            cache_folder: None,
            cache_bytes_max: 1 << 30,
            memory_bytes_max: 64 << 20,
            memory_total_bytes_max: 1 << 30,
            calls_at_once_max: 1,
            table_elements_max: 100_000,
            instances_max: 100,
            memories_max: 8,
            tables_max: 32,
            stack_bytes_max: 512 << 10,
            batch_time_max: Duration::from_secs(1),
            output_bytes_max: 16 << 20,
            record_bytes_max: 1_000_000,
            scan_entries_max: 10_000,
            scan_bytes_max: 1 << 20,
            get_keys_max: 100_000,
            schedules_max: 64,
            log_level_min: Level::Info,
            log_lines_max: 100,
            log_line_bytes_max: 4 << 10,
            metrics_max: 64,
            observations_max: 10_000,
        }
    }
}
