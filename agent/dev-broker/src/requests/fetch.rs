//! Fetch, and what readers ask besides: offsets by time, ends of epochs.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
        OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, ProducerId,
        fetch_request::{FetchPartition, FetchTopic},
        fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData},
        list_offsets_request::ListOffsetsPartition,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
        offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
    },
};
use uuid::Uuid;

use super::{Context, LEADER_EPOCH};
use crate::{
    cluster::Cluster,
    log::{Found, Isolation, Log, Lookup, Range},
    refusal::Refusal,
    topics::DECOMPRESSED_BYTES_MAX,
};

/// The first version that names topics by their ids.
const TOPIC_ID_VERSION_MIN: i16 = 13;

/// The first version in which the answer for an offset names its leader's epoch.
const EPOCH_VERSION_MIN: i16 = 4;

/// No answer is larger, whatever a client asks for.
const RESPONSE_BYTES_MAX: usize = 55 << 20;

/// Whether there is enough to answer: so many bytes, or an error that need not wait.
pub(crate) fn is_due(cluster: &Cluster, request: &FetchRequest, context: &Context) -> bool {
    let least = usize::try_from(request.min_bytes).unwrap_or(0);
    let mut bytes = 0;
    for topic in &request.topics {
        for partition in &topic.partitions {
            match find(cluster, topic, partition, context) {
                Err(_) => return true,
                Ok(log) => bytes += log.available(&range(request, partition, usize::MAX, false)),
            }
        }
    }
    request.max_wait_ms <= 0 || request.topics.is_empty() || bytes >= least
}

/// Reads what is there now.
pub(crate) fn fetch(
    cluster: &mut Cluster,
    request: &FetchRequest,
    context: &Context,
) -> FetchResponse {
    // Sessions are not offered: an answer without one makes the client name all it wants each time.
    if request.session_epoch > 0 {
        let code = ResponseError::FetchSessionIdNotFound.code();
        return FetchResponse::default().with_error_code(code);
    }
    let mut left = usize::try_from(request.max_bytes).unwrap_or(0).min(RESPONSE_BYTES_MAX);
    let mut first = true;
    let mut responses = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let data = match find(cluster, topic, partition, context) {
                Err(code) => {
                    let name = name(cluster, topic, context).unwrap_or_default();
                    let log = cluster.topics.log(name, partition.partition).ok();
                    nothing(log, partition, code)
                }
                Ok(log) => read(log, partition, &range(request, partition, left, first)),
            };
            let bytes = data.records.as_ref().map_or(0, bytes::Bytes::len);
            left = left.saturating_sub(bytes);
            first &= bytes == 0;
            partitions.push(data);
        }
        let response = FetchableTopicResponse::default()
            .with_topic(topic.topic.clone())
            .with_topic_id(topic.topic_id)
            .with_partitions(partitions);
        responses.push(response);
    }
    FetchResponse::default().with_responses(responses)
}

fn range(request: &FetchRequest, partition: &FetchPartition, left: usize, first: bool) -> Range {
    let own = usize::try_from(partition.partition_max_bytes).unwrap_or(0);
    Range {
        from: partition.fetch_offset,
        isolation: Isolation::from(request.isolation_level),
        bytes_max: own.min(left),
        // Even a batch larger than all limits is read, so that the reader comes on.
        at_least_one: first || left == usize::MAX,
    }
}

fn name<'a>(
    cluster: &'a Cluster,
    topic: &'a FetchTopic,
    context: &Context,
) -> Result<&'a str, ResponseError> {
    if context.version < TOPIC_ID_VERSION_MIN {
        return Ok(topic.topic.as_str());
    }
    let known = Some(topic.topic_id).filter(|id| *id != Uuid::nil());
    let known = known.and_then(|id| cluster.topics.name(id));
    known.ok_or(ResponseError::UnknownTopicId)
}

fn find<'a>(
    cluster: &'a Cluster,
    topic: &'a FetchTopic,
    partition: &FetchPartition,
    context: &Context,
) -> Result<&'a Log, ResponseError> {
    let log = cluster.topics.log(name(cluster, topic, context)?, partition.partition)?;
    check_epoch(partition.current_leader_epoch)?;
    log.check(partition.fetch_offset)?;
    Ok(log)
}

fn check_epoch(epoch: i32) -> Result<(), ResponseError> {
    if epoch > LEADER_EPOCH { Err(ResponseError::UnknownLeaderEpoch) } else { Ok(()) }
}

fn read(log: &Log, partition: &FetchPartition, range: &Range) -> PartitionData {
    let slice = log.read(range);
    let aborted = slice.aborted.iter().map(|aborted| {
        AbortedTransaction::default()
            .with_producer_id(ProducerId(aborted.producer_id))
            .with_first_offset(aborted.first_offset)
    });
    let aborted = (range.isolation == Isolation::Committed).then(|| aborted.collect());
    data(partition, Some(log)).with_aborted_transactions(aborted).with_records(Some(slice.records))
}

/// A reader that is out of range is told the range.
fn nothing(log: Option<&Log>, partition: &FetchPartition, code: ResponseError) -> PartitionData {
    data(partition, log).with_error_code(code.code()).with_records(Some(bytes::Bytes::new()))
}

fn data(partition: &FetchPartition, log: Option<&Log>) -> PartitionData {
    PartitionData::default()
        .with_partition_index(partition.partition)
        .with_high_watermark(log.map_or(-1, Log::end))
        .with_last_stable_offset(log.map_or(-1, Log::last_stable))
        .with_log_start_offset(log.map_or(-1, Log::start))
        .with_preferred_read_replica(BrokerId(-1))
}

/// Looks offsets up: first, last, by time.
pub(crate) fn list_offsets(
    cluster: &mut Cluster,
    request: ListOffsetsRequest,
    context: &Context,
) -> ListOffsetsResponse {
    let isolation = Isolation::from(request.isolation_level);
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let answer = ListOffsetsPartitionResponse::default()
                .with_partition_index(partition.partition_index);
            match look_up(cluster, &topic.name, partition, isolation) {
                Err(refusal) => answer.with_error_code(refusal.code.code()),
                Ok(found) => {
                    let is_told = context.version >= EPOCH_VERSION_MIN && found.offset >= 0;
                    let epoch = if is_told { LEADER_EPOCH } else { -1 };
                    answer
                        .with_offset(found.offset)
                        .with_timestamp(found.timestamp)
                        .with_leader_epoch(epoch)
                }
            }
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn look_up(
    cluster: &Cluster,
    topic: &str,
    partition: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<Found, Refusal> {
    let log = cluster.topics.log(topic, partition.partition_index)?;
    check_epoch(partition.current_leader_epoch)?;
    let lookup = Lookup::from_timestamp(partition.timestamp)?;
    log.find(lookup, isolation, DECOMPRESSED_BYTES_MAX)
}

/// Says where epochs of leaders end: there is only one, and it ends where the log does.
pub(crate) fn offset_for_leader_epoch(
    cluster: &mut Cluster,
    request: OffsetForLeaderEpochRequest,
    _context: &Context,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let answer = EpochEndOffset::default().with_partition(asked.partition);
            let log = cluster.topics.log(&topic.topic, asked.partition);
            match log.and_then(|log| check_epoch(asked.current_leader_epoch).map(|()| log)) {
                Err(code) => answer.with_error_code(code.code()),
                Ok(log) if asked.leader_epoch == LEADER_EPOCH => {
                    answer.with_leader_epoch(LEADER_EPOCH).with_end_offset(log.end())
                }
                Ok(_) => answer,
            }
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}
