//! Produce: batches into logs.

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ProduceRequest, ProduceResponse,
        produce_request::PartitionProduceData,
        produce_response::{PartitionProduceResponse, TopicProduceResponse},
    },
};

use super::Context;
use crate::{
    cluster::Cluster,
    log::{Appended, Batch},
    refusal::{self, Refusal},
    topics::TopicPartition,
};

/// The first version whose clients know that a transaction can be aborted after this error.
const ABORTABLE_VERSION_MIN: i16 = 11;

/// Appends what came for each partition; one that is refused keeps no other from being taken.
pub(crate) fn produce(
    cluster: &mut Cluster,
    request: ProduceRequest,
    context: &Context,
) -> ProduceResponse {
    let transactional_id = request.transactional_id.as_ref().map(|id| id.to_string());
    let acks = request.acks;
    let responses = request.topic_data.into_iter().map(|topic| {
        let partitions = topic.partition_data.into_iter().map(|data| {
            let at = TopicPartition::new(&topic.name, data.index);
            let source = Source { transactional_id: transactional_id.as_deref(), acks, context };
            let outcome = append(cluster, &at, &data, &source);
            response(cluster, &at, &outcome)
        });
        let partitions = partitions.collect();
        TopicProduceResponse::default().with_name(topic.name).with_partition_responses(partitions)
    });
    ProduceResponse::default().with_responses(responses.collect())
}

struct Source<'a> {
    transactional_id: Option<&'a str>,
    acks: i16,
    context: &'a Context,
}

/// Where a batch went, and the time that its records have if it isn't the producer's.
type Outcome = Result<(Appended, Option<i64>), Refusal>;

fn append(
    cluster: &mut Cluster,
    at: &TopicPartition,
    data: &PartitionProduceData,
    source: &Source<'_>,
) -> Outcome {
    if !(-1..=1).contains(&source.acks) {
        return Err(ResponseError::InvalidRequiredAcks.into());
    }
    let now_ms = source.context.now_ms;
    let topic = cluster.topics.get(&at.topic)?;
    let append_time_ms = topic.config.has_append_time().then_some(now_ms);
    cluster.topics.log(&at.topic, at.partition)?;
    let bytes = data.records.as_ref().map_or(&[][..], Bytes::as_ref);
    let batch = Batch::read(bytes, &topic.limits(), now_ms)?;
    check_transaction(cluster, at, &batch, source)?;
    let appended = cluster.append(at, batch, append_time_ms)?;
    Ok((appended, append_time_ms))
}

/// A transactional batch needs an open transaction that this partition was added to.
fn check_transaction(
    cluster: &Cluster,
    at: &TopicPartition,
    batch: &Batch,
    source: &Source<'_>,
) -> Result<(), Refusal> {
    if !batch.is_transactional() {
        return Ok(());
    }
    let (Some(id), Some(writer)) = (source.transactional_id, batch.writer()) else {
        let why = "a transactional batch needs a transactional id and a producer id";
        return Err(Refusal::new(ResponseError::InvalidRequest, why));
    };
    match cluster.transactions.check_partition(id, writer, at) {
        Err(ResponseError::InvalidTxnState) if source.context.version >= ABORTABLE_VERSION_MIN => {
            Err(ResponseError::TransactionAbortable.into())
        }
        other => Ok(other?),
    }
}

fn response(cluster: &Cluster, at: &TopicPartition, outcome: &Outcome) -> PartitionProduceResponse {
    let start = cluster.topics.log(&at.topic, at.partition).map_or(-1, |log| log.start());
    let placed = outcome.as_ref().ok();
    PartitionProduceResponse::default()
        .with_index(at.partition)
        .with_error_code(refusal::code(outcome))
        .with_error_message(refusal::message(outcome))
        .with_base_offset(placed.map_or(-1, |(appended, _)| appended.base_offset))
        .with_log_append_time_ms(placed.and_then(|(_, time_ms)| *time_ms).unwrap_or(-1))
        .with_log_start_offset(start)
}
