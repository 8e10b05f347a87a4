//! The whole state of the broker: topics, groups, transactions, and what ties them together.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;

use super::{
    Options,
    group::{Answer, Group, Ticket},
    log::{Appended, Batch, Compaction, Log, Outcome},
    refusal::Refusal,
    topics::{DECOMPRESSED_BYTES_MAX, NewTopic, TopicConfig, TopicPartition, Topics},
    transactions::{Ended, Transactions},
};

/// How many groups there may be.
const GROUPS_MAX: usize = 10_000;

/// `producer.id.expiration.ms`.
const PRODUCER_IDLE_MS_MAX: i64 = 86_400_000;

/// `log.retention.check.interval.ms`: how often old records are looked for.
const RETENTION_CHECK_INTERVAL_MS: i64 = 300_000;

/// Where clients find the one node there is.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) host: String,
    pub(super) port: i32,
}

/// The id of the one node.
pub(super) const NODE_ID: i32 = 1;

/// The cluster's id.
pub(super) const CLUSTER_ID: &str = "c2lkZXN0cmVhbS1kZXYtYg";

/// All that the broker knows.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) node: Node,
    pub(super) options: Options,
    pub(super) topics: Topics,
    pub(super) transactions: Transactions,
    groups: BTreeMap<String, Group>,
    /// Of all logs together.
    bytes: usize,
    /// Whether readers may find more than before.
    readable: bool,
    answers: Vec<(Ticket, Answer)>,
    retention_checked_ms: i64,
}

impl Cluster {
    pub(super) fn new(node: Node, options: Options, now_ms: i64) -> Self {
        Self {
            node,
            topics: Topics::new(options.partitions_max),
            options,
            transactions: Transactions::default(),
            groups: BTreeMap::new(),
            bytes: 0,
            readable: false,
            answers: Vec::new(),
            retention_checked_ms: now_ms,
        }
    }

    /// How many bytes of records are held.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// What requests that waited are told now.
    pub(super) fn take_answers(&mut self) -> Vec<(Ticket, Answer)> {
        std::mem::take(&mut self.answers)
    }

    /// Whether readers may find more than when this was asked last.
    pub(super) fn take_readable(&mut self) -> bool {
        std::mem::take(&mut self.readable)
    }

    /// Appends a batch, and makes room for it first.
    pub(super) fn append(
        &mut self,
        at: &TopicPartition,
        batch: Batch,
        append_time_ms: Option<i64>,
    ) -> Result<Appended, Refusal> {
        self.make_room(batch.bytes().len())?;
        let log = self.topics.log_mut(&at.topic, at.partition)?;
        let before = log.bytes();
        let appended = log.append(batch, append_time_ms)?;
        self.bytes += log.bytes() - before;
        self.readable |= !appended.duplicate;
        Ok(appended)
    }

    /// Drops the oldest records that may go until there is room.
    fn make_room(&mut self, bytes: usize) -> Result<(), Refusal> {
        while self.bytes + bytes > self.options.bytes_max {
            let deletable = self.topics.iter_mut().filter(|(_, topic)| topic.config.deletes());
            let logs = deletable.flat_map(|(_, topic)| &mut topic.partitions);
            let oldest = logs.filter_map(|log| Some((log.oldest_deletable()?, log)));
            let Some((_, log)) = oldest.min_by_key(|(appended_ms, _)| *appended_ms) else {
                let max = self.options.bytes_max;
                let why = format!(
                    "the development broker holds {} bytes, and at most {max}; nothing of it may \
                     be deleted: give it more, or delete topics",
                    self.bytes
                );
                return Err(Refusal::new(ResponseError::PolicyViolation, why));
            };
            let before = log.bytes();
            log.drop_oldest();
            self.bytes -= before - log.bytes();
        }
        Ok(())
    }

    /// Makes everything below an offset unreadable; the offset where the log begins now.
    pub(super) fn delete_records(
        &mut self,
        at: &TopicPartition,
        offset: i64,
    ) -> Result<i64, ResponseError> {
        let topic = self.topics.get(&at.topic)?;
        self.topics.log(&at.topic, at.partition)?;
        if !topic.config.deletes() {
            return Err(ResponseError::PolicyViolation);
        }
        let start = self.topics.log_mut(&at.topic, at.partition)?.delete_below(offset);
        self.count_bytes();
        start
    }

    /// Creates a topic, if it was asked for and may be.
    pub(super) fn create_on_demand(&mut self, name: &str) -> Result<(), Refusal> {
        let partitions = self.options.default_partitions;
        let config = TopicConfig::default();
        self.topics.create(NewTopic { name: name.to_owned(), partitions, config })?;
        Ok(())
    }

    /// Removes a topic, and the offsets that groups have in it.
    pub(super) fn delete_topic(&mut self, name: &str) -> Result<(), ResponseError> {
        self.topics.delete(name)?;
        for group in self.groups.values_mut() {
            group.offsets.forget(|partition| partition.topic == name);
        }
        self.count_bytes();
        // Whoever waits there is told that it is gone.
        self.readable = true;
        Ok(())
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.groups.iter().map(|(id, group)| (id.as_str(), group))
    }

    pub(super) fn group(&self, id: &str) -> Option<&Group> {
        self.groups.get(id)
    }

    /// Does something with a group that is there.
    pub(super) fn with_group<T>(
        &mut self,
        id: &str,
        work: impl FnOnce(&mut Group) -> T,
    ) -> Option<T> {
        let group = self.groups.get_mut(id)?;
        let result = work(group);
        self.answers.extend(group.take_answers());
        Some(result)
    }

    /// Makes sure that a group is there.
    pub(super) fn ensure_group(&mut self, id: &str) -> Result<(), ResponseError> {
        if self.groups.contains_key(id) {
            return Ok(());
        }
        if self.groups.len() >= GROUPS_MAX {
            return Err(ResponseError::PolicyViolation);
        }
        self.groups.insert(id.to_owned(), Group::default());
        Ok(())
    }

    /// Removes a group with its offsets.
    pub(super) fn delete_group(&mut self, id: &str) -> Result<(), ResponseError> {
        let group = self.groups.get(id).ok_or(ResponseError::GroupIdNotFound)?;
        if group.members().next().is_some() {
            return Err(ResponseError::NonEmptyGroup);
        }
        self.groups.remove(id);
        Ok(())
    }

    /// Writes the markers of a transaction that ended, and makes its offsets good or drops them.
    pub(super) fn finish(&mut self, ended: &Ended, now_ms: i64) {
        for at in &ended.partitions {
            // A topic may be deleted while a transaction is open in it.
            if let Ok(log) = self.topics.log_mut(&at.topic, at.partition) {
                let before = log.bytes();
                log.end_transaction(ended.writer, ended.outcome, now_ms);
                self.bytes += log.bytes() - before;
            }
        }
        for group in &ended.groups {
            if let Some(group) = self.groups.get_mut(group) {
                group.offsets.end(ended.writer.producer_id, ended.outcome);
            }
        }
        self.readable = true;
    }

    /// Lets time pass: sessions and transactions run out, old records go.
    pub(super) fn tick(&mut self, now_ms: i64) {
        for ended in self.transactions.expire(now_ms) {
            tracing::info!(
                producer_id = ended.writer.producer_id,
                "a transaction is aborted: it was open for longer than its timeout"
            );
            self.finish(&ended, now_ms);
        }
        for group in self.groups.values_mut() {
            group.tick(now_ms);
            self.answers.extend(group.take_answers());
        }
        self.groups.retain(|_, group| !group.is_idle());
        self.compact(now_ms);
        if now_ms - self.retention_checked_ms >= RETENTION_CHECK_INTERVAL_MS {
            self.retention_checked_ms = now_ms;
            self.drop_old(now_ms);
        }
    }

    fn compact(&mut self, now_ms: i64) {
        let tight = self.bytes > self.options.bytes_max / 8 * 7;
        for (name, topic) in self.topics.iter_mut().filter(|(_, topic)| topic.config.compacts()) {
            let deletes_until_ms = now_ms.saturating_sub(topic.config.delete_retention_ms());
            let decompressed_bytes_max = DECOMPRESSED_BYTES_MAX;
            let how = Compaction { deletes_until_ms, decompressed_bytes_max };
            for log in topic.partitions.iter_mut().filter(|log| log.is_dirty(tight)) {
                if let Err(refusal) = log.compact(&how) {
                    tracing::error!(topic = name, ?refusal, "a log can't be compacted");
                }
            }
        }
        self.count_bytes();
    }

    fn drop_old(&mut self, now_ms: i64) {
        for (_, topic) in self.topics.iter_mut() {
            let oldest_ms = topic.config.retention_ms().map(|retention| now_ms - retention);
            let (bytes_max, deletes) = (topic.config.retention_bytes(), topic.config.deletes());
            for log in &mut topic.partitions {
                if deletes {
                    log.retain(oldest_ms, bytes_max);
                }
                log.forget_producers(now_ms - PRODUCER_IDLE_MS_MAX);
            }
        }
        self.count_bytes();
    }

    fn count_bytes(&mut self) {
        let logs = self.topics.iter().flat_map(|(_, topic)| &topic.partitions);
        self.bytes = logs.map(Log::bytes).sum();
    }

    /// Ends a transaction at its producer's wish.
    pub(super) fn end_transaction(
        &mut self,
        id: &str,
        writer: super::log::Writer,
        outcome: Outcome,
        now_ms: i64,
    ) -> Result<(), ResponseError> {
        if let Some(ended) = self.transactions.end(id, writer, outcome, now_ms)? {
            self.finish(&ended, now_ms);
        }
        Ok(())
    }
}
