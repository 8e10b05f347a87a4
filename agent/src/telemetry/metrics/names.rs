//! Every metric: its name, its labels, and what it says. `METRICS.md` is this list for people.

use std::fmt::Write;

use super::{Kind, Metric};

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal)*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// All of them, in the order in which they are told.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    INFO = Gauge "sidestream_info" ["application" "version"] "Always 1; what runs here.";
    READY = Gauge "sidestream_ready" [] "1 if the agent does its work, or waits for a restore as it should.";
    LIVE = Gauge "sidestream_live" [] "1 if the loops of all workers turn.";
    PAUSED = Gauge "sidestream_paused" [] "1 if the agent was told to pause.";
    WORKER_TURNS = Counter "sidestream_worker_turns_total" ["worker"] "Turns of a worker's loop.";
    TASKS = Gauge "sidestream_tasks" ["state"] "Tasks of this agent in each state.";
    RECORDS = Counter "sidestream_records_total" ["worker"] "Input records processed in committed transactions.";
    OUTPUT_RECORDS = Counter "sidestream_output_records_total" ["worker"] "Output records of committed transactions, changelogs not counted.";
    CHANGELOG_RECORDS = Counter "sidestream_changelog_records_total" ["worker"] "Changelog records of committed transactions.";
    COMMITTED_BYTES = Counter "sidestream_committed_bytes_total" ["worker"] "Bytes of outputs and state changes of committed transactions.";
    COMMITS = Counter "sidestream_commits_total" ["worker" "outcome"] "Attempts to commit a transaction, by what came of it.";
    COMMIT_SECONDS = Histogram "sidestream_commit_duration_seconds" ["worker"] "How long an attempt to commit took.";
    DROPPED_TRANSACTIONS = Counter "sidestream_dropped_transactions_total" ["worker"] "Transactions that were dropped; their records are processed again.";
    LAG = Gauge "sidestream_lag_records" ["topic" "partition"] "Offsets between what is committed and the end of an input partition; 0 once all is processed.";
    HELD_BACK = Gauge "sidestream_held_back_records" ["topic" "partition"] "How many of them can't be read yet, since a producer has not ended its transaction.";
    STREAM_TIME_LAG = Gauge "sidestream_stream_time_lag_seconds" ["task"] "How far the stream time of a task is behind the wall clock.";
    RESTORE_REMAINING = Gauge "sidestream_restore_remaining_records" ["task"] "Changelog offsets that a task has still to read until it runs.";
    RESTORED_RECORDS = Counter "sidestream_restored_records_total" ["worker"] "Changelog offsets read by restores.";
    REBUILDS = Counter "sidestream_rebuilds_total" ["worker"] "Stores that were emptied and read from the beginning of their changelog.";
    TRANSFORM_RECORDS = Counter "sidestream_transform_records_total" ["transform"] "Records that a module was called with, those that are tried again each time.";
    BATCHES = Counter "sidestream_batches_total" ["transform"] "Calls of a module, with a batch or for a punctuation.";
    BATCH_SECONDS = Histogram "sidestream_batch_duration_seconds" ["transform"] "How long a call of a module took.";
    GUEST_CPU_SECONDS = Counter "sidestream_guest_cpu_seconds_total" ["transform"] "Processor time of a module's calls, the state's reads included.";
    GUEST_MEMORY = Gauge "sidestream_guest_memory_bytes" ["transform"] "Memory of the instances of a module.";
    FAILURES = Counter "sidestream_failures_total" ["transform" "kind"] "Failed calls of a module, by how they failed.";
    PASSED_OVER = Counter "sidestream_passed_over_records_total" ["transform" "kind" "policy"] "Records that failed and were passed over in committed transactions, by how they failed and the error policy.";
    SWAPS = Counter "sidestream_swaps_total" ["transform" "outcome"] "Swaps of a transform's module, by what they came to.";
    SWAP_PAUSE = Histogram "sidestream_swap_pause_seconds" ["transform"] "Between the last call of the module before and the first of the new one, in each worker that had work.";
    STORE_BYTES = Gauge "sidestream_store_bytes" ["store" "task"] "Bytes of a task's store, on disk and in memory.";
    STORE_KEYS = Gauge "sidestream_store_keys" ["store" "task"] "Keys of a task's store; an estimate for one on disk.";
    CACHE_HITS = Counter "sidestream_store_cache_hits_total" [] "Blocks of stores that were found in the cache.";
    CACHE_MISSES = Counter "sidestream_store_cache_misses_total" [] "Blocks of stores that were read from disk.";
    CACHE_BYTES = Gauge "sidestream_store_cache_bytes" [] "Bytes of the stores' cache, memtables included.";
    MEMTABLE_BYTES = Gauge "sidestream_store_memtable_bytes" [] "Bytes of the stores' memtables.";
    MODULE_COUNTER = Counter "sidestream_module_counter_total" ["transform" "name"] "A counter of a module's own.";
    MODULE_HISTOGRAM = Histogram "sidestream_module_observations" ["transform" "name"] "A histogram of a module's own.";
    MODULE_DROPPED = Counter "sidestream_module_dropped_samples_total" ["transform"] "Samples of a module's own metrics beyond the number of names that are kept.";
}

/// The list as a table of Markdown.
#[must_use]
pub fn table() -> String {
    let mut table = String::from("| metric | kind | labels | what it says |\n|---|---|---|---|\n");
    for metric in ALL {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, help) = (metric.name, metric.kind.name(), metric.help);
        let labels = labels.join(", ");
        writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").expect("a string takes it");
    }
    table
}
