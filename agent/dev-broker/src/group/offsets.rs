//! The offsets of a group: committed ones, and those that wait for the end of a transaction.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;

use crate::{log::Outcome, topics::TopicPartition};

/// An offset that a group committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
}

#[derive(Clone, Debug)]
struct Entry {
    committed: Committed,
    /// Of two commits, the one that was sent later counts, even if its transaction ended first.
    order: u64,
}

/// All offsets of a group.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    committed: BTreeMap<TopicPartition, Entry>,
    /// By the producer of the transaction.
    pending: BTreeMap<i64, BTreeMap<TopicPartition, Entry>>,
    next_order: u64,
}

impl Offsets {
    pub(crate) fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.pending.is_empty()
    }

    fn entry(&mut self, committed: Committed) -> Entry {
        self.next_order += 1;
        Entry { committed, order: self.next_order }
    }

    /// Commits an offset at once.
    pub(crate) fn commit(&mut self, partition: TopicPartition, offset: Committed) {
        let entry = self.entry(offset);
        self.committed.insert(partition, entry);
    }

    /// Keeps an offset until a producer's transaction ends.
    pub(crate) fn commit_later(
        &mut self,
        producer_id: i64,
        partition: TopicPartition,
        offset: Committed,
    ) {
        let entry = self.entry(offset);
        self.pending.entry(producer_id).or_default().insert(partition, entry);
    }

    /// Makes the offsets of a transaction good, or drops them.
    pub(crate) fn end(&mut self, producer_id: i64, outcome: Outcome) {
        let pending = self.pending.remove(&producer_id).unwrap_or_default();
        if outcome == Outcome::Aborted {
            return;
        }
        for (partition, entry) in pending {
            let later = |known: &Entry| known.order > entry.order;
            if !self.committed.get(&partition).is_some_and(later) {
                self.committed.insert(partition, entry);
            }
        }
    }

    /// The committed offset of a partition. If only a stable one will do, one that waits for the
    /// end of a transaction is an error.
    pub(crate) fn get(
        &self,
        partition: &TopicPartition,
        stable: bool,
    ) -> Result<Option<&Committed>, ResponseError> {
        if stable && self.pending.values().any(|pending| pending.contains_key(partition)) {
            return Err(ResponseError::UnstableOffsetCommit);
        }
        Ok(self.committed.get(partition).map(|entry| &entry.committed))
    }

    /// All partitions with an offset, waiting ones included.
    pub(crate) fn partitions(&self) -> Vec<TopicPartition> {
        let pending = self.pending.values().flat_map(BTreeMap::keys);
        let mut all: Vec<_> = self.committed.keys().chain(pending).cloned().collect();
        all.sort();
        all.dedup();
        all
    }

    /// Forgets the offsets of partitions.
    pub(crate) fn forget(&mut self, gone: impl Fn(&TopicPartition) -> bool) {
        self.committed.retain(|partition, _| !gone(partition));
        for pending in self.pending.values_mut() {
            pending.retain(|partition, _| !gone(partition));
        }
        self.pending.retain(|_, pending| !pending.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(offset: i64) -> Committed {
        Committed { offset, leader_epoch: -1, metadata: String::new() }
    }

    #[test]
    fn offsets_of_a_transaction_wait_for_its_end() {
        let at = || TopicPartition::new("a", 0);
        let mut offsets = Offsets::default();
        offsets.commit(at(), offset(1));
        offsets.commit_later(7, at(), offset(2));
        assert_eq!(offsets.get(&at(), false), Ok(Some(&offset(1))));
        assert_eq!(offsets.get(&at(), true), Err(ResponseError::UnstableOffsetCommit));
        offsets.end(7, Outcome::Aborted);
        assert_eq!(offsets.get(&at(), true), Ok(Some(&offset(1))));
        offsets.commit_later(7, at(), offset(3));
        offsets.end(7, Outcome::Committed);
        assert_eq!(offsets.get(&at(), true), Ok(Some(&offset(3))));
    }

    #[test]
    fn what_was_sent_last_counts() {
        let at = || TopicPartition::new("a", 0);
        let mut offsets = Offsets::default();
        offsets.commit_later(7, at(), offset(2));
        offsets.commit(at(), offset(9));
        offsets.end(7, Outcome::Committed);
        assert_eq!(offsets.get(&at(), true), Ok(Some(&offset(9))));
    }

    #[test]
    fn a_deleted_topic_leaves_no_offsets() {
        let mut offsets = Offsets::default();
        offsets.commit(TopicPartition::new("a", 0), offset(1));
        offsets.commit_later(7, TopicPartition::new("a", 1), offset(2));
        assert_eq!(offsets.partitions().len(), 2);
        offsets.forget(|partition| partition.topic == "a");
        assert!(offsets.is_empty());
    }
}
