//! A task at work: records in, a part of a transaction out.

use std::{sync::Arc, time::Duration};

use crate::{
    record::{
        Batch, Changes, NO_TIMESTAMP, Offset, Outputs, Records, TaskId, Timestamp, TopicIndex,
        TopicPartition,
    },
    task::{
        Blame, Clock, Effects, Failure, FailureKind, Failures, OnTrial, Origins, Position,
        Processor, Punctuation, RecordId, Savepoint, State, StateStore, StoreError, StorePosition,
        Tally, Telemetry, TopicId, Wanted,
        division::Round,
        queue::{InputGroup, InputQueue, Readiness},
        routing::{self, Destinations, Inbox, Latest, Roots},
        time::{DueCall, TaskTime},
    },
    topology::{Retry, Subtopology, Topology},
    worker::{Committed, FetchEpoch, PassedOver},
};

/// What a task is given to work with, and what comes of it.
pub(crate) struct Turn<'a, P> {
    pub(crate) wall_clock: Timestamp,
    /// The worker's own; policies may say otherwise.
    pub(crate) retry: Retry,
    /// Makes a processor for a transform of the task.
    pub(crate) make: &'a mut dyn FnMut(Wanted) -> Result<P, Failure>,
    /// Versions on probation of transforms of the task.
    pub(crate) on_trial: Vec<OnTrial>,
    /// Whose fault the last failure of one of those was, and of which transform it is.
    pub(crate) blame: Option<(usize, Blame)>,
    /// What failed before and is not over yet.
    pub(crate) failures: &'a mut Failures,
    /// What each transform did so far.
    pub(crate) tallies: &'a mut [Tally],
    /// How much of the worker's time and memory it may have.
    pub(crate) share: Share<'a>,
    /// What goes to topics.
    pub(crate) produced: Produced,
    /// Whether a record was passed over.
    pub(crate) passed_over: bool,
    /// The first call in which a transform's code broke off, and how.
    pub(crate) broke: Option<(usize, String)>,
}

/// What a turn may take before other tasks have theirs.
pub(crate) struct Share<'a> {
    /// Tells the time.
    pub(crate) time: &'a dyn Fn() -> Duration,
    pub(crate) ends_at: Duration,
    /// Bytes of outputs, of what is handed over, and of what the task holds until the commit.
    pub(crate) bytes_max: usize,
    /// Bytes that punctuations have handed to other transforms of the task.
    pub(crate) handed_over: usize,
}

/// Which of the punctuations that were due were called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Punctuated {
    /// None was due.
    Nothing,
    /// Some: the share was used up. The others come first in the next turn.
    Some,
    /// All of them.
    All,
}

impl<P> Turn<'_, P> {
    /// Whether the turn has to end, for a task that holds so many bytes.
    fn is_used_up(&self, held: usize) -> bool {
        let Share { time, ends_at, bytes_max, handed_over } = &self.share;
        held + handed_over + self.produced.outputs.bytes() >= *bytes_max || time() >= *ends_at
    }

    /// The version of a transform that is on probation, if one is.
    pub(super) fn on_trial(&self, transform: usize) -> Option<OnTrial> {
        self.on_trial.iter().find(|of| of.transform == transform).copied()
    }

    /// A call of a transform failed, and the version before one on probation was not asked.
    pub(super) fn failed(&mut self, transform: usize, failure: &Failure) {
        self.blame = None;
        if failure.kind.is_break() {
            self.tallies[transform].broke();
            self.broke.get_or_insert_with(|| (transform, failure.to_string()));
        }
    }
}

/// Records to produce, and for each the record at which its work failed if it is refused.
#[derive(Debug, Default)]
pub(crate) struct Produced {
    pub(crate) outputs: Outputs,
    pub(crate) origins: Vec<Option<RecordId>>,
}

impl Produced {
    fn append(&mut self, other: Self) {
        self.outputs.append(other.outputs);
        self.origins.extend(other.origins);
    }
}

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
    pub(super) state: State,
    /// What is committed.
    committed: Progress,
    /// What is committed, with the open transaction's work.
    open: Progress,
    pub(super) work: Work,
    /// What the last failure was about, if that is known.
    failed: Option<RecordId>,
}

/// How far a task has come, and what stands for it in the group's committed offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Progress {
    offsets: Vec<Offset>,
    time: TaskTime,
}

/// What a task did since the last commit, besides its changes of state.
#[derive(Debug, Default)]
pub(super) struct Work {
    any: bool,
    records: u64,
    latest: Latest,
    telemetry: Vec<(usize, Telemetry)>,
    /// What the telemetry holds in memory.
    telemetry_bytes: usize,
    pub(super) passed_over: Vec<PassedOver>,
}

/// What is published of a task's work once it is committed.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// By transform.
    pub telemetry: Vec<(usize, Telemetry)>,
    pub passed_over: Vec<PassedOver>,
}

/// A task's part of a transaction.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// For each store of the task.
    pub changes: Vec<Changes>,
    /// For each input of the task.
    pub offsets: Vec<(TopicPartition, Committed)>,
    /// What changelogs are told of the inputs.
    pub seen: String,
    /// Records processed.
    pub records: u64,
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
            state: State::new(store, subtopology.stores.len()),
            committed: progress.clone(),
            open: progress,
            work: Work::default(),
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

    /// Says that the position of the task is worth a commit although nothing was processed.
    pub(crate) fn touch(&mut self) {
        self.work.any = true;
    }

    /// Whether records can be processed at `now`.
    pub(crate) fn readiness(&mut self, now: Duration, idle_max: Duration) -> Readiness {
        self.inputs.readiness(now, idle_max)
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
                *processor = Some(made);
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
        self.processors[transform] = processor;
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
        self.work.any = true;
        self.prepare(turn)?;
        let punctuation = Punctuation {
            schedule: due.index,
            time: due.time,
            partition: self.id.partition,
            stream_time,
            wall_clock: turn.wall_clock,
        };
        let inboxes = self.inboxes(turn.wall_clock, stream_time);
        let mut round = Round { roots: Roots::none(stream_time, &due), inboxes };
        let savepoint = self.state.savepoint();
        let done = self
            .call(due.transform, turn, |processor, state| processor.punctuate(&punctuation, state))
            .and_then(|effects| {
                self.route(due.transform, &Inbox::default(), effects, &mut round, turn)
            });
        if let Err(failure) = done {
            self.undo(due.transform, &savepoint);
            turn.failed(due.transform, &failure);
            return Err(failure);
        }
        self.run(round, turn)
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
        let effects = self
            .call(transform, turn, |processor, state| processor.process(&records.batch, state))?;
        self.route(transform, records, effects, round, turn)?;
        turn.tallies[transform].processed(records.len());
        Ok(())
    }

    fn call(
        &mut self,
        transform: usize,
        turn: &mut Turn<'_, P>,
        call: impl FnOnce(&mut P, &mut State) -> Result<Effects, Failure>,
    ) -> Result<Effects, Failure> {
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

    /// How many bytes of work are held until the commit.
    pub(crate) fn bytes(&self) -> usize {
        let latest = &self.work.latest;
        self.state.bytes()
            + self.work.telemetry_bytes
            + latest.iter().map(|((_, _, key), row)| key.len() + row.bytes()).sum::<usize>()
    }

    /// Whether there is work to commit.
    pub(crate) fn has_work(&self) -> bool {
        self.work.any
    }

    /// The task's part of the transaction; records held back for their keys go to `produced`.
    pub(crate) fn part(&self, produced: &mut Produced) -> Part {
        routing::append_latest(&self.work.latest, produced);
        let subtopology = self.subtopology();
        let inputs = subtopology.inputs.iter().zip(&self.open.offsets).enumerate();
        let offsets = inputs.map(|(index, (input, &offset))| {
            let mut metadata = self.open.time.encode(index);
            metadata.push_str(&self.origins.mark(subtopology, index));
            (TopicPartition::new(input.topic, self.id.partition), Committed { offset, metadata })
        });
        Part {
            changes: self.state.changes(),
            offsets: offsets.collect(),
            seen: self.origins.seen(&self.topology, self.id, &self.open.offsets),
            records: self.work.records,
        }
    }

    /// The transaction is committed for certain: makes its changes part of the committed state.
    /// `ends` says where the last changelog record of each store stands, if it has any. Returns
    /// what is to be told of the work.
    pub(crate) fn complete(
        &mut self,
        part: &Part,
        ends: impl Fn(TopicIndex) -> Option<Offset>,
        now: Timestamp,
    ) -> Result<Said, StoreError> {
        self.committed = self.open.clone();
        let Work { telemetry, passed_over, .. } = std::mem::take(&mut self.work);
        let said = Said { telemetry, passed_over };
        if self.state.stores() == 0 {
            return Ok(said);
        }
        let mut position = self.state.committed().position()?;
        for (store, before) in
            self.topology.subtopology(self.id).stores.iter().zip(&mut position.stores)
        {
            if let (Some(end), Some(before)) = (ends(store.changelog), before.as_mut()) {
                before.offset = end;
                before.leader_epoch = -1; // Answers to what was produced carry none.
            }
        }
        position.inputs = self.origins.positions(&self.committed.offsets);
        position.committed_at = now;
        self.state.apply(&part.changes, &position)?;
        Ok(said)
    }

    /// Says which record the failure is about that comes next.
    pub(crate) const fn blame(&mut self, record: Option<RecordId>) {
        self.failed = record;
    }

    /// The record that the last failure was about.
    pub(crate) fn take_failed_record(&mut self) -> Option<RecordId> {
        self.failed.take()
    }

    /// Why a read of the task's state failed since this was asked last.
    pub(crate) fn take_state_failure(&mut self) -> Option<StoreError> {
        self.state.take_failure()
    }

    /// Forgets the open transaction's work and what waits. Records must be fetched again from
    /// [`committed_offsets`](Self::committed_offsets).
    pub(crate) fn drop_work(&mut self) {
        self.work = Work::default();
        self.state.clear();
        self.open = self.committed.clone();
        self.processors.iter_mut().for_each(|processor| *processor = None);
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { kind: FailureKind::State, record: None, message: error.to_string() }
    }
}

/// Reads the position of a task's stores, one element for each, whatever was stored.
pub(crate) fn store_positions(
    store: &dyn StateStore,
    stores: usize,
) -> Result<Position, StoreError> {
    let mut position = store.position()?;
    position.stores.resize(stores, None);
    Ok(position)
}

/// The position of a store that holds nothing yet.
pub(crate) const fn empty_position(topic_id: TopicId) -> StorePosition {
    StorePosition { offset: 0, topic_id, leader_epoch: -1 }
}
