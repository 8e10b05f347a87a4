//! A worker's producer, and how a transaction ends.

mod enqueue;
mod failed;

use std::{
    ffi::CString,
    sync::Arc,
    time::{Duration, Instant},
};

use sidestream_core::{
    ports::{PortError, Receipt, Transaction, TransactionError},
    record::{Outputs, TopicPartition},
};

use super::{
    config::Config,
    connections::{NO_COORDINATOR, unanswered},
    names::Names,
    native::{Code, FailedDelivery, GroupName, ProducerClient},
    offsets::committed_list,
};
use crate::crash_point::CrashPoint;

/// How many records may be on their way together, once one of several was refused: so many times
/// fewer than were suspected, and more again with each commit, until it is this many.
const NARROWER: usize = 8;
const TOGETHER_MAX: usize = 10_000;

/// What is waited for while brokers can't write the markers of the transaction before.
const STILL_ENDING: &str = "the brokers have not ended the worker's last transaction yet: a partition \
    that it wrote to may have no leader, or too few replicas in sync";

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
    pub(super) fn new(
        config: &Arc<Config>,
        names: Names,
        worker: usize,
    ) -> Result<Self, PortError> {
        let c_string = |text: &str| {
            CString::new(text).map_err(|_| PortError::Fatal(format!("{text:?} has a zero byte")))
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
    pub(super) fn start(&mut self) -> Result<(), PortError> {
        if self.state != State::Starting {
            return Ok(());
        }
        if self.config.exactly_once {
            self.client.init_transactions(self.config.request_timeout).map_err(|failure| {
                match failure.fatal {
                    // Another worker of this name took over at the same moment: once more.
                    true => {
                        self.state = State::Broken;
                        PortError::Unavailable(failure.to_string())
                    }
                    false if failure.code == Code::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS => {
                        PortError::Unavailable(STILL_ENDING.to_owned())
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

    /// See [`Sink::recover`](sidestream_core::ports::Sink::recover).
    pub(super) fn recover(&mut self) -> Result<(), PortError> {
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

    /// See [`Sink::produce`](sidestream_core::ports::Sink::produce).
    pub(super) fn produce(&mut self, outputs: &Outputs) -> Result<(), TransactionError> {
        self.begin()?;
        self.enqueue_outputs(outputs)?;
        self.serve();
        match self.client.client().context().failed_delivery() {
            Some(failed) => Err(self.undelivered(&failed)),
            None => Ok(()),
        }
    }

    fn begin(&mut self) -> Result<(), TransactionError> {
        match self.state {
            State::Open => return Ok(()),
            State::Ready => {}
            State::Starting | State::Broken => {
                return Err(TransactionError::Unknown(
                    "the producer has to be made anew".to_owned(),
                ));
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

    /// See [`Sink::commit`](sidestream_core::ports::Sink::commit).
    pub(super) fn commit(
        &mut self,
        transaction: &Transaction<'_>,
    ) -> Result<Receipt, TransactionError> {
        // Brokers take what nobody commits unchecked.
        if !transaction.membership.is_in_group() {
            let why = "the worker is not a member of the group".to_owned();
            return Err(self.drop_transaction(why));
        }
        let started = self.produce_rest(transaction)?;
        self.end_transaction(transaction, &started)?;
        let receipt = self.receipt(transaction)?;
        CrashPoint::BeforeApply.pass();
        Ok(receipt)
    }

    /// See [`Sink::deliver`](sidestream_core::ports::Sink::deliver).
    pub(super) fn deliver(
        &mut self,
        transaction: &Transaction<'_>,
    ) -> Result<Receipt, TransactionError> {
        let started = self.produce_rest(transaction)?;
        self.await_delivery(&started)?;
        self.receipt(transaction)
    }

    /// Produces what was not produced before the end of a transaction.
    fn produce_rest(&mut self, transaction: &Transaction<'_>) -> Result<Started, TransactionError> {
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
        Ok(started)
    }

    fn end_transaction(
        &mut self,
        transaction: &Transaction<'_>,
        started: &Started,
    ) -> Result<(), TransactionError> {
        let offsets = committed_list(&self.names, &transaction.offsets);
        let left = self.time_left(started);
        self.client
            .send_offsets(offsets, &self.group, &transaction.membership, left)
            .map_err(|failure| self.offsets_failed(&failure, transaction))?;
        CrashPoint::AfterOffsets.pass();
        self.await_delivery(started)?;
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
        if started.at.elapsed() > self.config.revoke_time_max {
            return Err(self.broken("the commit took too long"));
        }
        Ok(())
    }

    /// Waits until everything is delivered, and checks that it was.
    fn await_delivery(&mut self, started: &Started) -> Result<(), TransactionError> {
        let flushed = self.client.flush(self.time_left(started));
        if let Some(failed) = self.client.client().context().failed_delivery() {
            return Err(self.undelivered(&failed));
        }
        flushed.map_err(|failure| self.not_delivered(failure))
    }

    /// Everything went well: where the changes are.
    fn receipt(&mut self, transaction: &Transaction<'_>) -> Result<Receipt, TransactionError> {
        self.state = State::Ready;
        self.together = match self.together.saturating_mul(NARROWER) {
            more if more > TOGETHER_MAX => usize::MAX,
            more => more,
        };
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

    /// See [`Sink::abort`](sidestream_core::ports::Sink::abort).
    pub(super) fn abort(&mut self) -> Result<(), TransactionError> {
        self.abort_open().map(drop)
    }

    /// Aborts what is open. Returns what had not been delivered of it.
    fn abort_open(&mut self) -> Result<Option<FailedDelivery>, TransactionError> {
        match self.state {
            State::Ready | State::Starting => return Ok(None),
            State::Open => {}
            State::Broken => {
                return Err(TransactionError::Unknown(
                    "the producer has to be made anew".to_owned(),
                ));
            }
        }
        let connections = self.client.client().context().closed_connections();
        if self.config.exactly_once {
            self.client
                .abort_transaction(self.config.revoke_time_max)
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
    fn drop_transaction(&mut self, why: String) -> TransactionError {
        match self.abort() {
            Ok(()) => TransactionError::Aborted(why),
            Err(error) => error,
        }
    }

    fn broken(&mut self, why: &str) -> TransactionError {
        self.state = State::Broken;
        why.clone_into(&mut self.why_broken);
        TransactionError::Unknown(why.to_owned())
    }

    fn time_left(&self, started: &Started) -> Duration {
        self.config.revoke_time_max.saturating_sub(started.at.elapsed())
    }
}

/// When a commit began, and how many connections had been lost by then.
struct Started {
    at: Instant,
    connections: u64,
}
