//! Topics are created, deleted, widened and emptied.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest,
        CreateTopicsResponse, DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest,
        DeleteTopicsResponse,
        create_partitions_response::CreatePartitionsTopicResult,
        create_topics_request::CreatableTopic,
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
        delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
        delete_topics_request::DeleteTopicState,
        delete_topics_response::DeletableTopicResult,
    },
};
use uuid::Uuid;

use super::{Context, LEADER, text};
use crate::{
    cluster::Cluster,
    refusal::{self, Refusal},
    topics::{NewTopic, SETTINGS, TopicConfig, TopicPartition},
};

/// The last version that deletes topics by name alone.
const DELETE_BY_NAME_VERSION_MAX: i16 = 5;

/// Creates topics, or only checks whether they could be.
pub(crate) fn create_topics(
    cluster: &mut Cluster,
    request: CreateTopicsRequest,
    _context: &Context,
) -> CreateTopicsResponse {
    let apply = !request.validate_only;
    let names: Vec<_> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let topics = request.topics.into_iter().map(|topic| {
        let name = topic.name.clone();
        let outcome = match names.iter().filter(|other| **other == name).count() {
            1 => create(cluster, &topic, apply),
            _ => {
                let why = "Duplicate topic in request.";
                Err(Refusal::new(ResponseError::InvalidRequest, why))
            }
        };
        let result = CreatableTopicResult::default()
            .with_name(name)
            .with_error_code(refusal::code(&outcome))
            .with_error_message(refusal::message(&outcome));
        match outcome {
            Err(_) => result.with_num_partitions(-1).with_replication_factor(-1),
            Ok((id, new)) => result
                .with_topic_id(id)
                .with_num_partitions(new.partitions)
                .with_replication_factor(1)
                .with_configs(Some(settings(&new.config))),
        }
    });
    CreateTopicsResponse::default().with_topics(topics.collect())
}

fn create(
    cluster: &mut Cluster,
    topic: &CreatableTopic,
    apply: bool,
) -> Result<(Uuid, NewTopic), Refusal> {
    let configs = topic.configs.iter().map(|setting| {
        (setting.name.to_string(), setting.value.as_ref().map(|value| value.to_string()))
    });
    let name = topic.name.to_string();
    let partitions = partitions(topic, cluster.options.default_partitions)?;
    let new = NewTopic { name, partitions, config: TopicConfig::new(configs)? };
    cluster.topics.check(&new)?;
    let id = if apply { cluster.topics.create(new.clone())?.id } else { Uuid::nil() };
    Ok((id, new))
}

/// How many partitions are asked for; each can have the one replica there is.
fn partitions(topic: &CreatableTopic, default: i32) -> Result<i32, Refusal> {
    if !topic.assignments.is_empty() {
        let both = topic.num_partitions != -1 || topic.replication_factor != -1;
        let here = topic.assignments.iter().all(|partition| partition.broker_ids == [LEADER]);
        let mut indexes: Vec<_> = topic.assignments.iter().map(|p| p.partition_index).collect();
        indexes.sort_unstable();
        let consecutive = indexes.iter().zip(0..).all(|(index, expected)| *index == expected);
        if both {
            let why = "A manual partition assignment was specified with a number of partitions or \
                       replicas that was not -1.";
            return Err(Refusal::new(ResponseError::InvalidRequest, why));
        }
        if !here || !consecutive {
            let why = "The manual partition assignment names other brokers than the one there is, \
                       or leaves partitions out.";
            return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, why));
        }
        return Ok(i32::try_from(indexes.len()).unwrap_or(i32::MAX));
    }
    if !matches!(topic.replication_factor, -1 | 1) {
        let asked = topic.replication_factor;
        let why = format!(
            "Unable to replicate the partition {asked} time(s): the development broker is the \
             only one."
        );
        return Err(Refusal::new(ResponseError::InvalidReplicationFactor, why));
    }
    Ok(if topic.num_partitions == -1 { default } else { topic.num_partitions })
}

fn settings(config: &TopicConfig) -> Vec<CreatableTopicConfigs> {
    let told = SETTINGS.iter().map(|setting| {
        CreatableTopicConfigs::default()
            .with_name(text(setting.name))
            .with_value(Some(text(config.get(setting))))
            .with_config_source(super::configs::source(config, setting))
    });
    told.collect()
}

/// Deletes topics by name or id.
pub(crate) fn delete_topics(
    cluster: &mut Cluster,
    request: DeleteTopicsRequest,
    context: &Context,
) -> DeleteTopicsResponse {
    let by_name = |name| DeleteTopicState::default().with_name(Some(name));
    let asked: Vec<_> = match context.version <= DELETE_BY_NAME_VERSION_MAX {
        true => request.topic_names.into_iter().map(by_name).collect(),
        false => request.topics,
    };
    let responses = asked.into_iter().map(|asked| {
        let known = cluster.topics.name(asked.topic_id).map(str::to_owned);
        let name = asked.name.as_ref().map(|name| name.to_string()).or(known);
        let id = name.as_ref().and_then(|name| Some(cluster.topics.get(name).ok()?.id));
        let outcome = match &name {
            Some(name) => cluster.delete_topic(name),
            None => Err(ResponseError::UnknownTopicId),
        };
        DeletableTopicResult::default()
            .with_name(name.map(|name| super::topic_name(&name)))
            .with_topic_id(id.unwrap_or(asked.topic_id))
            .with_error_code(refusal::bare_code(outcome))
    });
    DeleteTopicsResponse::default().with_responses(responses.collect())
}

/// Adds partitions to topics, or only checks whether it could be done.
pub(crate) fn create_partitions(
    cluster: &mut Cluster,
    request: CreatePartitionsRequest,
    _context: &Context,
) -> CreatePartitionsResponse {
    let apply = !request.validate_only;
    let results = request.topics.into_iter().map(|topic| {
        let outcome = cluster.topics.grow(&topic.name, topic.count, apply);
        CreatePartitionsTopicResult::default()
            .with_name(topic.name)
            .with_error_code(refusal::code(&outcome))
            .with_error_message(refusal::message(&outcome))
    });
    CreatePartitionsResponse::default().with_results(results.collect())
}

/// Makes records below an offset unreadable.
pub(crate) fn delete_records(
    cluster: &mut Cluster,
    request: DeleteRecordsRequest,
    _context: &Context,
) -> DeleteRecordsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let at = TopicPartition::new(&topic.name, partition.partition_index);
            let outcome = cluster.delete_records(&at, partition.offset);
            DeleteRecordsPartitionResult::default()
                .with_partition_index(at.partition)
                .with_low_watermark(outcome.unwrap_or(-1))
                .with_error_code(refusal::bare_code(outcome))
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}
