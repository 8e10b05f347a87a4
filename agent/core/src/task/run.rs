//! A task at work: records in, a part of a transaction out.

use std::{sync::Arc, time::Duration};

use crate::{
    record::{
        Batch, Changes, NO_TIMESTAMP, Offset, Outputs, Records, TaskId, Timestamp, TopicIndex,
        TopicPartition,
    },
    task::{
        Clock, Effects, FailedRecord, Failure, FailureKind, Position, Processor, Punctuation,
        State, StateStore, StoreError, StorePosition, Telemetry, TopicId,
        queue::{InputGroup, InputQueue, Readiness},
        routing::{self, Destinations, Inbox, Latest},
        time::{DueCall, TaskTime},
    },
    topology::{Subtopology, Topology},
    worker::{ChangelogEnd, Committed, FetchEpoch},
};

/// Makes a processor for a transform of the task.
pub(crate) type MakeProcessor<'a, P> = &'a mut dyn FnMut(usize) -> Result<P, Failure>;

/// An open task: its state can be read and written.
pub(crate) struct Task<P> {
    pub(crate) id: TaskId,
    topology: Arc<Topology>,
    inputs: InputGroup,
    /// One for each transform; none until it is needed, and after it failed or its work was
    /// dropped.
    processors: Vec<Option<P>>,
    state: State,
    /// What is committed.
    committed: Progress,
    /// What is committed, with the open transaction's work.
    open: Progress,
    work: Work,
    /// What the last failure was about, if it said so.
    failed: Option<FailedRecord>,
}

/// How far a task has come, and what stands for it in the group's committed offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Progress {
    offsets: Vec<Offset>,
    time: TaskTime,
}

/// What a task did since the last commit, besides its changes of state.
#[derive(Debug, Default)]
struct Work {
    any: bool,
    records: u64,
    latest: Latest,
    telemetry: Vec<(usize, Telemetry)>,
}

/// A task's part of a transaction.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// For each store of the task.
    pub changes: Vec<Changes>,
    /// For each input of the task.
    pub offsets: Vec<(TopicPartition, Committed)>,
    /// Records processed.
    pub records: u64,
}

impl<P: Processor> Task<P> {
    /// Opens a task whose group has committed `offsets` for its inputs, over its committed state.
    pub(crate) fn new(
        id: TaskId,
        topology: Arc<Topology>,
        committed: &[Committed],
        store: Box<dyn StateStore>,
    ) -> Self {
        let subtopology = topology.subtopology(id);
        let mut time = TaskTime::new(committed.len());
        for (input, committed) in committed.iter().enumerate() {
            time.decode(input, &committed.metadata);
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
        }
    }

    /// Gives the committed state back; open work is lost.
    pub(crate) fn close(self) -> Box<dyn StateStore> {
        self.state.into_committed().expect("an open task has its state")
    }

    fn subtopology(&self) -> &Subtopology {
        self.topology.subtopology(self.id)
    }

    /// The committed offset of each input.
    pub(crate) fn committed_offsets(&self) -> &[Offset] {
        &self.committed.offsets
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
    pub(crate) fn prepare(
        &mut self,
        wall: Timestamp,
        make: MakeProcessor<'_, P>,
    ) -> Result<(), Failure> {
        for (transform, processor) in self.processors.iter_mut().enumerate() {
            if processor.is_none() {
                let made = make(transform)?;
                self.open.time.schedule(transform, &made.setup().schedules, wall);
                *processor = Some(made);
            }
        }
        Ok(())
    }

    /// Processes a batch of at most `records_max` records, and the punctuations that stream time
    /// brings about. Appends what goes to topics to `outputs`.
    pub(crate) fn process(
        &mut self,
        records_max: usize,
        wall_clock: Timestamp,
        outputs: &mut Outputs,
    ) -> Result<(), Failure> {
        let boundary = self.open.time.next(Clock::StreamTime);
        let mut batch = Batch {
            partition: self.id.partition,
            stream_time: self.open.time.stream_time(),
            wall_clock,
            ..Batch::default()
        };
        self.inputs.take(records_max, boundary, &mut self.open.time, &mut batch);
        self.work.any = true;
        self.work.records += batch.inputs.len() as u64;
        let mut inboxes = self.inboxes(wall_clock, batch.stream_time);
        routing::distribute(self.topology.subtopology(self.id), batch, &mut inboxes);
        self.run(inboxes, outputs)?;
        for (offset, queue) in self.open.offsets.iter_mut().zip(&self.inputs.queues) {
            *offset = queue.position();
        }
        self.punctuate(Clock::StreamTime, wall_clock, outputs)?;
        Ok(())
    }

    fn inboxes(&self, wall_clock: Timestamp, stream_time: Timestamp) -> Vec<Inbox> {
        let inbox = || {
            let partition = self.id.partition;
            let batch = Batch { partition, stream_time, wall_clock, ..Batch::default() };
            Inbox { batch, roots: Vec::new() }
        };
        (0..self.processors.len()).map(|_| inbox()).collect()
    }

    /// When a punctuation by the wall clock is due next.
    pub(crate) fn next_wall_punctuation(&self) -> Option<Timestamp> {
        self.open.time.next(Clock::WallClock)
    }

    /// Does every punctuation by `clock` that is due.
    pub(crate) fn punctuate(
        &mut self,
        clock: Clock,
        wall_clock: Timestamp,
        outputs: &mut Outputs,
    ) -> Result<(), Failure> {
        loop {
            let stream_time = self.open.time.stream_time();
            let now = match clock {
                Clock::StreamTime => stream_time,
                Clock::WallClock => wall_clock,
            };
            let Some(due) = self.open.time.take_due(clock, now) else { return Ok(()) };
            self.punctuate_one(due, stream_time, wall_clock, outputs)?;
        }
    }

    fn punctuate_one(
        &mut self,
        due: DueCall,
        stream_time: Timestamp,
        wall_clock: Timestamp,
        outputs: &mut Outputs,
    ) -> Result<(), Failure> {
        self.work.any = true;
        let punctuation = Punctuation {
            schedule: due.index,
            time: due.time,
            partition: self.id.partition,
            stream_time,
            wall_clock,
        };
        let effects =
            self.call(due.transform, |processor, state| processor.punctuate(&punctuation, state))?;
        let mut inboxes = self.inboxes(wall_clock, stream_time);
        self.route(due.transform, &Inbox::default(), effects, &mut inboxes, outputs)?;
        self.run(inboxes, outputs)
    }

    /// Runs every transform over what is in its inbox, each after those that hand records to it.
    fn run(&mut self, mut inboxes: Vec<Inbox>, outputs: &mut Outputs) -> Result<(), Failure> {
        for transform in 0..inboxes.len() {
            let mut inbox = std::mem::take(&mut inboxes[transform]);
            if inbox.batch.inputs.is_empty() {
                continue;
            }
            inbox.sort();
            let done = self
                .call(transform, |processor, state| processor.process(&inbox.batch, state))
                .and_then(|effects| self.route(transform, &inbox, effects, &mut inboxes, outputs));
            if let Err(failure) = done {
                self.failed = FailedRecord::of(transform, &inbox.batch, &failure);
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Calls a processor. If it fails, its changes of state are undone and it is thrown away.
    fn call(
        &mut self,
        transform: usize,
        call: impl FnOnce(&mut P, &mut State) -> Result<Effects, Failure>,
    ) -> Result<Effects, Failure> {
        let processor = self.processors[transform].as_mut().expect("prepared before work");
        let savepoint = self.state.savepoint();
        let result = call(processor, &mut self.state);
        if result.is_err() {
            self.state.rollback(&savepoint);
            self.processors[transform] = None;
        }
        result
    }

    fn route(
        &mut self,
        transform: usize,
        cause: &Inbox,
        effects: Effects,
        inboxes: &mut [Inbox],
        outputs: &mut Outputs,
    ) -> Result<(), Failure> {
        let Effects { emits, telemetry } = effects;
        if !telemetry.lines.is_empty() || !telemetry.samples.is_empty() {
            self.work.telemetry.push((transform, telemetry));
        }
        let stream_time = match self.open.time.stream_time() {
            NO_TIMESTAMP => inboxes.first().map_or(NO_TIMESTAMP, |inbox| inbox.batch.wall_clock),
            time => time,
        };
        let topology = Arc::clone(&self.topology);
        let description = &topology.subtopology(self.id).transforms[transform];
        let mut own = Outputs::default();
        let mut destinations = Destinations {
            topology: &topology,
            inboxes,
            outputs: if outputs.is_empty() { outputs } else { &mut own },
            latest: &mut self.work.latest,
            stream_time,
        };
        destinations.route(description, cause, emits)?;
        outputs.append(own);
        Ok(())
    }

    /// How many bytes of work are held until the commit.
    pub(crate) fn bytes(&self) -> usize {
        let latest = &self.work.latest;
        self.state.bytes()
            + latest.iter().map(|((_, _, key), row)| key.len() + row.bytes()).sum::<usize>()
    }

    /// Whether there is work to commit.
    pub(crate) fn has_work(&self) -> bool {
        self.work.any
    }

    /// The task's part of the transaction; records held back for their keys go to `outputs`.
    pub(crate) fn part(&self, outputs: &mut Outputs) -> Part {
        routing::append_latest(&self.work.latest, outputs);
        let inputs = self.subtopology().inputs.iter().zip(&self.open.offsets).enumerate();
        let offsets = inputs.map(|(index, (input, &offset))| {
            let metadata = self.open.time.encode(index);
            (TopicPartition::new(input.topic, self.id.partition), Committed { offset, metadata })
        });
        Part {
            changes: self.state.changes(),
            offsets: offsets.collect(),
            records: self.work.records,
        }
    }

    /// The transaction is committed for certain: makes its changes part of the committed state.
    /// `ends` says where the last changelog record of each store stands, if it has any. Returns
    /// what user code said.
    pub(crate) fn complete(
        &mut self,
        part: &Part,
        ends: impl Fn(TopicIndex) -> Option<ChangelogEnd>,
        now: Timestamp,
    ) -> Result<Vec<(usize, Telemetry)>, StoreError> {
        self.committed = self.open.clone();
        let telemetry = std::mem::take(&mut self.work).telemetry;
        if self.state.stores() == 0 {
            return Ok(telemetry);
        }
        let mut position = self.state.committed().position()?;
        for (store, before) in
            self.topology.subtopology(self.id).stores.iter().zip(&mut position.stores)
        {
            if let (Some(end), Some(before)) = (ends(store.changelog), before.as_mut()) {
                before.offset = end.next;
                before.leader_epoch = end.leader_epoch;
            }
        }
        position.inputs.clone_from(&self.committed.offsets);
        position.committed_at = now;
        self.state.apply(&part.changes, &position)?;
        Ok(telemetry)
    }

    /// The record that the last failure named.
    pub(crate) fn take_failed_record(&mut self) -> Option<FailedRecord> {
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
