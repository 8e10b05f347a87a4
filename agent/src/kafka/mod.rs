//! Kafka, through librdkafka.
//!
//! - [`Config`]: properties, identity and bounds.
//! - [`KafkaPorts`]: one worker's member of the group, its reader of changelogs and its transactional
//!   producer, as the core's [`Ports`].
//! - [`Admin`]: topics, and transactional ids of workers that are gone.
//! - [`TopicReader`], [`TopicWriter`]: a topic read once, and records written, outside of any group.
//!
//! Only `native` names librdkafka's C interface. Why no client of rust-rdkafka is used, and what
//! each of the settings is for, is told in ARCHITECTURE.md.

mod admin;
mod changelog_reader;
mod changelogs;
mod cluster;
mod config;
mod connections;
mod consumer;
mod dismissal;
mod error;
mod groups;
mod health;
mod names;
mod native;
mod offsets;
mod place;
mod producer;
mod refusal;
mod rights;
mod sink;
mod source;
mod topic_reader;
mod topic_writer;
mod watch;

use std::sync::Arc;

use sidestream_core::{ports::Ports, topology::Topology};

pub use self::{
    admin::{Admin, Creation, NewTopic, PartitionEnd, TopicInfo},
    cluster::Trouble,
    config::{Config, Properties},
    error::Error,
    native::Right,
    topic_reader::{End, StoredHeader, StoredRecord, TopicReader},
    topic_writer::{NewRecord, TopicWriter},
};
use self::{changelogs::KafkaChangelogs, names::Names, sink::KafkaSink, source::KafkaSource};
use crate::doing::Doing;

/// Whether Kafka clients can be configured with a property of this name.
#[must_use]
pub fn is_property(name: &str) -> bool {
    native::is_property(name)
}

/// What a property should be, if clients can't be configured with this value; never repeats it.
#[must_use]
pub fn refused_value(name: &str, value: &str) -> Option<String> {
    native::refusal(name, value)
}

/// All that one worker has of Kafka.
pub struct KafkaPorts {
    source: KafkaSource,
    changelogs: KafkaChangelogs,
    sink: KafkaSink,
}

impl KafkaPorts {
    /// Takes over the transactional id of worker number `worker`, then joins the group for all
    /// inputs of all sub-topologies. Blocks for the request timeout at most; after
    /// [`Error::Unavailable`] it can be tried again.
    pub fn connect(config: &Config, topology: &Topology, worker: usize) -> Result<Self, Error> {
        Self::connect_telling(config, topology, worker, &Arc::default())
    }

    /// As [`connect`](Self::connect); each call that may take long is told to `doing`.
    pub(crate) fn connect_telling(
        config: &Config,
        topology: &Topology,
        worker: usize,
        doing: &Arc<Doing>,
    ) -> Result<Self, Error> {
        config.validate()?;
        let config = Arc::new(config.clone());
        let names = Names::new(topology)
            .map_err(|name| Error::Fatal(format!("{name:?} is no name for a topic")))?;
        let sink = KafkaSink::start(&config, (&names, worker), doing)?;
        let source = KafkaSource::join(&config, topology, (&names, worker), doing)?;
        let changelogs = KafkaChangelogs::new(&config, &names, doing);
        Ok(Self { source, changelogs, sink })
    }
}

impl From<KafkaPorts> for Ports {
    fn from(KafkaPorts { source, changelogs, sink }: KafkaPorts) -> Self {
        Self { source: Box::new(source), changelogs: Box::new(changelogs), sink: Box::new(sink) }
    }
}

/// The names of all properties that librdkafka knows, in its order.
#[must_use]
pub fn property_names() -> Vec<String> {
    native::property_names()
}
