//! Producers' ids and their transactions.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
        AddPartitionsToTxnResponse, DescribeTransactionsRequest, DescribeTransactionsResponse,
        EndTxnRequest, EndTxnResponse, InitProducerIdRequest, InitProducerIdResponse,
        ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId,
        add_partitions_to_txn_response::{
            AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
        },
        describe_transactions_response::{self, TopicData},
        list_transactions_response,
    },
};

use super::{Context, text, topic_name};
use crate::{
    cluster::Cluster,
    log::{Outcome, Writer},
    refusal::bare_code,
    topics::TopicPartition,
    transactions::{Init, Transaction},
};

/// Older clients know a producer that was shut out by another code.
fn fenced(code: ResponseError, version: i16, version_min: i16) -> ResponseError {
    let old = code == ResponseError::ProducerFenced && version < version_min;
    if old { ResponseError::InvalidProducerEpoch } else { code }
}

/// Gives out a producer id; with a transactional id, the next epoch of its own.
pub(crate) fn init_producer_id(
    cluster: &mut Cluster,
    request: InitProducerIdRequest,
    context: &Context,
) -> InitProducerIdResponse {
    let outcome = match &request.transactional_id {
        None => Ok(cluster.transactions.new_producer()),
        Some(id) => {
            let (producer_id, epoch) = (request.producer_id.0, request.producer_epoch);
            let current = (producer_id >= 0).then_some(Writer { producer_id, epoch });
            let init = Init { id, timeout_ms: request.transaction_timeout_ms, current };
            let (outcome, ended) = cluster.transactions.init(&init, context.now_ms);
            if let Some(ended) = ended {
                cluster.finish(&ended, context.now_ms);
            }
            outcome.map_err(|code| fenced(code, context.version, 4))
        }
    };
    let writer = outcome.unwrap_or(Writer { producer_id: -1, epoch: -1 });
    InitProducerIdResponse::default()
        .with_error_code(bare_code(outcome))
        .with_producer_id(ProducerId(writer.producer_id))
        .with_producer_epoch(writer.epoch)
}

/// Adds partitions to a transaction: all of them, or none if one is not there.
pub(crate) fn add_partitions(
    cluster: &mut Cluster,
    request: AddPartitionsToTxnRequest,
    context: &Context,
) -> AddPartitionsToTxnResponse {
    let id = request.v3_and_below_transactional_id.as_str();
    let producer_id = request.v3_and_below_producer_id.0;
    let writer = Writer { producer_id, epoch: request.v3_and_below_producer_epoch };
    let topics = &request.v3_and_below_topics;
    let all = || {
        topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|partition| TopicPartition::new(&topic.name, *partition))
        })
    };
    let is_there = |at: &TopicPartition| cluster.topics.log(&at.topic, at.partition).is_ok();
    let missing: Vec<_> = all().filter(|at| !is_there(at)).collect();
    let outcome = if missing.is_empty() {
        let added = cluster.transactions.add_partitions(id, writer, all(), context.now_ms);
        added.map_err(|code| fenced(code, context.version, 2))
    } else {
        Err(ResponseError::OperationNotAttempted)
    };
    let result = |at: TopicPartition| {
        let unknown = missing.contains(&at).then_some(ResponseError::UnknownTopicOrPartition);
        AddPartitionsToTxnPartitionResult::default()
            .with_partition_index(at.partition)
            .with_partition_error_code(bare_code(unknown.map_or(outcome, Err)))
    };
    let results = topics.iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let results = partitions.map(|index| result(TopicPartition::new(&topic.name, *index)));
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(results.collect())
    });
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results.collect())
}

/// Adds a group's offsets to a transaction.
pub(crate) fn add_offsets(
    cluster: &mut Cluster,
    request: AddOffsetsToTxnRequest,
    context: &Context,
) -> AddOffsetsToTxnResponse {
    let (id, group) = (request.transactional_id.as_str(), request.group_id.as_str());
    let writer = Writer { producer_id: request.producer_id.0, epoch: request.producer_epoch };
    let outcome = match group.is_empty() {
        true => Err(ResponseError::InvalidGroupId),
        false => cluster.transactions.add_offsets(id, writer, group, context.now_ms),
    };
    let outcome = outcome.map_err(|code| fenced(code, context.version, 2));
    AddOffsetsToTxnResponse::default().with_error_code(bare_code(outcome))
}

/// Ends a transaction.
pub(crate) fn end(
    cluster: &mut Cluster,
    request: EndTxnRequest,
    context: &Context,
) -> EndTxnResponse {
    let writer = Writer { producer_id: request.producer_id.0, epoch: request.producer_epoch };
    let outcome = if request.committed { Outcome::Committed } else { Outcome::Aborted };
    let ended = cluster.end_transaction(&request.transactional_id, writer, outcome, context.now_ms);
    let ended = ended.map_err(|code| fenced(code, context.version, 2));
    EndTxnResponse::default().with_error_code(bare_code(ended))
}

/// Lists transactional ids, by state, producer and age.
pub(crate) fn list(
    cluster: &mut Cluster,
    request: ListTransactionsRequest,
    context: &Context,
) -> ListTransactionsResponse {
    let states = &request.state_filters;
    let in_state = |transaction: &Transaction| {
        let name = transaction.state.name();
        states.is_empty() || states.iter().any(|state| state.as_str() == name)
    };
    let producers = &request.producer_id_filters;
    let of_producer = |transaction: &Transaction| {
        producers.is_empty() || producers.contains(&ProducerId(transaction.writer.producer_id))
    };
    let old = |transaction: &Transaction| {
        let open_ms = context.now_ms - transaction.started_ms;
        request.duration_filter < 0
            || (transaction.started_ms >= 0 && open_ms >= request.duration_filter)
    };
    let found = cluster.transactions.iter().filter(|(_, transaction)| {
        in_state(transaction) && of_producer(transaction) && old(transaction)
    });
    let found = found.map(|(id, transaction)| {
        list_transactions_response::TransactionState::default()
            .with_transactional_id(TransactionalId(text(id)))
            .with_producer_id(ProducerId(transaction.writer.producer_id))
            .with_transaction_state(text(transaction.state.name()))
    });
    ListTransactionsResponse::default().with_transaction_states(found.collect())
}

/// Describes transactional ids.
pub(crate) fn describe(
    cluster: &mut Cluster,
    request: DescribeTransactionsRequest,
    _context: &Context,
) -> DescribeTransactionsResponse {
    let states = request.transactional_ids.into_iter().map(|id| {
        let Some(transaction) = cluster.transactions.get(&id) else {
            return describe_transactions_response::TransactionState::default()
                .with_transactional_id(id)
                .with_error_code(ResponseError::TransactionalIdNotFound.code());
        };
        let mut topics: Vec<TopicData> = Vec::new();
        for at in &transaction.partitions {
            match topics.last_mut().filter(|topic| topic.topic.as_str() == at.topic) {
                Some(topic) => topic.partitions.push(at.partition),
                None => topics.push(
                    TopicData::default()
                        .with_topic(topic_name(&at.topic))
                        .with_partitions(vec![at.partition]),
                ),
            }
        }
        describe_transactions_response::TransactionState::default()
            .with_transactional_id(id)
            .with_transaction_state(text(transaction.state.name()))
            .with_transaction_timeout_ms(transaction.timeout_ms)
            .with_transaction_start_time_ms(transaction.started_ms)
            .with_producer_id(ProducerId(transaction.writer.producer_id))
            .with_producer_epoch(transaction.writer.epoch)
            .with_topics(topics)
    });
    DescribeTransactionsResponse::default().with_transaction_states(states.collect())
}
