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
    limits::LimitsSection,
    module_config::Node,
    scalar::{Entries, Field, Located, Short},
    section::{NOT_ZERO, section},
    setting::{Count, Name, OnOutOfRange, Setting, Size, Start, Text},
    swap::SwapSection,
};

section! {
    /// A pipeline: what one agent runs. `${VAR}`, `${VAR:-default}` and `${file:/path}` inside a value
    /// stand for an environment variable or the content of a file. Relative paths start at the folder
    /// of this file.
    File("") =>
    /// What stands at the top of the file by itself; sizes in bytes.
    General {
        /// Whether a record's effects come exactly once, or at least once.
        guarantee: Guarantee = "exactly_once";
        // As Kafka Streams with exactly-once.
        /// Commit this long after the first uncommitted record. The producers' `transaction.timeout.ms`
        /// follows it unless given.
        commit_interval: Duration = "100ms" in NOT_ZERO;
        // A sidecar shares its machine with an application.
        /// How many threads process records; each has a consumer and a producer of its own.
        workers: Count = "1";
        /// Who this agent is among those of the application: the start of its group instance ids and
        /// transactional ids. Without it an identity is made and kept in the state directory.
        identity: Name;
        /// How much memory caches, buffers, queues and modules of the whole process may use.
        memory_max: Size = "512MiB";
        // As `max.task.idle.ms` of Kafka Streams.
        /// How long a task with several inputs waits for one that is empty, so that records are taken
        /// in the order of their timestamps.
        max_task_idle: Duration = "0s";
    } and {
        /// The consumer group's id, and the prefix of internal topics and transactional ids.
        pub application: Field<Name>,
        /// Properties of the Kafka clients, `bootstrap.servers` at least.
        pub kafka: Located<KafkaSection>,
        /// Where state is kept.
        pub state: Option<StateSection>,
        /// Bounds of single things.
        pub limits: Option<LimitsSection>,
        /// How a transform's module is replaced while records flow.
        pub swap: Option<SwapSection>,
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
        let of = |client: &str| {
            let mut properties = properties.clone();
            let description = format!("Properties of {client} alone.");
            properties.insert("description".into(), description.into());
            properties
        };
        schemars::json_schema!({
            "description": "Properties of the Kafka clients, by their names in librdkafka. Those \
                under `consumer`, `producer` and `admin` are for that client alone.",
            "type": "object",
            "properties": {
                "bootstrap.servers": {
                    "title": "text",
                    "type": "string",
                    "description": "Some of the brokers: `host:port`, several with commas.",
                },
                "consumer": of("consumers"),
                "producer": of("producers"),
                "admin": of("what looks after topics and groups"),
            },
            "required": ["bootstrap.servers"],
            "additionalProperties": scalar,
        })
    }
}

/// The folder of the state, beside the pipeline file, unless one is given.
pub(crate) const STATE_DIRECTORY: &str = "sidestream-state";

/// Where state is kept.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StateSection {
    /// The folder of stores, identity and compiled modules; one process has it at a time. The default
    /// is taken as not surviving a stop.
    #[schemars(extend("default" = format!("{STATE_DIRECTORY}/<application>")))]
    pub directory: Option<Field<Text>>,
}

section! {
    /// How to stop.
    #[derive(Default)]
    ShutdownSection("shutdown.") =>
    /// What a pipeline file says of how to stop.
    ShutdownKeys {
        // Kubernetes gives 30 s.
        /// Exit this long after a signal, drained or not.
        deadline: Duration = "20s" in NOT_ZERO;
        /// Leave the group, so that others take over at once (true), or keep the membership for a
        /// restart (false). The default is false where `state.directory` is given, true elsewhere.
        leave_on_stop: bool;
    }
}

section! {
    /// How to log.
    #[derive(Default)]
    LogSection("log.") =>
    /// How to log.
    #[derive(Copy)]
    Log {
        /// The least level to log.
        level: LogLevel = "info";
        /// As text for people, or as one JSON object a line.
        format: LogFormat = "text";
    }
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
    #[schemars(schema_with = "on_error_schema", extend("default" = ON_ERROR))]
    pub on_error: Option<Located<Short<DeadLetterSection>>>,
    /// How often to try a record before `on_error` applies. Without it, `skip` and `dead_letter`
    /// apply at once, but where the module itself asks for another try.
    pub retry: Option<RetrySection>,
    /// Configuration that the module gets, as JSON. A value that is `${VAR}` or `${VAR:-default}`
    /// alone, without quotes, is a number or a boolean if the variable's value is one; in quotes it
    /// is text.
    pub config: Option<Entries<Node>>,
}

section! {
    /// An input: a topic, a repartition topic, or an output of another transform.
    #[derive(Default)]
    InputSection("") =>
    /// How an input that is a topic is read.
    InputKeys {
        /// Where to start reading the topic when the group has no offset for it: `earliest`, `latest`
        /// or a time.
        start: Start = "earliest";
        /// What to do when what the group's offset stands for is not there any more, because records
        /// were deleted before they were read, or the topic was created again: `fail` stops the task,
        /// `earliest` and `latest` say where to go on.
        on_out_of_range: OnOutOfRange = "fail";
    } and {
        /// A topic.
        pub topic: Option<Field<Name>>,
        /// Another transform, whose output is taken inside the process.
        pub transform: Option<Field<Name>>,
        /// Which output of that transform.
        pub output: Option<Field<Name>>,
        /// A repartition topic that an output of this pipeline goes to.
        pub repartition: Option<Field<Name>>,
    }
}

/// What becomes of a record that a transform fails at, unless it says so.
pub(crate) const ON_ERROR: &str = "fail";

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

section! {
    /// How often to try.
    #[derive(Default)]
    RetrySection("retry.") =>
    /// How often to try a record; what is not given is as in `limits`.
    #[derive(Copy)]
    Retry {
        /// How often the same record may fail; `limits.retry_attempts_max` unless given.
        attempts: Count;
        /// How long to wait after its first failure, doubling up to a minute; `limits.retry_backoff`
        /// unless given.
        backoff: Duration;
    }
}

section! {
    /// A store.
    StoreSection("") =>
    /// How the entries of a store are kept.
    StoreKeys {
        /// On disk, or in memory alone; either has a changelog.
        kind: StoreKind = "rocksdb";
    } and {
        /// Its name, unique in the pipeline.
        pub name: Field<Name>,
    }
}

section! {
    /// An output: a topic, a repartition topic, or, if empty, other transforms of the process.
    #[derive(Default)]
    OutputSection("") =>
    /// How an output is written.
    OutputKeys {
        /// Write only the last record for each key and transaction.
        latest_per_key: bool = "false";
        /// How many partitions the repartition topic has; those of its source unless given.
        partitions: Count;
        /// Whether the transform may read, itself or through others, what it writes there.
        allow_loop: bool = "false";
    } and {
        /// A topic.
        pub topic: Option<Field<Name>>,
        /// A topic of the agent's own, through which records reach the tasks of their keys.
        pub repartition: Option<Field<Name>>,
    }
}
