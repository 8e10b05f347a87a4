//! Batches that are numbered: each is taken once, and in its order.

use anyhow::{Result, ensure};
use kafka_protocol::error::ResponseError;

use super::{
    clients::{producer, read, send, topic, values},
    wire::{Wire, expect},
};

pub(super) fn an_idempotent_producer_delivers_once_and_in_order(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "once", 2, &[])?;
    let settings = [("enable.idempotence", "true"), ("batch.num.messages", "10")];
    let producer = producer(bootstrap, &settings)?;
    let sent: Vec<_> = (0..1_000).map(|number| number.to_string()).collect();
    let sent: Vec<_> = sent.iter().map(String::as_str).collect();
    send(&producer, (&topic, 0), &sent)?;
    send(&producer, (&topic, 1), &sent)?;
    let seen = read(bootstrap, &topic, "read_committed")?;
    for partition in 0..2 {
        let own = seen.iter().filter(|seen| seen.partition == partition);
        let own: Vec<_> = own.map(|seen| seen.value.as_str()).collect();
        ensure!(own == sent, "partition {partition}: {} records", own.len());
    }
    Ok(())
}

pub(super) fn a_repeated_batch_is_answered_as_before(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "repeated", 1, &[])?;
    let mut wire = Wire::connect(bootstrap)?;
    let producer = wire.producer(None)?;
    for (sequences, offset) in [(0..=1, 0), (2..=2, 2), (0..=1, 0), (2..=2, 2), (3..=4, 3)] {
        let answer = wire.produce((&topic, 0), None, producer.batch(sequences.clone())?)?;
        expect(answer.error_code, None)?;
        ensure!(answer.base_offset == offset, "{sequences:?}: {answer:?}");
    }
    let seen = values(bootstrap, &topic, "read_committed")?;
    ensure!(seen == ["0", "1", "2", "3", "4"], "{seen:?}");
    Ok(())
}

pub(super) fn a_gap_in_the_sequence_is_refused(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "gap", 1, &[])?;
    let mut wire = Wire::connect(bootstrap)?;
    let producer = wire.producer(None)?;
    let mut send = |sequences, expected| {
        let answer = wire.produce((&topic, 0), None, producer.batch(sequences)?)?;
        expect(answer.error_code, expected)
    };
    send(0..=1, None)?;
    send(3..=3, Some(ResponseError::OutOfOrderSequenceNumber))?;
    send(2..=2, None)?;
    send(1..=1, Some(ResponseError::OutOfOrderSequenceNumber))?;
    let seen = values(bootstrap, &topic, "read_committed")?;
    ensure!(seen == ["0", "1", "2"], "{seen:?}");
    Ok(())
}

pub(super) fn an_old_epoch_is_refused(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "epoch", 1, &[])?;
    let mut wire = Wire::connect(bootstrap)?;
    let mut producer = wire.producer(None)?;
    let mut send = |epoch, sequences, expected| {
        producer.epoch = epoch;
        let answer = wire.produce((&topic, 0), None, producer.batch(sequences)?)?;
        expect(answer.error_code, expected)
    };
    send(0, 0..=1, None)?;
    send(1, 2..=2, Some(ResponseError::OutOfOrderSequenceNumber))?;
    send(1, 0..=0, None)?;
    send(0, 2..=2, Some(ResponseError::InvalidProducerEpoch))
}
