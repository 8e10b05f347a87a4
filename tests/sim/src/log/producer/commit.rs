//! A commit, which is many requests, and its end.

use sidestream_core::{
    ports::{Membership, Receipt, Transaction, TransactionError},
    record::{Committed, TopicPartition},
};

use super::unknown;
use crate::{cluster::Delayed, log::SimLog};

/// What becomes of the end of a transaction.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// It is done and answered.
    Answered,
    /// It is done, but the answer is lost.
    Silent,
    /// It comes late.
    Late,
    /// It is lost.
    Lost,
}

impl SimLog {
    /// All of a commit, one request after the other.
    pub(in crate::log) fn commit_transaction(
        &mut self,
        transaction: &Transaction<'_>,
    ) -> Result<Receipt, TransactionError> {
        self.epoch()?;
        if !transaction.membership.is_in_group() {
            // The brokers would take it unchecked.
            self.abort_transaction()?;
            return Err(TransactionError::Aborted("the member is in no group".to_owned()));
        }
        self.place(&transaction.outputs)?;
        let result = self.prepare(transaction);
        match result {
            Ok(receipt) => self.finish(transaction).map(|()| receipt),
            Err(TransactionError::Aborted(reason)) => {
                self.abort_transaction()?;
                Err(TransactionError::Aborted(reason))
            }
            Err(error) => Err(error),
        }
    }

    /// Sends everything but offsets.
    pub(in crate::log) fn deliver_all(
        &mut self,
        transaction: &Transaction<'_>,
    ) -> Result<Receipt, TransactionError> {
        self.epoch()?;
        self.place(&transaction.outputs)?;
        let mut receipt = Receipt::default();
        self.send()?;
        self.check_refused()?;
        for (slot, (partition, changes)) in transaction.changes.iter().enumerate() {
            let seen = transaction.seen.get(slot).copied().unwrap_or_default();
            receipt.changelog_ends.extend(self.send_changes(*partition, changes, seen)?);
        }
        self.point("commit.produced");
        let mut state = self.world.lock();
        let faults = state.faults().clone();
        if state.prng.one_in(faults.abort) {
            return Err(TransactionError::Aborted("a record was not delivered".to_owned()));
        }
        Ok(receipt)
    }

    /// Commits the offsets of what was delivered.
    pub(in crate::log) fn commit_delivered(
        &mut self,
        offsets: &[(TopicPartition, Committed)],
        membership: &Membership,
    ) -> Result<(), TransactionError> {
        let mut state = self.world.lock();
        let faults = state.faults().clone();
        if !state.cluster.group.accepts(membership, self.instance.as_deref()) {
            return Err(TransactionError::Aborted("not a member of this generation".to_owned()));
        }
        let unknown_end = state.prng.one_in(faults.unknown);
        if !unknown_end || state.prng.coin() {
            for entry in offsets {
                state.cluster.group.commit(&membership.member, entry.clone());
            }
        }
        drop(state);
        self.point("commit.ended");
        if unknown_end {
            return Err(unknown("the commit of offsets was not answered"));
        }
        self.producer.clear();
        self.point("commit.acknowledged");
        Ok(())
    }

    /// Sends everything but the end. Offsets may overtake records: librdkafka sends them at once,
    /// and records when it flushes.
    fn prepare(&mut self, transaction: &Transaction<'_>) -> Result<Receipt, TransactionError> {
        let mut receipt = Receipt::default();
        let offsets_first = self.world.lock().prng.coin();
        if offsets_first {
            self.send_offsets(transaction)?;
        }
        self.send()?;
        self.check_refused()?;
        for (slot, (partition, changes)) in transaction.changes.iter().enumerate() {
            let seen = transaction.seen.get(slot).copied().unwrap_or_default();
            receipt.changelog_ends.extend(self.send_changes(*partition, changes, seen)?);
        }
        self.point("commit.produced");
        let mut state = self.world.lock();
        let rate = state.faults().abort;
        if state.prng.one_in(rate) {
            return Err(TransactionError::Aborted("a record was not delivered".to_owned()));
        }
        drop(state);
        if !offsets_first {
            self.send_offsets(transaction)?;
        }
        Ok(receipt)
    }

    fn send_offsets(&mut self, transaction: &Transaction<'_>) -> Result<(), TransactionError> {
        if transaction.offsets.is_empty() {
            return Ok(());
        }
        let epoch = self.epoch()?;
        self.producer.sent = true;
        let mut state = self.world.lock();
        let (id, instance) = (&self.producer.id, self.instance.as_deref());
        let membership = (&transaction.membership, instance);
        self.request(&mut state, |state| {
            state.cluster.produce_offsets(id, epoch, membership, &transaction.offsets)
        })?;
        drop(state);
        self.point("commit.offsets");
        Ok(())
    }

    fn finish(&mut self, transaction: &Transaction<'_>) -> Result<(), TransactionError> {
        let epoch = self.epoch()?;
        if !self.producer.sent {
            self.producer.clear();
            return Ok(()); // librdkafka asks nobody.
        }
        let mut state = self.world.lock();
        let rate = state.faults().unknown;
        let way = match state.prng.one_in(rate) {
            true => [Way::Silent, Way::Late, Way::Lost][state.prng.index(3)],
            false => Way::Answered,
        };
        let offsets = &transaction.offsets;
        state.note(self.pod, format_args!("{} ends {:?}: {offsets:?}", self.producer.id, way));
        let (id, commit) = (self.producer.id.clone(), true);
        match way {
            Way::Answered | Way::Silent => {
                self.request(&mut state, |state| state.cluster.end(&id, epoch, commit))?;
            }
            Way::Late => {
                let due = state.now + state.prng.between(1, 300);
                state.cluster.coordinator.delay(Delayed { due, id, epoch, commit });
            }
            Way::Lost => {}
        }
        drop(state);
        self.point("commit.ended");
        if !matches!(way, Way::Answered) {
            return Err(unknown("the end of the transaction was not answered"));
        }
        self.producer.sent = false;
        self.producer.together = usize::MAX;
        self.producer.clear();
        self.point("commit.acknowledged");
        Ok(())
    }

    /// Drops the open transaction.
    pub(in crate::log) fn abort_transaction(&mut self) -> Result<(), TransactionError> {
        self.producer.clear();
        let sent = std::mem::take(&mut self.producer.sent);
        if !sent || !self.world.lock().plan.config.exactly_once {
            return Ok(());
        }
        let epoch = self.epoch()?;
        let mut state = self.world.lock();
        let id = &self.producer.id;
        state.note(self.pod, format_args!("{id} aborts"));
        self.request(&mut state, |state| state.cluster.end(id, epoch, false))
    }
}
