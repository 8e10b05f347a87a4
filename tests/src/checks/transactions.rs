//! Transactions: visible together or never, and one producer for one id.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeTransactionsRequest, InitProducerIdRequest, ListTransactionsRequest, ProducerId,
        TransactionalId,
    },
};
use rdkafka::{
    Offset,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::Producer,
};

use super::{
    PATIENCE,
    clients::{config, read, read_from, send, topic, transactional, transactional_with, values},
    wire::{self, Wire, expect, text},
};
use crate::{topics, wait};

/// A connection, and a producer with a transactional id of its own.
fn by_hand(bootstrap: &str, name: &str) -> Result<(Wire, wire::Producer)> {
    let mut wire = Wire::connect(bootstrap)?;
    let producer = wire.producer(Some(&topics::unique(name)))?;
    Ok((wire, producer))
}

/// Where a topic's only partition ends for readers of committed records, and for all.
fn ends(bootstrap: &str, topic: &str) -> Result<(i64, i64)> {
    let end = |isolation| {
        let settings = [("group.id", "checks"), ("isolation.level", isolation)];
        let consumer: BaseConsumer = config(bootstrap, &settings).create()?;
        anyhow::Ok(consumer.fetch_watermarks(topic, 0, PATIENCE)?.1)
    };
    Ok((end("read_committed")?, end("read_uncommitted")?))
}

/// Waits until the partition ends here. Kafka writes markers a little later than it says.
fn wait_for_ends(bootstrap: &str, topic: &str, expected: (i64, i64)) -> Result<()> {
    wait::until_true(&format!("ends {expected:?} of {topic}"), PATIENCE, || {
        let found = ends(bootstrap, topic)?;
        if found == expected { Ok(true) } else { anyhow::bail!("they are {found:?}") }
    })
}

pub(super) fn committed_records_become_visible_together(bootstrap: &str) -> Result<()> {
    let names = [topic(bootstrap, "together", 2, &[])?, topic(bootstrap, "together", 1, &[])?];
    let producer = transactional(bootstrap, &topics::unique("committer"))?;
    for round in 0..3 {
        producer.begin_transaction()?;
        send(&producer, (&names[0], 0), &["a", "b"])?;
        send(&producer, (&names[0], 1), &["c"])?;
        send(&producer, (&names[1], 0), &["d"])?;
        producer.commit_transaction(PATIENCE)?;
        let count = |topic: &str, expected: usize| {
            wait::until_true("committed records", PATIENCE, || {
                Ok(read(bootstrap, topic, "read_committed")?.len() == expected)
            })
        };
        count(&names[0], 3 * (round + 1))?;
        count(&names[1], round + 1)?;
    }
    Ok(())
}

pub(super) fn open_records_are_hidden_behind_the_last_stable_offset(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "hidden", 1, &[])?;
    let producer = transactional(bootstrap, &topics::unique("opener"))?;
    let plain = super::clients::producer(bootstrap, &[])?;
    send(&plain, (&topic, 0), &["before"])?;
    producer.begin_transaction()?;
    send(&producer, (&topic, 0), &["open"])?;
    send(&plain, (&topic, 0), &["behind"])?;
    ensure!(ends(bootstrap, &topic)? == (1, 3), "{:?}", ends(bootstrap, &topic)?);
    ensure!(values(bootstrap, &topic, "read_committed")? == ["before"]);
    ensure!(values(bootstrap, &topic, "read_uncommitted")? == ["before", "open", "behind"]);
    producer.commit_transaction(PATIENCE)?;
    wait_for_ends(bootstrap, &topic, (4, 4))?;
    ensure!(values(bootstrap, &topic, "read_committed")? == ["before", "open", "behind"]);
    Ok(())
}

pub(super) fn aborted_records_are_never_seen(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "aborted", 1, &[])?;
    let producer = transactional(bootstrap, &topics::unique("aborter"))?;
    for round in ["1", "2", "3"] {
        producer.begin_transaction()?;
        send(&producer, (&topic, 0), &["dropped", "dropped"])?;
        producer.abort_transaction(PATIENCE)?;
        producer.begin_transaction()?;
        send(&producer, (&topic, 0), &[round])?;
        producer.commit_transaction(PATIENCE)?;
    }
    // Three times two records and a marker, one record and a marker.
    wait_for_ends(bootstrap, &topic, (15, 15))?;
    let seen = values(bootstrap, &topic, "read_committed")?;
    ensure!(seen == ["1", "2", "3"], "{seen:?}");
    ensure!(values(bootstrap, &topic, "read_uncommitted")?.len() == 9);
    // From the middle of an aborted transaction, and one batch at a time.
    let settings = [("isolation.level", "read_committed"), ("max.partition.fetch.bytes", "1")];
    for offset in 0..15 {
        let seen = read_from(bootstrap, &topic, Offset::Offset(offset), &settings)?;
        let seen: Vec<_> = seen.iter().map(|seen| seen.offset).collect();
        let expected: Vec<_> = [3, 8, 13].into_iter().filter(|own| *own >= offset).collect();
        ensure!(seen == expected, "from {offset}: {seen:?}");
    }
    Ok(())
}

pub(super) fn transactions_beside_each_other_end_on_their_own(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "beside", 1, &[])?;
    let [first, second, third] =
        ["first", "second", "third"].map(|name| transactional(bootstrap, &topics::unique(name)));
    let (first, second, third) = (first?, second?, third?);
    for producer in [&first, &second, &third] {
        producer.begin_transaction()?;
    }
    send(&first, (&topic, 0), &["a1"])?;
    send(&second, (&topic, 0), &["b1"])?;
    send(&third, (&topic, 0), &["c1"])?;
    send(&first, (&topic, 0), &["a2"])?;
    send(&second, (&topic, 0), &["b2"])?;
    second.commit_transaction(PATIENCE)?;
    // The first one still holds all of them back.
    wait_for_ends(bootstrap, &topic, (0, 6))?;
    first.abort_transaction(PATIENCE)?;
    wait_for_ends(bootstrap, &topic, (2, 7))?;
    send(&third, (&topic, 0), &["c2"])?;
    third.commit_transaction(PATIENCE)?;
    wait_for_ends(bootstrap, &topic, (9, 9))?;
    let seen = values(bootstrap, &topic, "read_committed")?;
    ensure!(seen == ["b1", "c1", "b2", "c2"], "{seen:?}");
    Ok(())
}

pub(super) fn a_marker_takes_an_offset(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "marked", 1, &[])?;
    let (mut wire, producer) = by_hand(bootstrap, "marker")?;
    let id = producer.transactional_id.as_deref();
    for (first, offset) in [(0, 0), (2, 3)] {
        expect(wire.add_partition(&producer, &topic)?, None)?;
        let answer = wire.produce((&topic, 0), id, producer.batch(first..=first + 1)?)?;
        expect(answer.error_code, None)?;
        ensure!(answer.base_offset == offset, "{answer:?}");
        expect(wire.end(&producer, true)?, None)?;
        wait_for_ends(bootstrap, &topic, (offset + 3, offset + 3))?;
    }
    // A partition that was added gets its marker even if nothing was written there.
    expect(wire.add_partition(&producer, &topic)?, None)?;
    expect(wire.end(&producer, false)?, None)?;
    wait_for_ends(bootstrap, &topic, (7, 7))?;
    let offsets = read(bootstrap, &topic, "read_committed")?;
    let offsets: Vec<_> = offsets.iter().map(|seen| seen.offset).collect();
    ensure!(offsets == [0, 1, 3, 4], "{offsets:?}");
    Ok(())
}

pub(super) fn the_same_id_again_fences_and_aborts(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "again", 1, &[])?;
    let id = topics::unique("again");
    let old = transactional(bootstrap, &id)?;
    old.begin_transaction()?;
    send(&old, (&topic, 0), &["old"])?;
    let new = transactional(bootstrap, &id)?;
    // What was open is aborted by now: readers come past it before the new one does anything.
    wait_for_ends(bootstrap, &topic, (2, 2))?;
    match old.commit_transaction(PATIENCE) {
        Err(KafkaError::Transaction(error)) => {
            let fatal = error.is_fatal() && error.code() == RDKafkaErrorCode::Fenced;
            ensure!(fatal, "{error:?}");
        }
        other => anyhow::bail!("the old producer's commit: {other:?}"),
    }
    new.begin_transaction()?;
    send(&new, (&topic, 0), &["new"])?;
    new.commit_transaction(PATIENCE)?;
    wait_for_ends(bootstrap, &topic, (4, 4))?;
    ensure!(values(bootstrap, &topic, "read_committed")? == ["new"]);
    Ok(())
}

pub(super) fn a_zombie_cannot_write(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "zombie", 1, &[])?;
    let (mut wire, zombie) = by_hand(bootstrap, "zombie")?;
    let id = zombie.transactional_id.as_deref();
    expect(wire.add_partition(&zombie, &topic)?, None)?;
    let answer = wire.produce((&topic, 0), id, zombie.batch(0..=0)?)?;
    expect(answer.error_code, None)?;
    let new = wire.producer(id)?;
    ensure!(new.id == zombie.id && new.epoch > zombie.epoch, "{zombie:?}, then {new:?}");
    let late = wire.produce((&topic, 0), id, zombie.batch(1..=1)?)?;
    expect(late.error_code, Some(ResponseError::InvalidProducerEpoch))?;
    expect(wire.add_partition(&zombie, &topic)?, Some(ResponseError::ProducerFenced))?;
    expect(wire.end(&zombie, true)?, Some(ResponseError::ProducerFenced))?;
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(zombie.transactional_id()))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(zombie.id))
        .with_producer_epoch(zombie.epoch);
    let answer = wire.settled(4, &request, |answer| answer.error_code)?;
    expect(answer.error_code, Some(ResponseError::ProducerFenced))?;
    let stranger = wire::Producer { id: zombie.id + 1_000_000, ..new.clone() };
    let mapping = Some(ResponseError::InvalidProducerIdMapping);
    expect(wire.add_partition(&stranger, &topic)?, mapping)?;
    expect(wire.add_partition(&new, &topic)?, None)?;
    expect(wire.produce((&topic, 0), id, new.batch(0..=0)?)?.error_code, None)?;
    expect(wire.end(&new, true)?, None)
}

pub(super) fn a_transaction_runs_out_of_time(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "late", 1, &[])?;
    let settings = [("transaction.timeout.ms", "1000"), ("message.timeout.ms", "1000")];
    let producer = transactional_with(bootstrap, &topics::unique("late"), &settings)?;
    producer.begin_transaction()?;
    send(&producer, (&topic, 0), &["late"])?;
    wait_for_ends(bootstrap, &topic, (2, 2))?;
    ensure!(values(bootstrap, &topic, "read_committed")?.is_empty());
    let late = producer.commit_transaction(PATIENCE);
    ensure!(late.is_err(), "the commit of what was aborted: {late:?}");
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(text("never"))))
        .with_transaction_timeout_ms(i32::MAX)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let mut wire = Wire::connect(bootstrap)?;
    let answer = wire.settled(4, &request, |answer| answer.error_code)?;
    expect(answer.error_code, Some(ResponseError::InvalidTransactionTimeout))
}

pub(super) fn an_end_is_answered_again_and_never_turned(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "ended", 1, &[])?;
    let (mut wire, producer) = by_hand(bootstrap, "ender")?;
    let id = producer.transactional_id.as_deref();
    expect(wire.end(&producer, true)?, Some(ResponseError::InvalidTxnState))?;
    expect(wire.add_partition(&producer, &topic)?, None)?;
    expect(wire.produce((&topic, 0), id, producer.batch(0..=0)?)?.error_code, None)?;
    expect(wire.end(&producer, true)?, None)?;
    expect(wire.end(&producer, true)?, None)?;
    expect(wire.end(&producer, false)?, Some(ResponseError::InvalidTxnState))?;
    wait_for_ends(bootstrap, &topic, (2, 2))?;
    ensure!(values(bootstrap, &topic, "read_committed")? == ["0"]);
    Ok(())
}

pub(super) fn a_partition_must_be_added_first(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "unadded", 1, &[])?;
    let (mut wire, producer) = by_hand(bootstrap, "adder")?;
    let id = producer.transactional_id.as_deref();
    let refused = wire.produce((&topic, 0), id, producer.batch(0..=0)?)?;
    expect(refused.error_code, Some(ResponseError::InvalidTxnState))?;
    let unknown = Some(ResponseError::UnknownTopicOrPartition);
    expect(wire.add_partition(&producer, "no-such-topic")?, unknown)?;
    expect(wire.add_partition(&producer, &topic)?, None)?;
    let taken = wire.produce((&topic, 0), id, producer.batch(0..=0)?)?;
    expect(taken.error_code, None)?;
    expect(wire.end(&producer, true)?, None)?;
    // Before its marker is written, Kafka takes what comes late for a part of what has ended.
    wait_for_ends(bootstrap, &topic, (2, 2))?;
    let late = wire.produce((&topic, 0), id, producer.batch(1..=1)?)?;
    expect(late.error_code, Some(ResponseError::InvalidTxnState))
}

pub(super) fn transactions_are_listed_and_described(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "described", 1, &[])?;
    let (mut wire, producer) = by_hand(bootstrap, "described")?;
    let state = |wire: &mut Wire| {
        let ids = vec![producer.transactional_id()];
        let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
        let answer = wire.call(0, &request)?;
        let state = answer.transaction_states.into_iter().next().context("no answer")?;
        expect(state.error_code, None)?;
        ensure!(state.producer_id.0 == producer.id, "{state:?}");
        let partitions: usize = state.topics.iter().map(|topic| topic.partitions.len()).sum();
        anyhow::Ok((state.transaction_state.to_string(), partitions))
    };
    ensure!(state(&mut wire)? == ("Empty".to_owned(), 0));
    expect(wire.add_partition(&producer, &topic)?, None)?;
    ensure!(state(&mut wire)? == ("Ongoing".to_owned(), 1));
    let request = ListTransactionsRequest::default()
        .with_state_filters(vec![text("Ongoing")])
        .with_producer_id_filters(vec![ProducerId(producer.id)])
        .with_duration_filter(-1);
    let listed = wire.call(1, &request)?;
    ensure!(listed.transaction_states.len() == 1, "{listed:?}");
    expect(wire.end(&producer, false)?, None)?;
    wait::until_true("CompleteAbort", Duration::from_secs(10), || {
        Ok(state(&mut wire)?.0 == "CompleteAbort")
    })?;
    ensure!(wire.call(1, &request)?.transaction_states.is_empty());
    let unknown = vec![TransactionalId(text("no-such-id"))];
    let request = DescribeTransactionsRequest::default().with_transactional_ids(unknown);
    let answer = wire.call(0, &request)?;
    let code = answer.transaction_states.first().context("no answer")?.error_code;
    expect(code, Some(ResponseError::TransactionalIdNotFound))
}
