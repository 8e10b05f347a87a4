//! The end of a transaction: committed, dropped, or not known.

use std::time::Duration;

use super::{
    CommitNotice, Drain, Environment, Failures, Notice, Slot, TaskState, Worker, WorkerError,
};
use crate::{
    ports::{Receipt, Transaction, TransactionError},
    record::{Outputs, TaskId, TopicIndex, TopicPartition},
    task::{Doer, Failed, Part, Produced, StoreError},
};

/// What the worker knows of the open transaction; the tasks hold their parts of it.
#[derive(Debug, Default)]
pub(super) struct OpenTransaction {
    /// When its first work was done.
    pub(super) since: Option<Duration>,
    /// Bytes of outputs and state changes.
    pub(super) bytes: usize,
    outputs: u64,
    /// For each task's outputs, in the order in which the sink was given them, whose work each is.
    pub(super) origins: Vec<(TaskId, Vec<Doer>)>,
    /// A record was passed over: commits soon, for if its work is dropped, it may have to be found
    /// again.
    pub(super) is_urgent: bool,
}

impl OpenTransaction {
    pub(super) fn begin(&mut self, now: Duration) {
        self.since.get_or_insert(now);
    }

    pub(super) fn produced(&mut self, outputs: &Outputs) {
        let origins = outputs.len() * size_of::<Doer>();
        self.bytes += outputs.bytes() + origins;
        self.outputs += outputs.len() as u64;
    }

    /// Whose work a row of all outputs is.
    pub(super) fn origin(&self, mut row: usize) -> Option<(TaskId, Doer)> {
        for (id, origins) in &self.origins {
            match origins.get(row) {
                Some(origin) => return Some((*id, *origin)),
                None => row -= origins.len(),
            }
        }
        None
    }
}

impl<E: Environment> Worker<E> {
    pub(super) fn transaction_is_full(&self) -> bool {
        self.transaction.is_urgent || self.transaction.bytes >= self.config.uncommitted_bytes_max
    }

    pub(super) fn commit_is_due(&self) -> bool {
        let Some(since) = self.transaction.since else { return false };
        self.recover_at.is_none()
            && self.assigned
            && (self.paused
                || self.transaction_is_full()
                || self.now.monotonic >= since.saturating_add(self.config.commit_after()))
    }

    /// Commits the open transaction, if any task worked in it.
    pub(super) fn commit(&mut self) -> Result<(), WorkerError> {
        let mut outputs = Outputs::default();
        let mut parts: Vec<(TaskId, Part)> = Vec::new();
        for (&id, slot) in &self.tasks {
            if let Slot::Running(task) = slot
                && task.has_work()
            {
                let mut produced = Produced::default();
                parts.push((id, task.part(&mut produced)));
                outputs.append(produced.outputs);
                self.transaction.origins.push((id, produced.origins));
            }
        }
        if parts.is_empty() {
            self.transaction = OpenTransaction::default();
            return Ok(());
        }
        if !self.membership.is_in_group() {
            return self.abort("the member is in no group, so it must not commit");
        }
        self.transaction.produced(&outputs);
        let transaction = self.transaction_of(&parts, outputs);
        let began = (self.clock)().monotonic;
        let outcome = self.ports.commit(&transaction, self.config.exactly_once);
        let took = (self.clock)().monotonic.saturating_sub(began);
        self.notice(Notice::CommitEnded { error: outcome.as_ref().err().cloned(), took });
        match outcome {
            Ok(receipt) => self.complete(&parts, &receipt),
            Err(error) => self.transaction_failed(error),
        }
    }

    /// A call for the open transaction failed. Where that is nobody's fault, all rest.
    pub(super) fn transaction_failed(
        &mut self,
        error: TransactionError,
    ) -> Result<(), WorkerError> {
        self.look_at_clock();
        match error {
            TransactionError::Refused(_) => {}
            TransactionError::Aborted(_)
            | TransactionError::Unavailable(_)
            | TransactionError::Unknown(_)
            | TransactionError::Fatal(_) => {
                self.rest.count(self.now.monotonic, self.config.retry_backoff, Failed::default());
            }
        }
        self.handle(error)
    }

    fn transaction_of<'a>(&self, parts: &'a [(TaskId, Part)], outputs: Outputs) -> Transaction<'a> {
        let mut transaction =
            Transaction { outputs, membership: self.membership.clone(), ..Transaction::default() };
        for (id, part) in parts {
            let stores = &self.topology.subtopology(*id).stores;
            for (store, changes) in stores.iter().zip(&part.changes) {
                if !changes.is_empty() {
                    let changelog = TopicPartition::new(store.changelog, id.partition);
                    transaction.changes.push((changelog, changes));
                    // At least once, state may be ahead of the offsets: that says nothing.
                    let seen = if self.config.exactly_once { part.seen.as_str() } else { "" };
                    transaction.seen.push(seen);
                }
            }
            transaction.offsets.extend(part.offsets.iter().cloned());
        }
        transaction
    }

    /// The transaction is committed for certain: applies the state changes.
    fn complete(&mut self, parts: &[(TaskId, Part)], receipt: &Receipt) -> Result<(), WorkerError> {
        self.rest = Failures::default();
        self.code.ended(true);
        let transaction = std::mem::take(&mut self.transaction);
        let mut notice = CommitNotice {
            outputs: transaction.outputs,
            bytes: transaction.bytes as u64,
            ..CommitNotice::default()
        };
        for (id, part) in parts {
            notice.records += part.records;
            notice.changes += part.changes.iter().map(|changes| changes.len() as u64).sum::<u64>();
            let offsets = part.offsets.iter().enumerate();
            notice.offsets.extend(offsets.map(|(input, (_, at))| (*id, input, at.offset)));
            self.complete_task(*id, part, receipt, &mut notice)?;
        }
        self.notice(Notice::Committed(Box::new(notice)));
        Ok(())
    }

    fn complete_task(
        &mut self,
        id: TaskId,
        part: &Part,
        receipt: &Receipt,
        notice: &mut CommitNotice,
    ) -> Result<(), WorkerError> {
        let ends = |changelog: TopicIndex| {
            let partition = TopicPartition::new(changelog, id.partition);
            receipt.changelog_ends.iter().find(|(of, _)| *of == partition).map(|(_, end)| *end)
        };
        let Some(Slot::Running(task)) = self.tasks.get_mut(&id) else { return Ok(()) };
        match task.complete(part, ends, self.now.wall) {
            Ok(said) => {
                if let Some(failures) = self.failures.get_mut(&id) {
                    failures.settle(task.committed_offsets(), part.records > 0);
                }
                let telemetry = said.telemetry.into_iter();
                notice.telemetry.extend(telemetry.map(|(transform, said)| (id, transform, said)));
                notice.passed_over.extend(said.passed_over);
                Ok(())
            }
            Err(error) => self.store_failed(id, error),
        }
    }

    /// The state of a task can't be used as it is: rebuilds what is corrupt, stops the task
    /// otherwise.
    pub(super) fn store_failed(
        &mut self,
        id: TaskId,
        error: StoreError,
    ) -> Result<(), WorkerError> {
        match error {
            StoreError::Corrupt { store, message } => {
                self.restart_task(id)?;
                let (now, backoff) = (self.now.monotonic, self.config.retry_backoff);
                let failures = self.failures.entry(id).or_default();
                let attempts = failures.count(now, backoff, Failed::default());
                if attempts > self.config.retry_attempts_max {
                    let reason = format!("its state is corrupt again and again: {message}");
                    return self.stop_task(id, reason);
                }
                self.rebuild(id, store, &message)
            }
            StoreError::Busy | StoreError::Failed(_) => self.open_later(id, &error),
            StoreError::Slow(_) => self.stop_task(id, error.to_string()),
        }
    }

    /// Aborts the open transaction and drops its work.
    pub(super) fn abort(&mut self, reason: &str) -> Result<(), WorkerError> {
        match self.ports.sink.abort() {
            Ok(()) => {}
            Err(TransactionError::Fatal(reason)) => return Err(WorkerError(reason)),
            Err(
                TransactionError::Aborted(_)
                | TransactionError::Unknown(_)
                | TransactionError::Unavailable(_)
                | TransactionError::Refused { .. },
            ) => self.recover_at = Some(self.now.monotonic),
        }
        self.drop_work(reason)
    }

    /// Forgets the work of the open transaction, which is not going to be committed (or not known
    /// to be): every task that worked goes back to what is committed.
    pub(super) fn drop_work(&mut self, reason: &str) -> Result<(), WorkerError> {
        self.code.ended(false);
        self.transaction = OpenTransaction::default();
        let worked = |slot: &Slot<E::Processor>| match slot {
            Slot::Running(task) => task.has_work(),
            Slot::Starting(_) | Slot::Failed(_) => false,
        };
        let tasks: Vec<TaskId> =
            self.tasks.iter().filter(|(_, slot)| worked(slot)).map(|(&id, _)| id).collect();
        for &id in &tasks {
            self.failures.entry(id).or_default().dropped();
            // What is committed is not known, or (at least once) the changelog may hold changes
            // of dropped work: goes on as after a crash.
            if self.recover_at.is_some() || !self.config.exactly_once {
                self.restart_task(id)?;
            } else if let Some(Slot::Running(task)) = self.tasks.get_mut(&id) {
                task.drop_work();
                if task.has_work() {
                    self.transaction.begin(self.now.monotonic.max(self.rest.retry_at));
                }
                let offsets = task.committed_offsets().to_vec();
                self.read_from(id, &offsets);
            }
        }
        if !tasks.is_empty() {
            self.notice(Notice::Dropped { reason: reason.to_owned() });
        }
        Ok(())
    }

    /// Settles the producer's last transaction, if its outcome is not known.
    pub(super) fn recover(&mut self) -> Result<(), WorkerError> {
        if self.recover_at.is_none_or(|at| at > self.now.monotonic) {
            return Ok(());
        }
        match self.ports.sink.recover() {
            Ok(()) => {
                self.recover_at = None;
                Ok(())
            }
            Err(error) => {
                self.recover_at = Some(self.now.monotonic + super::RETRY);
                self.postpone(error)
            }
        }
    }

    /// Takes a worker that is to stop one step further.
    pub(super) fn step_drain(&mut self) -> Result<(), WorkerError> {
        match self.drain {
            Some(Drain::Requested { leave }) => {
                if self.assigned && self.recover_at.is_none() {
                    self.commit()?;
                }
                self.close_tasks();
                self.drain =
                    Some(if leave && self.assigned { Drain::Leaving } else { Drain::Done });
                if leave && self.assigned {
                    self.ports.source.leave().or_else(|error| self.postpone(error))?;
                }
            }
            Some(Drain::Leaving) | None => {}
            Some(Drain::Done) => self.report.done = true,
        }
        Ok(())
    }

    /// Closes every task and gives its state back.
    pub(super) fn close_tasks(&mut self) {
        let tasks: Vec<TaskId> = self.tasks.keys().copied().collect();
        tasks.into_iter().for_each(|id| self.close_task(id));
    }

    /// Closes a task and gives its state back.
    pub(super) fn close_task(&mut self, id: TaskId) {
        if let Err(error) = self.stop_restores(id) {
            // The reader can't be helped; its next call says so again.
            self.notice(Notice::Waiting(error.to_string()));
        }
        let store = match self.tasks.remove(&id) {
            Some(Slot::Running(task)) => Some(task.close()),
            Some(Slot::Starting(starting)) => starting.store,
            Some(Slot::Failed(store)) => store,
            None => return,
        };
        self.failures.remove(&id); // Others may get over them.
        let stateful = !self.topology.subtopology(id).stores.is_empty();
        if let Some(store) = store.filter(|_| stateful) {
            self.environment.close(id, store);
        }
        self.partitions_of(id).iter().for_each(|partition| {
            self.seeks.remove(partition);
            self.sources.remove(partition);
        });
        self.task_state(id, TaskState::Closed);
    }
}
