//! The offsets of groups: committed at once or with a transaction, fetched, deleted.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
        OffsetFetchRequest, OffsetFetchResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
        txn_offset_commit_response::{
            TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
        },
    },
    protocol::StrBytes,
};

use super::{Context, filled, text, topic_name};
use crate::{
    cluster::Cluster,
    group::{Caller, Committed},
    log::Writer,
    refusal::bare_code,
    topics::TopicPartition,
};

/// `offset.metadata.max.bytes`.
const METADATA_BYTES_MAX: usize = 4_096;

/// From here on one request asks for several groups.
const SEVERAL_GROUPS_VERSION_MIN: i16 = 8;

/// From here on a transaction's offsets carry the member that sends them.
const TXN_MEMBER_VERSION_MIN: i16 = 3;

/// Offsets on their way into a group.
struct Commit<'a> {
    group: &'a str,
    /// The transaction that they wait for.
    producer_id: Option<i64>,
}

impl Commit<'_> {
    fn one(
        &self,
        cluster: &mut Cluster,
        at: TopicPartition,
        committed: Committed,
    ) -> Result<(), ResponseError> {
        cluster.topics.log(&at.topic, at.partition)?;
        if committed.metadata.len() > METADATA_BYTES_MAX {
            return Err(ResponseError::OffsetMetadataTooLarge);
        }
        let producer_id = self.producer_id;
        let done = cluster.with_group(self.group, |group| match producer_id {
            None => group.offsets.commit(at, committed),
            Some(id) => group.offsets.commit_later(id, at, committed),
        });
        done.ok_or(ResponseError::UnknownMemberId)
    }
}

fn metadata(metadata: Option<&StrBytes>) -> String {
    metadata.map(StrBytes::to_string).unwrap_or_default()
}

/// Whether a group takes offsets from a caller; a group of its own making comes to be.
fn check_commit(
    cluster: &mut Cluster,
    group: &str,
    caller: &Caller<'_>,
    transactional: bool,
    now_ms: i64,
) -> Result<(), ResponseError> {
    if group.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    if cluster.group(group).is_none() {
        if caller.generation >= 0 {
            return Err(ResponseError::IllegalGeneration);
        }
        cluster.ensure_group(group)?;
    }
    let check =
        cluster.with_group(group, |group| group.check_commit(caller, transactional, now_ms));
    check.unwrap_or(Err(ResponseError::UnknownMemberId))
}

/// Commits offsets at once.
pub(crate) fn commit(
    cluster: &mut Cluster,
    request: OffsetCommitRequest,
    context: &Context,
) -> OffsetCommitResponse {
    let caller = Caller {
        member_id: &request.member_id,
        instance: filled(&request.group_instance_id),
        generation: request.generation_id_or_member_epoch,
    };
    let check = check_commit(cluster, &request.group_id, &caller, false, context.now_ms);
    let commit = Commit { group: &request.group_id, producer_id: None };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|offset| {
            let at = TopicPartition::new(&topic.name, offset.partition_index);
            let committed = Committed {
                offset: offset.committed_offset,
                leader_epoch: offset.committed_leader_epoch,
                metadata: metadata(offset.committed_metadata.as_ref()),
            };
            let outcome = check.and_then(|()| commit.one(cluster, at, committed));
            OffsetCommitResponsePartition::default()
                .with_partition_index(offset.partition_index)
                .with_error_code(bare_code(outcome))
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// Keeps offsets until a transaction ends. A member of an old generation is refused, so that it
/// can't commit for partitions that are somebody else's by now.
pub(crate) fn commit_in_transaction(
    cluster: &mut Cluster,
    request: TxnOffsetCommitRequest,
    context: &Context,
) -> TxnOffsetCommitResponse {
    let group = request.group_id.as_str();
    let writer = Writer { producer_id: request.producer_id.0, epoch: request.producer_epoch };
    let named = context.version >= TXN_MEMBER_VERSION_MIN;
    let caller = Caller {
        member_id: if named { &request.member_id } else { "" },
        instance: filled(&request.group_instance_id),
        generation: if named { request.generation_id } else { -1 },
    };
    let check = cluster.transactions.check_group(&request.transactional_id, writer, group);
    let check = check.and_then(|()| check_commit(cluster, group, &caller, true, context.now_ms));
    let commit = Commit { group, producer_id: Some(writer.producer_id) };
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|offset| {
            let at = TopicPartition::new(&topic.name, offset.partition_index);
            let committed = Committed {
                offset: offset.committed_offset,
                leader_epoch: offset.committed_leader_epoch,
                metadata: metadata(offset.committed_metadata.as_ref()),
            };
            let outcome = check.and_then(|()| commit.one(cluster, at, committed));
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(offset.partition_index)
                .with_error_code(bare_code(outcome))
        });
        let (name, partitions) = (topic.name.clone(), partitions.collect());
        TxnOffsetCommitResponseTopic::default().with_name(name).with_partitions(partitions)
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}

/// What a group has for a partition, or why it can't be said yet.
struct Answer {
    offset: i64,
    leader_epoch: i32,
    metadata: StrBytes,
    code: i16,
}

fn look_up(cluster: &Cluster, group: &str, at: &TopicPartition, stable: bool) -> Answer {
    let found = cluster.group(group).map_or(Ok(None), |group| group.offsets.get(at, stable));
    let code = bare_code(found);
    let committed = found.ok().flatten();
    Answer {
        offset: committed.map_or(-1, |committed| committed.offset),
        leader_epoch: committed.map_or(-1, |committed| committed.leader_epoch),
        metadata: committed.map(|committed| text(&committed.metadata)).unwrap_or_default(),
        code,
    }
}

/// The partitions asked for by topic; all that the group has, if none are named.
fn asked(
    cluster: &Cluster,
    group: &str,
    named: Option<Vec<(String, Vec<i32>)>>,
) -> Vec<(String, Vec<i32>)> {
    named.unwrap_or_else(|| {
        let mut all: Vec<(String, Vec<i32>)> = Vec::new();
        let partitions = cluster.group(group).map(|group| group.offsets.partitions());
        for at in partitions.unwrap_or_default() {
            match all.last_mut().filter(|(topic, _)| *topic == at.topic) {
                Some((_, partitions)) => partitions.push(at.partition),
                None => all.push((at.topic, vec![at.partition])),
            }
        }
        all
    })
}

/// Answers with committed offsets.
pub(crate) fn fetch(
    cluster: &mut Cluster,
    request: OffsetFetchRequest,
    context: &Context,
) -> OffsetFetchResponse {
    let stable = request.require_stable;
    if context.version >= SEVERAL_GROUPS_VERSION_MIN {
        let groups = request.groups.into_iter().map(|group| {
            let id = group.group_id.as_str();
            let named = group.topics.map(|topics| {
                let named = topics.into_iter();
                named.map(|topic| (topic.name.to_string(), topic.partition_indexes)).collect()
            });
            let topics = asked(cluster, id, named).into_iter().map(|(topic, partitions)| {
                let partitions = partitions.into_iter().map(|index| {
                    let at = TopicPartition::new(&topic, index);
                    let answer = look_up(cluster, id, &at, stable);
                    OffsetFetchResponsePartitions::default()
                        .with_partition_index(index)
                        .with_committed_offset(answer.offset)
                        .with_committed_leader_epoch(answer.leader_epoch)
                        .with_metadata(Some(answer.metadata))
                        .with_error_code(answer.code)
                });
                OffsetFetchResponseTopics::default()
                    .with_name(topic_name(&topic))
                    .with_partitions(partitions.collect())
            });
            let topics = topics.collect();
            OffsetFetchResponseGroup::default().with_group_id(group.group_id).with_topics(topics)
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let id = request.group_id.as_str();
    let named = request.topics.map(|topics| {
        topics.into_iter().map(|topic| (topic.name.to_string(), topic.partition_indexes)).collect()
    });
    let topics = asked(cluster, id, named).into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|index| {
            let answer = look_up(cluster, id, &TopicPartition::new(&topic, index), stable);
            OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_committed_offset(answer.offset)
                .with_committed_leader_epoch(answer.leader_epoch)
                .with_metadata(Some(answer.metadata))
                .with_error_code(answer.code)
        });
        OffsetFetchResponseTopic::default()
            .with_name(topic_name(&topic))
            .with_partitions(partitions.collect())
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}

/// Forgets offsets of a group without members.
pub(crate) fn delete(
    cluster: &mut Cluster,
    request: OffsetDeleteRequest,
    _context: &Context,
) -> OffsetDeleteResponse {
    let code = match cluster.group(&request.group_id) {
        None => ResponseError::GroupIdNotFound.code(),
        // What the members subscribe to is not looked into.
        Some(group) if group.members().next().is_some() => ResponseError::NonEmptyGroup.code(),
        Some(_) => 0,
    };
    if code != 0 {
        return OffsetDeleteResponse::default().with_error_code(code);
    }
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let at = TopicPartition::new(&topic.name, partition.partition_index);
            cluster.with_group(&request.group_id, |group| group.offsets.forget(|own| *own == at));
            OffsetDeleteResponsePartition::default().with_partition_index(at.partition)
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
