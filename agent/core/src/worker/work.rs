//! Running tasks process what waits for them.

use std::time::Duration;

use super::{Environment, Slot, Worker, WorkerError};
use crate::{
    ports::Fetched,
    record::{TaskId, TransformId},
    task::{
        Blame, Clock, Division, Failure, Failures, Processor, Produced, Punctuated, Readiness,
        Share, Task, Turn, Wanted,
    },
};

/// How many batches a task processes in one turn, before the source is polled again.
const BATCHES_MAX: usize = 8;

/// What a task did with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worked {
    /// It had nothing to do, or has to wait.
    Nothing,
    /// All there was for now, or it failed.
    All,
    /// There may be more to do.
    Some,
}

/// Lets a task process a batch, if it is ready to, and its punctuations.
fn take_share<P: Processor>(
    task: &mut Task<P>,
    records_max: usize,
    ready: bool,
    turn: &mut Turn<'_, P>,
) -> Result<Worked, Failure> {
    task.prepare(turn)?;
    let mut worked = Worked::Nothing;
    if task.is_due_by_stream_time() {
        // What the last turn had no time for, before any other record.
        task.punctuate(Clock::StreamTime, turn)?;
        worked = Worked::Some;
    } else if ready {
        task.process(records_max, turn)?;
        worked = Worked::Some;
    }
    match task.punctuate(Clock::WallClock, turn)? {
        Punctuated::Some => Ok(Worked::Some),
        Punctuated::All if worked == Worked::Nothing => Ok(Worked::All),
        Punctuated::All | Punctuated::Nothing => Ok(worked),
    }
}

impl<E: Environment> Worker<E> {
    pub(super) fn on_records(&mut self, fetched: Fetched) -> Result<(), WorkerError> {
        let Fetched { partition: source, epoch, records, next } = fetched;
        if !self.assigned {
            return Ok(()); // Fetched before everything was revoked.
        }
        let Some(&(id, input)) = self.sources.get(&source) else { return Ok(()) };
        let Some(Slot::Running(task)) = self.tasks.get_mut(&id) else { return Ok(()) };
        if !task.push(input, records, epoch, next) {
            return Ok(());
        }
        if task.has_work() {
            self.transaction.begin(self.now.monotonic);
        }
        let queue = &mut task.queues()[input];
        if queue.bytes() > self.config.buffered_bytes_max && !queue.paused {
            queue.paused = true;
            if let Err(error) = self.ports.source.pause(&[source]) {
                return self.postpone(error);
            }
        }
        Ok(())
    }

    /// Whether tasks may work at all now.
    fn may_work(&self) -> bool {
        self.assigned
            && self.recover_at.is_none()
            && self.drain.is_none()
            && !self.paused
            && self.rest.retry_at <= self.now.monotonic
    }

    /// When the next task can work; `None` if only what is read can bring work.
    pub(super) fn next_work(&mut self) -> Option<Duration> {
        if !self.assigned || self.recover_at.is_some() {
            return None;
        }
        let (now, max_task_idle, start_at) = (self.now, self.config.max_task_idle, self.start_at);
        let failures = &self.failures;
        let mut next: Option<Duration> = None;
        for (id, slot) in &mut self.tasks {
            let at = match slot {
                Slot::Starting(starting) => starting.next_step().map(|at| at.max(start_at)),
                Slot::Running(_) if self.paused => None,
                Slot::Running(task) => {
                    let punctuation = task.next_wall_punctuation().map(|at| {
                        let ahead = u64::try_from(at.saturating_sub(now.wall)).unwrap_or(0);
                        now.monotonic + Duration::from_millis(ahead)
                    });
                    let records = match task.readiness(now.monotonic, max_task_idle) {
                        _ if task.is_due_by_stream_time() => Some(now.monotonic),
                        Readiness::Empty => None,
                        Readiness::Wait(until) => Some(until),
                        Readiness::Ready => Some(now.monotonic),
                    };
                    let first = [punctuation, records].into_iter().flatten().min();
                    let retry_at =
                        failures.get(id).map_or(Duration::ZERO, |failures| failures.retry_at);
                    first.map(|at| at.max(retry_at))
                }
                Slot::Failed(_) => None,
            };
            next = [next, at].into_iter().flatten().min();
        }
        next.map(|at| at.max(self.rest.retry_at))
    }

    /// Lets running tasks work in the order of their turns, until each has nothing to do or has done
    /// its share, the transaction is full, or time is up. Of those that work alone only one does: its
    /// transaction is committed or dropped then, and the next is for others.
    pub(super) fn work(&mut self) -> Result<(), WorkerError> {
        let ends_at = self.now.monotonic.saturating_add(self.config.turn_time_max);
        let tasks = self.tasks.keys().map(|&id| (id, self.is_alone(id)));
        let (mut any, mut any_alone) = (false, false);
        for (id, is_alone) in self.turns.order(tasks) {
            if is_alone && any_alone {
                continue;
            }
            for _ in 0..BATCHES_MAX {
                if !self.may_work() || self.transaction_is_full() || self.is_late() {
                    return Ok(());
                }
                // A turn in which some work is done gets everybody further, however short it is.
                if any && (self.now.monotonic >= ends_at || self.commit_is_due()) {
                    return Ok(());
                }
                let worked = self.work_one(id, ends_at)?;
                if worked != Worked::Nothing {
                    (any, any_alone) = (true, any_alone || is_alone);
                    self.turns.worked((id, is_alone));
                    self.look_at_clock();
                }
                if worked != Worked::Some {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Whether the open transaction must be committed before anything else is done.
    fn is_late(&self) -> bool {
        let open = self.transaction.since.map(|since| self.now.monotonic.saturating_sub(since));
        open.is_some_and(|open| open >= self.config.open_max())
    }

    /// Whether a task's work must have a transaction of its own.
    fn is_alone(&self, id: TaskId) -> bool {
        self.failures.get(&id).is_some_and(Failures::is_alone)
    }

    /// Whether another task has work in the open transaction.
    fn has_company(&self, id: TaskId) -> bool {
        let has_work =
            |slot: &Slot<E::Processor>| matches!(slot, Slot::Running(task) if task.has_work());
        self.tasks.iter().any(|(other, slot)| *other != id && has_work(slot))
    }

    /// Lets a task process one batch, and its punctuations by the wall clock, as far as the time
    /// until `ends_at` and the bytes of a transaction go: after each call of a punctuation both are
    /// looked at.
    fn work_one(&mut self, id: TaskId, ends_at: Duration) -> Result<Worked, WorkerError> {
        let now = self.now;
        let is_alone = self.is_alone(id);
        let must_wait = is_alone && self.has_company(id);
        let failures = self.failures.entry(id).or_default();
        if failures.retry_at > now.monotonic {
            return Ok(Worked::Nothing);
        }
        if must_wait {
            self.transaction.is_urgent = true;
            return Ok(Worked::Nothing);
        }
        let Some(Slot::Running(task)) = self.tasks.get_mut(&id) else {
            return Ok(Worked::Nothing);
        };
        let (environment, clock) = (&mut self.environment, &self.clock);
        let records_max = failures.batch_records_max(self.config.batch_records_max);
        let comes_back = failures.has_dropped();
        let on_trial = self.code.on_trial(id.subtopology);
        let (versions, tallies) = self.code.of(id);
        let before = task.bytes();
        let since = self.transaction.since.unwrap_or(now.monotonic);
        let divide_until = self.config.divide_until(since, now.monotonic);
        let division = failures.division(self.config.batch_records_max, divide_until);
        let mut turn = Turn {
            wall_clock: now.wall,
            retry: self.config.retry(),
            make: &mut |wanted| match wanted {
                Wanted::ToWork(transform) => {
                    environment.processor(id, transform, versions[transform])
                }
                Wanted::ToTry(of) => environment.witness(id, of.transform, of.before),
            },
            on_trial,
            blame: None,
            failures,
            tallies,
            share: Share {
                time: &|| clock().monotonic,
                ends_at: ends_at.min(since.saturating_add(self.config.commit_after())),
                bytes_max: before
                    + self.config.uncommitted_bytes_max.saturating_sub(self.transaction.bytes),
                handed_over: 0,
            },
            produced: Produced::default(),
            passed_over: false,
            broke: None,
            division,
        };
        let ready = task.readiness(now.monotonic, self.config.max_task_idle) == Readiness::Ready;
        let result = take_share(task, records_max, ready, &mut turn);
        let Turn { produced, passed_over, broke, blame, division, .. } = turn;
        if let Some((transform, how)) = broke {
            self.code.broke(TransformId { subtopology: id.subtopology, transform }, how);
        }
        self.transaction.is_urgent |= passed_over || ((comes_back || is_alone) && task.has_work());
        if task.has_work() {
            self.transaction.begin(now.monotonic);
            self.transaction.bytes += task.bytes().saturating_sub(before);
        }
        self.end_share(id, result, produced, (blame.as_ref(), division))
    }

    /// Does with what came of a task's work what is to be done.
    fn end_share(
        &mut self,
        id: TaskId,
        result: Result<Worked, Failure>,
        produced: Produced,
        (blame, division): (Option<&(usize, Blame)>, Division),
    ) -> Result<Worked, WorkerError> {
        match result {
            Ok(_) if self.judge(id.subtopology)? => Ok(Worked::All),
            Ok(worked) => {
                self.unpause(id)?;
                self.produce(id, produced)?;
                Ok(worked)
            }
            Err(failure) if division.is_out_of_time => {
                self.out_of_time(id, &failure, division.is_vain())?;
                Ok(Worked::All)
            }
            Err(failure) => {
                self.fail(id, &failure, blame)?;
                Ok(Worked::All)
            }
        }
    }

    fn produce(&mut self, id: TaskId, produced: Produced) -> Result<(), WorkerError> {
        let Produced { outputs, origins } = produced;
        if outputs.is_empty() {
            return Ok(());
        }
        self.transaction.produced(&outputs);
        self.transaction.origins.push((id, origins));
        self.ports.sink.produce(&outputs).or_else(|error| self.transaction_failed(error))
    }

    /// Goes on fetching partitions of which not much waits any more.
    fn unpause(&mut self, id: TaskId) -> Result<(), WorkerError> {
        let Some(Slot::Running(task)) = self.tasks.get_mut(&id) else { return Ok(()) };
        let inputs = &self.topology.subtopology(id).inputs;
        let mut resumed = Vec::new();
        for (queue, input) in task.queues().iter_mut().zip(inputs) {
            if queue.paused && queue.bytes() <= self.config.buffered_bytes_max / 2 {
                queue.paused = false;
                resumed.push(crate::record::TopicPartition::new(input.topic, id.partition));
            }
        }
        if resumed.is_empty() {
            return Ok(());
        }
        self.ports.source.resume(&resumed).or_else(|error| self.postpone(error))
    }
}
