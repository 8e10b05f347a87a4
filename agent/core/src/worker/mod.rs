//! The loop that drives tasks from transaction to transaction. One thread runs one worker;
//! workers share nothing.
//!
//! A turn ([`Worker::run_once`]) polls what it reads, moves tasks that start a step on (`start`), lets
//! running ones process a few batches (`work`), and commits when it is time (`commit`). What it does
//! between two polls is bounded in time: the clock, which the shell hands in, is looked at between
//! two calls of user code and of the log.
//! `rebalance` answers the group.

mod check;
mod commit;
mod environment;
mod failing;
mod pause;
mod rebalance;
mod report;
mod restore;
mod retry;
mod start;
mod swap;
mod trial;
mod turns;
mod unreadable;
mod work;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use self::{commit::OpenTransaction, start::Starting, swap::Code, turns::Turns};
pub use self::{
    environment::Environment,
    pause::TaskPosition,
    report::{CommitNotice, Config, Notice, Now, Report, TaskState},
    swap::Swap,
    trial::{Probation, Ratios},
};
use crate::{
    ports::{
        ChangelogEvent, FetchPosition, Membership, PortError, Ports, SourceEvent, TransactionError,
    },
    record::{FetchEpoch, Offset, TaskId, TopicPartition},
    task::{Failures, Task},
    topology::Topology,
};

/// The longest that a turn waits for its source, so that requests from outside are seen.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// While changelogs are read, the longest that a turn waits for them before it looks at its source.
const RESTORE_WAIT_MAX: Duration = Duration::from_millis(5);

/// How long to wait before something that can't be done now is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// An error that the worker can't handle: its process has to end, and says why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WorkerError(pub String);

/// Drives the tasks of the partitions that one member of the group owns.
pub struct Worker<E: Environment> {
    config: Config,
    topology: Arc<Topology>,
    ports: Ports,
    environment: E,
    clock: Box<dyn Fn() -> Now>,
    now: Now,
    report: Report,
    membership: Membership,
    /// Whether an assignment is in force; between a revocation and the next one, tasks that are
    /// kept are suspended.
    assigned: bool,
    /// An assignment that the source has not taken yet.
    assigning: Option<Vec<TopicPartition>>,
    tasks: BTreeMap<TaskId, Slot<E::Processor>>,
    turns: Turns,
    /// No step of a task that starts before this moment, so that those that run have their time.
    start_at: Duration,
    /// The input partitions of `tasks`: their task and which of its inputs they are.
    sources: BTreeMap<TopicPartition, (TaskId, usize)>,
    epoch: FetchEpoch,
    /// Positions to read from that the source has not taken yet.
    seeks: BTreeMap<TopicPartition, FetchPosition>,
    transaction: OpenTransaction,
    /// The producer's last transaction must be settled, not before this moment.
    recover_at: Option<Duration>,
    /// Commits that failed in a row; no work before its next attempt.
    rest: Failures,
    /// Tasks that failed lately; none of their work before the next attempt.
    failures: BTreeMap<TaskId, Failures>,
    purge_at: Duration,
    code: Code<E::Processor>,
    /// No batch is begun until it is resumed.
    paused: bool,
    drain: Option<Drain>,
}

/// A task of the worker.
enum Slot<P> {
    /// Not ready yet: its state is opened or restored.
    Starting(Box<Starting>),
    /// It processes records.
    Running(Box<Task<P>>),
    /// It was stopped; its state is kept as it is.
    Failed(Option<Box<dyn crate::task::StateStore>>),
}

/// A worker that is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    /// Commit and close the tasks, then leave the group or keep the membership.
    Requested { leave: bool },
    /// Wait for the last revocation.
    Leaving,
    /// Nothing is left to do.
    Done,
}

impl<E: Environment> Worker<E> {
    /// A worker without tasks. It gets them from the group. `clock` tells the time.
    #[must_use]
    pub fn new(
        config: Config,
        topology: Arc<Topology>,
        ports: Ports,
        environment: E,
        clock: Box<dyn Fn() -> Now>,
    ) -> Self {
        Self {
            code: Code::new(&topology),
            config,
            topology,
            ports,
            environment,
            now: clock(),
            clock,
            report: Report::default(),
            membership: Membership::none(),
            assigned: false,
            assigning: None,
            tasks: BTreeMap::new(),
            turns: Turns::default(),
            start_at: Duration::ZERO,
            sources: BTreeMap::new(),
            epoch: 0,
            seeks: BTreeMap::new(),
            transaction: OpenTransaction::default(),
            recover_at: None,
            rest: Failures::default(),
            failures: BTreeMap::new(),
            purge_at: Duration::ZERO,
            paused: false,
            drain: None,
        }
    }

    /// Asks the worker to commit, close its tasks and stop; with `leave` to leave the group for
    /// good, so that others take over at once, else to keep its membership for a restart.
    pub fn drain(&mut self, leave: bool) {
        self.drain.get_or_insert(Drain::Requested { leave });
    }

    /// Takes a turn. Waits for something to read only when there is nothing else to do, and at most
    /// a tenth of a second.
    pub fn run_once(&mut self) -> Result<Report, WorkerError> {
        self.look_at_clock();
        self.poll()?;
        self.assign()?;
        self.recover()?;
        self.seek()?;
        self.start_tasks()?;
        self.switch()?;
        self.work()?;
        if self.commit_is_due() {
            self.commit()?;
        }
        self.purge();
        self.step_drain()?;
        Ok(std::mem::take(&mut self.report))
    }

    /// Reads the time, which doesn't go on by itself.
    fn look_at_clock(&mut self) {
        let Now { monotonic, wall } = (self.clock)();
        self.now = Now { monotonic: monotonic.max(self.now.monotonic), wall };
    }

    /// Takes what has come, of the group's partitions and of the changelogs that are read.
    fn poll(&mut self) -> Result<(), WorkerError> {
        let wait = self.wait();
        let restores = self.is_restoring();
        let (mut events, mut restored) = (Vec::new(), Vec::new());
        let Ports { source, changelogs, sink } = &mut self.ports;
        let polled = source.poll(if restores { Duration::ZERO } else { wait }, &mut events);
        let wait = if events.is_empty() { wait.min(RESTORE_WAIT_MAX) } else { Duration::ZERO };
        let read = if restores { changelogs.poll(wait, &mut restored) } else { Ok(()) };
        sink.serve();
        polled.or_else(|error| self.handle(error.into()))?;
        read.or_else(|error| self.postpone(error))?;
        self.look_at_clock();
        for event in events {
            self.on_source(event)?;
        }
        for event in restored {
            self.on_changelog(event)?;
        }
        Ok(())
    }

    fn on_source(&mut self, event: SourceEvent) -> Result<(), WorkerError> {
        match event {
            SourceEvent::Assigned(partitions) => self.on_assigned(partitions)?,
            SourceEvent::Revoked => self.on_revoked()?,
            SourceEvent::Lost => self.on_lost()?,
            SourceEvent::Records(fetched) => self.on_records(fetched)?,
            SourceEvent::Unreadable(partition, why) => self.on_unreadable_input(partition, why)?,
            SourceEvent::Waiting(reason) => self.notice(Notice::Waiting(reason)),
            SourceEvent::Recovered => self.notice(Notice::Recovered),
        }
        Ok(())
    }

    fn on_changelog(&mut self, event: ChangelogEvent) -> Result<(), WorkerError> {
        match event {
            ChangelogEvent::Records(records) => self.on_restored(records),
            ChangelogEvent::Unreadable(partition, why) => {
                self.on_unreadable_changelog(partition, why)
            }
        }
    }

    fn notice(&mut self, notice: Notice) {
        self.report.notices.push(notice);
    }

    fn task_state(&mut self, task: TaskId, state: TaskState) {
        self.notice(Notice::Task { task, state });
    }

    /// How long there is nothing to do but to wait for something to read.
    fn wait(&mut self) -> Duration {
        if self.drain.is_some() {
            return Duration::from_millis(10);
        }
        let mut until = self.now.monotonic + WAIT_MAX;
        if let Some(since) = self.transaction.since
            && self.assigned
            && self.recover_at.is_none()
        {
            until = until.min(since.saturating_add(self.config.commit_after()));
        }
        if let Some(at) = self.recover_at {
            until = until.min(at);
        }
        if let Some(at) = self.next_work() {
            until = until.min(at);
        }
        until.saturating_sub(self.now.monotonic)
    }

    /// Takes an error as what it says to do.
    fn handle(&mut self, error: TransactionError) -> Result<(), WorkerError> {
        match error {
            TransactionError::Aborted(reason) => self.drop_work(&reason),
            TransactionError::Unavailable(reason) => {
                self.notice(Notice::Waiting(reason.clone()));
                self.abort(&reason)
            }
            TransactionError::Refused(refusal) => self.refused(refusal),
            TransactionError::Unknown(reason) => {
                self.recover_at = Some(self.now.monotonic);
                self.drop_work(&reason)
            }
            TransactionError::Fatal(reason) => Err(WorkerError(reason)),
        }
    }

    /// Takes an error of a call that changes nothing when it fails: it is tried again later.
    fn postpone(&mut self, error: PortError) -> Result<(), WorkerError> {
        match error {
            PortError::Fatal(reason) => Err(WorkerError(reason)),
            PortError::Unavailable(reason) => {
                self.notice(Notice::Waiting(reason));
                Ok(())
            }
        }
    }

    /// An epoch that nothing was fetched under yet.
    fn next_epoch(&mut self) -> FetchEpoch {
        self.epoch += 1;
        self.epoch
    }

    /// Reads the inputs of `task` from `offsets` on; what was fetched before is stale.
    fn read_from(&mut self, task: TaskId, offsets: &[Offset]) {
        let epoch = self.next_epoch();
        if let Some(Slot::Running(running)) = self.tasks.get_mut(&task) {
            for (queue, &offset) in running.queues().iter_mut().zip(offsets) {
                queue.reset(offset, epoch);
            }
        }
        let inputs = &self.topology.subtopology(task).inputs;
        for (input, &offset) in inputs.iter().zip(offsets) {
            let partition = TopicPartition::new(input.topic, task.partition);
            self.seeks.insert(partition, FetchPosition { partition, offset, epoch });
        }
    }

    /// Forgets the positions asked for of the inputs of `task`.
    fn forget_seeks(&mut self, task: TaskId) {
        self.seeks
            .retain(|partition, _| self.sources.get(partition).is_none_or(|(of, _)| *of != task));
    }

    /// Asks the source for the positions it has not taken yet.
    fn seek(&mut self) -> Result<(), WorkerError> {
        if self.seeks.is_empty() || !self.assigned {
            return Ok(());
        }
        let positions: Vec<FetchPosition> = self.seeks.values().copied().collect();
        let partitions: Vec<TopicPartition> = self.seeks.keys().copied().collect();
        let source = &mut self.ports.source;
        let asked = source.seek(&positions).and_then(|()| source.resume(&partitions));
        match asked {
            Ok(()) => {
                self.seeks.clear();
                Ok(())
            }
            Err(error) => self.postpone(error),
        }
    }

    /// Purges repartition topics below what is committed, now and then.
    fn purge(&mut self) {
        if self.now.monotonic < self.purge_at {
            return;
        }
        self.purge_at = self.now.monotonic + self.config.purge_interval;
        let below: Vec<(TopicPartition, Offset)> = self
            .sources
            .iter()
            .filter(|(source, _)| {
                self.topology.topic(source.topic).kind == crate::topology::TopicKind::Repartition
            })
            .filter_map(|(&source, (task, input))| match self.tasks.get(task)? {
                Slot::Running(task) => Some((source, task.committed_offsets()[*input])),
                Slot::Starting(_) | Slot::Failed(_) => None,
            })
            .filter(|&(_, offset)| offset > 0)
            .collect();
        if !below.is_empty() {
            self.ports.sink.purge(&below);
        }
    }
}
