//! Reads topics from their beginning, as any reader of committed records would.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedHeaders, Header, Headers},
};

use crate::topics;

/// A record as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Where it stood.
    pub partition: i32,
    /// Where in it.
    pub offset: i64,
    /// Milliseconds since 1970; -1 if it has none.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers: names and values.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// Its key as text.
    #[must_use]
    pub fn key_text(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }

    /// Its value as text.
    #[must_use]
    pub fn value_text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }

    /// The text of its first header of this name.
    #[must_use]
    pub fn header_text(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(other, _)| other == name)?;
        Some(String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned())
    }
}

/// A reader of one topic that goes on from where it was.
pub struct Follower {
    consumer: BaseConsumer,
    topic: String,
    /// Where to go on in each partition.
    next: Vec<Offset>,
    /// Partitions with more to read, as far as is known.
    unread: BTreeSet<i32>,
}

impl Follower {
    /// Reads a topic from its beginning.
    pub fn new(bootstrap: &str, topic: &str) -> Result<Self> {
        let count = topics::partition_count(bootstrap, topic)?;
        let count = count.with_context(|| format!("no topic {topic}"))?;
        Self::from(bootstrap, topic, &vec![Offset::Beginning; usize::try_from(count)?])
    }

    /// Reads a topic, each partition from an offset of its own.
    pub fn from(bootstrap: &str, topic: &str, offsets: &[Offset]) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "sidestream-tests")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "50")
            .set("fetch.queue.backoff.ms", "1")
            .set("queued.max.messages.kbytes", "16384")
            .create()?;
        let (topic, next) = (topic.to_owned(), offsets.to_vec());
        let mut follower = Self { consumer, topic, next, unread: BTreeSet::new() };
        follower.assign()?;
        Ok(follower)
    }

    /// Begins to fetch where it is. What was fetched before does not come any more.
    fn assign(&mut self) -> Result<()> {
        let mut list = TopicPartitionList::new();
        self.unread.clear();
        for (partition, offset) in (0..).zip(&self.next) {
            list.add_partition_offset(&self.topic, partition, *offset)?;
            self.unread.insert(partition);
        }
        Ok(self.consumer.assign(&list)?)
    }

    /// The next record, or none if none comes in time.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Record>> {
        match self.consumer.poll(wait) {
            None => Ok(None),
            Some(Ok(message)) => {
                self.unread.insert(message.partition());
                let next = &mut self.next[usize::try_from(message.partition())?];
                *next = Offset::Offset(message.offset() + 1);
                Ok(Some(Record {
                    partition: message.partition(),
                    offset: message.offset(),
                    timestamp: message.timestamp().to_millis().unwrap_or(-1),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers: message.headers().map_or(Vec::new(), headers),
                }))
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.unread.remove(&partition);
                Ok(None)
            }
            // A broker that is away comes back; what is wrong for good shows as a missed deadline.
            Some(Err(KafkaError::MessageConsumption(_) | KafkaError::Global(_))) => Ok(None),
            Some(Err(error)) => Err(error).context("can't read"),
        }
    }

    /// Everything up to the end of each partition, as far as it is committed.
    pub fn read_to_end(&mut self, deadline: Duration) -> Result<Vec<Record>> {
        // An end that was reached before, and not told yet, is none now.
        self.assign()?;
        let mut records = Vec::new();
        let start = std::time::Instant::now();
        while !self.unread.is_empty() {
            anyhow::ensure!(start.elapsed() < deadline, "no end within {deadline:?}");
            records.extend(self.next(Duration::from_millis(200))?);
        }
        Ok(records)
    }
}

fn headers(headers: &BorrowedHeaders) -> Vec<(String, Option<Vec<u8>>)> {
    let of = |header: Header<'_, &[u8]>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
    headers.iter().map(of).collect()
}

/// How many committed records of a topic a group has still to process. Fails while the broker
/// does not say.
pub fn lag(bootstrap: &str, group: &str, topic: &str) -> Result<usize> {
    let committed = topics::committed(bootstrap, group, topic)?;
    let from = |offset: &Option<i64>| offset.map_or(Offset::Beginning, Offset::Offset);
    let offsets: Vec<_> = committed.iter().map(from).collect();
    let mut follower = Follower::from(bootstrap, topic, &offsets)?;
    Ok(follower.read_to_end(Duration::from_secs(30))?.len())
}
