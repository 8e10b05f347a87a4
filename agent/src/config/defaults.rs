//! What the pipeline file need not say: every default, as it would be written in the file.

/// `guarantee`.
pub const GUARANTEE: &str = "exactly_once";
/// `commit_interval`: as Kafka Streams with exactly-once.
pub const COMMIT_INTERVAL: &str = "100ms";
/// `workers`: a sidecar shares its machine with an application.
pub const WORKERS: &str = "1";
/// `memory_max`.
pub const MEMORY_MAX: &str = "512MiB";
/// `max_task_idle`: as `max.task.idle.ms` of Kafka Streams.
pub const MAX_TASK_IDLE: &str = "0s";

/// `kafka.bootstrap.servers` has no default; this is the example in messages.
pub const BOOTSTRAP_SERVERS_EXAMPLE: &str = "localhost:9092";

/// `session.timeout.ms` of a consumer.
pub const SESSION_TIMEOUT: &str = "10s";
/// `transaction.timeout.ms` of a producer, at least.
pub const TRANSACTION_TIMEOUT: &str = "10s";
/// `max.poll.interval.ms` of a consumer, which is librdkafka's.
pub const MAX_POLL_INTERVAL: &str = "5m";

/// `state.directory`, beside the pipeline file; the application's name is appended.
pub const STATE_DIRECTORY: &str = "sidestream-state";
/// `stores[].kind`.
pub const STORE_KIND: &str = "rocksdb";

/// `limits.guest_memory_max`.
pub const GUEST_MEMORY_MAX: &str = "64MiB";
/// `limits.guest_stack_max`.
pub const GUEST_STACK_MAX: &str = "512KiB";
/// `limits.guest_table_elements_max`.
pub const GUEST_TABLE_ELEMENTS_MAX: &str = "100000";
/// `limits.record_bytes_max`: what Kafka's brokers and producers take by default.
pub const RECORD_BYTES_MAX: &str = "1MB";
/// `limits.batch_time_max`.
pub const BATCH_TIME_MAX: &str = "1s";
/// `limits.batch_records_max`.
pub const BATCH_RECORDS_MAX: &str = "1000";
/// `limits.output_bytes_max`.
pub const OUTPUT_BYTES_MAX: &str = "16MiB";
/// `limits.module_bytes_max`.
pub const MODULE_BYTES_MAX: &str = "64MiB";
/// `limits.compile_time_max`: a Python module takes twelve seconds on an idle machine.
pub const COMPILE_TIME_MAX: &str = "2m";
/// `limits.compile_memory_max`: a Python module of 20 MB takes most of it.
pub const COMPILE_MEMORY_MAX: &str = "1GiB";
/// `limits.uncommitted_bytes_max`.
pub const UNCOMMITTED_BYTES_MAX: &str = "64MiB";
/// `limits.buffered_bytes_max`.
pub const BUFFERED_BYTES_MAX: &str = "16MiB";
/// `limits.log_lines_per_second_max`.
pub const LOG_LINES_PER_SECOND_MAX: &str = "1000";
/// `on_error` of a transform.
pub(crate) const ON_ERROR: &str = "fail";
/// `limits.retry_attempts_max`.
pub const RETRY_ATTEMPTS_MAX: &str = "5";
/// `limits.retry_backoff`.
pub const RETRY_BACKOFF: &str = "100ms";
/// `limits.revoke_time_max`.
pub const REVOKE_TIME_MAX: &str = "5s";

/// `swap.probation_records`.
pub const PROBATION_RECORDS: &str = "1000";
/// `swap.probation_time`.
pub const PROBATION_TIME: &str = "10s";
/// `swap.probation_time_max`: a partition where little arrives keeps nobody waiting.
pub const PROBATION_TIME_MAX: &str = "2m";
/// `swap.failure_ratio_max`.
pub const FAILURE_RATIO_MAX: &str = "2";
/// `swap.cpu_ratio_max`.
pub const CPU_RATIO_MAX: &str = "3";
/// `swap.memory_ratio_max`.
pub const MEMORY_RATIO_MAX: &str = "3";
/// `swap.versions_max`.
pub const VERSIONS_MAX: &str = "5";
/// `swap.watch`.
pub const WATCH: &str = "true";

/// `shutdown.deadline`: Kubernetes gives 30 s.
pub const SHUTDOWN_DEADLINE: &str = "20s";

/// `log.level`.
pub const LOG_LEVEL: &str = "info";
/// `log.format`.
pub const LOG_FORMAT: &str = "text";
