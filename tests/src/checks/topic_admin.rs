//! Topics come, grow, are emptied and go.

use anyhow::{Context, Result, ensure};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
        DescribeClusterRequest, FetchRequest, MetadataRequest,
        create_partitions_request::CreatePartitionsTopic,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        delete_topics_request::DeleteTopicState,
        fetch_request::{FetchPartition, FetchTopic},
        metadata_request::MetadataRequestTopic,
        metadata_response::MetadataResponseTopic,
    },
};
use rdkafka::{Offset, TopicPartitionList, consumer::Consumer, error::RDKafkaErrorCode};

use super::{
    PATIENCE,
    clients::{admin, block_on, options, producer, read, send, topic},
    wire::{Wire, expect, name, text},
};
use crate::{topics, wait};

fn describe(wire: &mut Wire, asked: MetadataRequestTopic) -> Result<MetadataResponseTopic> {
    let request = MetadataRequest::default().with_topics(Some(vec![asked]));
    wire.call(12, &request)?.topics.into_iter().next().context("no topic in the answer")
}

fn by_name(topic: &str) -> MetadataRequestTopic {
    MetadataRequestTopic::default().with_name(Some(name(topic)))
}

pub(super) fn a_new_topic_is_seen_by_name_and_id(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "admin", 3, &[])?;
    let mut wire = Wire::connect(bootstrap)?;
    let found = describe(&mut wire, by_name(&topic))?;
    expect(found.error_code, None)?;
    ensure!(found.partitions.len() == 3 && !found.topic_id.is_nil(), "{found:?}");
    let led = found.partitions.iter().all(|p| p.error_code == 0 && p.leader_id.0 >= 0);
    ensure!(led, "{found:?}");
    let by_id = MetadataRequestTopic::default().with_topic_id(found.topic_id);
    let same = describe(&mut wire, by_id)?;
    ensure!(same.name == Some(name(&topic)), "{same:?}");
    let missing = describe(&mut wire, by_name("no-such-topic"))?;
    expect(missing.error_code, Some(ResponseError::UnknownTopicOrPartition))
}

/// What a request to create a topic is answered with.
fn creates(
    wire: &mut Wire,
    topic: &CreatableTopic,
    validate_only: bool,
    expected: Option<ResponseError>,
) -> Result<()> {
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic.clone()])
        .with_timeout_ms(10_000)
        .with_validate_only(validate_only);
    let answer = wire.call(5, &request)?;
    let found = answer.topics.first().context("no topic in the answer")?;
    expect(found.error_code, expected).with_context(|| format!("{topic:?}: {found:?}"))
}

fn new_topic(topic: &str, partitions: i32, replicas: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(replicas)
}

pub(super) fn what_cannot_be_a_topic_is_refused(bootstrap: &str) -> Result<()> {
    let taken = topic(bootstrap, "taken", 1, &[])?;
    let dotted = topic(bootstrap, "with.dot", 1, &[])?;
    let mut wire = Wire::connect(bootstrap)?;
    let mut check = |topic: &str, (partitions, replicas), expected| {
        creates(&mut wire, &new_topic(topic, partitions, replicas), false, Some(expected))
    };
    let free = topics::unique("free");
    check(&taken, (1, 1), ResponseError::TopicAlreadyExists)?;
    check(&dotted.replace('.', "_"), (1, 1), ResponseError::InvalidTopicException)?;
    check("a b", (1, 1), ResponseError::InvalidTopicException)?;
    check(".", (1, 1), ResponseError::InvalidTopicException)?;
    check("", (1, 1), ResponseError::InvalidTopicException)?;
    check(&"x".repeat(250), (1, 1), ResponseError::InvalidTopicException)?;
    check(&free, (0, 1), ResponseError::InvalidPartitions)?;
    check(&free, (1, 5), ResponseError::InvalidReplicationFactor)?;
    check(&free, (1, 0), ResponseError::InvalidReplicationFactor)?;
    let odd = CreatableTopicConfig::default()
        .with_name(text("no.such.setting"))
        .with_value(Some(text("1")));
    let topic = new_topic(&free, 1, 1).with_configs(vec![odd]);
    creates(&mut wire, &topic, false, Some(ResponseError::InvalidConfig))?;
    ensure!(topics::partition_count(bootstrap, &free)?.is_none(), "{free} is there");
    Ok(())
}

pub(super) fn a_topic_that_is_only_validated_is_not_made(bootstrap: &str) -> Result<()> {
    let mut wire = Wire::connect(bootstrap)?;
    let name = topics::unique("validated");
    creates(&mut wire, &new_topic(&name, 2, 1), true, None)?;
    ensure!(topics::partition_count(bootstrap, &name)?.is_none(), "{name} is there");
    creates(&mut wire, &new_topic(&name, -1, -1), false, None)
}

pub(super) fn partitions_are_added_and_never_taken(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "grows", 2, &[])?;
    let mut wire = Wire::connect(bootstrap)?;
    let mut grow = |count, expected| {
        let asked = CreatePartitionsTopic::default()
            .with_name(name(&topic))
            .with_count(count)
            .with_assignments(None);
        let request =
            CreatePartitionsRequest::default().with_topics(vec![asked]).with_timeout_ms(10_000);
        let answer = wire.call(1, &request)?;
        expect(answer.results.first().context("no answer")?.error_code, expected)
    };
    grow(1, Some(ResponseError::InvalidPartitions))?;
    grow(2, Some(ResponseError::InvalidPartitions))?;
    grow(4, None)?;
    let grown = || Ok(topics::partition_count(bootstrap, &topic)? == Some(4));
    wait::until_true("fourth partition", PATIENCE, grown)?;
    send(&producer(bootstrap, &[])?, (&topic, 3), &["new"])?;
    let seen = read(bootstrap, &topic, "read_committed")?;
    ensure!(seen.len() == 1 && seen[0].partition == 3, "{seen:?}");
    Ok(())
}

pub(super) fn a_deleted_topic_is_gone_and_comes_back_as_another(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "goes", 1, &[])?;
    send(&producer(bootstrap, &[])?, (&topic, 0), &["old"])?;
    let mut wire = Wire::connect(bootstrap)?;
    let before = describe(&mut wire, by_name(&topic))?.topic_id;
    topics::delete(bootstrap, &topic)?;
    let gone = || Ok(topics::partition_count(bootstrap, &topic)?.is_none());
    wait::until_true("deletion", PATIENCE, gone)?;
    let by_id = MetadataRequestTopic::default().with_topic_id(before);
    expect(describe(&mut wire, by_id)?.error_code, Some(ResponseError::UnknownTopicId))?;
    topics::create(bootstrap, &topic, 1, &[])?;
    let after = describe(&mut wire, by_name(&topic))?.topic_id;
    ensure!(before != after && !after.is_nil(), "{before} and {after}");
    let seen = read(bootstrap, &topic, "read_committed")?;
    ensure!(seen.is_empty(), "{seen:?}");
    let asked = DeleteTopicState::default().with_name(None).with_topic_id(before);
    let request = DeleteTopicsRequest::default().with_topics(vec![asked]).with_timeout_ms(10_000);
    let answer = wire.call(6, &request)?;
    let code = answer.responses.first().context("no answer")?.error_code;
    expect(code, Some(ResponseError::UnknownTopicId))?;
    let partition = FetchPartition::default().with_partition_max_bytes(1_000);
    let asked = FetchTopic::default().with_topic_id(before).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_bytes(1_000)
        .with_session_epoch(-1)
        .with_topics(vec![asked]);
    let answer = wire.call(13, &request)?;
    let partition = answer.responses.first().and_then(|topic| topic.partitions.first());
    let code = partition.context("no partition in the answer")?.error_code;
    expect(code, Some(ResponseError::UnknownTopicId))
}

pub(super) fn deleted_records_are_out_of_range(bootstrap: &str) -> Result<()> {
    let topic_name = topic(bootstrap, "emptied", 1, &[])?;
    let producer = producer(bootstrap, &[])?;
    send(&producer, (&topic_name, 0), &["0", "1", "2", "3", "4", "5"])?;
    let delete = |topic: &str, offset| -> Result<Result<(), RDKafkaErrorCode>> {
        let mut below = TopicPartitionList::new();
        below.add_partition_offset(topic, 0, offset)?;
        let result = block_on(admin(bootstrap)?.delete_records(&below, &options()))??;
        let elements = result.elements();
        let error = elements.first().context("no answer")?.error();
        Ok(error.map_err(|error| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)))
    };
    ensure!(delete(&topic_name, Offset::Offset(4))? == Ok(()));
    let reader = topics::reader(bootstrap, "checks")?;
    let ends = reader.fetch_watermarks(&topic_name, 0, PATIENCE)?;
    ensure!(ends == (4, 6), "{ends:?}");
    let offsets: Vec<_> =
        read(bootstrap, &topic_name, "read_committed")?.iter().map(|seen| seen.offset).collect();
    ensure!(offsets == [4, 5], "{offsets:?}");
    let beyond = delete(&topic_name, Offset::Offset(7))?;
    ensure!(beyond == Err(RDKafkaErrorCode::OffsetOutOfRange), "{beyond:?}");
    ensure!(delete(&topic_name, Offset::End)? == Ok(()));
    let ends = reader.fetch_watermarks(&topic_name, 0, PATIENCE)?;
    ensure!(ends == (6, 6), "{ends:?}");
    let compacted = topic(bootstrap, "compacted", 1, &[("cleanup.policy", "compact")])?;
    send(&producer, (&compacted, 0), &["0"])?;
    let refused = delete(&compacted, Offset::Offset(1))?;
    ensure!(refused == Err(RDKafkaErrorCode::PolicyViolation), "{refused:?}");
    Ok(())
}

pub(super) fn the_cluster_describes_itself(bootstrap: &str) -> Result<()> {
    let mut wire = Wire::connect(bootstrap)?;
    let answer = wire.call(1, &DescribeClusterRequest::default().with_endpoint_type(1))?;
    expect(answer.error_code, None)?;
    let broker = answer.brokers.first().context("no broker")?;
    let address = format!("{}:{}", broker.host.as_str(), broker.port);
    ensure!(answer.brokers.len() == 1 && address == bootstrap, "{answer:?}");
    ensure!(!answer.cluster_id.is_empty() && answer.controller_id.0 >= 0, "{answer:?}");
    let all = wire.call(9, &MetadataRequest::default().with_topics(None))?;
    ensure!(all.cluster_id.as_ref() == Some(&answer.cluster_id), "{:?}", all.cluster_id);
    Ok(())
}

pub(super) fn a_newer_client_hears_which_versions_there_are(bootstrap: &str) -> Result<()> {
    let mut wire = Wire::connect(bootstrap)?;
    // ApiVersions in version 99 with correlation id 7, no client id, no tags, and an unknown body.
    let answer = wire.raw(&[0, 18, 0, 99, 0, 0, 0, 7, 0xff, 0xff, 0, 1, 2, 3])?;
    let unsupported = ResponseError::UnsupportedVersion.code().to_be_bytes();
    ensure!(answer[..4] == [0, 0, 0, 7] && answer[4..6] == unsupported, "{answer:?}");
    // In version 0: a count, then key, least and largest version of each request.
    let offered = answer.get(10..).context("no versions")?.chunks_exact(6);
    let own = offered.into_iter().find(|api| api[..2] == [0, 18]).context("not its own")?;
    ensure!(own[2..4] == [0, 0] && own[5] >= 3, "{own:?}");
    // The connection goes on, in a version that there is.
    let answer = wire.call(
        3,
        &ApiVersionsRequest::default()
            .with_client_software_name(text("checks"))
            .with_client_software_version(text("1")),
    )?;
    expect(answer.error_code, None)?;
    ensure!(!answer.api_keys.is_empty());
    Ok(())
}
