//! A task at work: records in, a part of a transaction out.

use std::{sync::Arc, time::Duration};

use crate::{
    record::{Batch, Committed, FetchEpoch, NO_TIMESTAMP, Offset, Records, TaskId, Timestamp},
    task::{
        Clock, Doer, Effects, Failure, FailureKind, Origins, Processor, Punctuation, Savepoint,
        State, StateStore, StoreError, Wanted,
        division::Round,
        part::Work,
        queue::{InputGroup, InputQueue, Readiness},
        routing::{self, Destinations, Inbox, Roots},
        time::{DueCall, TaskTime},
        turn::{Produced, Punctuated, Turn},
    },
    topology::{Subtopology, Topology},
};

/// What brokers store beside an offset at most (their `offset.metadata.max.bytes`).
pub(super) const METADATA_BYTES_MAX: usize = 4_096;

/// An open task: its state can be read and written.
pub(crate) struct Task<P> {
    pub(crate) id: TaskId,
    pub(super) topology: Arc<Topology>,
    /// The topics that it works with.
    origins: Origins,
    inputs: InputGroup,
    /// One for each transform; none until it is needed, and after it failed or its work was
    /// dropped.
    processors: Vec<Option<P>>,
    /// Which of them were called since they were made.
    used: Vec<bool>,
    pub(super) state: State,
    /// What is committed.
    pub(super) committed: Progress,
    /// What is committed, with the open transaction's work.
    pub(super) open: Progress,
    pub(super) work: Work,
    /// Where it began is not committed yet.
    pub(super) is_new: bool,
    /// Whose work the last failure was, if that is known.
    failed: Option<Doer>,
}

/// How far a task has come, and what stands for it in the group's committed offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) offsets: Vec<Offset>,
    pub(super) time: TaskTime,
}

impl<P: Processor> Task<P> {
    /// Opens a task whose group has `committed` offsets for its inputs, over its committed state.
    pub(crate) fn new(
        id: TaskId,
        topology: Arc<Topology>,
        (committed, origins): (&[Committed], Origins),
        store: Box<dyn StateStore>,
    ) -> Self {
        let subtopology = topology.subtopology(id);
        let mut time = TaskTime::new(committed.len());
        for (input, committed) in committed.iter().enumerate() {
            time.decode(input, subtopology.transforms.len(), &committed.metadata);
        }
        let offsets = committed.iter().map(|committed| committed.offset).collect();
        let progress = Progress { offsets, time };
        Self {
            id,
            inputs: InputGroup::new(committed.len()),
            processors: subtopology.transforms.iter().map(|_| None).collect(),
            used: vec![false; subtopology.transforms.len()],
            state: State::new(store, subtopology.stores.len()),
            committed: progress.clone(),
            open: progress,
            work: Work::default(),
            is_new: false,
            failed: None,
            topology,
            origins,
        }
    }

    /// Gives the committed state back; open work is lost.
    pub(crate) fn close(self) -> Box<dyn StateStore> {
        self.state.into_committed().expect("an open task has its state")
    }

    pub(super) fn subtopology(&self) -> &Subtopology {
        self.topology.subtopology(self.id)
    }

    /// The committed offset of each input.
    pub(crate) fn committed_offsets(&self) -> &[Offset] {
        &self.committed.offsets
    }

    /// The topics that it works with.
    pub(crate) const fn origins(&self) -> &Origins {
        &self.origins
    }

    /// The highest timestamp of the records that are committed.
    pub(crate) fn committed_stream_time(&self) -> Timestamp {
        self.committed.time.stream_time()
    }

    /// What waits of each input.
    pub(crate) fn queues(&mut self) -> &mut [InputQueue] {
        &mut self.inputs.queues
    }

    /// Takes in what was fetched of an input. Returns whether it was fetched under the epoch that
    /// counts.
    pub(crate) fn push(
        &mut self,
        input: usize,
        records: Records,
        epoch: FetchEpoch,
        next: Offset,
    ) -> bool {
        let taken = self.inputs.queues[input].push(records, epoch, next);
        self.skip_to_end();
        taken
    }

    /// Counts what stands at the end of an input and is nobody's record (markers, aborted ones)
    /// as processed, so that the committed offset reaches the end.
    fn skip_to_end(&mut self) {
        for (input, queue) in self.inputs.queues.iter().enumerate() {
            if queue.is_empty() && queue.position() > self.open.offsets[input] {
                self.open.offsets[input] = queue.position();
                self.work.any = true;
            }
        }
    }

    /// Says that the position of the task is worth a commit although nothing was processed,
    /// whatever becomes of what is.
    pub(crate) fn touch(&mut self) {
        (self.is_new, self.work.any) = (true, true);
    }

    /// Whether records can be processed at `now`.
    pub(crate) fn readiness(&mut self, now: Duration, max_task_idle: Duration) -> Readiness {
        self.inputs.readiness(now, max_task_idle)
    }

    /// Makes the processors that are not there, and takes the schedules they ask for.
    pub(crate) fn prepare(&mut self, turn: &mut Turn<'_, P>) -> Result<(), Failure> {
        for (transform, processor) in self.processors.iter_mut().enumerate() {
            if processor.is_none() {
                let made = match (turn.make)(Wanted::ToWork(transform)) {
                    Ok(made) => made,
                    Err(failure) => {
                        turn.failed(transform, &failure);
                        return Err(failure);
                    }
                };
                let schedules = &made.setup().schedules;
                self.open.time.schedule(transform, schedules, turn.wall_clock);
                let mark = self.origins.mark(self.topology.subtopology(self.id), 0);
                check_schedules(&self.open.time, &mark)?;
                *processor = Some(made);
                self.used[transform] = false;
            }
        }
        Ok(())
    }

    /// Takes another processor in place of the one of `transform`, or has one made before the next
    /// call. Not while there is uncommitted work: a transaction is one version's.
    pub(crate) fn replace(&mut self, transform: usize, processor: Option<P>, wall: Timestamp) {
        if let Some(made) = &processor {
            self.open.time.schedule(transform, &made.setup().schedules, wall);
        }
        // One that asks for too much is refused when it is made again to work.
        let mark = self.origins.mark(self.topology.subtopology(self.id), 0);
        let fits = check_schedules(&self.open.time, &mark).is_ok();
        self.processors[transform] = processor.filter(|_| fits);
        self.used[transform] = false;
    }

    /// Throws the instance of a transform away if it was called before.
    pub(super) fn renew(&mut self, transform: usize) {
        if self.used[transform] {
            self.processors[transform] = None;
        }
    }

    /// Whether the instance of a transform, which is there, has done nothing yet.
    pub(super) fn is_fresh(&self, transform: usize) -> bool {
        !self.used[transform]
    }

    /// Processes a batch of at most `records_max` records, and the punctuations that stream time
    /// brings about. Not while some are due: they come before the next record.
    pub(crate) fn process(
        &mut self,
        records_max: usize,
        turn: &mut Turn<'_, P>,
    ) -> Result<(), Failure> {
        let boundary = self.open.time.next(Clock::StreamTime);
        let mut batch = Batch {
            partition: self.id.partition,
            stream_time: self.open.time.stream_time(),
            wall_clock: turn.wall_clock,
            ..Batch::default()
        };
        self.inputs.take(records_max, boundary, &mut self.open.time, &mut batch);
        self.work.any = true;
        self.work.records += batch.inputs.len() as u64;
        let roots = Roots::of_batch(&batch);
        let mut inboxes = self.inboxes(turn.wall_clock, batch.stream_time);
        routing::distribute(self.topology.subtopology(self.id), batch, &mut inboxes);
        self.run(Round { roots, inboxes }, turn)?;
        self.open.offsets = self.positions();
        self.punctuate(Clock::StreamTime, turn)?;
        Ok(())
    }

    /// The offset to read next of each input once everything taken out has been processed.
    pub(crate) fn positions(&self) -> Vec<Offset> {
        self.inputs.queues.iter().map(InputQueue::position).collect()
    }

    fn inboxes(&self, wall_clock: Timestamp, stream_time: Timestamp) -> Vec<Inbox> {
        let inbox = || {
            let partition = self.id.partition;
            let batch = Batch { partition, stream_time, wall_clock, ..Batch::default() };
            Inbox { batch, ..Inbox::default() }
        };
        (0..self.processors.len()).map(|_| inbox()).collect()
    }

    /// When a punctuation by the wall clock is due next.
    pub(crate) fn next_wall_punctuation(&self) -> Option<Timestamp> {
        self.open.time.next(Clock::WallClock)
    }

    /// Whether punctuations are due by stream time.
    pub(crate) fn is_due_by_stream_time(&self) -> bool {
        self.open.time.is_due_by_stream_time()
    }

    /// Does the punctuations by `clock` that are due, the one that waits longest first, as far as
    /// the turn's share goes: one at least.
    pub(crate) fn punctuate(
        &mut self,
        clock: Clock,
        turn: &mut Turn<'_, P>,
    ) -> Result<Punctuated, Failure> {
        let mut punctuated = Punctuated::Nothing;
        loop {
            let stream_time = self.open.time.stream_time();
            let now = match clock {
                Clock::StreamTime => stream_time,
                Clock::WallClock => turn.wall_clock,
            };
            if punctuated != Punctuated::Nothing && turn.is_used_up(self.bytes()) {
                return Ok(Punctuated::Some);
            }
            let Some(due) = self.open.time.take_due(clock, now) else { return Ok(punctuated) };
            self.punctuate_one(due, stream_time, turn)?;
            punctuated = Punctuated::All;
        }
    }

    fn punctuate_one(
        &mut self,
        due: DueCall,
        stream_time: Timestamp,
        turn: &mut Turn<'_, P>,
    ) -> Result<(), Failure> {
        (self.work.any, self.work.punctuated) = (true, true);
        let punctuation = Punctuation {
            schedule: due.index,
            time: due.time,
            partition: self.id.partition,
            stream_time,
            wall_clock: turn.wall_clock,
        };
        loop {
            self.prepare(turn)?;
            let is_judged = self.is_fresh(due.transform);
            let inboxes = self.inboxes(turn.wall_clock, stream_time);
            let mut round = Round { roots: Roots::none(stream_time, &due), inboxes };
            let savepoint = self.state.savepoint();
            let origin = Doer::new(due.transform, None);
            let done = self
                .call(due.transform, origin, turn, |processor, state| {
                    processor.punctuate(&punctuation, state)
                })
                .and_then(|effects| {
                    self.route(due.transform, &Inbox::default(), effects, &mut round, turn)
                });
            let Err(failure) = done else { return self.run(round, turn) };
            self.undo(due.transform, &savepoint);
            turn.failed(due.transform, &failure);
            if is_judged || !failure.kind.is_of_record() || self.state.has_failed() {
                self.blame(Some(origin));
                return Err(failure);
            }
        }
    }

    /// Runs every transform over what is in its inbox, each after those that hand records to it.
    fn run(&mut self, mut round: Round, turn: &mut Turn<'_, P>) -> Result<(), Failure> {
        for transform in 0..round.inboxes.len() {
            let mut inbox = std::mem::take(&mut round.inboxes[transform]);
            if !inbox.batch.inputs.is_empty() {
                inbox.sort();
                inbox.trace(&round.roots);
                if round.roots.is_empty() {
                    turn.share.handed_over += inbox.batch.records.bytes();
                }
                self.process_inbox(transform, &inbox, &mut round, turn)?;
            }
        }
        Ok(())
    }

    /// Lets a transform process `records` in one call.
    pub(super) fn process_part(
        &mut self,
        transform: usize,
        records: &Inbox,
        round: &mut Round,
        turn: &mut Turn<'_, P>,
    ) -> Result<(), Failure> {
        let only = (records.len() == 1).then(|| round.roots.id(transform, records, 0));
        let origin = Doer::new(transform, only.flatten());
        let effects = self.call(transform, origin, turn, |processor, state| {
            processor.process(&records.batch, state)
        })?;
        self.route(transform, records, effects, round, turn)?;
        turn.tallies[transform].processed(records.len());
        Ok(())
    }

    fn call(
        &mut self,
        transform: usize,
        origin: Doer,
        turn: &mut Turn<'_, P>,
        call: impl FnOnce(&mut P, &mut State) -> Result<Effects, Failure>,
    ) -> Result<Effects, Failure> {
        self.state.written_by(u32::try_from(self.work.writers.len()).unwrap_or(u32::MAX));
        self.work.writers.push(origin);
        self.used[transform] = true;
        let processor = self.processors[transform].as_mut().expect("prepared before work");
        let outcome = call(processor, &mut self.state);
        turn.tallies[transform].called(&outcome, processor.cost());
        outcome
    }

    /// Undoes the changes of state of a call that failed, and throws its processor away.
    pub(super) fn undo(&mut self, transform: usize, savepoint: &Savepoint) {
        self.state.rollback(savepoint);
        self.processors[transform] = None;
    }

    /// Takes what a call did, all of it or nothing.
    fn route(
        &mut self,
        transform: usize,
        cause: &Inbox,
        effects: Effects,
        round: &mut Round,
        turn: &mut Turn<'_, P>,
    ) -> Result<(), Failure> {
        let Effects { emits, telemetry } = effects;
        let topology = Arc::clone(&self.topology);
        let subtopology = topology.subtopology(self.id);
        routing::check_partitions(&topology, &subtopology.transforms[transform], &emits)?;
        if !telemetry.lines.is_empty() || !telemetry.samples.is_empty() {
            self.work.telemetry_bytes += telemetry.bytes();
            self.work.telemetry.push((transform, telemetry));
        }
        let stream_time = match self.open.time.stream_time() {
            NO_TIMESTAMP => turn.wall_clock,
            time => time,
        };
        let mut own = Produced::default();
        let empty = turn.produced.outputs.is_empty();
        let mut destinations = Destinations {
            topology: &topology,
            subtopology,
            inboxes: &mut round.inboxes,
            roots: &round.roots,
            produced: if empty { &mut turn.produced } else { &mut own },
            latest: &mut self.work.latest,
            stream_time,
        };
        destinations.route(transform, cause, emits);
        turn.produced.append(own);
        Ok(())
    }

    /// Says whose work the failure is that comes next.
    pub(crate) const fn blame(&mut self, origin: Option<Doer>) {
        self.failed = origin;
    }

    /// Whose work the last failure was.
    pub(crate) fn take_failed(&mut self) -> Option<Doer> {
        self.failed.take()
    }

    /// Why a read of the task's state failed since this was asked last.
    pub(crate) fn take_state_failure(&mut self) -> Option<StoreError> {
        self.state.take_failure()
    }

    /// Forgets the open transaction's work and what waits. Records must be fetched again from
    /// [`committed_offsets`](Self::committed_offsets).
    pub(crate) fn drop_work(&mut self) {
        self.work = Work { any: self.is_new, ..Work::default() };
        self.state.clear();
        self.open = self.committed.clone();
        self.processors.iter_mut().for_each(|processor| *processor = None);
    }
}

/// Whether brokers take what is stored beside a task's first offset, which ends with a mark.
fn check_schedules(time: &TaskTime, mark: &str) -> Result<(), Failure> {
    let bytes = time.encoded_bytes_max() + mark.len();
    if bytes <= METADATA_BYTES_MAX {
        return Ok(());
    }
    let message = format!(
        "the modules of its task ask for so many punctuations that what is stored beside an offset \
         may come to {bytes} bytes, and brokers take {METADATA_BYTES_MAX}: let them ask for fewer"
    );
    Err(Failure { kind: FailureKind::Initialise, record: None, message })
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { kind: FailureKind::State, record: None, message: error.to_string() }
    }
}
