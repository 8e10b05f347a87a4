//! Clients of librdkafka, set up as the checks need them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    producer::{BaseProducer, BaseRecord, Producer},
};

use super::PATIENCE;
use crate::{topics, wait};

/// A topic of its own.
pub(super) fn topic(
    bootstrap: &str,
    name: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) -> Result<String> {
    let name = topics::unique(name);
    topics::create(bootstrap, &name, partitions, settings)?;
    Ok(name)
}

/// Settings of a client, on top of those that all have.
pub(super) fn config(bootstrap: &str, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("allow.auto.create.topics", "false");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config
}

/// A producer.
pub(super) fn producer(bootstrap: &str, settings: &[(&str, &str)]) -> Result<BaseProducer> {
    Ok(config(bootstrap, &[("linger.ms", "1")])
        .set("message.timeout.ms", "20000")
        .clone_with(settings)
        .create()?)
}

/// A producer whose transactions can begin.
pub(super) fn transactional(bootstrap: &str, id: &str) -> Result<BaseProducer> {
    transactional_with(bootstrap, id, &[])
}

/// The same with further settings.
pub(super) fn transactional_with(
    bootstrap: &str,
    id: &str,
    settings: &[(&str, &str)],
) -> Result<BaseProducer> {
    let producer: BaseProducer = config(bootstrap, &[("transactional.id", id)])
        .set("transaction.timeout.ms", "60000")
        .set("linger.ms", "1")
        .clone_with(settings)
        .create()?;
    producer.init_transactions(PATIENCE).context("can't begin transactions")?;
    Ok(producer)
}

trait CloneWith {
    fn clone_with(&self, settings: &[(&str, &str)]) -> ClientConfig;
}

impl CloneWith for ClientConfig {
    fn clone_with(&self, settings: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.clone();
        for (name, value) in settings {
            config.set(*name, *value);
        }
        config
    }
}

/// Sends records with these values to a partition, and waits until the broker has them.
pub(super) fn send(
    producer: &BaseProducer,
    (topic, partition): (&str, i32),
    values: &[&str],
) -> Result<()> {
    for value in values {
        let record = BaseRecord::to(topic).partition(partition).key("key").payload(*value);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    // Not `flush`, which takes a tenth of a second however soon the records are delivered.
    wait::until_true("delivery", PATIENCE, || {
        producer.poll(Duration::from_millis(1));
        Ok(producer.in_flight_count() == 0)
    })
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) value: String,
}

/// Everything in a topic up to its end, for readers of committed records or of all.
pub(super) fn read(bootstrap: &str, topic: &str, isolation: &str) -> Result<Vec<Seen>> {
    let settings = [("isolation.level", isolation)];
    read_from(bootstrap, topic, Offset::Beginning, &settings)
}

/// Everything in a topic from an offset of each partition to its end.
pub(super) fn read_from(
    bootstrap: &str,
    topic: &str,
    offset: Offset,
    settings: &[(&str, &str)],
) -> Result<Vec<Seen>> {
    let partitions = topics::partition_count(bootstrap, topic)?.context("no such topic")?;
    let consumer: BaseConsumer = config(bootstrap, &[("group.id", "checks")])
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "50")
        .clone_with(settings)
        .create()?;
    let mut from = TopicPartitionList::new();
    for partition in 0..partitions {
        from.add_partition_offset(topic, partition, offset)?;
    }
    consumer.assign(&from)?;
    let (mut seen, mut left, start) = (Vec::new(), partitions, Instant::now());
    while left > 0 {
        ensure!(start.elapsed() < PATIENCE, "no end of {topic}; seen: {}", seen.len());
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => seen.push(Seen {
                partition: message.partition(),
                offset: message.offset(),
                value: String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned(),
            }),
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(error)) => return Err(error.into()),
        }
    }
    Ok(seen)
}

/// The values of what was read.
pub(super) fn values(bootstrap: &str, topic: &str, isolation: &str) -> Result<Vec<String>> {
    Ok(read(bootstrap, topic, isolation)?.into_iter().map(|seen| seen.value).collect())
}

/// A client for administration.
pub(super) fn admin(bootstrap: &str) -> Result<AdminClient<DefaultClientContext>> {
    Ok(config(bootstrap, &[]).create()?)
}

pub(super) fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
}

/// Waits for what an admin client answers; an outer error is one of the whole request.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().build()?.block_on(future))
}
