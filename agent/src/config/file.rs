//! The pipeline file as it is written. Its doc comments are the descriptions in the JSON Schema.

use std::{fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use crate::config::{
    choices::{GivesUp, Guarantee, LogFormat, LogLevel, StoreKind},
    control::{ControlSection, HttpSection},
    defaults,
    module_config::Node,
    scalar::{Entries, Field, Located, Short},
    setting::{Count, Name, OnOutOfRange, Setting, Size, Start, Text},
    swap::SwapSection,
};

/// A pipeline: what one agent runs. `${VAR}`, `${VAR:-default}` and `${file:/path}` inside a value
/// stand for an environment variable or the content of a file. Relative paths start at the folder
/// of this file.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The consumer group's id, and the prefix of internal topics and transactional ids.
    pub application: Field<Name>,
    /// Properties of the Kafka clients, `bootstrap.servers` at least.
    pub kafka: Located<KafkaSection>,
    /// Whether a record's effects come exactly once, or at least once.
    #[schemars(extend("default" = defaults::GUARANTEE))]
    pub guarantee: Option<Field<Guarantee>>,
    /// Commit this long after the first uncommitted record. The producers' `transaction.timeout.ms`
    /// follows it unless given.
    #[schemars(extend("default" = defaults::COMMIT_INTERVAL))]
    pub commit_interval: Option<Field<Duration>>,
    /// How many threads process records; each has a consumer and a producer of its own.
    #[schemars(extend("default" = 1))]
    pub workers: Option<Field<Count>>,
    /// Who this agent is among those of the application: the start of its group instance ids and
    /// transactional ids. Without it an identity is made and kept in the state directory.
    pub identity: Option<Field<Name>>,
    /// Where state is kept.
    pub state: Option<StateSection>,
    /// How much memory caches, buffers, queues and modules of the whole process may use.
    #[schemars(extend("default" = defaults::MEMORY_MAX))]
    pub memory_max: Option<Field<Size>>,
    /// Bounds of single things.
    pub limits: Option<LimitsSection>,
    /// How a transform's module is replaced while records flow.
    pub swap: Option<SwapSection>,
    /// How long a task with several inputs waits for one that is empty, so that records are taken
    /// in the order of their timestamps.
    #[schemars(extend("default" = defaults::MAX_TASK_IDLE))]
    pub max_task_idle: Option<Field<Duration>>,
    /// How to stop.
    pub shutdown: Option<ShutdownSection>,
    /// How to log.
    pub log: Option<LogSection>,
    /// The control interface.
    pub control: Option<ControlSection>,
    /// Probes and metrics; without it there are none.
    pub http: Option<HttpSection>,
    /// The steps of the pipeline.
    #[schemars(length(min = 1))]
    pub transforms: Located<Vec<TransformSection>>,
}

/// Properties of the Kafka clients, by their names in librdkafka.
#[derive(Default)]
pub struct KafkaSection {
    pub(crate) common: Entries<Field<Text>>,
    pub(crate) consumer: Entries<Field<Text>>,
    pub(crate) producer: Entries<Field<Text>>,
    pub(crate) admin: Entries<Field<Text>>,
}

impl<'de> Deserialize<'de> for KafkaSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KafkaVisitor;

        impl<'de> Visitor<'de> for KafkaVisitor {
            type Value = KafkaSection;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of properties of librdkafka")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut section = KafkaSection::default();
                while let Some(key) = map.next_key::<Located<String>>()? {
                    match key.value.as_str() {
                        "consumer" => section.consumer = map.next_value()?,
                        "producer" => section.producer = map.next_value()?,
                        "admin" => section.admin = map.next_value()?,
                        _ => section.common.0.push((key, map.next_value()?)),
                    }
                }
                Ok(section)
            }
        }

        deserializer.deserialize_map(KafkaVisitor)
    }
}

impl JsonSchema for KafkaSection {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "KafkaSection".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let scalar = generator.subschema_for::<Field<Text>>();
        let properties = generator.subschema_for::<Entries<Field<Text>>>();
        schemars::json_schema!({
            "description": "Properties of the Kafka clients, by their names in librdkafka. Those \
                under `consumer`, `producer` and `admin` are for that client alone.",
            "type": "object",
            "properties": {
                "bootstrap.servers": { "type": "string" },
                "consumer": properties,
                "producer": properties,
                "admin": properties,
            },
            "required": ["bootstrap.servers"],
            "additionalProperties": scalar,
        })
    }
}

/// Where state is kept.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StateSection {
    /// The folder of stores, identity and compiled modules; one process has it at a time. Without
    /// it, `sidestream-state/<application>`, which is taken as not surviving a stop.
    pub directory: Option<Field<Text>>,
}

/// Bounds of single things.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsSection {
    /// Memory of one instance of a module, all of its memories together.
    #[schemars(extend("default" = defaults::GUEST_MEMORY_MAX))]
    pub guest_memory_max: Option<Field<Size>>,
    /// Stack of one call of a module.
    #[schemars(extend("default" = defaults::GUEST_STACK_MAX))]
    pub guest_stack_max: Option<Field<Size>>,
    /// Elements in the tables of one instance of a module.
    #[schemars(extend("default" = 100_000))]
    pub guest_table_elements_max: Option<Field<Count>>,
    /// How long a module may work on one batch.
    #[schemars(extend("default" = defaults::BATCH_TIME_MAX))]
    pub batch_time_max: Option<Field<Duration>>,
    /// Records in one batch.
    #[schemars(extend("default" = 1_000))]
    pub batch_records_max: Option<Field<Count>>,
    /// Size of a record that a module emits or writes to a store, key and value together. A
    /// producer's `message.max.bytes` follows it unless given.
    #[schemars(extend("default" = defaults::RECORD_BYTES_MAX))]
    pub record_bytes_max: Option<Field<Size>>,
    /// What a module may emit and write for one batch.
    #[schemars(extend("default" = defaults::OUTPUT_BYTES_MAX))]
    pub output_bytes_max: Option<Field<Size>>,
    /// Size of a module's file.
    #[schemars(extend("default" = defaults::MODULE_BYTES_MAX))]
    pub module_bytes_max: Option<Field<Size>>,
    /// How long compiling a module may take.
    #[schemars(extend("default" = defaults::COMPILE_TIME_MAX))]
    pub compile_time_max: Option<Field<Duration>>,
    /// Memory of the process that compiles a module, which comes on top of `memory_max`.
    #[schemars(extend("default" = defaults::COMPILE_MEMORY_MAX))]
    pub compile_memory_max: Option<Field<Size>>,
    /// Commit early when outputs and state changes of a worker come to this.
    #[schemars(extend("default" = defaults::UNCOMMITTED_BYTES_MAX))]
    pub uncommitted_bytes_max: Option<Field<Size>>,
    /// Stop fetching a partition while this much of it waits.
    #[schemars(extend("default" = defaults::BUFFERED_BYTES_MAX))]
    pub buffered_bytes_max: Option<Field<Size>>,
    /// Log lines of a transform that a worker writes in a second; more are left out and counted.
    #[schemars(extend("default" = 1_000))]
    pub log_lines_per_second_max: Option<Field<Count>>,
    /// How often the same record may fail before its task is stopped.
    #[schemars(extend("default" = 5))]
    pub retry_attempts_max: Option<Field<Count>>,
    /// How long to wait after a first failure; doubles up to a minute.
    #[schemars(extend("default" = defaults::RETRY_BACKOFF))]
    pub retry_backoff: Option<Field<Duration>>,
    /// How long giving partitions up in a rebalance may take.
    #[schemars(extend("default" = defaults::REVOKE_TIME_MAX))]
    pub revoke_time_max: Option<Field<Duration>>,
}

/// How to stop.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShutdownSection {
    /// Exit this long after a signal, drained or not.
    #[schemars(extend("default" = defaults::SHUTDOWN_DEADLINE))]
    pub deadline: Option<Field<Duration>>,
    /// Leave the group, so that others take over at once (true), or keep the membership for a
    /// restart (false). The default is false where `state.directory` is given, true elsewhere.
    pub leave_on_stop: Option<Field<bool>>,
}

/// How to log.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    /// The least level to log.
    #[schemars(extend("default" = defaults::LOG_LEVEL))]
    pub level: Option<Field<LogLevel>>,
    /// As text for people, or as one JSON object a line.
    #[schemars(extend("default" = defaults::LOG_FORMAT))]
    pub format: Option<Field<LogFormat>>,
}

/// A step of the pipeline.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransformSection {
    /// Its name, unique in the pipeline.
    pub name: Field<Name>,
    /// The file of its module, a WebAssembly component.
    pub module: Field<Text>,
    /// What it reads: names of topics, or mappings.
    #[schemars(length(min = 1))]
    pub inputs: Vec<Located<Short<InputSection>>>,
    /// Its stores: names, or mappings.
    pub stores: Option<Vec<Located<Short<StoreSection>>>>,
    /// Its outputs by name: each the name of a topic, or a mapping; empty for one that another
    /// transform takes inside the process.
    pub outputs: Option<Entries<Option<Located<Short<OutputSection>>>>>,
    /// What becomes of a record that the module fails at for good, or whose outputs Kafka refuses:
    /// `fail` stops its task, `skip` goes on without it, `dead_letter` sends it to a topic and goes
    /// on.
    #[schemars(schema_with = "on_error_schema", extend("default" = defaults::ON_ERROR))]
    pub on_error: Option<Located<Short<DeadLetterSection>>>,
    /// How often to try a record before `on_error` applies. Without it, `skip` and `dead_letter`
    /// apply at once, but where the module itself asks for another try.
    pub retry: Option<RetrySection>,
    /// Configuration that the module gets, as JSON. A value that is `${VAR}` or `${VAR:-default}`
    /// alone, without quotes, is a number or a boolean if the variable's value is one; in quotes it
    /// is text.
    pub config: Option<Entries<Node>>,
}

/// An input: a topic, a repartition topic, or an output of another transform.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputSection {
    /// A topic.
    pub topic: Option<Field<Name>>,
    /// Where to start reading the topic when the group has no offset for it: `earliest`, `latest`
    /// or a time.
    #[schemars(extend("default" = "earliest"))]
    pub start: Option<Field<Start>>,
    /// What to do when what the group's offset stands for is not there any more, because records
    /// were deleted before they were read, or the topic was created again: `fail` stops the task,
    /// `earliest` and `latest` say where to go on.
    #[schemars(extend("default" = "fail"))]
    pub on_out_of_range: Option<Field<OnOutOfRange>>,
    /// Another transform, whose output is taken inside the process.
    pub transform: Option<Field<Name>>,
    /// Which output of that transform.
    pub output: Option<Field<Name>>,
    /// A repartition topic that an output of this pipeline goes to.
    pub repartition: Option<Field<Name>>,
}

/// Where records go that a transform fails at.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadLetterSection {
    /// A topic. The agent creates it if it is not there, with a partition for each of the input.
    pub dead_letter: Field<Name>,
}

fn on_error_schema(generator: &mut SchemaGenerator) -> Schema {
    let full = generator.subschema_for::<DeadLetterSection>();
    schemars::json_schema!({ "anyOf": [GivesUp::schema(), full] })
}

/// How often to try.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetrySection {
    /// How often the same record may fail; `limits.retry_attempts_max` unless given.
    pub attempts: Option<Field<Count>>,
    /// How long to wait after its first failure, doubling up to a minute; `limits.retry_backoff`
    /// unless given.
    pub backoff: Option<Field<Duration>>,
}

/// A store.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreSection {
    /// Its name, unique in the pipeline.
    pub name: Field<Name>,
    /// On disk, or in memory alone; either has a changelog.
    #[schemars(extend("default" = defaults::STORE_KIND))]
    pub kind: Option<Field<StoreKind>>,
}

/// An output: a topic, a repartition topic, or, if empty, other transforms of the process.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputSection {
    /// A topic.
    pub topic: Option<Field<Name>>,
    /// Write only the last record for each key and transaction.
    #[schemars(extend("default" = false))]
    pub latest_per_key: Option<Field<bool>>,
    /// A topic of the agent's own, through which records reach the tasks of their keys.
    pub repartition: Option<Field<Name>>,
    /// How many partitions the repartition topic has; those of its source unless given.
    pub partitions: Option<Field<Count>>,
    /// Whether the transform may read, itself or through others, what it writes there.
    #[schemars(extend("default" = false))]
    pub allow_loop: Option<Field<bool>>,
}
