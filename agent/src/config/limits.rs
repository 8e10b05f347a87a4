//! Bounds of single things.

use std::time::Duration;

use crate::config::{
    section::{NOT_ZERO, section},
    setting::{Count, Size},
};

section! {
    /// Bounds of single things.
    #[derive(Default)]
    LimitsSection("limits.") =>
    /// Bounds of single things; sizes in bytes.
    Limits {
        /// Memory of one instance of a module, all of its memories together.
        guest_memory_max: Size = "64MiB";
        /// Stack of one call of a module.
        guest_stack_max: Size = "512KiB";
        /// Elements in the tables of one instance of a module.
        guest_table_elements_max: Count = "100000";
        /// How long a module may work on one batch.
        batch_time_max: Duration = "1s" in NOT_ZERO;
        /// Records in one batch.
        batch_records_max: Count = "1000";
        // What Kafka's brokers and producers take by default.
        /// Size of a record that a module emits or writes to a store, key and value together. A
        /// producer's `message.max.bytes` follows it unless given.
        record_bytes_max: Size = "1MB";
        /// What a module may emit and write for one batch.
        output_bytes_max: Size = "16MiB";
        /// Size of a module's file.
        module_bytes_max: Size = "64MiB";
        // A Python module takes twelve seconds on an idle machine.
        /// How long compiling a module may take.
        compile_time_max: Duration = "2m" in NOT_ZERO;
        // A Python module of 20 MB takes most of it.
        /// Memory of the process that compiles a module, which comes on top of `memory_max`.
        compile_memory_max: Size = "1GiB";
        /// Commit early when outputs and state changes of a worker come to this.
        uncommitted_bytes_max: Size = "64MiB";
        /// Stop fetching a partition while this much of it waits.
        buffered_bytes_max: Size = "16MiB";
        /// Log lines of a transform that a worker writes in a second; more are left out and counted.
        log_lines_per_second_max: Count = "1000";
        /// How often the same record may fail before its task is stopped.
        retry_attempts_max: Count = "5";
        /// How long to wait after a first failure; doubles up to a minute.
        retry_backoff: Duration = "100ms";
        /// How long giving partitions up in a rebalance may take.
        revoke_time_max: Duration = "5s" in NOT_ZERO;
    }
}
