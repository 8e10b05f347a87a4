//! A worker's producer, and how a transaction ends.

use std::{
    ffi::CString,
    sync::Arc,
    time::{Duration, Instant},
};

use sidestream_core::{
    record::{Changes, NO_TIMESTAMP, Outputs, Timestamp},
    worker::{ChangelogEnd, LogError, Receipt, Transaction},
};

use super::{
    config::Config,
    connections::{NO_COORDINATOR, in_time, unanswered},
    consumer::Consumer,
    error::fatal_client,
    names::Names,
    native::{
        Code, FailedDelivery, Failure, GroupName, PartitionList, ProducerClient, ProducerRecord,
        Tag,
    },
};
use crate::crash_point::CrashPoint;

/// The producer of a worker.
///
/// ```text
/// Starting ── begin ──▶ Ready ◀──▶ Open ──▶ Broken ── begin anew ──▶ Starting
/// ```
pub(super) struct Producer {
    config: Arc<Config>,
    worker: usize,
    names: Names,
    group: GroupName,
    client: ProducerClient,
    state: State,
    /// How many outputs were produced in the open transaction.
    rows: usize,
}

/// Where the producer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The transactional id is not taken over yet.
    Starting,
    /// No transaction is open.
    Ready,
    /// A transaction is open.
    Open,
    /// Nobody knows how the last transaction ended: only a new producer can go on.
    Broken,
}

impl Producer {
    /// A producer that has yet to [`start`](Self::start).
    pub(super) fn new(config: &Arc<Config>, names: Names, worker: usize) -> Result<Self, LogError> {
        let c_string = |text: &str| {
            CString::new(text).map_err(|_| LogError::Fatal(format!("{text:?} has a zero byte")))
        };
        Ok(Self {
            client: ProducerClient::new(config.producer_client(worker)?),
            group: GroupName {
                group: c_string(&config.application)?,
                instance: c_string(&config.instance(worker))?,
            },
            config: Arc::clone(config),
            worker,
            names,
            state: State::Starting,
            rows: 0,
        })
    }

    /// Takes the transactional id over, which settles what its last owner left open.
    pub(super) fn start(&mut self) -> Result<(), LogError> {
        if self.state != State::Starting {
            return Ok(());
        }
        if self.config.exactly_once {
            self.client.init_transactions(self.config.request_timeout).map_err(|failure| {
                match failure.fatal {
                    // Another worker of this name took over at the same moment: once more.
                    true => {
                        self.state = State::Broken;
                        LogError::Unavailable(failure.to_string())
                    }
                    false => {
                        let doing = "taking the transactional id over";
                        unanswered(self.client.client(), doing, &failure, NO_COORDINATOR)
                    }
                }
            })?;
        }
        self.state = State::Ready;
        Ok(())
    }

    /// See [`Log::recover`](sidestream_core::worker::Log::recover).
    pub(super) fn recover(&mut self) -> Result<(), LogError> {
        if self.state != State::Starting {
            let client = self.config.producer_client(self.worker)?;
            self.client = ProducerClient::new(client);
            self.state = State::Starting;
        }
        self.start()
    }

    /// Serves delivery reports and errors.
    pub(super) fn serve(&self) {
        self.client.client().poll(Duration::ZERO);
        for (code, why) in self.client.client().context().take_errors() {
            tracing::debug!(?code, why, "the producer reported an error");
        }
    }

    /// See [`Log::produce`](sidestream_core::worker::Log::produce).
    pub(super) fn produce(&mut self, outputs: &Outputs) -> Result<(), LogError> {
        self.begin()?;
        self.enqueue_outputs(outputs)?;
        self.serve();
        Ok(())
    }

    fn begin(&mut self) -> Result<(), LogError> {
        match self.state {
            State::Open => return Ok(()),
            State::Ready => {}
            State::Starting | State::Broken => {
                return Err(LogError::Unknown("the producer has to be made anew".to_owned()));
            }
        }
        if self.config.exactly_once {
            self.client.begin_transaction().map_err(|failure| self.broken(&failure.message))?;
        }
        self.client.client().context().take_failed_delivery();
        self.rows = 0;
        self.state = State::Open;
        Ok(())
    }

    /// See [`Log::commit`](sidestream_core::worker::Log::commit).
    pub(super) fn commit(
        &mut self,
        transaction: &Transaction<'_>,
        consumer: &Consumer,
    ) -> Result<Receipt, LogError> {
        if let Some(why) = consumer.refuse(&transaction.membership, self.config.exactly_once) {
            return Err(self.drop_transaction(why));
        }
        if transaction.offsets.is_empty() {
            return Err(self.drop_transaction("a transaction without offsets".to_owned()));
        }
        self.begin()?;
        let started = Started {
            at: Instant::now(),
            connections: self.client.client().context().closed_connections(),
        };
        self.client.client().context().reset_deliveries(transaction.changes.len());
        self.enqueue_outputs(&transaction.outputs)?;
        for (slot, (partition, changes)) in transaction.changes.iter().enumerate() {
            self.enqueue_changes(slot, *partition, changes)?;
        }
        CrashPoint::AfterProduce.pass();
        match self.config.exactly_once {
            true => self.commit_exactly_once(transaction, &started)?,
            false => self.commit_at_least_once(transaction, consumer, &started)?,
        }
        self.state = State::Ready;
        let receipt = self.receipt(transaction)?;
        CrashPoint::BeforeApply.pass();
        Ok(receipt)
    }

    fn commit_exactly_once(
        &mut self,
        transaction: &Transaction<'_>,
        started: &Started,
    ) -> Result<(), LogError> {
        let offsets = self.offsets(transaction);
        let left = self.time_left(started);
        self.client
            .send_offsets(&offsets, &self.group, &transaction.membership, left)
            .map_err(|failure| self.failed(&failure))?;
        CrashPoint::AfterOffsets.pass();
        self.deliver(started)?;
        CrashPoint::BeforeEnd.pass();
        let left = self.time_left(started);
        // Whatever is answered now, the end was asked for: a coordinator that was restarted may have
        // carried it out and yet refuse its repetition.
        self.client.commit_transaction(left).map_err(|failure| self.broken(&failure.message))?;
        CrashPoint::AfterEnd.pass();
        // librdkafka repeats the end of a transaction after a lost connection; the first one may
        // still arrive and end the next transaction half-way.
        if self.client.client().context().closed_connections() != started.connections {
            return Err(self.broken("a connection was lost during the commit"));
        }
        if started.at.elapsed() > self.config.commit_timeout {
            return Err(self.broken("the commit took too long"));
        }
        Ok(())
    }

    fn commit_at_least_once(
        &mut self,
        transaction: &Transaction<'_>,
        consumer: &Consumer,
        started: &Started,
    ) -> Result<(), LogError> {
        self.deliver(started)?;
        CrashPoint::BeforeEnd.pass();
        let offsets = self.offsets(transaction);
        consumer
            .client()
            .commit(&offsets, self.time_left(started))
            .map_err(|failure| self.failed(&failure))?;
        CrashPoint::AfterEnd.pass();
        Ok(())
    }

    /// Waits until everything is delivered, and checks that it was.
    fn deliver(&mut self, started: &Started) -> Result<(), LogError> {
        let flushed = self.client.flush(self.time_left(started));
        if let Some(failed) = self.client.client().context().failed_delivery() {
            return Err(self.undelivered(&failed));
        }
        let time_max = self.config.commit_timeout;
        flushed.map_err(|failure| self.failed(&in_time("delivering records", failure, time_max)))
    }

    fn offsets(&self, transaction: &Transaction<'_>) -> PartitionList {
        let mut list = PartitionList::new();
        for (partition, committed) in &transaction.offsets {
            list.add_metadata(
                self.names.c_name(partition.topic),
                partition.partition,
                committed.offset,
                committed.metadata.as_bytes(),
            );
        }
        list
    }

    fn receipt(&mut self, transaction: &Transaction<'_>) -> Result<Receipt, LogError> {
        let ends = self.client.client().context().changelog_ends();
        let mut receipt = Receipt::default();
        for ((partition, changes), last) in transaction.changes.iter().zip(ends) {
            if changes.is_empty() {
                continue;
            }
            if last < 0 {
                return Err(self.broken("a change was not reported as delivered"));
            }
            // Produce answers carry no leader epoch.
            let end = ChangelogEnd { next: last + 1, leader_epoch: -1 };
            receipt.changelog_ends.push((*partition, end));
        }
        Ok(receipt)
    }

    /// See [`Log::abort`](sidestream_core::worker::Log::abort).
    pub(super) fn abort(&mut self) -> Result<(), LogError> {
        match self.state {
            State::Ready | State::Starting => return Ok(()),
            State::Open => {}
            State::Broken => {
                return Err(LogError::Unknown("the producer has to be made anew".to_owned()));
            }
        }
        let connections = self.client.client().context().closed_connections();
        if self.config.exactly_once {
            self.client
                .abort_transaction(self.config.commit_timeout)
                .map_err(|failure| self.broken(&failure.message))?;
        } else {
            self.client.purge();
        }
        self.serve();
        if self.client.client().context().closed_connections() != connections {
            return Err(self.broken("a connection was lost during the abort"));
        }
        self.client.client().context().take_failed_delivery();
        self.state = State::Ready;
        Ok(())
    }

    /// The transaction can't be committed: aborts it and says so.
    fn drop_transaction(&mut self, why: String) -> LogError {
        match self.abort() {
            Ok(()) => LogError::Aborted(why),
            Err(error) => error,
        }
    }

    /// A call within a transaction failed before its end was asked for.
    fn failed(&mut self, failure: &Failure) -> LogError {
        if failure.fatal || self.client.client().fatal_error().is_some() {
            return self.broken(&failure.message);
        }
        let aborted = self.drop_transaction(failure.message.clone());
        match failure.code {
            Code::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID => fatal_client(failure),
            _ => aborted,
        }
    }

    fn broken(&mut self, why: &str) -> LogError {
        self.state = State::Broken;
        LogError::Unknown(why.to_owned())
    }

    fn undelivered(&mut self, failed: &FailedDelivery) -> LogError {
        let failure = Failure::check(failed.code).err();
        let message = failure.map_or_else(String::new, |failure| failure.message);
        let message = format!("topic {}: {message}", failed.topic);
        match failed.tag {
            Tag::Output(row) if is_refusal(failed.code) => {
                LogError::Refused { row: failed.is_only.then_some(row), message }
            }
            Tag::Output(_) | Tag::Change(_) => self.failed(&Failure::new(failed.code, message)),
        }
    }

    fn enqueue_outputs(&mut self, outputs: &Outputs) -> Result<(), LogError> {
        let first = self.rows;
        self.rows += outputs.len();
        let headers = &outputs.headers;
        let mut pairs = headers
            .names
            .iter()
            .zip(&headers.values)
            .map(|(name, value)| (name.unwrap_or_default(), value));
        let mut row_headers = Vec::new();
        let rows = outputs.keys.iter().zip(&outputs.values).enumerate();
        for (row, (key, value)) in rows {
            let count = headers.counts.get(row).map_or(0, |&count| count as usize);
            row_headers.clear();
            row_headers.extend(pairs.by_ref().take(count));
            let topic = outputs.topics[row];
            self.client.open_topic(usize::from(topic.0), self.names.c_name(topic));
            let Some(timestamp) = timestamp(outputs.timestamps[row]) else {
                let message = format!("the timestamp {} is negative", outputs.timestamps[row]);
                return Err(LogError::Refused { row: Some(first + row), message });
            };
            let record = ProducerRecord {
                topic: usize::from(topic.0),
                partition: outputs.partitions[row],
                timestamp,
                key,
                value,
                headers: &row_headers,
                tag: Tag::Output(first + row),
            };
            if let Err(failure) = self.client.produce(record, self.config.commit_timeout) {
                let message = format!("topic {}: {failure}", self.names.name(topic));
                return Err(match is_refusal(failure.code) {
                    true => LogError::Refused { row: Some(first + row), message },
                    false => self.failed(&Failure { message, ..failure }),
                });
            }
        }
        Ok(())
    }

    fn enqueue_changes(
        &mut self,
        slot: usize,
        partition: sidestream_core::record::TopicPartition,
        changes: &Changes,
    ) -> Result<(), LogError> {
        let topic = usize::from(partition.topic.0);
        self.client.open_topic(topic, self.names.c_name(partition.topic));
        for (key, value) in changes.keys.iter().zip(&changes.values) {
            let record = ProducerRecord {
                topic,
                partition: partition.partition,
                timestamp: 0,
                key,
                value,
                headers: &[],
                tag: Tag::Change(slot),
            };
            if let Err(failure) = self.client.produce(record, self.config.commit_timeout) {
                let message = format!("topic {}: {failure}", self.names.name(partition.topic));
                return Err(match is_refusal(failure.code) {
                    true => LogError::Refused { row: None, message },
                    false => self.failed(&Failure { message, ..failure }),
                });
            }
        }
        Ok(())
    }

    fn time_left(&self, started: &Started) -> Duration {
        self.config.commit_timeout.saturating_sub(started.at.elapsed())
    }
}

/// When a commit began, and how many connections had been lost by then.
struct Started {
    at: Instant,
    connections: u64,
}

/// As librdkafka takes it, for which 0 means now. The first millisecond of 1970 becomes the
/// second; a record without a time gets the present one; other negative times are refused.
fn timestamp(timestamp: Timestamp) -> Option<Timestamp> {
    match timestamp {
        NO_TIMESTAMP => Some(0),
        0.. => Some(timestamp.max(1)),
        _ => None,
    }
}

/// Whether no repetition can make a broker take this record.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE
            | Code::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE
            | Code::RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE
            | Code::RD_KAFKA_RESP_ERR_INVALID_MSG
            | Code::RD_KAFKA_RESP_ERR_INVALID_RECORD
            | Code::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP
            | Code::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION
            | Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
            | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
            | Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
    )
}
