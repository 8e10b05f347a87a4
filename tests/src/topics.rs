//! Topics, and what is in them.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
        TopicReplication,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

/// How long a broker may take for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A name that no other test uses.
#[must_use]
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Creates a topic, with settings of its own if there are any, and waits until clients see it.
pub fn create(
    bootstrap: &str,
    name: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) -> Result<()> {
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let admin = admin(bootstrap)?;
    let results = block_on(admin.create_topics([&topic], &admin_options()))??;
    outcome(results.first(), &format!("can't create {name}"))?;
    let there = || Ok(partition_count(bootstrap, name)? == Some(partitions));
    crate::wait::until_true("new topic", ANSWER_WITHIN, there)
}

/// Gives a topic settings of its own, in place of those it had.
pub fn configure(bootstrap: &str, name: &str, settings: &[(&str, String)]) -> Result<()> {
    let mut config = AlterConfig::new(ResourceSpecifier::Topic(name));
    for (key, value) in settings {
        config = config.set(key, value);
    }
    let admin = admin(bootstrap)?;
    let results = block_on(admin.alter_configs(&[config], &admin_options()))??;
    match results.first() {
        Some(Ok(_)) => Ok(()),
        Some(Err((_, code))) => Err(anyhow!("can't configure {name}: {code}")),
        None => Err(anyhow!("can't configure {name}: no answer")),
    }
}

/// Deletes a topic.
pub fn delete(bootstrap: &str, name: &str) -> Result<()> {
    let admin = admin(bootstrap)?;
    let results = block_on(admin.delete_topics(&[name], &admin_options()))??;
    outcome(results.first(), &format!("can't delete {name}"))
}

/// Gives a topic more partitions: so many in all.
pub fn grow(bootstrap: &str, name: &str, partitions: usize) -> Result<()> {
    let admin = admin(bootstrap)?;
    let more = NewPartitions::new(name, partitions);
    let results = block_on(admin.create_partitions(&[more], &admin_options()))??;
    outcome(results.first(), &format!("can't give {name} more partitions"))
}

/// Deletes the records of a partition below an offset, as retention does.
pub fn delete_records(bootstrap: &str, name: &str, partition: i32, below: i64) -> Result<()> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(name, partition, Offset::Offset(below))?;
    let deleted = block_on(admin(bootstrap)?.delete_records(&list, &admin_options()))??;
    deleted.elements().iter().try_for_each(|element| element.error()).map_err(Into::into)
}

/// Deletes a group with its offsets, once it has no members any more.
pub fn delete_group(bootstrap: &str, group: &str) -> Result<()> {
    let admin = admin(bootstrap)?;
    crate::wait::until_true("a group without members", ANSWER_WITHIN, || {
        let results = block_on(admin.delete_groups(&[group], &admin_options()))??;
        match results.first() {
            // One without offsets is gone once its last member is.
            Some(Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound))) => Ok(true),
            Some(Err((_, RDKafkaErrorCode::NonEmptyGroup))) => Ok(false),
            Some(Err((_, code))) => Err(anyhow!("can't delete {group}: {code}")),
            None => Err(anyhow!("can't delete {group}: no answer")),
        }
    })
}

/// Sets the offset of every partition of a topic, once the group has no members any more.
pub fn reset_offsets(bootstrap: &str, group: &str, name: &str, offset: i64) -> Result<()> {
    let partitions = partition_count(bootstrap, name)?.with_context(|| format!("no {name}"))?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(name, partition, Offset::Offset(offset))?;
    }
    let consumer = reader(bootstrap, group)?;
    crate::wait::until_true("a group without members", ANSWER_WITHIN, || {
        match consumer.commit(&list, CommitMode::Sync) {
            Ok(()) => Ok(true),
            Err(KafkaError::ConsumerCommit(
                RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::IllegalGeneration,
            )) => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
}

/// How many partitions a topic has; none if it isn't there.
pub fn partition_count(bootstrap: &str, name: &str) -> Result<Option<i32>> {
    let metadata =
        reader(bootstrap, "sidestream-tests")?.fetch_metadata(Some(name), ANSWER_WITHIN)?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == name);
    let count = topic.map_or(0, |topic| topic.partitions().len());
    Ok(if count == 0 { None } else { Some(i32::try_from(count)?) })
}

/// The end of each partition: one behind the last record or marker of any kind, whatever
/// transaction it belongs to.
pub fn ends(bootstrap: &str, topic: &str) -> Result<Vec<i64>> {
    let reader = reader(bootstrap, "sidestream-tests")?;
    let partitions = partition_count(bootstrap, topic)?.with_context(|| format!("no {topic}"))?;
    (0..partitions)
        .map(|partition| Ok(reader.fetch_watermarks(topic, partition, ANSWER_WITHIN)?.1))
        .collect()
}

/// The end of each partition for readers of committed records: where the first open transaction
/// begins, if there is one.
pub fn stable_ends(bootstrap: &str, topic: &str) -> Result<Vec<i64>> {
    let reader = committed_reader(bootstrap)?;
    let partitions = partition_count(bootstrap, topic)?.with_context(|| format!("no {topic}"))?;
    (0..partitions)
        .map(|partition| Ok(reader.fetch_watermarks(topic, partition, ANSWER_WITHIN)?.1))
        .collect()
}

/// The committed offset of each partition; none where the group has none. Fails while one is
/// pending in a transaction.
pub fn committed(bootstrap: &str, group: &str, topic: &str) -> Result<Vec<Option<i64>>> {
    let partitions = partition_count(bootstrap, topic)?.with_context(|| format!("no {topic}"))?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition(topic, partition);
    }
    let committed = reader(bootstrap, group)?.committed_offsets(list, ANSWER_WITHIN)?;
    let offset = |offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
    committed
        .elements()
        .iter()
        .map(|element| {
            element.error()?;
            Ok(offset(element.offset()))
        })
        .collect()
}

/// Clients that are kept, for questions that are asked again and again.
pub struct Observer {
    /// Of the group whose offsets are asked for.
    all: BaseConsumer,
    committed: BaseConsumer,
}

impl Observer {
    /// Asks about this group.
    pub fn new(bootstrap: &str, group: &str) -> Result<Self> {
        Ok(Self { all: reader(bootstrap, group)?, committed: committed_reader(bootstrap)? })
    }

    /// The committed offset of each of these partitions of each topic; -1 where there is none.
    /// Fails while one is pending in a transaction.
    pub fn position(
        &self,
        topics: &[String],
        partitions: i32,
    ) -> Result<BTreeMap<(String, i32), i64>> {
        let mut list = TopicPartitionList::new();
        for topic in topics {
            for partition in 0..partitions {
                list.add_partition(topic, partition);
            }
        }
        let committed = self.all.committed_offsets(list, ANSWER_WITHIN)?;
        let mut position = BTreeMap::new();
        for element in committed.elements() {
            element.error()?;
            let offset = if let Offset::Offset(offset) = element.offset() { offset } else { -1 };
            position.insert((element.topic().to_owned(), element.partition()), offset);
        }
        Ok(position)
    }

    /// Where in these partitions of a topic a transaction is open, by the partition, and where the
    /// first one begins.
    pub fn open_transactions(&self, topic: &str, partitions: i32) -> Result<Vec<(i32, i64)>> {
        let end = |consumer: &BaseConsumer, partition| {
            anyhow::Ok(consumer.fetch_watermarks(topic, partition, ANSWER_WITHIN)?.1)
        };
        let mut open = Vec::new();
        for partition in 0..partitions {
            let stable = end(&self.committed, partition)?;
            if stable < end(&self.all, partition)? {
                open.push((partition, stable));
            }
        }
        Ok(open)
    }
}

/// A client that reads everything, also what isn't committed, and is a member of nothing.
pub fn reader(bootstrap: &str, group: &str) -> Result<BaseConsumer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("isolation.level", "read_uncommitted")
        .set("enable.auto.commit", "false")
        .create()?)
}

fn committed_reader(bootstrap: &str) -> Result<BaseConsumer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "sidestream-tests")
        .set("isolation.level", "read_committed")
        .create()?)
}

fn admin(bootstrap: &str) -> Result<AdminClient<DefaultClientContext>> {
    Ok(ClientConfig::new().set("bootstrap.servers", bootstrap).create()?)
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN)).request_timeout(Some(ANSWER_WITHIN))
}

fn outcome(result: Option<&Result<String, (String, RDKafkaErrorCode)>>, what: &str) -> Result<()> {
    match result {
        Some(Ok(_)) => Ok(()),
        Some(Err((_, code))) => Err(anyhow!("{what}: {code}")),
        None => Err(anyhow!("{what}: no answer")),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().build()?.block_on(future))
}
