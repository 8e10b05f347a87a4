//! Reading changelogs: a consumer that is told what to read, sees the ends of partitions, and
//! never jumps over a gap by itself.

use std::{collections::HashMap, time::Duration};

use sidestream_core::{
    record::{Offset, TopicPartition},
    worker::{Event, Fetched, LogError},
};

use super::{
    consumer::is_lost_place,
    error::call_failed,
    names::Names,
    native::{Code, ConsumerClient, Message, MessageBuffer, PartitionList},
};
use crate::crash_point::CrashPoint;

/// The most messages that one call takes out of librdkafka's queue.
const BATCH_MESSAGES_MAX: usize = 4_096;

/// The reader of a worker's changelogs.
pub(super) struct Restore {
    client: ConsumerClient,
    buffer: MessageBuffer,
    names: Names,
    next: HashMap<TopicPartition, Offset>,
    /// The places that were in doubt last.
    doubted: HashMap<TopicPartition, Offset>,
}

impl Restore {
    /// A reader of nothing yet.
    pub(super) fn new(client: ConsumerClient, names: Names) -> Self {
        let buffer = MessageBuffer::new(BATCH_MESSAGES_MAX);
        Self { client, buffer, names, next: HashMap::new(), doubted: HashMap::new() }
    }

    /// Whether it reads nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.next.is_empty()
    }

    /// See [`Log::restore`](sidestream_core::worker::Log::restore).
    pub(super) fn start(
        &mut self,
        partition: TopicPartition,
        offset: Offset,
        leader_epoch: i32,
    ) -> Result<(), LogError> {
        self.stop(partition)?;
        let mut list = PartitionList::new();
        let topic = self.names.c_name(partition.topic);
        list.add_epoch(topic, partition.partition, offset, leader_epoch);
        self.client.add(&list).map_err(|failure| call_failed("starting a restore", &failure))?;
        self.next.insert(partition, offset);
        Ok(())
    }

    /// See [`Log::stop_restore`](sidestream_core::worker::Log::stop_restore).
    pub(super) fn stop(&mut self, partition: TopicPartition) -> Result<(), LogError> {
        if self.next.remove(&partition).is_none() {
            return Ok(());
        }
        self.doubted.remove(&partition);
        let mut list = PartitionList::new();
        list.add(self.names.c_name(partition.topic), partition.partition, -1);
        self.client.remove(&list).map_err(|failure| call_failed("stopping a restore", &failure))
    }

    /// Appends what was read, waiting for it up to `wait`.
    pub(super) fn poll(&mut self, wait: Duration, events: &mut Vec<Event>) -> Result<(), LogError> {
        self.client.fetch(&mut self.buffer, wait);
        let result = self.collect(events);
        self.buffer.clear();
        for (code, why) in self.client.client().context().take_errors() {
            tracing::debug!(?code, why, "the changelog reader reported an error");
        }
        let (read, in_doubt) = result?;
        for (partition, next) in in_doubt {
            self.start(partition, next, -1).map_err(|error| LogError::Fatal(error.to_string()))?;
            self.doubted.insert(partition, next);
        }
        if read {
            CrashPoint::InRestore.pass();
        }
        Ok(())
    }

    /// Copies messages into columns; says whether there was any record, and which places are in
    /// doubt: a broker says once that they are gone, which it has said of places that were there.
    fn collect(
        &mut self,
        events: &mut Vec<Event>,
    ) -> Result<(bool, Vec<(TopicPartition, Offset)>), LogError> {
        let mut in_doubt = Vec::new();
        let mut places: HashMap<TopicPartition, usize> = HashMap::new();
        let mut last = None;
        let mut read = false;
        for message in self.buffer.iter() {
            if is_lost_place(message.code()) {
                let partition = self.names.partition(message.topic(), message.partition());
                let known = partition.and_then(|of| Some((of, *self.next.get(&of)?)));
                let Some((partition, next)) = known else { continue };
                if self.doubted.get(&partition) != Some(&next) {
                    in_doubt.push((partition, next));
                    continue;
                }
            }
            check(&message)?;
            let key = message.partition_key();
            let partition = match last {
                Some((same, partition)) if same == key => partition,
                _ => self.names.partition(message.topic(), message.partition()),
            };
            last = Some((key, partition));
            let Some(partition) = partition else { continue };
            let Some(next) = self.next.get_mut(&partition) else { continue };
            let place = *places.entry(partition).or_insert_with(|| {
                events.push(Event::Changelog(Fetched {
                    partition: Some(partition),
                    next: *next,
                    leader_epoch: -1,
                    ..Fetched::default()
                }));
                events.len() - 1
            });
            let Event::Changelog(fetched) = &mut events[place] else { continue };
            if message.code() == Code::RD_KAFKA_RESP_ERR__PARTITION_EOF {
                // Its offset counts: it lies beyond markers and aborted records.
                fetched.next = fetched.next.max(message.offset());
            } else if message.code() == Code::RD_KAFKA_RESP_ERR_NO_ERROR
                && message.offset() >= fetched.next
            {
                message.append_to(&mut fetched.records, false);
                fetched.next = message.offset() + 1;
                fetched.leader_epoch = message.leader_epoch();
                read = true;
            }
            *next = fetched.next;
        }
        Ok((read, in_doubt))
    }
}

/// An error that a changelog can't be read over is fatal; others pass.
fn check(message: &Message<'_>) -> Result<(), LogError> {
    match message.code() {
        code if is_lost_place(code) => Err(LogError::Fatal(format!(
            "changelog {} [{}] can't be read on from where the store is: {}; it was truncated or \
             expired under way: delete the store's folder to rebuild it from what is left, or \
             bring the topic back",
            message.topic().to_string_lossy(),
            message.partition(),
            message.error(),
        ))),
        Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => Err(LogError::Fatal(format!(
            "changelog {}: {}; let the agent's user read it",
            message.topic().to_string_lossy(),
            message.error(),
        ))),
        _ => Ok(()),
    }
}
