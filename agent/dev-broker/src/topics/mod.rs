//! The topics: their partitions, settings and ids.

mod config;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
};

use kafka_protocol::error::ResponseError;
use uuid::Uuid;

pub(super) use self::config::{Change, Kind, SETTINGS, Setting, TopicConfig};
use super::{
    log::{Limits, Log},
    refusal::Refusal,
};

/// What a batch may come to when it is decompressed: far more than agents make, far less than
/// would hurt.
pub(super) const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// How many characters a topic's name may have, as in Kafka.
const NAME_CHARACTERS_MAX: usize = 249;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TopicPartition {
    pub(super) topic: String,
    pub(super) partition: i32,
}

impl TopicPartition {
    pub(super) fn new(topic: &str, partition: i32) -> Self {
        Self { topic: topic.to_owned(), partition }
    }
}

/// A topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) id: Uuid,
    pub(super) config: TopicConfig,
    pub(super) partitions: Vec<Log>,
}

impl Topic {
    /// How many partitions, as the protocol counts.
    pub(super) fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }

    /// What its partitions take.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            batch_bytes_max: self.config.batch_bytes_max(),
            decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
            keys_needed: self.config.compacts(),
            timestamp_after_ms_max: self.config.timestamp_after_ms_max(),
        }
    }
}

/// A topic that is to be.
#[derive(Clone, Debug)]
pub(super) struct NewTopic {
    pub(super) name: String,
    pub(super) partitions: i32,
    pub(super) config: TopicConfig,
}

/// All topics.
#[derive(Debug)]
pub(super) struct Topics {
    by_name: BTreeMap<String, Topic>,
    partitions_max: usize,
    /// Ids must differ from those of a broker that ran before on the same port.
    seed: RandomState,
    created: u64,
}

impl Topics {
    pub(super) fn new(partitions_max: usize) -> Self {
        Self { by_name: BTreeMap::new(), partitions_max, seed: RandomState::new(), created: 0 }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Topic)> {
        self.by_name.iter().map(|(name, topic)| (name.as_str(), topic))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Topic)> {
        self.by_name.iter_mut().map(|(name, topic)| (name.as_str(), topic))
    }

    pub(super) fn get(&self, name: &str) -> Result<&Topic, ResponseError> {
        self.by_name.get(name).ok_or(ResponseError::UnknownTopicOrPartition)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Result<&mut Topic, ResponseError> {
        self.by_name.get_mut(name).ok_or(ResponseError::UnknownTopicOrPartition)
    }

    /// The name of the topic with this id.
    pub(super) fn name(&self, id: Uuid) -> Option<&str> {
        self.iter().find(|(_, topic)| topic.id == id).map(|(name, _)| name)
    }

    pub(super) fn log(&self, name: &str, partition: i32) -> Result<&Log, ResponseError> {
        let index = usize::try_from(partition).ok();
        let log = index.and_then(|index| self.by_name.get(name)?.partitions.get(index));
        log.ok_or(ResponseError::UnknownTopicOrPartition)
    }

    pub(super) fn log_mut(
        &mut self,
        name: &str,
        partition: i32,
    ) -> Result<&mut Log, ResponseError> {
        let index = usize::try_from(partition).ok();
        let topic = self.by_name.get_mut(name);
        let log = index.zip(topic).and_then(|(index, topic)| topic.partitions.get_mut(index));
        log.ok_or(ResponseError::UnknownTopicOrPartition)
    }

    /// Whether a topic could be created.
    pub(super) fn check(&self, topic: &NewTopic) -> Result<(), Refusal> {
        let NewTopic { name, partitions, .. } = topic;
        check_name(name)?;
        if self.by_name.contains_key(name) {
            let why = format!("Topic '{name}' already exists.");
            return Err(Refusal::new(ResponseError::TopicAlreadyExists, why));
        }
        // Metrics of Kafka write a dot as an underscore.
        let plain = |name: &str| name.replace('.', "_");
        if let Some(other) = self.by_name.keys().find(|other| plain(other) == plain(name)) {
            let why = format!("Topic '{name}' collides with existing topics: {other}");
            return Err(Refusal::new(ResponseError::InvalidTopicException, why));
        }
        if *partitions < 1 {
            let why = "Number of partitions must be larger than 0, or -1 to use the default value.";
            return Err(Refusal::new(ResponseError::InvalidPartitions, why));
        }
        self.check_room(*partitions)
    }

    fn check_room(&self, more: i32) -> Result<(), Refusal> {
        let held: usize = self.by_name.values().map(|topic| topic.partitions.len()).sum();
        let more = usize::try_from(more).unwrap_or(usize::MAX);
        if held.saturating_add(more) <= self.partitions_max {
            return Ok(());
        }
        let max = self.partitions_max;
        let why = format!("the development broker holds {held} partitions, and at most {max}");
        Err(Refusal::new(ResponseError::PolicyViolation, why))
    }

    /// Creates a topic.
    pub(super) fn create(&mut self, topic: NewTopic) -> Result<&Topic, Refusal> {
        self.check(&topic)?;
        self.created += 1;
        let half = |which: u8| u128::from(self.seed.hash_one((self.created, which)));
        let id = Uuid::from_u128(half(0) << 64 | half(1));
        let partitions = (0..topic.partitions).map(|_| Log::default()).collect();
        let made = Topic { id, config: topic.config, partitions };
        Ok(self.by_name.entry(topic.name).or_insert(made))
    }

    /// Removes a topic and what is in it.
    pub(super) fn delete(&mut self, name: &str) -> Result<Topic, ResponseError> {
        self.by_name.remove(name).ok_or(ResponseError::UnknownTopicOrPartition)
    }

    /// Adds partitions until there are so many; only checks it, if it is not to be done.
    pub(super) fn grow(&mut self, name: &str, count: i32, apply: bool) -> Result<(), Refusal> {
        let held = self.get(name)?.partition_count();
        if count <= held {
            let why = format!(
                "The topic {name} currently has {held} partition(s); {count} would not be an increase."
            );
            return Err(Refusal::new(ResponseError::InvalidPartitions, why));
        }
        self.check_room(count - held)?;
        if apply {
            let partitions = &mut self.get_mut(name)?.partitions;
            partitions.extend((held..count).map(|_| Log::default()));
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let why = if name.is_empty() {
        "Topic name is invalid: the empty string is not allowed".to_owned()
    } else if matches!(name, "." | "..") {
        format!("Topic name is invalid: '{name}' is not allowed")
    } else if name.len() > NAME_CHARACTERS_MAX {
        format!("Topic name is invalid: it is longer than {NAME_CHARACTERS_MAX} characters")
    } else if !name.chars().all(allowed) {
        format!(
            "Topic name is invalid: '{name}' contains one or more characters other than ASCII \
             alphanumerics, '.', '_' and '-'"
        )
    } else {
        return Ok(());
    };
    Err(Refusal::new(ResponseError::InvalidTopicException, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str, partitions: i32) -> NewTopic {
        NewTopic { name: name.to_owned(), partitions, config: TopicConfig::default() }
    }

    #[test]
    fn what_cannot_be_created_is_refused_as_kafka_does() {
        let mut topics = Topics::new(10);
        topics.create(topic("a.b", 4)).unwrap();
        let mut check = |name: &str, partitions, expected| {
            let found = topics.create(topic(name, partitions)).map(|_| ());
            assert_eq!(found.map_err(|refusal| refusal.code), expected, "{name}");
        };
        check("a.b", 1, Err(ResponseError::TopicAlreadyExists));
        check("a_b", 1, Err(ResponseError::InvalidTopicException));
        check("", 1, Err(ResponseError::InvalidTopicException));
        check("..", 1, Err(ResponseError::InvalidTopicException));
        check("a b", 1, Err(ResponseError::InvalidTopicException));
        check(&"a".repeat(250), 1, Err(ResponseError::InvalidTopicException));
        check("c", 0, Err(ResponseError::InvalidPartitions));
        check("c", 7, Err(ResponseError::PolicyViolation));
        check("c", 6, Ok(()));
    }

    #[test]
    fn a_topic_of_the_same_name_has_another_id() {
        let mut topics = Topics::new(10);
        let first = topics.create(topic("a", 1)).unwrap().id;
        topics.delete("a").unwrap();
        let second = topics.create(topic("a", 1)).unwrap().id;
        assert_ne!(first, second);
        assert_eq!((topics.name(first), topics.name(second)), (None, Some("a")));
    }

    #[test]
    fn partitions_only_grow() {
        let mut topics = Topics::new(10);
        topics.create(topic("a", 2)).unwrap();
        let code = |outcome: Result<(), Refusal>| outcome.map_err(|refusal| refusal.code);
        assert_eq!(code(topics.grow("a", 2, true)), Err(ResponseError::InvalidPartitions));
        assert_eq!(code(topics.grow("b", 2, true)), Err(ResponseError::UnknownTopicOrPartition));
        assert_eq!(code(topics.grow("a", 11, true)), Err(ResponseError::PolicyViolation));
        topics.grow("a", 3, false).unwrap();
        assert_eq!(topics.get("a").unwrap().partition_count(), 2);
        topics.grow("a", 3, true).unwrap();
        assert_eq!(topics.get("a").unwrap().partition_count(), 3);
    }
}
