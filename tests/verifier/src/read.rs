//! Reads topics and committed offsets.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
};

use crate::{
    record::{Record, Topic},
    verdict::{Kind, Verdict},
};

/// How long a broker may take for one answer, and how long a reader waits for the next record.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster to read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its addresses, as `bootstrap.servers`.
    pub bootstrap: String,
    /// More librdkafka properties for every client.
    pub properties: Vec<(String, String)>,
}

impl Cluster {
    /// The cluster at these addresses.
    #[must_use]
    pub fn new(bootstrap: &str) -> Self {
        Self { bootstrap: bootstrap.to_owned(), properties: Vec::new() }
    }

    fn consumer(&self, group: &str, isolation: &str) -> Result<BaseConsumer> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", group)
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("fetch.queue.backoff.ms", "1");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        Ok(config.create()?)
    }

    /// All committed records of a topic. That its first records were deleted is a violation, as is
    /// an open transaction, whose records can't be seen.
    pub fn read(&self, topic: &str, verdict: &mut Verdict) -> Result<Topic> {
        let reader = self.consumer("sidestream-verifier", "read_committed")?;
        for partition in 0..partitions(&reader, topic)? {
            let (start, _) = reader.fetch_watermarks(topic, partition, PATIENCE)?;
            if start > 0 {
                verdict.add(Kind::Unsettled, || {
                    format!("what came before offset {start} of {topic}[{partition}] was deleted")
                });
            }
        }
        self.read_what_is_left(topic, verdict)
    }

    fn read_what_is_left(&self, topic: &str, verdict: &mut Verdict) -> Result<Topic> {
        let consumer = self.consumer("sidestream-verifier", "read_committed")?;
        let partitions = partitions(&consumer, topic)?;
        for (partition, (stable, end)) in (0..).zip(self.ends(topic, partitions)?) {
            if stable < end {
                verdict.add(Kind::Unsettled, || {
                    format!("a transaction is open in {topic}[{partition}] from {stable} to {end}")
                });
            }
        }
        let mut assignment = TopicPartitionList::new();
        for partition in 0..partitions {
            assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        let mut read = Topic {
            name: topic.to_owned(),
            partitions: vec![Vec::new(); usize::try_from(partitions)?],
        };
        let mut open = partitions;
        while open > 0 {
            match consumer.poll(PATIENCE) {
                Some(Ok(message)) => {
                    let record = record(&message)?;
                    read.partitions[usize::try_from(record.partition)?].push(record);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) => return Err(error).with_context(|| format!("reading {topic}")),
                None => bail!("nothing came of {topic} for {} s", PATIENCE.as_secs()),
            }
        }
        Ok(read)
    }

    /// The records of an input that a group has committed.
    pub fn read_committed_by(
        &self,
        group: &str,
        topic: &str,
        verdict: &mut Verdict,
    ) -> Result<Topic> {
        let mut read = self.read(topic, verdict)?;
        let committed = self.committed(group, topic)?;
        for (records, committed) in read.partitions.iter_mut().zip(committed) {
            let committed = committed.unwrap_or(0);
            records.retain(|record| record.offset < committed);
        }
        Ok(read)
    }

    /// The committed offset of each partition of a topic.
    pub fn committed(&self, group: &str, topic: &str) -> Result<Vec<Option<i64>>> {
        let consumer = self.consumer(group, "read_committed")?;
        let mut asked = TopicPartitionList::new();
        for partition in 0..partitions(&consumer, topic)? {
            asked.add_partition(topic, partition);
        }
        let answer = consumer.committed_offsets(asked, PATIENCE)?;
        let offset = |offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
        let elements = answer.elements();
        let committed = elements.iter().map(|element| {
            // As long as a transaction that may change it is open, there is none.
            let what = || format!("the offset of {topic}[{}] in {group}", element.partition());
            element.error().with_context(what)?;
            anyhow::Ok(offset(element.offset()))
        });
        committed.collect()
    }

    /// Checks that a group has nothing left to read of a topic.
    pub fn check_settled(&self, group: &str, topic: &str, verdict: &mut Verdict) -> Result<()> {
        // It is purged as it is processed.
        let left = self.read_what_is_left(topic, verdict)?;
        for (records, committed) in left.partitions.iter().zip(self.committed(group, topic)?) {
            let committed = committed.unwrap_or(0);
            if let Some(record) = records.iter().find(|record| record.offset >= committed) {
                verdict.add(Kind::Unsettled, || {
                    format!("{} is not processed: {committed} is committed", left.place(record))
                });
            }
        }
        Ok(())
    }

    /// For each partition the ends for readers of committed records and for all.
    fn ends(&self, topic: &str, partitions: i32) -> Result<Vec<(i64, i64)>> {
        let stable = self.consumer("sidestream-verifier", "read_committed")?;
        let all = self.consumer("sidestream-verifier", "read_uncommitted")?;
        let end = |consumer: &BaseConsumer, partition| {
            anyhow::Ok(consumer.fetch_watermarks(topic, partition, PATIENCE)?.1)
        };
        (0..partitions).map(|p| anyhow::Ok((end(&stable, p)?, end(&all, p)?))).collect()
    }
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let partitions = found.map_or(0, |found| found.partitions().len());
    ensure!(partitions > 0, "there is no topic {topic}");
    Ok(i32::try_from(partitions)?)
}

fn record(message: &BorrowedMessage<'_>) -> Result<Record> {
    let headers = message.headers().map(|headers| {
        let header = |header: rdkafka::message::Header<'_, &[u8]>| {
            (header.key.to_owned(), header.value.map(<[u8]>::to_vec))
        };
        headers.iter().map(header).collect()
    });
    Ok(Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    })
}
