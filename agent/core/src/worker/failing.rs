//! Tasks that fail: the transaction is dropped, and what failed is tried again later, given up, or
//! stops its task.

use std::collections::{BTreeMap, BTreeSet};

use super::{Environment, Notice, Slot, TaskState, Worker, WorkerError};
use crate::{
    ports::{Refusal, Suspects},
    record::{Offset, TaskId, TopicPartition, TransformId},
    task::{Blame, Doer, Failed, Failure, FailureKind, Fault, RecordId, Task, Verdict, judge},
    topology::ErrorPolicy,
};

/// Tasks that a refusal may be about, and whose work in them.
type Suspected = BTreeMap<TaskId, BTreeSet<Doer>>;

impl<E: Environment> Worker<E> {
    /// Something of the open transaction is refused, which is dropped. If it is known whose work
    /// that is, it failed there. Else every task that may be meant works alone from now on, in ever
    /// smaller transactions, until one has a single input record, or it is told which row is meant.
    pub(super) fn refused(&mut self, refusal: Refusal) -> Result<(), WorkerError> {
        let suspected = self.suspected(&refusal.suspects);
        match (refusal.fault, suspected.len()) {
            (_, 0) => {
                self.rest.count(self.now.monotonic, self.config.retry_backoff, Failed::default());
                self.abort(&refusal.message)
            }
            (Fault::Passing, _) => self.wait_for(suspected.into_keys(), &refusal.message),
            (_, 1) => {
                let (id, origins) = suspected.into_iter().next().expect("there is one");
                match self.culprit(id, &origins, &refusal) {
                    Some(origin) => self.fail_refused(id, origin, refusal),
                    None => self.look_closer([id], refusal),
                }
            }
            (_, _) => self.look_closer(suspected.into_keys(), refusal),
        }
    }

    /// Whose work a refusal may be about.
    fn suspected(&self, suspects: &Suspects) -> Suspected {
        let mut suspected = Suspected::new();
        match suspects {
            Suspects::Outputs(rows) => {
                for (id, origin) in rows.iter().filter_map(|&row| self.transaction.origin(row)) {
                    suspected.entry(id).or_default().insert(origin);
                }
            }
            Suspects::Changes(changelog, rows) => {
                let Some((id, task)) = self.writing(*changelog) else { return suspected };
                let origins = rows.iter().filter_map(|&row| task.writer(changelog.topic, row));
                suspected.insert(id, origins.collect());
            }
            Suspects::Offset(partition) => {
                let task = self.sources.get(partition).map(|(id, _)| (*id, BTreeSet::new()));
                suspected.extend(task);
            }
            Suspects::Anything => {
                for (&id, task) in self.working() {
                    suspected.insert(id, task.writers().collect());
                }
                for (id, origins) in &self.transaction.origins {
                    suspected.entry(*id).or_default().extend(origins);
                }
            }
        }
        suspected
    }

    /// The tasks with work in the open transaction.
    fn working(&self) -> impl Iterator<Item = (&TaskId, &Task<E::Processor>)> {
        self.tasks.iter().filter_map(|(id, slot)| match slot {
            Slot::Running(task) if task.has_work() => Some((id, &**task)),
            Slot::Running(_) | Slot::Starting(_) | Slot::Failed(_) => None,
        })
    }

    /// The task whose state a changelog partition is.
    fn writing(&self, changelog: TopicPartition) -> Option<(TaskId, &Task<E::Processor>)> {
        let is_its = |id: TaskId| {
            let stores = &self.topology.subtopology(id).stores;
            id.partition == changelog.partition
                && stores.iter().any(|store| store.changelog == changelog.topic)
        };
        self.working().find(|(id, _)| is_its(**id)).map(|(id, task)| (*id, task))
    }

    /// Whose work of a task was refused, if that is known, or if there is nothing smaller to try.
    fn culprit(
        &self,
        id: TaskId,
        origins: &BTreeSet<Doer>,
        refusal: &Refusal,
    ) -> Option<Option<Doer>> {
        let Some(Slot::Running(task)) = self.tasks.get(&id) else { return Some(None) };
        let (first, is_only) = (origins.first().copied(), origins.len() == 1);
        let rows = match &refusal.suspects {
            Suspects::Outputs(rows) | Suspects::Changes(_, rows) => rows.len(),
            Suspects::Offset(_) | Suspects::Anything => 1,
        };
        match (first, &refusal.suspects) {
            _ if !refusal.fault.is_of_record() || task.is_of_no_record() => Some(first),
            (Some(Doer::Record(_) | Doer::Letter(..)), _) if is_only => Some(first),
            // A call with many records has none of their outputs for its own.
            (Some(Doer::Transform(_)), Suspects::Outputs(_)) if is_only => Some(first),
            _ if task.is_of_one_record() && rows == 1 => {
                let letter = origins.iter().find(|origin| self.may_cut(id, **origin)).copied();
                let record = first.filter(|origin| origin.record().is_some());
                Some(letter.or(record).or_else(|| task.first_origin()))
            }
            _ => None,
        }
    }

    /// Whether it is a dead letter that could be smaller.
    fn may_cut(&self, id: TaskId, origin: Doer) -> bool {
        let Doer::Letter(_, record) = origin else { return false };
        self.failures.get(&id).is_none_or(|failures| failures.may_cut(record))
    }

    /// What is refused can't be told: the work of these tasks comes back in smaller transactions,
    /// each one's in its own.
    fn look_closer(
        &mut self,
        tasks: impl IntoIterator<Item = TaskId>,
        refusal: Refusal,
    ) -> Result<(), WorkerError> {
        let until = self.come_as_far_as(tasks);
        let (retry_at, is_one) = (self.now.monotonic + self.config.retry_backoff, until.len() == 1);
        for (id, positions) in until {
            let goes_on = self.failures.entry(id).or_default().vague(retry_at, positions);
            if is_one && !goes_on {
                return self.fail_refused(id, None, refusal);
            }
        }
        self.abort(&refusal.message)
    }

    /// Something is not there that these tasks write to: they wait for it, and others go on.
    fn wait_for(
        &mut self,
        tasks: impl IntoIterator<Item = TaskId>,
        message: &str,
    ) -> Result<(), WorkerError> {
        let until = self.come_as_far_as(tasks);
        self.abort(message)?;
        let (now, backoff) = (self.now.monotonic, self.config.retry_backoff);
        for (id, positions) in until {
            self.failures.entry(id).or_default().wait(now, backoff, positions);
            self.notice(Notice::Held { task: id, reason: message.to_owned() });
        }
        Ok(())
    }

    /// How far tasks have come with what is open.
    fn come_as_far_as(
        &self,
        tasks: impl IntoIterator<Item = TaskId>,
    ) -> Vec<(TaskId, Vec<Offset>)> {
        let of = |id: TaskId| match self.tasks.get(&id) {
            Some(Slot::Running(task)) => Some((id, task.positions())),
            _ => None,
        };
        tasks.into_iter().filter_map(of).collect()
    }

    /// The work of a task was refused: counts as a failure of the record that it was done for, if
    /// that is at fault. A dead letter comes back smaller.
    fn fail_refused(
        &mut self,
        id: TaskId,
        origin: Option<Doer>,
        refusal: Refusal,
    ) -> Result<(), WorkerError> {
        let Refusal { fault, message, .. } = refusal;
        if let (Some(Doer::Letter(_, record)), Some(Slot::Running(task))) =
            (origin, self.tasks.get(&id))
        {
            let (failures, over_at) = (self.failures.entry(id).or_default(), task.positions());
            if failures.cut(record, fault, over_at) {
                failures.retry_at = self.now.monotonic;
                return self.abort(&format!("a dead letter is cut down: {message}"));
            }
        }
        let record = origin.and_then(Doer::record).filter(|_| fault.is_of_record());
        if let Some(record) = record {
            let transform = usize::from(record.transform);
            self.count_refused(TransformId { subtopology: id.subtopology, transform });
        }
        let blame = record.and_then(|record| self.code.refused(id, record.transform.into()));
        let failure = Failure { kind: FailureKind::Refused, record: None, message };
        self.fail_at(id, &failure, (origin, record), blame.as_ref())
    }

    /// A task failed: the transaction is dropped. What failed is tried again later or given up,
    /// or the task is stopped. `blame` says whether a version on probation has to go for it.
    pub(super) fn fail(
        &mut self,
        id: TaskId,
        failure: &Failure,
        blame: Option<&(usize, Blame)>,
    ) -> Result<(), WorkerError> {
        let origin = match self.tasks.get_mut(&id) {
            Some(Slot::Running(task)) => task.take_failed(),
            _ => None,
        };
        self.fail_at(id, failure, (origin, origin.and_then(Doer::record)), blame)
    }

    /// As [`fail`](Self::fail), where it is known whose work failed, and which record is judged.
    fn fail_at(
        &mut self,
        id: TaskId,
        failure: &Failure,
        (origin, record): (Option<Doer>, Option<RecordId>),
        blame: Option<&(usize, Blame)>,
    ) -> Result<(), WorkerError> {
        let (failed, damage) = match self.tasks.get_mut(&id) {
            Some(Slot::Running(task)) => {
                (Failed { record, over_at: task.positions() }, task.take_state_failure())
            }
            _ => (Failed::default(), None),
        };
        let reason = self.describe(id, failure, origin);
        self.code.failed(id, &reason, blame);
        self.abort(&format!("task {id}: {reason}"))?;
        if let Some(damage) = damage {
            return self.store_failed(id, damage);
        }
        if self.judge(id.subtopology)? {
            return Ok(());
        }
        let policy = failed.record.map_or(ErrorPolicy::default(), |record| {
            let transforms = &self.topology.subtopology(id).transforms;
            transforms[usize::from(record.transform)].on_error
        });
        let (now, retry) = (self.now.monotonic, self.config.retry());
        let backoff = policy.retry.unwrap_or(retry).backoff;
        let failures = self.failures.entry(id).or_default();
        let attempts = failures.count(now, backoff, failed.clone());
        match (judge(policy, failure.kind, attempts, retry), failed.record) {
            (Verdict::GiveUp, Some(record)) => {
                failures.give_up(record, failed.over_at, failure.clone());
                failures.retry_at = now;
                Ok(())
            }
            (Verdict::Retry, _) => {
                self.notice(Notice::Retrying { task: id, attempts, reason });
                Ok(())
            }
            (Verdict::Stop | Verdict::GiveUp, _) => {
                let mut reason = format!("{reason}; gave up after {attempts} attempts");
                if failed.record.is_some() {
                    reason += ": swap in a module that copes with it, or give the transform an \
                               `on_error`";
                }
                match self.blame_trial(id.subtopology, &reason, (blame, record))? {
                    true => Ok(()),
                    false => self.stop_task(id, reason),
                }
            }
        }
    }

    /// There was no time to divide a batch of a task until each record that fails is known: its work
    /// is dropped, and comes back in smaller parts. That is no failure, unless it can't get further:
    /// its batch was a single record, its parts too, and none of them was judged.
    pub(super) fn out_of_time(
        &mut self,
        id: TaskId,
        failure: &Failure,
        is_vain: bool,
    ) -> Result<(), WorkerError> {
        if is_vain {
            return self.fail(id, failure, None);
        }
        let until = self.come_as_far_as([id]);
        self.abort(&format!("task {id} begins again with smaller batches: {failure}"))?;
        for (id, positions) in until {
            let failures = self.failures.entry(id).or_default();
            failures.ran_out_of_time(self.now.monotonic, positions);
        }
        self.judge(id.subtopology).map(|_| ())
    }

    fn describe(&self, id: TaskId, failure: &Failure, origin: Option<Doer>) -> String {
        let subtopology = self.topology.subtopology(id);
        let topics = subtopology.inputs.iter();
        let topics = topics.map(|input| self.topology.topic(input.topic).name.as_str());
        let topics: Vec<&str> = topics.collect();
        let name = |origin: Doer| subtopology.transforms[origin.transform()].name.as_str();
        let at = |record: RecordId| {
            format!("offset {} of `{}`", record.offset, topics[usize::from(record.input)])
        };
        let place = match origin {
            Some(origin @ Doer::Record(record)) => {
                format!(" in `{}` at {}", name(origin), at(record))
            }
            Some(origin @ Doer::Letter(_, record)) => {
                let of = record.map_or_else(String::new, |record| format!(", for {}", at(record)));
                format!(" in the dead letter of `{}`{of}", name(origin))
            }
            Some(origin @ Doer::Transform(_)) => format!(" in `{}`", name(origin)),
            None => String::new(),
        };
        format!("{failure}{place}, reading partition {} of {}", id.partition, topics.join(", "))
    }

    /// Stops a task for good: it reads nothing more, and keeps its state as it is.
    pub(super) fn stop_task(&mut self, id: TaskId, reason: String) -> Result<(), WorkerError> {
        self.stop_restores(id)?;
        let store = match self.tasks.remove(&id) {
            Some(Slot::Running(task)) => Some(Task::close(*task)),
            Some(Slot::Starting(starting)) => starting.store,
            Some(Slot::Failed(store)) => store,
            None => None,
        };
        self.tasks.insert(id, Slot::Failed(store));
        self.task_state(id, TaskState::Failed(reason));
        let partitions: Vec<_> = self.partitions_of(id);
        self.forget_seeks(id);
        self.ports.source.pause(&partitions).or_else(|error| self.postpone(error))
    }
}
