//! What went wrong with a transaction, and what was refused of it.

use std::time::Duration;

use sidestream_core::{
    ports::{Refusal, Suspects, Transaction, TransactionError},
    record::TopicIndex,
    task::Fault,
};

use super::{
    super::{
        connections::in_time,
        error::remedy,
        native::{Code, FailedDelivery, Failure, Tag},
        refusal::{advice, fault},
    },
    NARROWER, Producer,
};

/// How long brokers may take to say which topics are there, after they took too long for records.
const LOOK_TIME_MAX: Duration = Duration::from_secs(1);

impl Producer {
    /// A call within a transaction failed before its end was asked for. It may be the consequence
    /// of a record that was refused, of which the abort tells.
    pub(super) fn failed(&mut self, failure: &Failure) -> TransactionError {
        if failure.fatal || self.client.client().fatal_error().is_some() {
            return self.broken(&failure.message);
        }
        let aborted = match self.abort_open() {
            Ok(failed) => failed.and_then(|failed| self.refusal(&failed)),
            Err(error) => return error,
        };
        aborted.unwrap_or_else(|| {
            let advice = remedy(failure.code).map_or_else(String::new, |text| format!("; {text}"));
            TransactionError::Aborted(format!("{failure}{advice}"))
        })
    }

    /// The offsets could not be made part of the transaction. Whether another process has taken
    /// this one's identity, the consumer finds out.
    pub(super) fn offsets_failed(
        &mut self,
        failure: &Failure,
        transaction: &Transaction<'_>,
    ) -> TransactionError {
        if let Code::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE = failure.code
            && let Some((partition, _)) =
                transaction.offsets.iter().max_by_key(|(_, committed)| committed.metadata.len())
        {
            let suspects = Suspects::Offset(*partition);
            return refused(failure, suspects, Fault::Lasting, false);
        }
        if failure.code == Code::RD_KAFKA_RESP_ERR__IN_PROGRESS {
            return self.broken(&failure.message);
        }
        self.serve();
        if let Some(failed) = self.client.client().context().failed_delivery() {
            return self.undelivered(&failed);
        }
        self.failed_for_good(failure).unwrap_or_else(|| self.failed(failure))
    }

    /// A transaction that can only be aborted, since one of its topics may not be written or read.
    pub(super) fn failed_for_good(&self, failure: &Failure) -> Option<TransactionError> {
        let fault = fault(failure.code, false).filter(|fault| !fault.is_of_record())?;
        let context = self.client.client().context();
        let message = context.take_not_added().unwrap_or_else(|| failure.message.clone());
        let failure = Failure { message, ..failure.clone() };
        Some(refused(&failure, Suspects::Anything, fault, false))
    }

    /// Records did not get through, and nothing was said of any of them. If that took too long, it may
    /// be that a topic is gone: librdkafka asks a coordinator that does not know the topic for ever,
    /// without a look at whether it is there, and fails its records only after such a look.
    pub(super) fn not_delivered(&mut self, failure: Failure) -> TransactionError {
        if failure.code == Code::RD_KAFKA_RESP_ERR__TIMED_OUT {
            self.client.client().refresh_topics(LOOK_TIME_MAX);
            self.serve();
            if let Some(failed) = self.client.client().context().failed_delivery() {
                return self.undelivered(&failed);
            }
        }
        self.failed(&in_time("delivering records", failure, self.config.revoke_time_max))
    }

    /// Some records were not delivered.
    pub(super) fn undelivered(&mut self, failed: &FailedDelivery) -> TransactionError {
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
    pub(super) fn refusal(&mut self, failed: &FailedDelivery) -> Option<TransactionError> {
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
    pub(super) fn not_taken(
        &mut self,
        tag: Tag,
        topic: TopicIndex,
        failure: &Failure,
    ) -> TransactionError {
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
}

/// Where records were not delivered to, and why.
fn describe_delivery(failed: &FailedDelivery) -> String {
    let FailedDelivery { code, topic, partition, .. } = failed;
    let why = Failure::check(*code).err().map_or_else(String::new, |failure| failure.message);
    format!("topic {topic} [{partition}]: {why}")
}

fn refused(
    failure: &Failure,
    suspects: Suspects,
    fault: Fault,
    is_change: bool,
) -> TransactionError {
    let message = match advice(failure.code, is_change) {
        Some(advice) => format!("{failure}; {advice}"),
        None => failure.to_string(),
    };
    TransactionError::Refused(Refusal { suspects, fault, message })
}
