//! Looking offsets up: the group's, a partition's first and last, by time.

use std::time::Duration;

use sidestream_core::{
    ports::{Bounds, PortError, Unreadable},
    record::{Committed, Offset, TopicPartition},
    topology::Start,
};

use super::{
    error::{call_failed, unreadable},
    names::Names,
    native::{Client, Code, ConsumerClient, Failure, OffsetAt, PartitionList},
};

/// See [`Source::committed`](sidestream_core::ports::Source::committed). The consumer is
/// read-committed, so librdkafka asks for stable offsets and repeats while one is not.
pub(super) fn committed(
    consumer: &ConsumerClient,
    names: &Names,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Result<Vec<Option<Committed>>, PortError> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let list = list(names, partitions);
    consumer.committed(&list, timeout).map_err(|failure| match failure.code {
        Code::RD_KAFKA_RESP_ERR__TIMED_OUT => PortError::Unavailable(
            "reading the group's offsets took too long: the brokers are away, or a transaction \
             with these offsets has not ended; if that lasts longer than its timeout, it hangs on \
             the brokers: `kafka-transactions.sh find-hanging` tells which, and `abort` ends it"
                .to_owned(),
        ),
        _ => call_failed("reading the group's offsets", &failure),
    })?;
    Ok(list
        .iter()
        .map(|entry| {
            (entry.offset >= 0).then(|| Committed {
                offset: entry.offset,
                metadata: String::from_utf8_lossy(entry.metadata).into_owned(),
            })
        })
        .collect())
}

/// See [`Source::start_offset`](sidestream_core::ports::Source::start_offset). The latest offset is
/// the end of what is committed.
pub(super) fn start_offset(
    consumer: &ConsumerClient,
    names: &Names,
    partition: TopicPartition,
    start: Start,
    timeout: Duration,
) -> Result<Offset, PortError> {
    let look_up = |at| {
        let offsets = list_offsets(consumer, names, &[partition], (at, true), timeout)?;
        Ok(offsets.first().copied().unwrap_or(-1))
    };
    match start {
        Start::Earliest => look_up(OffsetAt::Earliest),
        Start::Latest => look_up(OffsetAt::Latest),
        Start::At(time) => match look_up(OffsetAt::Time(time.max(0)))? {
            offset @ 0.. => Ok(offset),
            _ => look_up(OffsetAt::Latest),
        },
    }
}

/// See [`Changelogs::bounds`](sidestream_core::ports::Changelogs::bounds). Isolation is read-uncommitted: a
/// read-committed end would be the last stable offset, below records that are committed but whose
/// markers are not written yet.
pub(super) fn bounds(
    consumer: &ConsumerClient,
    names: &Names,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Result<Vec<Result<Bounds, Unreadable>>, PortError> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut topics: Vec<_> = partitions.iter().map(|partition| partition.topic).collect();
    topics.sort_unstable();
    topics.dedup();
    let topic_names: Vec<_> = topics.iter().map(|&topic| names.name(topic)).collect();
    let client = consumer.client();
    let described = client
        .describe_topics(&topic_names, timeout)
        .map_err(|failure| call_failed("describing topics", &failure))?;
    let not_there = || Failure::new(Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, "it is gone");
    let described: Vec<_> = described
        .into_iter()
        .map(|topic| topic.and_then(|topic| topic.ok_or_else(not_there)))
        .collect();
    let topic = |partition: &TopicPartition| {
        let place = topics.binary_search(&partition.topic).expect("made of all of them");
        described[place].clone()
    };
    // A request about a topic that is not there would fail for all.
    let there: Vec<_> = partitions.iter().copied().filter(|at| topic(at).is_ok()).collect();
    let look = |at| match there.is_empty() {
        true => Ok(Vec::new()),
        false => look_up(client, list(names, &there), (at, false), timeout)
            .map_err(|failure| call_failed("looking offsets up", &failure)),
    };
    let (ends, starts) = (look(OffsetAt::Latest)?, look(OffsetAt::Earliest)?);
    let mut offsets = starts.into_iter().zip(ends);
    let found = partitions.iter().map(|partition| {
        let topic_id = topic(partition)?.id;
        let (start, end) = offsets.next().ok_or_else(not_there)?;
        Ok(Bounds { start: start?, end: end?, topic_id })
    });
    let place =
        |at: &TopicPartition| format!("topic `{}` [{}]", names.name(at.topic), at.partition);
    Ok(found
        .zip(partitions)
        .map(|(bounds, at)| bounds.map_err(|failure: Failure| unreadable(&place(at), &failure)))
        .collect())
}

/// Offsets to commit, with what is stored beside them.
pub(super) fn committed_list(
    names: &Names,
    offsets: &[(TopicPartition, Committed)],
) -> PartitionList {
    let mut list = PartitionList::new();
    for (TopicPartition { topic, partition }, Committed { offset, metadata }) in offsets {
        list.add_metadata(names.c_name(*topic), *partition, *offset, metadata.as_bytes());
    }
    list
}

fn list_offsets(
    consumer: &ConsumerClient,
    names: &Names,
    partitions: &[TopicPartition],
    (at, committed_only): (OffsetAt, bool),
    timeout: Duration,
) -> Result<Vec<Offset>, PortError> {
    look_up(consumer.client(), list(names, partitions), (at, committed_only), timeout)
        .and_then(|offsets| offsets.into_iter().collect())
        .map_err(|failure| call_failed("looking offsets up", &failure))
}

/// Looks offsets up, each for itself. After an answer that shows what the client knows of leaders to
/// be wrong, it knows better the next time: it keeps that for a quarter of an hour, and this call
/// alone does not make it ask again.
pub(super) fn look_up(
    client: &Client,
    partitions: PartitionList,
    (at, committed_only): (OffsetAt, bool),
    timeout: Duration,
) -> Result<Vec<Result<Offset, Failure>>, Failure> {
    let answer = client.list_offsets(partitions, at, committed_only, timeout);
    let is_outdated = match &answer {
        Ok(offsets) => offsets.iter().any(Result::is_err),
        Err(failure) => is_about_leader(failure.code),
    };
    if is_outdated {
        client.refresh_leaders(timeout);
    }
    answer
}

/// Whether the request went to a broker that does not lead the partition, or not as the client
/// believes (it was restarted, or another leads), or the client knows of no leader.
fn is_about_leader(code: Code) -> bool {
    matches!(
        code,
        Code::RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH
            | Code::RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH
            | Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION
            | Code::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE
            | Code::RD_KAFKA_RESP_ERR__NOENT
    )
}

fn list(names: &Names, partitions: &[TopicPartition]) -> PartitionList {
    let mut list = PartitionList::new();
    for partition in partitions {
        list.add(names.c_name(partition.topic), partition.partition, -1);
    }
    list
}
