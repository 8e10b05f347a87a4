//! What becomes of records on their way through.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use kafka_protocol::error::ResponseError;
use rdkafka::{
    Message, Offset, Timestamp, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Header, Headers, OwnedHeaders, OwnedMessage},
    producer::{BaseRecord, Producer},
};

use super::{
    PATIENCE,
    clients::{config, producer, read, send, topic, values},
    wire::{Wire, encode, expect, plain},
};
use crate::wait;

/// The first records of a partition, with all that belongs to them.
fn whole(bootstrap: &str, topic: &str, count: usize) -> Result<Vec<OwnedMessage>> {
    let settings = [("group.id", "checks"), ("check.crcs", "true")];
    let consumer: BaseConsumer = config(bootstrap, &settings).create()?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&from)?;
    let (mut records, start) = (Vec::new(), Instant::now());
    while records.len() < count {
        ensure!(start.elapsed() < PATIENCE, "only {} of {count} records", records.len());
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            records.push(message?.detach());
        }
    }
    Ok(records)
}

pub(super) fn everything_about_a_record_is_kept(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "kept", 1, &[])?;
    let producer = producer(bootstrap, &[])?;
    let headers = OwnedHeaders::new()
        .insert(Header { key: "name", value: Some("value") })
        .insert(Header { key: "name", value: Some("again") })
        .insert(Header { key: "none", value: None::<&str> });
    let full = BaseRecord::to(&topic)
        .partition(0)
        .key("key")
        .payload("value")
        .timestamp(1_234_567_890)
        .headers(headers);
    producer.send(full).map_err(|(error, _)| error)?;
    let delete = BaseRecord::<str, str>::to(&topic).partition(0).key("key").timestamp(5);
    producer.send(delete).map_err(|(error, _)| error)?;
    let bare = BaseRecord::<str, str>::to(&topic).partition(0).payload("");
    producer.send(bare).map_err(|(error, _)| error)?;
    producer.flush(PATIENCE)?;
    let records = whole(bootstrap, &topic, 3)?;
    let [full, delete, bare] = records.as_slice() else { unreachable!("three were asked for") };
    ensure!(full.key() == Some(b"key") && full.payload() == Some(b"value"), "{full:?}");
    ensure!(full.timestamp() == Timestamp::CreateTime(1_234_567_890), "{full:?}");
    let headers = full.headers().context("the headers are gone")?;
    let headers: Vec<_> = headers.iter().map(|header| (header.key, header.value)).collect();
    let value = |value: &'static str| Some(value.as_bytes());
    ensure!(
        headers == [("name", value("value")), ("name", value("again")), ("none", None)],
        "{headers:?}"
    );
    ensure!(delete.payload().is_none() && delete.timestamp().to_millis() == Some(5), "{delete:?}");
    ensure!(bare.key().is_none() && bare.payload() == Some(b""), "{bare:?}");
    Ok(())
}

pub(super) fn every_compression_goes_through(bootstrap: &str) -> Result<()> {
    let sent: Vec<_> = (0..500).map(|number| format!("a value like the others {number}")).collect();
    let sent: Vec<_> = sent.iter().map(String::as_str).collect();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        // Where keys are needed the broker has to look inside.
        let topic = topic(bootstrap, codec, 1, &[("cleanup.policy", "compact,delete")])?;
        let settings = [("compression.type", codec), ("linger.ms", "50")];
        send(&producer(bootstrap, &settings)?, (&topic, 0), &sent)?;
        let seen = values(bootstrap, &topic, "read_committed")?;
        ensure!(seen == sent, "{codec}: {} records", seen.len());
    }
    Ok(())
}

pub(super) fn many_records_stay_in_order(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "many", 4, &[])?;
    let producer = producer(bootstrap, &[("linger.ms", "5")])?;
    for number in 0..20_000 {
        let value = number.to_string();
        let record = BaseRecord::to(&topic).partition(number % 4).key("key").payload(&value);
        producer.send(record).map_err(|(error, _)| error)?;
        if number % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(PATIENCE)?;
    let seen = read(bootstrap, &topic, "read_committed")?;
    ensure!(seen.len() == 20_000, "{} records", seen.len());
    for partition in 0..4 {
        let own = seen.iter().filter(|seen| seen.partition == partition);
        for (offset, seen) in (0..).zip(own) {
            let value = (offset * 4 + i64::from(partition)).to_string();
            ensure!(seen.offset == offset && seen.value == value, "{seen:?} at {offset}");
        }
    }
    Ok(())
}

pub(super) fn who_wants_no_answer_gets_none(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "unanswered", 1, &[])?;
    let producer = producer(bootstrap, &[("acks", "0")])?;
    for value in ["a", "b", "c"] {
        send(&producer, (&topic, 0), &[value])?;
    }
    wait::until_true("all three", PATIENCE, || {
        Ok(values(bootstrap, &topic, "read_committed")? == ["a", "b", "c"])
    })
}

pub(super) fn too_large_a_record_is_refused(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "small", 1, &[("max.message.bytes", "1000")])?;
    let mut wire = Wire::connect(bootstrap)?;
    let large = wire.produce((&topic, 0), None, encode(&[plain(&"x".repeat(1_000))])?)?;
    expect(large.error_code, Some(ResponseError::MessageTooLarge))?;
    let small = wire.produce((&topic, 0), None, encode(&[plain(&"x".repeat(900))])?)?;
    expect(small.error_code, None)?;
    ensure!(small.base_offset == 0, "{small:?}");
    Ok(())
}

pub(super) fn a_compacted_topic_wants_keys(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "keyed", 1, &[("cleanup.policy", "compact")])?;
    let mut wire = Wire::connect(bootstrap)?;
    let mut record = plain("value");
    record.key = None;
    let refused = wire.produce((&topic, 0), None, encode(&[record])?)?;
    expect(refused.error_code, Some(ResponseError::InvalidRecord))?;
    let taken = wire.produce((&topic, 0), None, encode(&[plain("value")])?)?;
    expect(taken.error_code, None)
}

fn now_ms() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?)
}

pub(super) fn the_broker_gives_times_where_it_is_told_to(bootstrap: &str) -> Result<()> {
    let settings = [("message.timestamp.type", "LogAppendTime")];
    let topic = topic(bootstrap, "timed", 1, &settings)?;
    let producer = producer(bootstrap, &[("compression.type", "lz4")])?;
    let before = now_ms()?;
    for value in ["a", "b"] {
        let record = BaseRecord::to(&topic).partition(0).key("key").payload(value).timestamp(7);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(PATIENCE)?;
    let after = now_ms()?;
    for record in whole(bootstrap, &topic, 2)? {
        let Timestamp::LogAppendTime(time) = record.timestamp() else {
            anyhow::bail!("{:?}", record.timestamp())
        };
        ensure!((before - 1..=after + 1).contains(&time), "{time} not in {before} to {after}");
    }
    Ok(())
}

pub(super) fn a_time_far_ahead_is_refused(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "ahead", 1, &[("message.timestamp.after.max.ms", "60000")])?;
    let mut wire = Wire::connect(bootstrap)?;
    let at = |timestamp| {
        let mut record = plain("value");
        record.timestamp = timestamp;
        encode(&[record])
    };
    let refused = wire.produce((&topic, 0), None, at(now_ms()? + 120_000)?)?;
    expect(refused.error_code, Some(ResponseError::InvalidTimestamp))?;
    let taken = wire.produce((&topic, 0), None, at(now_ms()? + 10_000)?)?;
    expect(taken.error_code, None)
}

pub(super) fn damaged_batches_are_refused(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "damaged", 1, &[])?;
    let mut wire = Wire::connect(bootstrap)?;
    let batch = encode(&[plain("value")])?;
    let mut flipped = batch.to_vec();
    *flipped.last_mut().context("a batch is not empty")? ^= 1;
    let refused = wire.produce((&topic, 0), None, flipped.into())?;
    expect(refused.error_code, Some(ResponseError::CorruptMessage))?;
    let unknown = wire.produce((&topic, 7), None, batch.clone())?;
    expect(unknown.error_code, Some(ResponseError::UnknownTopicOrPartition))?;
    let unknown = wire.produce(("no-such-topic", 0), None, batch)?;
    expect(unknown.error_code, Some(ResponseError::UnknownTopicOrPartition))?;
    ensure!(read(bootstrap, &topic, "read_uncommitted")?.is_empty());
    Ok(())
}
