//! Offsets that are committed in transactions.

use anyhow::{Context, Result, ensure};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        AddOffsetsToTxnRequest, GroupId, OffsetFetchRequest, ProducerId, TxnOffsetCommitRequest,
        offset_fetch_request::OffsetFetchRequestTopic,
        txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
    },
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::Producer,
};

use super::{
    PATIENCE,
    clients::{config, send, topic, transactional},
    group_clients,
    group_members::Member,
    wire::{self, Wire, expect, name, text},
};
use crate::{topics, wait};

pub(super) fn offsets_move_with_the_transaction_alone(bootstrap: &str) -> Result<()> {
    let input = topic(bootstrap, "input", 1, &[])?;
    let output = topic(bootstrap, "output", 1, &[])?;
    let group = topics::unique("moves");
    let producer = transactional(bootstrap, &topics::unique("mover"))?;
    let member = group_clients::Member::new(bootstrap, &group, &input, &[])?;
    group_clients::wait_for_shares(&[&member], &[1])?;
    let metadata = member.consumer.group_metadata().context("no group metadata")?;
    let round = |offset, commit| {
        producer.begin_transaction()?;
        send(&producer, (&output, 0), &["output"])?;
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&input, 0, Offset::Offset(offset))?;
        producer.send_offsets_to_transaction(&offsets, &metadata, PATIENCE)?;
        if commit {
            producer.commit_transaction(PATIENCE)?;
        } else {
            producer.abort_transaction(PATIENCE)?;
        }
        anyhow::Ok(())
    };
    let becomes = |expected: Option<i64>| {
        let found = || Ok(topics::committed(bootstrap, &group, &input)? == [expected]);
        wait::until_true(&format!("offset {expected:?}"), PATIENCE, found)
    };
    becomes(None)?;
    round(4, true)?;
    becomes(Some(4))?;
    round(9, false)?;
    becomes(Some(4))?;
    round(7, true)?;
    becomes(Some(7))
}

/// A producer, by hand, that sends offsets of a group.
struct Sender {
    wire: Wire,
    producer: wire::Producer,
    group: String,
    topic: String,
}

/// Who a sender says it is in the group.
struct As<'a> {
    member_id: &'a str,
    instance: Option<&'a str>,
    generation: i32,
}

const NOBODY: As<'_> = As { member_id: "", instance: None, generation: -1 };

impl Sender {
    fn new(bootstrap: &str, topic: &str, group: &str) -> Result<Self> {
        let mut wire = Wire::connect(bootstrap)?;
        wire.coordinator(group, 0)?;
        let producer = wire.producer(Some(&topics::unique("sender")))?;
        Ok(Self { wire, producer, group: group.to_owned(), topic: topic.to_owned() })
    }

    fn add_offsets(&mut self) -> Result<i16> {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(self.producer.transactional_id())
            .with_producer_id(ProducerId(self.producer.id))
            .with_producer_epoch(self.producer.epoch)
            .with_group_id(GroupId(text(&self.group)));
        Ok(self.wire.settled(3, &request, |answer| answer.error_code)?.error_code)
    }

    fn commit(&mut self, offset: i64, member: &As<'_>) -> Result<i16> {
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(-1)
            .with_committed_metadata(Some(text("metadata")));
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(name(&self.topic))
            .with_partitions(vec![partition]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(self.producer.transactional_id())
            .with_group_id(GroupId(text(&self.group)))
            .with_producer_id(ProducerId(self.producer.id))
            .with_producer_epoch(self.producer.epoch)
            .with_generation_id(member.generation)
            .with_member_id(text(member.member_id))
            .with_group_instance_id(member.instance.map(text))
            .with_topics(vec![topic]);
        let code = |answer: &kafka_protocol::messages::TxnOffsetCommitResponse| {
            let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
            partition.map_or(-1, |partition| partition.error_code)
        };
        Ok(code(&self.wire.settled(3, &request, code)?))
    }

    /// The committed offset, and the error's code.
    fn fetch(&mut self, require_stable: bool) -> Result<(i64, i16)> {
        let asked = OffsetFetchRequestTopic::default()
            .with_name(name(&self.topic))
            .with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_topics(Some(vec![asked]))
            .with_require_stable(require_stable);
        let answer = self.wire.call(7, &request)?;
        expect(answer.error_code, None)?;
        let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
        let partition = partition.context("no partition in the answer")?;
        Ok((partition.committed_offset, partition.error_code))
    }
}

pub(super) fn pending_offsets_are_not_stable(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "pending", 1, &[])?;
    let mut sender = Sender::new(bootstrap, &topic, &topics::unique("pending"))?;
    let unstable = ResponseError::UnstableOffsetCommit.code();
    expect(sender.add_offsets()?, None)?;
    expect(sender.commit(3, &NOBODY)?, None)?;
    ensure!(sender.fetch(true)? == (-1, unstable) && sender.fetch(false)? == (-1, 0));
    let producer = sender.producer.clone();
    expect(sender.wire.end(&producer, true)?, None)?;
    wait::until_true("stable offset", PATIENCE, || Ok(sender.fetch(true)? == (3, 0)))?;
    expect(sender.add_offsets()?, None)?;
    expect(sender.commit(5, &NOBODY)?, None)?;
    ensure!(sender.fetch(true)? == (-1, unstable) && sender.fetch(false)? == (3, 0));
    expect(sender.wire.end(&producer, false)?, None)?;
    wait::until_true("stable offset", PATIENCE, || Ok(sender.fetch(true)? == (3, 0)))
}

pub(super) fn a_member_of_an_old_generation_commits_nothing(bootstrap: &str) -> Result<()> {
    let input = topic(bootstrap, "generations", 2, &[])?;
    let group = topics::unique("generations");
    let first = group_clients::Member::new(bootstrap, &group, &input, &[])?;
    group_clients::wait_for_shares(&[&first], &[2])?;
    let old = first.consumer.group_metadata().context("no group metadata")?;
    let second = group_clients::Member::new(bootstrap, &group, &input, &[])?;
    group_clients::wait_for_shares(&[&first, &second], &[1, 1])?;
    let producer = transactional(bootstrap, &topics::unique("zombie"))?;
    producer.begin_transaction()?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&input, 0, Offset::Offset(1))?;
    match producer.send_offsets_to_transaction(&offsets, &old, PATIENCE) {
        Err(KafkaError::Transaction(error)) => {
            let code = error.code() == RDKafkaErrorCode::IllegalGeneration;
            ensure!(code && error.txn_requires_abort(), "{error:?}");
        }
        other => anyhow::bail!("offsets of an old generation: {other:?}"),
    }
    producer.abort_transaction(PATIENCE)?;
    let new = first.consumer.group_metadata().context("no group metadata")?;
    producer.begin_transaction()?;
    producer.send_offsets_to_transaction(&offsets, &new, PATIENCE)?;
    producer.commit_transaction(PATIENCE)?;
    let settings = [("group.id", group.as_str()), ("isolation.level", "read_committed")];
    let reader: BaseConsumer = config(bootstrap, &settings).create()?;
    let mut asked = TopicPartitionList::new();
    asked.add_partition(&input, 0);
    let found = reader.committed_offsets(asked, PATIENCE)?;
    ensure!(found.elements()[0].offset() == Offset::Offset(1), "{found:?}");
    Ok(())
}

pub(super) fn offsets_want_the_member_and_its_place(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "placed", 1, &[])?;
    let group = topics::unique("placed");
    let member = Member::alone(bootstrap, &group, Some("instance"))?;
    let mut sender = Sender::new(bootstrap, &topic, &group)?;
    let own = || As {
        member_id: &member.id,
        instance: member.instance.as_deref(),
        generation: member.generation,
    };
    // Not before the group is a part of the transaction.
    expect(sender.commit(1, &own())?, Some(ResponseError::InvalidTxnState))?;
    expect(sender.add_offsets()?, None)?;
    let illegal = As { generation: member.generation + 1, ..own() };
    expect(sender.commit(1, &illegal)?, Some(ResponseError::IllegalGeneration))?;
    let unknown = As { member_id: "nobody", instance: None, ..own() };
    expect(sender.commit(1, &unknown)?, Some(ResponseError::UnknownMemberId))?;
    let fenced = As { member_id: "nobody", ..own() };
    expect(sender.commit(1, &fenced)?, Some(ResponseError::FencedInstanceId))?;
    ensure!(sender.fetch(true)? == (-1, 0), "{:?}", sender.fetch(true)?);
    expect(sender.commit(1, &own())?, None)?;
    // Brokers take offsets of nobody unchecked while there are members: the agent must not send such.
    expect(sender.commit(2, &NOBODY)?, None)?;
    let producer = sender.producer.clone();
    expect(sender.wire.end(&producer, true)?, None)?;
    wait::until_true("committed offset", PATIENCE, || Ok(sender.fetch(true)? == (2, 0)))
}
