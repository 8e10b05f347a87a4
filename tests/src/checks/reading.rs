//! What a reader finds, and how long it waits.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest,
        fetch_request::{FetchPartition, FetchTopic},
        fetch_response::PartitionData,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        list_offsets_response::ListOffsetsPartitionResponse,
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
    },
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseRecord, Producer},
};

use super::{
    PATIENCE,
    clients::{config, producer, send, topic},
    wire::{Wire, encode, expect, name, plain},
};
use crate::wait;

/// What is found for a time; -1 and -2 ask for the end and the beginning, -3 for the largest time.
fn look_up(wire: &mut Wire, topic: &str, timestamp: i64) -> Result<ListOffsetsPartitionResponse> {
    let partition = ListOffsetsPartition::default()
        .with_partition_index(0)
        .with_current_leader_epoch(-1)
        .with_timestamp(timestamp);
    let asked = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    let request =
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]);
    let topic = wire.call(7, &request)?.topics.into_iter().next().context("no topic")?;
    topic.partitions.into_iter().next().context("no partition")
}

pub(super) fn offsets_are_found_by_time(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "times", 1, &[])?;
    // One batch, compressed, so that the broker has to look inside; and times not in order.
    let settings = [("compression.type", "zstd"), ("linger.ms", "100")];
    let producer = producer(bootstrap, &settings)?;
    for time in [1_000, 3_000, 2_000, 5_000, 4_000] {
        let record = BaseRecord::to(&topic).partition(0).key("key").payload("v").timestamp(time);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(PATIENCE)?;
    let mut wire = Wire::connect(bootstrap)?;
    let mut check = |asked, offset, timestamp| {
        let found = look_up(&mut wire, &topic, asked)?;
        expect(found.error_code, None)?;
        let same = (found.offset, found.timestamp) == (offset, timestamp);
        ensure!(same, "{asked}: {found:?} instead of {offset} at {timestamp}");
        anyhow::Ok(())
    };
    check(0, 0, 1_000)?;
    check(1_000, 0, 1_000)?;
    check(1_001, 1, 3_000)?;
    check(3_001, 3, 5_000)?;
    check(5_001, -1, -1)?;
    check(-2, 0, -1)?;
    check(-1, 5, -1)?;
    check(-3, 3, 5_000)?;
    let missing = look_up(&mut wire, "no-such-topic", -1)?;
    expect(missing.error_code, Some(ResponseError::UnknownTopicOrPartition))
}

/// How soon a reader that waits must hear of a record, in the median.
const HEARD_WITHIN: Duration = Duration::from_millis(50);

pub(super) fn a_waiting_reader_hears_at_once(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "heard", 1, &[])?;
    let settings = [("group.id", "checks"), ("fetch.wait.max.ms", "5000")];
    let consumer: BaseConsumer = config(bootstrap, &settings).create()?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(&topic, 0, Offset::Beginning)?;
    consumer.assign(&from)?;
    let producer = producer(bootstrap, &[("linger.ms", "0")])?;
    let mut took = Vec::new();
    for round in 0..21 {
        let start = Instant::now();
        let record = BaseRecord::to(&topic).partition(0).key("key").payload("value");
        producer.send(record).map_err(|(error, _)| error)?;
        wait::until("record", PATIENCE, || {
            producer.poll(Duration::ZERO);
            Ok(consumer.poll(Duration::from_millis(1_000)).transpose()?.map(|_| ()))
        })?;
        // The first one finds its way first: metadata, connections.
        if round > 0 {
            took.push(start.elapsed());
        }
    }
    took.sort_unstable();
    let median = took[took.len() / 2];
    ensure!(median < HEARD_WITHIN, "a record takes {median:?} in the median: {took:?}");
    Ok(())
}

struct Fetch<'a> {
    topics: Vec<(&'a str, i64)>,
    min_bytes: i32,
    max_bytes: i32,
    wait: Duration,
}

/// Reads partition 0 of each topic, from an offset.
fn fetch(wire: &mut Wire, fetch: &Fetch<'_>) -> Result<Vec<PartitionData>> {
    let topics = fetch.topics.iter().map(|(topic, offset)| {
        let partition = FetchPartition::default()
            .with_partition(0)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(*offset)
            .with_partition_max_bytes(1 << 20);
        FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition])
    });
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(i32::try_from(fetch.wait.as_millis())?)
        .with_min_bytes(fetch.min_bytes)
        .with_max_bytes(fetch.max_bytes)
        .with_session_epoch(-1)
        .with_topics(topics.collect());
    let answer = wire.call(11, &request)?;
    expect(answer.error_code, None)?;
    Ok(answer.responses.into_iter().flat_map(|topic| topic.partitions).collect())
}

fn bytes(data: &PartitionData) -> usize {
    data.records.as_ref().map_or(0, bytes::Bytes::len)
}

pub(super) fn a_fetch_waits_for_as_long_as_it_says(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "waits", 1, &[])?;
    send(&producer(bootstrap, &[])?, (&topic, 0), &["value"])?;
    let mut wire = Wire::connect(bootstrap)?;
    let mut timed = |offset, min_bytes| {
        let topics = vec![(topic.as_str(), offset)];
        let wait = Duration::from_millis(400);
        let asked = Fetch { topics, min_bytes, max_bytes: 1 << 20, wait };
        let start = Instant::now();
        let answer = fetch(&mut wire, &asked)?;
        anyhow::Ok((start.elapsed(), bytes(answer.first().context("no partition")?)))
    };
    let (took, found) = timed(0, 1)?;
    ensure!(found > 0 && took < Duration::from_millis(300), "{found} bytes after {took:?}");
    let (took, found) = timed(1, 1)?;
    ensure!(found == 0 && took >= Duration::from_millis(390), "{found} bytes after {took:?}");
    let (took, found) = timed(0, 100_000)?;
    ensure!(found > 0 && took >= Duration::from_millis(390), "{found} bytes after {took:?}");
    let (took, _) = timed(9, 1)?;
    ensure!(took < Duration::from_millis(300), "an error after {took:?}");
    Ok(())
}

pub(super) fn a_fetch_keeps_to_its_limits(bootstrap: &str) -> Result<()> {
    let topics = [topic(bootstrap, "first", 1, &[])?, topic(bootstrap, "second", 1, &[])?];
    let mut wire = Wire::connect(bootstrap)?;
    let batch = encode(&[plain(&"x".repeat(1_000))])?;
    let size = batch.len();
    for topic in &topics {
        for _ in 0..3 {
            expect(wire.produce((topic, 0), None, batch.clone())?.error_code, None)?;
        }
    }
    let mut found = |max_bytes| {
        let topics = topics.iter().map(|topic| (topic.as_str(), 0)).collect();
        let asked = Fetch { topics, min_bytes: 1, max_bytes, wait: Duration::from_secs(1) };
        // What a broker sends of a batch that does not fit is no business of a reader.
        let answer = fetch(&mut wire, &asked)?;
        anyhow::Ok(answer.iter().map(|data| bytes(data) / size).collect::<Vec<_>>())
    };
    ensure!(found(1 << 20)? == [3, 3]);
    let one = found(10)?;
    ensure!(one == [1, 0], "the first batch comes even if it is too large: {one:?}");
    let some = found(i32::try_from(size * 4 + size / 2)?)?;
    ensure!(some == [3, 1], "{some:?}");
    Ok(())
}

pub(super) fn what_is_not_there_is_refused_by_name(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "short", 1, &[])?;
    send(&producer(bootstrap, &[])?, (&topic, 0), &["0", "1"])?;
    let mut wire = Wire::connect(bootstrap)?;
    let mut check = |topic: &str, offset, expected| {
        let topics = vec![(topic, offset)];
        let wait = Duration::from_millis(10);
        let asked = Fetch { topics, min_bytes: 1, max_bytes: 1 << 20, wait };
        let answer = fetch(&mut wire, &asked)?;
        let data = answer.first().context("no partition")?;
        expect(data.error_code, expected)?;
        anyhow::Ok((data.high_watermark, data.log_start_offset))
    };
    check(&topic, 3, Some(ResponseError::OffsetOutOfRange))?;
    check(&topic, -1, Some(ResponseError::OffsetOutOfRange))?;
    check("no-such-topic", 0, Some(ResponseError::UnknownTopicOrPartition))?;
    ensure!(check(&topic, 2, None)? == (2, 0));
    Ok(())
}

pub(super) fn epochs_of_leaders_end_where_the_log_does(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "epochs", 1, &[])?;
    send(&producer(bootstrap, &[])?, (&topic, 0), &["0", "1", "2"])?;
    let mut wire = Wire::connect(bootstrap)?;
    let mut ask = |current_leader_epoch, leader_epoch| {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(0)
            .with_current_leader_epoch(current_leader_epoch)
            .with_leader_epoch(leader_epoch);
        let asked = OffsetForLeaderTopic::default()
            .with_topic(name(&topic))
            .with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![asked]);
        let topic = wire.call(3, &request)?.topics.into_iter().next().context("no topic")?;
        topic.partitions.into_iter().next().context("no partition")
    };
    let own = ask(0, 0)?;
    expect(own.error_code, None)?;
    ensure!((own.leader_epoch, own.end_offset) == (0, 3), "{own:?}");
    let none = ask(-1, 9)?;
    ensure!((none.error_code, none.leader_epoch, none.end_offset) == (0, -1, -1), "{none:?}");
    expect(ask(9, 0)?.error_code, Some(ResponseError::UnknownLeaderEpoch))
}
