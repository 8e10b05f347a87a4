//! Reading changelogs: a consumer that is told what to read, sees the ends of partitions, and
//! never jumps over a gap by itself.

use std::{collections::HashMap, time::Duration};

use sidestream_core::{
    ports::{ChangelogEvent, ChangelogRecords, PortError, Unreadable},
    record::{Offset, Records, TopicPartition},
};

use super::{
    error::{call_failed, unreadable},
    names::Names,
    native::{Code, ConsumerClient, Failure, MessageBuffer, PartitionList},
    place::is_lost_place,
};
use crate::crash_point::CrashPoint;

/// The most messages that one call takes out of librdkafka's queue.
const BATCH_MESSAGES_MAX: usize = 4_096;

/// The reader of a worker's changelogs.
pub(super) struct ChangelogReader {
    client: ConsumerClient,
    buffer: MessageBuffer,
    names: Names,
    next: HashMap<TopicPartition, Offset>,
    /// The places that were in doubt, and nothing was read there since.
    doubted: HashMap<TopicPartition, Offset>,
    /// What is to be read again from the place in doubt.
    again: Vec<(TopicPartition, Offset)>,
}

impl ChangelogReader {
    /// A reader of nothing yet.
    pub(super) fn new(client: ConsumerClient, names: Names) -> Self {
        let buffer = MessageBuffer::new(BATCH_MESSAGES_MAX);
        let (next, doubted) = (HashMap::new(), HashMap::new());
        Self { client, buffer, names, next, doubted, again: Vec::new() }
    }

    /// The client, for requests that any client can make.
    pub(super) const fn client(&self) -> &ConsumerClient {
        &self.client
    }

    /// Whether it reads nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.next.is_empty()
    }

    /// See [`Changelogs::read`](sidestream_core::ports::Changelogs::read).
    pub(super) fn start(
        &mut self,
        partition: TopicPartition,
        offset: Offset,
        leader_epoch: i32,
    ) -> Result<(), PortError> {
        self.stop(partition)?;
        let mut list = PartitionList::new();
        let topic = self.names.c_name(partition.topic);
        list.add_epoch(topic, partition.partition, offset, leader_epoch);
        self.client.add(&list).map_err(|failure| call_failed("starting a restore", &failure))?;
        self.next.insert(partition, offset);
        Ok(())
    }

    /// See [`Changelogs::stop`](sidestream_core::ports::Changelogs::stop).
    pub(super) fn stop(&mut self, partition: TopicPartition) -> Result<(), PortError> {
        if self.next.remove(&partition).is_none() {
            return Ok(());
        }
        self.doubted.remove(&partition);
        self.again.retain(|(again, _)| *again != partition);
        let mut list = PartitionList::new();
        list.add(self.names.c_name(partition.topic), partition.partition, -1);
        self.client.remove(&list).map_err(|failure| call_failed("stopping a restore", &failure))
    }

    /// Appends what was read, waiting for it up to `wait`.
    pub(super) fn poll(
        &mut self,
        wait: Duration,
        events: &mut Vec<ChangelogEvent>,
    ) -> Result<(), PortError> {
        self.client.fetch(&mut self.buffer, wait);
        let read = self.collect(events);
        self.buffer.clear();
        for (code, why) in self.client.client().context().take_errors() {
            tracing::debug!(?code, why, "the changelog reader reported an error");
        }
        while let Some(&(partition, next)) = self.again.last() {
            self.start(partition, next, -1)?;
            self.doubted.insert(partition, next);
        }
        if read {
            CrashPoint::InRestore.pass();
        }
        Ok(())
    }

    /// Copies messages into columns; says whether there was any record. A place that is
    /// said to be gone is read once more, without a leader epoch; see `place`.
    fn collect(&mut self, events: &mut Vec<ChangelogEvent>) -> bool {
        let mut places: HashMap<TopicPartition, usize> = HashMap::new();
        let mut last = None;
        let mut read = false;
        for message in self.buffer.iter() {
            let (code, is_end) = (message.code(), Code::RD_KAFKA_RESP_ERR__PARTITION_EOF);
            if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR && code != is_end {
                let partition = self.names.partition(message.topic(), message.partition());
                let known = partition.and_then(|of| Some((of, *self.next.get(&of)?)));
                let Some((partition, next)) = known else { continue };
                if is_lost_place(code) && self.doubted.get(&partition) != Some(&next) {
                    self.again.push((partition, next));
                    continue;
                }
                let topic = self.names.name(partition.topic);
                let place = format!("changelog `{topic}` [{}]", partition.partition);
                let failure = Failure::new(code, message.error());
                let why = match is_lost_place(code) {
                    true => Unreadable::Lost(format!("{place} at offset {next}: {failure}")),
                    false => unreadable(&place, &failure),
                };
                match why {
                    // It goes on by itself, or its bounds tell.
                    Unreadable::ForNow(why) => tracing::debug!(why, "a restore is held up"),
                    why => events.push(ChangelogEvent::Unreadable(partition, why)),
                }
                continue;
            }
            let key = message.partition_key();
            let partition = match last {
                Some((same, partition)) if same == key => partition,
                _ => self.names.partition(message.topic(), message.partition()),
            };
            last = Some((key, partition));
            let Some(partition) = partition else { continue };
            let Some(next) = self.next.get_mut(&partition) else { continue };
            let place = *places.entry(partition).or_insert_with(|| {
                let (records, next) = (Records::default(), *next);
                let nothing = ChangelogRecords { partition, records, next, leader_epoch: -1 };
                events.push(ChangelogEvent::Records(nothing));
                events.len() - 1
            });
            let ChangelogEvent::Records(fetched) = &mut events[place] else { continue };
            self.doubted.remove(&partition); // It is there.
            if code == is_end {
                // Its offset counts: it lies beyond markers and aborted records.
                fetched.next = fetched.next.max(message.offset());
            } else if message.offset() >= fetched.next {
                message.append_to(&mut fetched.records, true);
                fetched.next = message.offset() + 1;
                fetched.leader_epoch = message.leader_epoch();
                read = true;
            }
            *next = fetched.next;
        }
        read
    }
}
