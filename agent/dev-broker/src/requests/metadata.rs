//! Who leads what: topics, the cluster, coordinators.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeClusterRequest, DescribeClusterResponse, FindCoordinatorRequest,
        FindCoordinatorResponse, MetadataRequest, MetadataResponse,
        describe_cluster_response::DescribeClusterBroker,
        find_coordinator_response::Coordinator,
        metadata_request::MetadataRequestTopic,
        metadata_response::{
            MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
        },
    },
};
use uuid::Uuid;

use super::{Context, LEADER, LEADER_EPOCH, text, topic_name};
use crate::{
    cluster::{CLUSTER_ID, Cluster},
    topics::Topic,
};

/// Answers with topics by name or id, or with all of them.
pub(crate) fn metadata(
    cluster: &mut Cluster,
    request: MetadataRequest,
    context: &Context,
) -> MetadataResponse {
    let create = context.version < 4 || request.allow_auto_topic_creation;
    let create = create && cluster.options.auto_create_topics;
    let all = || cluster.topics.iter().map(|(name, topic)| described(name, topic)).collect();
    let topics = match request.topics {
        None => all(),
        Some(topics) if topics.is_empty() && context.version == 0 => all(),
        Some(topics) => topics.iter().map(|topic| one(cluster, topic, create)).collect(),
    };
    let broker = MetadataResponseBroker::default()
        .with_node_id(LEADER)
        .with_host(text(&cluster.node.host))
        .with_port(cluster.node.port);
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(text(CLUSTER_ID)))
        .with_controller_id(LEADER)
        .with_topics(topics)
}

fn one(cluster: &mut Cluster, asked: &MetadataRequestTopic, create: bool) -> MetadataResponseTopic {
    let refused = |code: ResponseError| {
        MetadataResponseTopic::default()
            .with_error_code(code.code())
            .with_name(asked.name.clone())
            .with_topic_id(asked.topic_id)
    };
    if asked.topic_id != Uuid::nil() {
        let found = cluster.topics.name(asked.topic_id);
        let found = found.and_then(|name| Some(described(name, cluster.topics.get(name).ok()?)));
        return found.unwrap_or_else(|| refused(ResponseError::UnknownTopicId));
    }
    let name = asked.name.as_ref().map_or("", |name| name.as_str());
    if create
        && cluster.topics.get(name).is_err()
        && let Err(refusal) = cluster.create_on_demand(name)
    {
        return refused(refusal.code);
    }
    match cluster.topics.get(name) {
        Ok(topic) => described(name, topic),
        Err(code) => refused(code),
    }
}

fn described(name: &str, topic: &Topic) -> MetadataResponseTopic {
    let partition = |index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(LEADER)
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![LEADER])
            .with_isr_nodes(vec![LEADER])
    };
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(name)))
        .with_topic_id(topic.id)
        .with_partitions((0..topic.partition_count()).map(partition).collect())
}

/// Answers with the one node there is.
pub(crate) fn describe_cluster(
    cluster: &mut Cluster,
    request: DescribeClusterRequest,
    _context: &Context,
) -> DescribeClusterResponse {
    let node = DescribeClusterBroker::default()
        .with_broker_id(LEADER)
        .with_host(text(&cluster.node.host))
        .with_port(cluster.node.port);
    let answer = DescribeClusterResponse::default()
        .with_endpoint_type(request.endpoint_type)
        .with_cluster_id(text(CLUSTER_ID));
    if request.endpoint_type != 1 {
        return answer.with_error_code(ResponseError::MismatchedEndpointType.code());
    }
    answer.with_controller_id(LEADER).with_brokers(vec![node])
}

/// The last version that asks for a single coordinator.
const ONE_COORDINATOR_VERSION_MAX: i16 = 3;

/// Answers that the one node coordinates every group and transactional id.
pub(crate) fn find_coordinator(
    cluster: &mut Cluster,
    request: FindCoordinatorRequest,
    context: &Context,
) -> FindCoordinatorResponse {
    let host = || text(&cluster.node.host);
    let port = cluster.node.port;
    // 0 for groups, 1 for transactions; share groups are not offered.
    let code = match request.key_type {
        0 | 1 => 0,
        _ => ResponseError::InvalidRequest.code(),
    };
    if context.version <= ONE_COORDINATOR_VERSION_MAX {
        return FindCoordinatorResponse::default()
            .with_error_code(code)
            .with_node_id(LEADER)
            .with_host(host())
            .with_port(port);
    }
    let one = |key| {
        Coordinator::default()
            .with_key(key)
            .with_error_code(code)
            .with_node_id(LEADER)
            .with_host(host())
            .with_port(port)
    };
    let coordinators = request.coordinator_keys.into_iter().map(one).collect();
    FindCoordinatorResponse::default().with_coordinators(coordinators)
}
