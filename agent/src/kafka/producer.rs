//! A worker's producer, and how a transaction ends.

use std::{
    ffi::CString,
    sync::Arc,
    time::{Duration, Instant},
};

use sidestream_core::{
    record::{Changes, NO_TIMESTAMP, Outputs, Timestamp, TopicIndex, TopicPartition},
    task::SEEN_HEADER,
    worker::{Fault, LogError, Receipt, Refusal, Suspects, Transaction},
};

use super::{
    config::Config,
    connections::{NO_COORDINATOR, in_time, unanswered},
    consumer::Consumer,
    error::remedy,
    names::Names,
    native::{
        Code, FailedDelivery, Failure, GroupName, PartitionList, ProducerClient, ProducerRecord,
        Tag,
    },
    refusal::{advice, fault},
};
use crate::crash_point::CrashPoint;

/// How many records may be on their way together, once one of several was refused: so many times
/// fewer than were suspected, and more again with each commit, until it is this many.
const NARROWER: usize = 8;
const TOGETHER_MAX: usize = 10_000;

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
    /// Why the last client can't be used any more.
    why_broken: String,
    /// How many outputs were produced in the open transaction.
    rows: usize,
    /// The changelog partitions of the transaction that is committed, as its tags count them.
    changelogs: Vec<TopicPartition>,
    /// How many records are sent before their delivery is waited for: all, unless one of several
    /// was refused.
    together: usize,
    /// How many were sent since.
    sent: usize,
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
            why_broken: String::new(),
            rows: 0,
            changelogs: Vec::new(),
            together: usize::MAX,
            sent: 0,
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
        self.start()?;
        let (worker, reason) = (self.worker, std::mem::take(&mut self.why_broken));
        tracing::warn!(
            worker,
            reason,
            "the producer was replaced; its last transaction is settled"
        );
        Ok(())
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
        match self.client.client().context().failed_delivery() {
            Some(failed) => Err(self.undelivered(&failed)),
            None => Ok(()),
        }
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
        self.client.client().context().take_not_added();
        (self.rows, self.sent) = (0, 0);
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
        self.changelogs = transaction.changes.iter().map(|(partition, _)| *partition).collect();
        self.enqueue_outputs(&transaction.outputs)?;
        for (slot, (_, changes)) in transaction.changes.iter().enumerate() {
            let seen = transaction.seen.get(slot).copied().unwrap_or_default();
            self.enqueue_changes(slot, changes, seen)?;
        }
        CrashPoint::AfterProduce.pass();
        match self.config.exactly_once {
            true => self.commit_exactly_once(transaction, &started)?,
            false => self.commit_at_least_once(transaction, consumer, &started)?,
        }
        self.state = State::Ready;
        self.together = match self.together.saturating_mul(NARROWER) {
            more if more > TOGETHER_MAX => usize::MAX,
            more => more,
        };
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
            .map_err(|failure| self.offsets_failed(&failure, transaction))?;
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
            receipt.changelog_ends.push((*partition, last + 1));
        }
        Ok(receipt)
    }

    /// See [`Log::abort`](sidestream_core::worker::Log::abort).
    pub(super) fn abort(&mut self) -> Result<(), LogError> {
        self.abort_open().map(drop)
    }

    /// Aborts what is open. Returns what had not been delivered of it.
    fn abort_open(&mut self) -> Result<Option<FailedDelivery>, LogError> {
        match self.state {
            State::Ready | State::Starting => return Ok(None),
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
        self.state = State::Ready;
        Ok(self.client.client().context().take_failed_delivery())
    }

    /// The transaction can't be committed: aborts it and says so.
    fn drop_transaction(&mut self, why: String) -> LogError {
        match self.abort() {
            Ok(()) => LogError::Aborted(why),
            Err(error) => error,
        }
    }

    /// A call within a transaction failed before its end was asked for. It may be the consequence
    /// of a record that was refused, of which the abort tells.
    fn failed(&mut self, failure: &Failure) -> LogError {
        if failure.fatal || self.client.client().fatal_error().is_some() {
            return self.broken(&failure.message);
        }
        let aborted = match self.abort_open() {
            Ok(failed) => failed.and_then(|failed| self.refusal(&failed)),
            Err(error) => return error,
        };
        aborted.unwrap_or_else(|| {
            let advice = remedy(failure.code).map_or_else(String::new, |text| format!("; {text}"));
            LogError::Aborted(format!("{failure}{advice}"))
        })
    }

    /// The offsets could not be made part of the transaction. Whether another process has taken
    /// this one's identity, the consumer finds out.
    fn offsets_failed(&mut self, failure: &Failure, transaction: &Transaction<'_>) -> LogError {
        if let Code::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE = failure.code
            && let Some((partition, _)) =
                transaction.offsets.iter().max_by_key(|(_, committed)| committed.metadata.len())
        {
            let suspects = Suspects::Offset(*partition);
            return refused(failure, suspects, Fault::Lasting, false);
        }
        self.serve();
        if let Some(failed) = self.client.client().context().failed_delivery() {
            return self.undelivered(&failed);
        }
        self.failed_for_good(failure).unwrap_or_else(|| self.failed(failure))
    }

    /// A transaction that can only be aborted, since one of its topics may not be written or read.
    fn failed_for_good(&self, failure: &Failure) -> Option<LogError> {
        let fault = fault(failure.code, false).filter(|fault| !fault.is_of_record())?;
        let context = self.client.client().context();
        let message = context.take_not_added().unwrap_or_else(|| failure.message.clone());
        let failure = Failure { message, ..failure.clone() };
        Some(refused(&failure, Suspects::Anything, fault, false))
    }

    fn broken(&mut self, why: &str) -> LogError {
        self.state = State::Broken;
        why.clone_into(&mut self.why_broken);
        LogError::Unknown(why.to_owned())
    }

    /// Some records were not delivered.
    fn undelivered(&mut self, failed: &FailedDelivery) -> LogError {
        if let Some(refusal) = self.refusal(failed) {
            return refusal;
        }
        let cause = match self.config.exactly_once && failed.is_consequence() {
            true => self.client.transaction_error(),
            false => None,
        };
        if let Some(refusal) = cause.as_ref().and_then(|cause| self.failed_for_good(cause)) {
            return refusal;
        }
        let why = describe_delivery(failed);
        self.failed(&cause.unwrap_or_else(|| Failure::new(failed.code, why)))
    }

    /// What was refused, if records were. Where it is one of several, they are sent apart from now
    /// on.
    fn refusal(&mut self, failed: &FailedDelivery) -> Option<LogError> {
        let is_change = matches!(failed.tags.first(), Some(Tag::Change(..)));
        let fault = fault(failed.code, is_change)?;
        let (mut rows, mut changelog) = (Vec::new(), None);
        for tag in &failed.tags {
            match *tag {
                Tag::Output(row) if !is_change => rows.push(row),
                Tag::Change(slot, row) if is_change => {
                    changelog = changelog.or_else(|| self.changelogs.get(slot).copied());
                    rows.push(row);
                }
                Tag::Output(_) | Tag::Change(..) => {}
            }
        }
        if rows.len() > 1 && fault.is_of_record() {
            self.together = self.together.min(rows.len()).div_ceil(NARROWER);
        }
        let suspects = match changelog {
            Some(partition) => Suspects::Changes(partition, rows),
            None => Suspects::Outputs(rows),
        };
        let failure = Failure::new(failed.code, describe_delivery(failed));
        Some(refused(&failure, suspects, fault, is_change))
    }

    /// A record was not taken. That may be the consequence of another one that was not delivered.
    fn not_taken(&mut self, tag: Tag, topic: TopicIndex, failure: &Failure) -> LogError {
        self.serve();
        if let Some(failed) = self.client.client().context().failed_delivery() {
            return self.undelivered(&failed);
        }
        let message = format!("topic {}: {failure}", self.names.name(topic));
        let failure = Failure { message, ..failure.clone() };
        let (suspects, is_change) = match tag {
            Tag::Output(row) => (Suspects::Outputs(vec![row]), false),
            Tag::Change(slot, row) => (Suspects::Changes(self.changelogs[slot], vec![row]), true),
        };
        match fault(failure.code, is_change) {
            Some(fault) => refused(&failure, suspects, fault, is_change),
            None => self.failed(&failure),
        }
    }

    /// Hands a record over. Where one of those sent together was refused before, waits for the last
    /// few to be delivered, so that it can be told which.
    fn enqueue(&mut self, topic: TopicIndex, record: ProducerRecord<'_>) -> Result<(), LogError> {
        let timeout = self.config.commit_timeout;
        self.client
            .produce(record, timeout)
            .map_err(|failure| self.not_taken(record.tag, topic, &failure))?;
        self.sent += 1;
        if self.sent < self.together {
            return Ok(());
        }
        self.sent = 0;
        let flushed = self.client.flush(timeout);
        if let Some(failed) = self.client.client().context().failed_delivery() {
            return Err(self.undelivered(&failed));
        }
        flushed.map_err(|failure| self.failed(&failure))
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
                let time = outputs.timestamps[row];
                let name = self.names.name(topic);
                return Err(LogError::Refused(Refusal {
                    suspects: Suspects::Outputs(vec![first + row]),
                    fault: Fault::Time,
                    message: format!("topic {name}: the timestamp {time} is negative"),
                }));
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
            self.enqueue(topic, record)?;
        }
        Ok(())
    }

    fn enqueue_changes(
        &mut self,
        slot: usize,
        changes: &Changes,
        seen: &str,
    ) -> Result<(), LogError> {
        let TopicPartition { topic, partition } = self.changelogs[slot];
        self.client.open_topic(usize::from(topic.0), self.names.c_name(topic));
        let header = [(SEEN_HEADER.as_bytes(), Some(seen.as_bytes()))];
        for (row, (key, value)) in changes.keys.iter().zip(&changes.values).enumerate() {
            let is_told = row + 1 == changes.len() && !seen.is_empty();
            let record = ProducerRecord {
                topic: usize::from(topic.0),
                partition,
                timestamp: 0,
                key,
                value,
                headers: if is_told { &header } else { &[] },
                tag: Tag::Change(slot, row),
            };
            self.enqueue(topic, record)?;
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

/// Where records were not delivered to, and why.
fn describe_delivery(failed: &FailedDelivery) -> String {
    let FailedDelivery { code, topic, partition, .. } = failed;
    let why = Failure::check(*code).err().map_or_else(String::new, |failure| failure.message);
    format!("topic {topic} [{partition}]: {why}")
}

fn refused(failure: &Failure, suspects: Suspects, fault: Fault, is_change: bool) -> LogError {
    let message = match advice(failure.code, is_change) {
        Some(advice) => format!("{failure}; {advice}"),
        None => failure.to_string(),
    };
    LogError::Refused(Refusal { suspects, fault, message })
}
