//! Where partitions are read, and what librdkafka says of one that can't be.

use std::collections::HashMap;

use sidestream_core::{
    ports::{SourceEvent, Unreadable},
    record::{FetchEpoch, Offset, TopicPartition},
};

use super::{
    error::unreadable,
    health::Health,
    names::Names,
    native::{Code, Failure, Message},
};

/// A partition that is read.
pub(super) struct Assigned {
    /// Under which its records are told.
    pub(super) epoch: FetchEpoch,
    /// What is read next.
    pub(super) next: Offset,
    /// Nothing is to be read of it now.
    pub(super) paused: bool,
    /// Its end was told, and no record since.
    pub(super) ended: bool,
    /// The place that was in doubt, and nothing was read there since.
    pub(super) doubted: Option<Offset>,
    /// It can't be read on from where it is, and librdkafka reads it no more.
    pub(super) lost: bool,
}

impl Assigned {
    /// Read from `next`, once it is resumed.
    pub(super) fn new(epoch: FetchEpoch, next: Offset) -> Self {
        Self { epoch, next, paused: true, ended: false, doubted: None, lost: false }
    }
}

/// Whether a partition can't be read on from where it is.
pub(super) fn is_lost_place(code: Code) -> bool {
    matches!(
        code,
        Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET
            | Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE
            | Code::RD_KAFKA_RESP_ERR__LOG_TRUNCATION
    )
}

/// An error that came instead of a record: of one partition, or something to wait for. Says whether
/// the place where a partition is to be read on is in doubt, so that all have to be assigned again.
pub(super) fn note_error(
    message: &Message<'_>,
    (names, assigned): (&Names, &mut HashMap<TopicPartition, Assigned>),
    health: &mut Health,
    events: &mut Vec<SourceEvent>,
) -> bool {
    let failure = Failure::new(message.code(), message.error());
    let at = names.partition(message.topic(), message.partition());
    let place = format!("`{}` [{}]", message.topic().to_string_lossy(), message.partition());
    match message.code() {
        Code::RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED | Code::RD_KAFKA_RESP_ERR__FATAL => {}
        code if is_lost_place(code) => {
            let Some((partition, known)) = at.and_then(|at| Some((at, assigned.get_mut(&at)?)))
            else {
                return false;
            };
            // librdkafka compares its place with the leader epoch that it had before a broker came
            // back, and finds that epoch's end before it. Assigned without an epoch it reads on;
            // what is truly gone is found to be so a second time.
            if known.doubted.replace(known.next) != Some(known.next) {
                return true;
            }
            if !std::mem::replace(&mut known.lost, true) {
                let reason = format!("input {place} at offset {}: {failure}", known.next);
                events.push(SourceEvent::Unreadable(partition, Unreadable::Lost(reason)));
            }
        }
        Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => {
            let why = unreadable(&format!("input {place}"), &failure);
            let of_topic: Vec<TopicPartition> = match at {
                Some(at) if assigned.contains_key(&at) => vec![at],
                _ => assigned
                    .keys()
                    .copied()
                    .filter(|of| names.c_name(of.topic) == message.topic())
                    .collect(),
            };
            if of_topic.is_empty() {
                health
                    .wait_for(format!("{place}: {failure}; let the agent's user read it"), events);
            }
            events.extend(of_topic.into_iter().map(|at| SourceEvent::Unreadable(at, why.clone())));
        }
        // The watch tells of topics that are not there.
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
        | Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID
        | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
        | Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION => {
            tracing::debug!(%failure, place, "an input is not there");
        }
        Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED => {
            health.wait_for(format!("{failure}; let the agent's user read the group"), events);
        }
        _ => health.wait_for(failure.message, events),
    }
    false
}
