//! The simulated brokers: partitions, transactions and one group. Time comes in from the world;
//! every choice is drawn by the caller.

mod group;
mod partition;
mod transactions;

use std::collections::BTreeMap;

use sidestream_core::{
    record::{Offset, TopicPartition},
    topology::{TopicKind, Topology},
};

pub(crate) use self::{
    group::{Group, Standing},
    partition::{Fate, LogHeader, LogRecord, PartitionLog, Slice, index},
    transactions::{Coordinator, Delayed, Refusal},
};
use crate::plan::Timeouts;

/// Everything that the brokers hold.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) now: u64,
    pub(crate) partitions: BTreeMap<TopicPartition, PartitionLog>,
    pub(crate) group: Group,
    pub(crate) coordinator: Coordinator,
    transaction_timeout: u64,
    delete_retention: u64,
    compacted: Vec<TopicPartition>,
}

impl Cluster {
    /// Brokers with the empty topics of `topology`.
    pub(crate) fn new(topology: &Topology, timeouts: &Timeouts) -> Self {
        let mut cluster = Self {
            now: 0,
            partitions: BTreeMap::new(),
            group: Group::new(timeouts),
            coordinator: Coordinator::default(),
            transaction_timeout: timeouts.transaction,
            delete_retention: timeouts.delete_retention,
            compacted: Vec::new(),
        };
        for (topic, index) in topology.topics.iter().zip(0..) {
            let index = sidestream_core::record::TopicIndex(index);
            for partition in 0..topic.partitions {
                let partition = TopicPartition::new(index, partition);
                cluster.partitions.insert(partition, PartitionLog::default());
                if topic.kind == TopicKind::Changelog {
                    cluster.compacted.push(partition);
                }
            }
        }
        cluster.subscribe(topology);
        cluster
    }

    /// The members of the group read the inputs of `topology`.
    pub(crate) fn subscribe(&mut self, topology: &Topology) {
        let inputs = topology.subtopologies.iter().flat_map(|s| &s.inputs);
        let topics = inputs.map(|input| (input.topic, topology.topic(input.topic).partitions));
        self.group.topics = topics.collect();
    }

    /// A partition that is known to be there.
    pub(crate) fn partition(&self, partition: TopicPartition) -> &PartitionLog {
        self.partitions.get(&partition).expect("a partition of the topology")
    }

    /// A partition that is known to be there.
    pub(crate) fn partition_mut(&mut self, partition: TopicPartition) -> &mut PartitionLog {
        self.partitions.get_mut(&partition).expect("a partition of the topology")
    }

    /// The committed offset of a partition once all markers are written.
    pub(crate) fn decided_offset(&self, partition: TopicPartition) -> Offset {
        let committed = self.group.offsets.get(&partition).map_or(0, |c| c.offset);
        let decided = self
            .group
            .pending_offsets(partition)
            .filter(|(producer, _)| self.coordinator.will_commit(*producer))
            .map(|(_, offset)| offset);
        decided.max().unwrap_or(0).max(committed)
    }

    /// Lets time pass: what is due happens.
    pub(crate) fn advance(&mut self, now: u64, alive: impl Fn(&str) -> bool) {
        self.now = now;
        self.advance_transactions();
        self.group.advance(now, alive);
    }

    /// Compacts every changelog.
    pub(crate) fn compact_all(&mut self) {
        (0..self.compacted.len() as u64).for_each(|choice| self.compact(choice));
    }

    /// Compacts the changelog that `choice` picks.
    pub(crate) fn compact(&mut self, choice: u64) {
        if self.compacted.is_empty() {
            return;
        }
        let place = usize::try_from(choice % self.compacted.len() as u64).expect("below a length");
        let (now, retention) = (self.now, self.delete_retention);
        let partition = self.compacted[place];
        self.partition_mut(partition).compact(now, retention);
    }
}
