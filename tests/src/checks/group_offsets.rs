//! Offsets of groups, and groups from outside.

use anyhow::{Context, Result, ensure};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        DeleteGroupsRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest,
        OffsetCommitRequest, OffsetDeleteRequest,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
    },
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};

use super::{
    PATIENCE,
    clients::{config, topic},
    group_members::Member,
    wire::{Wire, expect, name, text},
};
use crate::topics;

pub(super) fn offsets_are_kept_with_their_metadata(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "offsets", 2, &[])?;
    let group = topics::unique("offsets");
    let consumer: BaseConsumer = config(bootstrap, &[("group.id", &group)]).create()?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&topic, 0, Offset::Offset(42))?;
    if let Some(mut element) = offsets.find_partition(&topic, 0) {
        element.set_metadata("what else is to be kept");
    }
    consumer.commit(&offsets, CommitMode::Sync)?;
    let mut asked = TopicPartitionList::new();
    asked.add_partition(&topic, 0);
    asked.add_partition(&topic, 1);
    let found = consumer.committed_offsets(asked, PATIENCE)?;
    let [kept, none] = &found.elements()[..] else { unreachable!("two were asked for") };
    ensure!(kept.offset() == Offset::Offset(42), "{kept:?}");
    ensure!(kept.metadata() == "what else is to be kept", "{kept:?}");
    ensure!(none.offset() == Offset::Invalid, "{none:?}");
    topics::delete(bootstrap, &topic)
}

/// Commits an offset of partition 0; the error's code.
fn commit(
    wire: &mut Wire,
    (group, topic): (&str, &str),
    (member_id, generation): (&str, i32),
    metadata: &str,
) -> Result<i16> {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(1)
        .with_committed_leader_epoch(-1)
        .with_committed_metadata(Some(text(metadata)));
    let topic =
        OffsetCommitRequestTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member_id))
        .with_topics(vec![topic]);
    let code = |answer: &kafka_protocol::messages::OffsetCommitResponse| {
        let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
        partition.map_or(-1, |partition| partition.error_code)
    };
    Ok(code(&wire.settled(7, &request, code)?))
}

pub(super) fn only_the_members_of_a_group_commit(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "members", 1, &[])?;
    let group = topics::unique("members");
    let mut wire = Wire::connect(bootstrap)?;
    wire.coordinator(&group, 0)?;
    let at = (group.as_str(), topic.as_str());
    let illegal = Some(ResponseError::IllegalGeneration);
    let unknown = Some(ResponseError::UnknownMemberId);
    expect(commit(&mut wire, at, ("nobody", 3), "")?, illegal)?;
    expect(commit(&mut wire, at, ("", -1), "")?, None)?;
    let missing = (group.as_str(), "no-such-topic");
    let no_topic = Some(ResponseError::UnknownTopicOrPartition);
    expect(commit(&mut wire, missing, ("", -1), "")?, no_topic)?;
    let large = "x".repeat(5_000);
    let too_large = Some(ResponseError::OffsetMetadataTooLarge);
    expect(commit(&mut wire, at, ("", -1), &large)?, too_large)?;
    let mut member = Member::alone(bootstrap, &group, None)?;
    expect(commit(&mut wire, at, ("", -1), "")?, unknown)?;
    expect(commit(&mut wire, at, ("nobody", member.generation), "")?, unknown)?;
    expect(commit(&mut wire, at, (&member.id, member.generation + 1), "")?, illegal)?;
    expect(commit(&mut wire, at, (&member.id, member.generation), "")?, None)?;
    expect(member.leave()?, None)
}

pub(super) fn groups_are_listed_described_and_deleted(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "listed", 1, &[])?;
    let group = topics::unique("listed");
    let mut member = Member::alone(bootstrap, &group, Some("instance"))?;
    let mut wire = Wire::connect(bootstrap)?;
    let at = (group.as_str(), topic.as_str());
    expect(commit(&mut wire, at, (&member.id, member.generation), "")?, None)?;
    let id = || GroupId(text(&group));
    let listed = wire.call(4, &ListGroupsRequest::default())?;
    let found = listed.groups.iter().find(|found| found.group_id == id()).context("not listed")?;
    ensure!(found.group_state.as_str() == "Stable", "{found:?}");
    let described = wire.call(5, &DescribeGroupsRequest::default().with_groups(vec![id()]))?;
    let found = described.groups.first().context("not described")?;
    let told = (found.group_state.as_str(), found.protocol_type.as_str(), &*found.protocol_data);
    ensure!(told == ("Stable", "consumer", "range"), "{found:?}");
    let told = found.members.first().context("no member")?;
    ensure!(told.member_id.as_str() == member.id, "{told:?}");
    ensure!(told.group_instance_id.as_deref() == Some("instance"), "{told:?}");
    ensure!(told.member_assignment == b"all"[..], "{told:?}");
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![id()]);
    let mut deleted = |expected| {
        let answer = wire.call(2, &delete)?;
        expect(answer.results.first().context("no answer")?.error_code, expected)
    };
    deleted(Some(ResponseError::NonEmptyGroup))?;
    expect(member.leave()?, None)?;
    let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
    let forget = OffsetDeleteRequestTopic::default()
        .with_name(name(&topic))
        .with_partitions(vec![partition]);
    let forget = OffsetDeleteRequest::default().with_group_id(id()).with_topics(vec![forget]);
    deleted(None)?;
    deleted(Some(ResponseError::GroupIdNotFound))?;
    expect(wire.call(0, &forget)?.error_code, Some(ResponseError::GroupIdNotFound))?;
    expect(commit(&mut wire, at, ("", -1), "")?, None)?;
    expect(wire.call(0, &forget)?.error_code, None)?;
    ensure!(topics::committed(bootstrap, &group, &topic)? == [None]);
    Ok(())
}
