//! Kafka, through librdkafka.
//!
//! - [`Config`]: properties, identity and bounds.
//! - [`KafkaLog`]: one worker's member of the group, its transactional producer and its reader of
//!   changelogs, as the core's [`Log`].
//! - [`Admin`]: topics, and transactional ids of workers that are gone.
//! - [`TopicReader`], [`TopicWriter`]: a topic read once, and records written, outside of any group.
//!
//! Only `native` names librdkafka's C interface. Why no client of rust-rdkafka is used, and what
//! each of the settings is for, is told in ARCHITECTURE.md.

mod admin;
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
mod restore;
mod rights;
mod topic_reader;
mod topic_writer;
mod watch;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sidestream_core::{
    record::{Committed, Offset, Outputs, TopicIndex, TopicPartition},
    topology::{Start, Topology},
    worker::{
        Bounds, Event, FetchPosition, Log, LogError, Membership, Receipt, Transaction, Unreadable,
    },
};

use self::{
    admin::Purger, consumer::Consumer, names::Names, native::ConsumerClient, producer::Producer,
    restore::Restore, watch::Watch,
};
pub use self::{
    admin::{Admin, Creation, NewTopic, PartitionEnd, TopicInfo},
    cluster::Trouble,
    config::{Config, Properties},
    error::Error,
    native::Right,
    topic_reader::{End, StoredHeader, StoredRecord, TopicReader},
    topic_writer::{NewRecord, TopicWriter},
};

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

/// While changelogs are read, how long to wait for one of the two consumers before looking at the
/// other.
const RESTORE_TURN: Duration = Duration::from_millis(5);

/// Kafka as one worker sees it.
///
/// Dropped, it stays a member of the group until its session ends, for a restart under the same
/// identity; [`Log::leave`] leaves for good.
pub struct KafkaLog {
    config: Arc<Config>,
    names: Names,
    consumer: Consumer,
    producer: Producer,
    restore: Option<Restore>,
    purger: Option<Purger>,
    watch: Watch,
    /// What the next poll tells first.
    told: Vec<Event>,
    /// How long a request of a look-up may take.
    look_up_timeout: Duration,
}

impl KafkaLog {
    /// Takes over the transactional id of worker number `worker`, then joins the group for all
    /// inputs of all sub-topologies. Blocks for the request timeout at most; after
    /// [`Error::Unavailable`] it can be tried again.
    pub fn new(config: &Config, topology: &Topology, worker: usize) -> Result<Self, Error> {
        config.validate()?;
        let config = Arc::new(config.clone());
        let names = Names::new(topology)
            .map_err(|name| Error::Fatal(format!("{name:?} is no name for a topic")))?;
        let mut producer = Producer::new(&config, names.clone(), worker)?;
        producer.start()?;
        let inputs = inputs(topology);
        let topics = inputs.iter().map(|&topic| names.c_name(topic).into());
        let consumer = Consumer::join(&config, worker, names.clone(), topics.collect())?;
        let watch = Watch::start(&config, names.clone(), inputs)?;
        let (restore, purger, told) = (None, None, Vec::new());
        let look_up_timeout = config.request_timeout;
        Ok(Self {
            config,
            names,
            consumer,
            producer,
            restore,
            purger,
            watch,
            told,
            look_up_timeout,
        })
    }

    fn reader(&mut self) -> Result<&mut Restore, LogError> {
        if self.restore.is_none() {
            let client = ConsumerClient::new(self.config.reader_client()?)
                .map_err(|failure| LogError::Fatal(failure.to_string()))?;
            self.restore = Some(Restore::new(client, self.names.clone()));
        }
        Ok(self.restore.as_mut().expect("made above"))
    }
}

/// The names of all properties that librdkafka knows, in its order.
#[must_use]
pub fn property_names() -> Vec<String> {
    native::property_names()
}

/// The topics that a topology reads, each once.
fn inputs(topology: &Topology) -> Vec<TopicIndex> {
    let inputs = topology.subtopologies.iter().flat_map(|subtopology| &subtopology.inputs);
    let mut topics: Vec<_> = inputs.map(|input| input.topic).collect();
    topics.sort_unstable();
    topics.dedup();
    topics
}

impl Log for KafkaLog {
    fn poll(&mut self, wait: Duration, events: &mut Vec<Event>) -> Result<(), LogError> {
        events.append(&mut self.told);
        let wait = if events.is_empty() { wait } else { Duration::ZERO };
        match self.restore.as_mut().filter(|restore| !restore.is_idle()) {
            None => self.consumer.poll(wait, events)?,
            Some(restore) => {
                let deadline = Instant::now() + wait;
                loop {
                    self.consumer.poll(Duration::ZERO, events)?;
                    let left = deadline.saturating_duration_since(Instant::now());
                    let turn =
                        if events.is_empty() { left.min(RESTORE_TURN) } else { Duration::ZERO };
                    restore.poll(turn, events)?;
                    if !events.is_empty() || left.is_zero() {
                        break;
                    }
                }
            }
        }
        if self.watch.report(&self.consumer.assigned(), events) {
            self.consumer.client().client().refresh_leaders(self.config.request_timeout);
        }
        self.producer.serve();
        Ok(())
    }

    fn assign(&mut self, positions: &[FetchPosition]) -> Result<Membership, LogError> {
        self.consumer.assign(positions)
    }

    fn unassign(&mut self) -> Result<(), LogError> {
        self.consumer.unassign()
    }

    fn seek(&mut self, positions: &[FetchPosition]) -> Result<(), LogError> {
        self.consumer.seek(positions)
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.consumer.pause(partitions)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.consumer.resume(partitions)
    }

    fn hurry(&mut self, request_time_max: Duration) {
        self.look_up_timeout = self.config.request_timeout.min(request_time_max);
    }

    fn committed(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError> {
        let timeout = self.look_up_timeout;
        offsets::committed(self.consumer.client(), &self.names, partitions, timeout)
    }

    fn start_offset(
        &mut self,
        partition: TopicPartition,
        start: Start,
    ) -> Result<Offset, LogError> {
        let timeout = self.look_up_timeout;
        offsets::start_offset(self.consumer.client(), &self.names, partition, start, timeout)
    }

    fn bounds(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Result<Bounds, Unreadable>>, LogError> {
        let timeout = self.look_up_timeout;
        let bounds = offsets::bounds(self.consumer.client(), &self.names, partitions, timeout)?;
        for (partition, bounds) in partitions.iter().zip(&bounds) {
            if let Ok(bounds) = bounds {
                self.watch.told(partition.topic, bounds.topic_id);
            }
        }
        Ok(bounds)
    }

    fn restore(
        &mut self,
        partition: TopicPartition,
        offset: Offset,
        leader_epoch: i32,
    ) -> Result<(), LogError> {
        self.reader()?.start(partition, offset, leader_epoch)
    }

    fn stop_restore(&mut self, partition: TopicPartition) -> Result<(), LogError> {
        match &mut self.restore {
            Some(restore) => restore.stop(partition),
            None => Ok(()),
        }
    }

    fn produce(&mut self, outputs: &Outputs) -> Result<(), LogError> {
        self.producer.produce(outputs)
    }

    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<Receipt, LogError> {
        self.producer.commit(transaction, &self.consumer)
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.producer.abort()
    }

    fn recover(&mut self) -> Result<(), LogError> {
        self.producer.recover()
    }

    fn purge(&mut self, below: &[(TopicPartition, Offset)]) {
        if self.purger.is_none() {
            match Purger::start(&self.config, self.names.clone()) {
                Ok(purger) => self.purger = Some(purger),
                Err(error) => tracing::warn!(%error, "purging is not possible"),
            }
        }
        if let Some(purger) = &self.purger {
            purger.purge(below);
        }
    }

    fn leave(&mut self) -> Result<(), LogError> {
        self.consumer.leave(&mut self.told)
    }
}
