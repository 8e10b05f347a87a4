//! Requests by hand, for what no client would send.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    error::{ParseResponseErrorCode, ResponseError},
    indexmap::IndexMap,
    messages::{
        AddPartitionsToTxnRequest, ApiKey, EndTxnRequest, FindCoordinatorRequest,
        InitProducerIdRequest, ProduceRequest, ProducerId, RequestHeader, ResponseHeader,
        TopicName, TransactionalId,
        add_partitions_to_txn_request::AddPartitionsToTxnTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::PartitionProduceResponse,
    },
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
    records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType},
};

use super::PATIENCE;
use crate::wait;

/// Errors that pass by themselves: the coordinator is still being made, or is still at work on
/// the transaction before.
const PASSING: &[ResponseError] = &[
    ResponseError::CoordinatorLoadInProgress,
    ResponseError::CoordinatorNotAvailable,
    ResponseError::NotCoordinator,
    ResponseError::ConcurrentTransactions,
];

/// A connection to the only broker there is.
pub(super) struct Wire {
    stream: TcpStream,
    correlation_id: i32,
}

impl Wire {
    pub(super) fn connect(bootstrap: &str) -> Result<Self> {
        let stream = TcpStream::connect(bootstrap)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, correlation_id: 0 })
    }

    /// Sends a request and waits for its answer.
    pub(super) fn call<Q: Request>(&mut self, version: i16, request: &Q) -> Result<Q::Response> {
        self.send(version, request)?;
        self.receive::<Q>(version)
    }

    /// Sends a request whose answer is read later.
    pub(super) fn send<Q: Request>(&mut self, version: i16, request: &Q) -> Result<()> {
        self.correlation_id += 1;
        let mut frame = BytesMut::from(&[0; 4][..]);
        let header = RequestHeader::default()
            .with_request_api_key(Q::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("checks")));
        header.encode(&mut frame, Q::header_version(version))?;
        request.encode(&mut frame, version)?;
        let length = u32::try_from(frame.len() - 4)?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok(self.stream.write_all(&frame)?)
    }

    /// The answer to the request that was sent last.
    pub(super) fn receive<Q: Request>(&mut self, version: i16) -> Result<Q::Response> {
        let mut length = [0; 4];
        let key = ApiKey::try_from(Q::KEY).map_err(|()| anyhow!("no request {}", Q::KEY))?;
        let what = || format!("no answer to {key:?} {version}");
        self.stream.read_exact(&mut length).with_context(what)?;
        let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length))?];
        self.stream.read_exact(&mut answer)?;
        let mut answer = Bytes::from(answer);
        let header_version = <Q::Response as HeaderVersion>::header_version(version);
        let header = ResponseHeader::decode(&mut answer, header_version)?;
        ensure!(header.correlation_id == self.correlation_id, "an answer to another request");
        Q::Response::decode(&mut answer, version)
    }

    /// Sends a frame as it is, and waits for one.
    pub(super) fn raw(&mut self, frame: &[u8]) -> Result<Vec<u8>> {
        self.stream.write_all(&u32::try_from(frame.len())?.to_be_bytes())?;
        self.stream.write_all(frame)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length))?];
        self.stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    /// Repeats a request while its error is one that passes by itself.
    pub(super) fn settled<Q: Request>(
        &mut self,
        version: i16,
        request: &Q,
        code: impl Fn(&Q::Response) -> i16,
    ) -> Result<Q::Response> {
        wait::until("settled answer", PATIENCE, || {
            let answer = self.call(version, request)?;
            let passing = code(&answer).err().is_some_and(|error| PASSING.contains(&error));
            Ok((!passing).then_some(answer))
        })
    }

    /// Waits until there is a coordinator for a group (0) or a transactional id (1).
    pub(super) fn coordinator(&mut self, key: &str, key_type: i8) -> Result<()> {
        let request = FindCoordinatorRequest::default().with_key(text(key)).with_key_type(key_type);
        let answer = self.settled(3, &request, |answer| answer.error_code)?;
        expect(answer.error_code, None)
    }

    /// A producer id; with a transactional id, its next epoch.
    pub(super) fn producer(&mut self, transactional_id: Option<&str>) -> Result<Producer> {
        if let Some(id) = transactional_id {
            self.coordinator(id, 1)?;
        }
        let request = InitProducerIdRequest::default()
            .with_transactional_id(transactional_id.map(|id| TransactionalId(text(id))))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let answer = self.settled(4, &request, |answer| answer.error_code)?;
        expect(answer.error_code, None)?;
        Ok(Producer {
            transactional_id: transactional_id.map(str::to_owned),
            id: answer.producer_id.0,
            epoch: answer.producer_epoch,
        })
    }

    /// Sends a batch to a partition.
    pub(super) fn produce(
        &mut self,
        (topic, partition): (&str, i32),
        transactional_id: Option<&str>,
        records: Bytes,
    ) -> Result<PartitionProduceResponse> {
        let data =
            PartitionProduceData::default().with_index(partition).with_records(Some(records));
        let topic =
            TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_transactional_id(transactional_id.map(|id| TransactionalId(text(id))))
            .with_acks(-1)
            .with_timeout_ms(10_000)
            .with_topic_data(vec![topic]);
        let answer = self.call(9, &request)?;
        let topic = answer.responses.into_iter().next().context("no topic in the answer")?;
        topic.partition_responses.into_iter().next().context("no partition in the answer")
    }

    /// Adds partition 0 of a topic to a transaction; the error's code.
    pub(super) fn add_partition(&mut self, producer: &Producer, topic: &str) -> Result<i16> {
        let topic =
            AddPartitionsToTxnTopic::default().with_name(name(topic)).with_partitions(vec![0]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(producer.transactional_id())
            .with_v3_and_below_producer_id(ProducerId(producer.id))
            .with_v3_and_below_producer_epoch(producer.epoch)
            .with_v3_and_below_topics(vec![topic]);
        let code = |answer: &kafka_protocol::messages::AddPartitionsToTxnResponse| {
            let topic = answer.results_by_topic_v3_and_below.first();
            let result = topic.and_then(|topic| topic.results_by_partition.first());
            result.map_or(-1, |result| result.partition_error_code)
        };
        Ok(code(&self.settled(3, &request, code)?))
    }

    /// Ends a transaction; the error's code.
    pub(super) fn end(&mut self, producer: &Producer, commit: bool) -> Result<i16> {
        let request = EndTxnRequest::default()
            .with_transactional_id(producer.transactional_id())
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_committed(commit);
        Ok(self.settled(3, &request, |answer| answer.error_code)?.error_code)
    }
}

/// A producer by hand.
#[derive(Clone, Debug)]
pub(super) struct Producer {
    pub(super) transactional_id: Option<String>,
    pub(super) id: i64,
    pub(super) epoch: i16,
}

impl Producer {
    pub(super) fn transactional_id(&self) -> TransactionalId {
        TransactionalId(text(self.transactional_id.as_deref().unwrap_or_default()))
    }

    /// A batch of one record with each of these numbers, which follow on one another.
    pub(super) fn batch(&self, sequences: std::ops::RangeInclusive<i32>) -> Result<Bytes> {
        let first = *sequences.start();
        let record = |sequence: i32| Record {
            transactional: self.transactional_id.is_some(),
            producer_id: self.id,
            producer_epoch: self.epoch,
            sequence,
            offset: i64::from(sequence - first),
            ..plain(&sequence.to_string())
        };
        encode(&sequences.map(record).collect::<Vec<_>>())
    }
}

/// A record with a key and no more.
pub(super) fn plain(value: &str) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset: 0,
        sequence: -1,
        timestamp: 1_700_000_000_000,
        key: Some(Bytes::from_static(b"key")),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: IndexMap::new(),
    }
}

/// Records as a batch.
pub(super) fn encode(records: &[Record]) -> Result<Bytes> {
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode(&mut bytes, records, &options)?;
    Ok(bytes.freeze())
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) fn name(topic: &str) -> TopicName {
    TopicName(text(topic))
}

/// Whether an answer has the error that it should have; none for success.
#[track_caller]
pub(super) fn expect(code: i16, expected: Option<ResponseError>) -> Result<()> {
    let (found, at) = (code.err(), std::panic::Location::caller().line());
    ensure!(found == expected, "line {at}: {found:?} instead of {expected:?}");
    Ok(())
}
