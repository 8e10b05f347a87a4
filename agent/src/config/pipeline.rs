//! A pipeline, validated and typed.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use crate::config::{
    control::Control,
    places::Places,
    problem::Position,
    setting::{OnOutOfRange, Start},
};

pub use crate::config::{
    choices::{GivesUp, Guarantee, LogFormat, LogLevel, StoreKind},
    file::{General, Log, Retry},
    limits::Limits,
    module_config::ModuleConfig,
    swap::Swap,
};

/// A pipeline: what one agent runs. Names are known to be sound and references to lead somewhere;
/// whether modules, brokers and topics are there is not known yet.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// The pipeline file.
    pub path: PathBuf,
    /// The consumer group's id, and the prefix of internal topics.
    pub application: String,
    /// Properties of the Kafka clients.
    pub kafka: Kafka,
    /// What stands at the top of the file by itself.
    pub general: General,
    /// Where state is kept.
    pub state: State,
    /// Bounds of single things.
    pub limits: Limits,
    /// How modules are replaced while records flow.
    pub swap: Swap,
    /// How to stop.
    pub shutdown: Shutdown,
    /// How to log.
    pub log: Log,
    /// Where the agent can be spoken to, and by whom.
    pub control: Control,
    /// Where probes and metrics are, if anywhere.
    pub http: Option<SocketAddr>,
    /// The steps, at least one, in the order of the file.
    pub transforms: Vec<Transform>,
    /// Where the keys stand that are no part of a transform.
    pub(crate) places: Places,
}

/// Properties of the Kafka clients: those of all, and those of one kind that go before them.
#[derive(Clone, Debug, Default)]
pub struct Kafka {
    /// For every client.
    pub common: Properties,
    /// For consumers.
    pub consumer: Properties,
    /// For producers.
    pub producer: Properties,
    /// For the admin client.
    pub admin: Properties,
    /// After this long without a heartbeat a member's partitions go to others: the user's
    /// `session.timeout.ms`, or the default.
    pub session_timeout: Duration,
    /// After this long brokers abort a transaction: the user's `transaction.timeout.ms`, or what the
    /// commit interval needs.
    pub transaction_timeout: Duration,
    /// What a producer takes as one message: the user's `message.max.bytes`, or what the largest
    /// record needs.
    pub message_bytes_max: u64,
}

impl Kafka {
    /// A property as one kind of client has it, with the key that it comes from.
    pub(crate) fn effective(&self, section: &str, names: &[&str]) -> Option<(String, &str)> {
        let own = match section {
            "consumer" => &self.consumer,
            "producer" => &self.producer,
            _ => &self.admin,
        };
        let sections = [(format!("kafka.{section}"), own), ("kafka".to_owned(), &self.common)];
        sections.into_iter().find_map(|(section, properties)| {
            let name = names.iter().find(|name| properties.get(name).is_some())?;
            Some((format!("{section}.{name}"), properties.get(name)?))
        })
    }
}

/// Properties of a Kafka client in the order of the file. Their values may be secret: they are
/// not shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(pub Vec<(String, String)>);

impl Properties {
    /// The value of a property, if it is given.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Where state is kept.
#[derive(Clone, Debug)]
pub struct State {
    /// The folder, an absolute path.
    pub directory: PathBuf,
}

/// How to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Exit this long after a signal, drained or not.
    pub deadline: Duration,
    /// Leave the group (true), or keep the membership for a restart (false).
    pub leave_on_stop: bool,
}

/// A step of the pipeline.
#[derive(Clone, Debug)]
pub struct Transform {
    /// Its name, unique in the pipeline.
    pub name: String,
    /// Where its name stands in the file.
    pub at: Position,
    /// The file of its module, an absolute path.
    pub module: PathBuf,
    /// Where that stands in the file.
    pub module_at: Position,
    /// What it reads, at least one; their order is that of the module's input indices.
    pub inputs: Vec<Input>,
    /// Its stores; their order is that of the module's store indices.
    pub stores: Vec<Store>,
    /// Its outputs; their order is that of the module's output indices.
    pub outputs: Vec<Output>,
    /// What the module is configured with.
    pub config: ModuleConfig,
    /// What becomes of a record that it fails at, once it has been tried.
    pub on_error: OnError,
    /// How often to try, if the file says so.
    pub retry: Option<Retry>,
}

/// What becomes of a record that a transform fails at for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It is not passed on: its task stops, or goes on without it.
    GiveUp(GivesUp),
    /// It goes to a topic, and its task goes on.
    DeadLetter {
        /// The topic.
        topic: String,
        /// Where it stands in the file.
        at: Position,
    },
}

/// An input of a transform.
#[derive(Clone, Debug)]
pub struct Input {
    /// Where it stands in the file.
    pub at: Position,
    /// Where its records come from.
    pub source: Source,
}

/// Where an input's records come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From a topic of the user's.
    Topic {
        /// Its name.
        name: String,
        /// Where to start when the group has no offset.
        start: Start,
        /// What to do when its offset can't be read on from.
        on_out_of_range: OnOutOfRange,
    },
    /// From another transform, inside the process.
    Transform {
        /// The transform's name.
        transform: String,
        /// The name of its output.
        output: String,
    },
    /// From a repartition topic of this pipeline.
    Repartition {
        /// Its name in the pipeline.
        name: String,
    },
}

/// A store of a transform.
#[derive(Clone, Debug)]
pub struct Store {
    /// Its name, unique in the pipeline.
    pub name: String,
    /// Where it stands in the file.
    pub at: Position,
    /// Where its entries are kept.
    pub kind: StoreKind,
}

/// An output of a transform.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its name, unique in the transform.
    pub name: String,
    /// Where it stands in the file.
    pub at: Position,
    /// Where its records go.
    pub target: Target,
    /// Whether records may come back through it to the transform that wrote them.
    pub allow_loop: bool,
}

/// Where an output's records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a topic of the user's.
    Topic {
        /// Its name.
        name: String,
        /// Write only the last record for each key and transaction.
        latest_per_key: bool,
    },
    /// To a repartition topic of this pipeline.
    Repartition {
        /// Its name in the pipeline.
        name: String,
        /// How many partitions it has, if the file says so.
        partitions: Option<i32>,
    },
    /// To the transforms that name it as an input.
    Transforms,
}
