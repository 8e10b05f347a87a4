//! A commit, which is many requests, and its end.

use sidestream_core::worker::{LogError, Membership, Receipt, Transaction};

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
    ) -> Result<Receipt, LogError> {
        self.epoch()?;
        let Membership { generation, member } = &transaction.membership;
        if *generation < 0 || member.is_empty() {
            // The brokers would take it unchecked.
            self.abort_transaction()?;
            return Err(LogError::Aborted("the member is in no group".to_owned()));
        }
        self.place(&transaction.outputs)?;
        let exactly_once = self.world.lock().plan.config.exactly_once;
        if !exactly_once {
            return self.commit_at_least_once(transaction);
        }
        let result = self.prepare(transaction);
        match result {
            Ok(receipt) => self.finish(transaction).map(|()| receipt),
            Err(LogError::Aborted(reason)) => {
                self.abort_transaction()?;
                Err(LogError::Aborted(reason))
            }
            Err(error) => Err(error),
        }
    }

    /// Sends everything, and once it is there the offsets.
    fn commit_at_least_once(&mut self, transaction: &Transaction<'_>) -> Result<Receipt, LogError> {
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
            return Err(LogError::Aborted("a record was not delivered".to_owned()));
        }
        if !state.cluster.group.accepts(&transaction.membership, self.instance.as_deref()) {
            return Err(LogError::Aborted("not a member of this generation".to_owned()));
        }
        let unknown_end = state.prng.one_in(faults.unknown);
        if !unknown_end || state.prng.coin() {
            for (partition, committed) in &transaction.offsets {
                state.cluster.group.commit(*partition, committed.clone());
            }
        }
        drop(state);
        self.point("commit.ended");
        if unknown_end {
            return Err(unknown("the commit of offsets was not answered"));
        }
        self.producer.clear();
        self.point("commit.acknowledged");
        Ok(receipt)
    }

    /// Sends everything but the end. Offsets may overtake records: librdkafka sends them at once,
    /// and records when it flushes.
    fn prepare(&mut self, transaction: &Transaction<'_>) -> Result<Receipt, LogError> {
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
            return Err(LogError::Aborted("a record was not delivered".to_owned()));
        }
        drop(state);
        if !offsets_first {
            self.send_offsets(transaction)?;
        }
        Ok(receipt)
    }

    fn send_offsets(&mut self, transaction: &Transaction<'_>) -> Result<(), LogError> {
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

    fn finish(&mut self, transaction: &Transaction<'_>) -> Result<(), LogError> {
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
    pub(in crate::log) fn abort_transaction(&mut self) -> Result<(), LogError> {
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
