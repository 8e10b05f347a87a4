//! What a worker reads, as the core's [`Source`]: its member of the group.

use std::{sync::Arc, time::Duration};

use sidestream_core::{
    ports::{
        Bounds, FetchPosition, Membership, PortError, Source, SourceEvent, TransactionError,
        Unreadable,
    },
    record::{Committed, Offset, TopicIndex, TopicPartition},
    topology::{Start, Topology},
};

use super::{Error, config::Config, consumer::Consumer, names::Names, offsets, watch::Watch};
use crate::{
    crash_point::CrashPoint,
    doing::{Call, Doing},
};

/// One worker's member of the group.
///
/// Dropped, it stays a member until its session ends, for a restart under the same identity;
/// [`Source::leave`] leaves for good.
pub(super) struct KafkaSource {
    config: Arc<Config>,
    names: Names,
    consumer: Consumer,
    watch: Watch,
    /// What the next poll tells first.
    told: Vec<SourceEvent>,
    doing: Arc<Doing>,
}

impl KafkaSource {
    /// Joins the group for all inputs of all sub-topologies.
    pub(super) fn join(
        config: &Arc<Config>,
        topology: &Topology,
        (names, worker): (&Names, usize),
        doing: &Arc<Doing>,
    ) -> Result<Self, Error> {
        let inputs = inputs(topology);
        let topics = inputs.iter().map(|&topic| names.c_name(topic).into());
        let consumer = Consumer::join(config, worker, names.clone(), topics.collect())?;
        let watch = Watch::start(config, names.clone(), inputs)?;
        Ok(Self {
            config: Arc::clone(config),
            names: names.clone(),
            consumer,
            watch,
            told: Vec::new(),
            doing: Arc::clone(doing),
        })
    }
}

/// The topics that a topology reads, each once.
pub(super) fn inputs(topology: &Topology) -> Vec<TopicIndex> {
    let inputs = topology.subtopologies.iter().flat_map(|subtopology| &subtopology.inputs);
    let mut topics: Vec<_> = inputs.map(|input| input.topic).collect();
    topics.sort_unstable();
    topics.dedup();
    topics
}

impl Source for KafkaSource {
    fn poll(&mut self, wait: Duration, events: &mut Vec<SourceEvent>) -> Result<(), PortError> {
        let _during = self.doing.begin(Call::Poll);
        events.append(&mut self.told);
        let wait = if events.is_empty() { wait } else { Duration::ZERO };
        self.consumer.poll(wait, events)?;
        if self.watch.report(&self.consumer.assigned(), events) {
            self.consumer.client().client().refresh_leaders(self.config.request_timeout);
        }
        Ok(())
    }

    fn assign(&mut self, positions: &[FetchPosition]) -> Result<Membership, PortError> {
        let _during = self.doing.begin(Call::Assign);
        self.consumer.assign(positions)
    }

    fn unassign(&mut self) -> Result<(), PortError> {
        let _during = self.doing.begin(Call::Assign);
        self.consumer.unassign()
    }

    fn seek(&mut self, positions: &[FetchPosition]) -> Result<(), PortError> {
        let _during = self.doing.begin(Call::Assign);
        self.consumer.seek(positions)
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), PortError> {
        let _during = self.doing.begin(Call::Assign);
        self.consumer.pause(partitions)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), PortError> {
        let _during = self.doing.begin(Call::Assign);
        self.consumer.resume(partitions)
    }

    fn committed(
        &mut self,
        partitions: &[TopicPartition],
        time_max: Duration,
    ) -> Result<Vec<Option<Committed>>, PortError> {
        let _during = self.doing.begin(Call::Offsets);
        let timeout = self.config.request_timeout.min(time_max);
        offsets::committed(self.consumer.client(), &self.names, partitions, timeout)
    }

    fn start_offset(
        &mut self,
        partition: TopicPartition,
        start: Start,
        time_max: Duration,
    ) -> Result<Offset, PortError> {
        let _during = self.doing.begin(Call::Offsets);
        let timeout = self.config.request_timeout.min(time_max);
        offsets::start_offset(self.consumer.client(), &self.names, partition, start, timeout)
    }

    fn bounds(
        &mut self,
        partitions: &[TopicPartition],
        time_max: Duration,
    ) -> Result<Vec<Result<Bounds, Unreadable>>, PortError> {
        let _during = self.doing.begin(Call::Offsets);
        let timeout = self.config.request_timeout.min(time_max);
        let bounds = offsets::bounds(self.consumer.client(), &self.names, partitions, timeout)?;
        for (partition, bounds) in partitions.iter().zip(&bounds) {
            if let Ok(bounds) = bounds {
                self.watch.told(partition.topic, bounds.topic_id);
            }
        }
        Ok(bounds)
    }

    fn lost(&self, membership: &Membership) -> Option<String> {
        self.consumer.lost(membership)
    }

    fn commit(
        &mut self,
        offsets: &[(TopicPartition, Committed)],
        membership: &Membership,
    ) -> Result<(), TransactionError> {
        let _during = self.doing.begin(Call::Commit);
        CrashPoint::BeforeEnd.pass();
        self.consumer.commit(offsets, membership)?;
        CrashPoint::AfterEnd.pass();
        CrashPoint::BeforeApply.pass();
        Ok(())
    }

    fn leave(&mut self) -> Result<(), PortError> {
        let _during = self.doing.begin(Call::Leave);
        self.consumer.leave(&mut self.told)
    }
}
