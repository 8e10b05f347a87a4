//! Simulated user code: it counts, keeps a table, hands records on, punctuates, and fails as the
//! plan says.

mod failing;

use std::{collections::BTreeMap, time::Duration};

use sidestream_core::{
    record::{
        Batch, Emits, NO_CAUSE, NO_TIMESTAMP, PARTITION_BY_KEY, TIMESTAMP_OF_CAUSE, TaskId,
        TopicPartition, TransformId, time_told_by,
    },
    task::{
        Clock, Cost, Effects, Failure, FailureKind, Level, LogLine, Processor, Punctuation, Sample,
        SampleValue, Schedule, Setup, State, StoreError, Telemetry,
    },
    topology::{ErrorPolicy, Version},
};

use crate::{
    check::{self, Stamp},
    log::RECORD_BYTES_MAX,
    pipeline::{CHAIN, CHAINED, COUNT, COUNTS, HANDED, LATEST, NEXT, OUT, SPARE, TABLE, TICKS},
    poison::{self, Way},
    slow::MORE_SCHEDULES,
    swap::{Behaviour, Call, Owner, VERSION_HEADER},
    time::{TimeSheet, TurnMax},
    world::World,
};

/// Where the count of stream-time punctuations is kept.
pub(crate) const STREAM_TICKS: &[u8] = b"#stream";
/// Where the count of wall-clock punctuations is kept.
pub(crate) const WALL_TICKS: &[u8] = b"#wall";

/// Where the count of all other punctuations is kept.
const MORE_TICKS: &[u8] = b"#more";

/// What is said of records that fail whichever version they are given.
const POISON: &str = "poison";

/// An instance of a transform.
pub(crate) struct SimProcessor {
    world: World,
    owner: Owner,
    task: TaskId,
    transform: usize,
    version: Version,
    behaviour: Behaviour,
    /// What it says of its version with each record; nothing in runs without swaps.
    says: Option<String>,
    name: String,
    outputs: BTreeMap<String, u32>,
    on_error: ErrorPolicy,
    setup: Setup,
    /// How many of its schedules are those of the plan; the others only count.
    schedules: usize,
    /// The last offset of each input: what an instance must never see again.
    memory: BTreeMap<u32, i64>,
    /// The time of the last punctuation of each schedule, and how often it came for that.
    told: BTreeMap<u32, (i64, u32)>,
    /// How many records it was given, and how many with its last call.
    records: u64,
    last: u32,
    /// How many records and punctuations wear it out.
    uses: u64,
    failed: bool,
    /// What another version failed at is tried on it.
    is_witness: bool,
}

/// A record of a batch.
struct Row<'a> {
    row: usize,
    input: u32,
    offset: i64,
    key: &'a [u8],
    value: Option<&'a [u8]>,
    /// Where it comes from: input, partition and offset.
    stamp: Stamp,
}

impl SimProcessor {
    /// Initialises one, if the plan lets it.
    pub(crate) fn new(
        world: &World,
        owner: Owner,
        (task, transform): (TaskId, usize),
        version: Version,
    ) -> Result<Self, Failure> {
        let mut state = world.lock();
        let id = TransformId { subtopology: task.subtopology, transform };
        let behaviour = state.swaps.behaviour(owner.pod, id, version);
        if behaviour == Behaviour::FailsToInitialise {
            return Err(failure(FailureKind::Initialise, None, "it never does"));
        }
        let rate = state.faults().initialise;
        let strike = state.prng.one_in(rate);
        if strike && state.strike(task) {
            return Err(failure(FailureKind::Initialise, None, "no luck"));
        }
        let plan = state.plan.clone();
        let has_swaps = !state.swaps.is_empty();
        drop(state);
        let definition = &plan.topology.subtopology(task).transforms[transform];
        let outputs = definition.outputs.iter().zip(0..);
        let mut setup = Setup::default();
        if definition.name != CHAIN {
            let (stream, wall) = (plan.shape.stream_punctuation, plan.shape.wall_punctuation);
            let schedules = behaviour.schedules(stream, wall).into_iter();
            setup.schedules =
                schedules.map(|(clock, interval)| Schedule { clock, interval }).collect();
        }
        if definition.name == SPARE {
            setup.schedules = vec![
                Schedule { clock: Clock::StreamTime, interval: Duration::from_millis(17) },
                Schedule { clock: Clock::WallClock, interval: Duration::from_millis(33) },
            ];
        }
        let schedules = if definition.name == SPARE { 0 } else { setup.schedules.len() };
        if plan.slow.is_some() && ![CHAIN, SPARE].contains(&definition.name.as_str()) {
            let more = MORE_SCHEDULES.into_iter();
            let more = more.map(|(clock, ms)| (clock, Duration::from_millis(ms)));
            setup.schedules.extend(more.map(|(clock, interval)| Schedule { clock, interval }));
        }
        Ok(Self {
            world: world.clone(),
            owner,
            task,
            transform,
            version,
            behaviour,
            says: has_swaps.then(|| format!("{}.{transform}.{version}", task.subtopology)),
            name: definition.name.clone(),
            on_error: definition.on_error,
            outputs: outputs.map(|(output, index)| (output.name.clone(), index)).collect(),
            setup,
            schedules,
            memory: BTreeMap::new(),
            told: BTreeMap::new(),
            records: 0,
            last: 0,
            uses: 0,
            failed: false,
            is_witness: false,
        })
    }

    /// What another version failed at is tried on it.
    pub(crate) fn into_witness(mut self) -> Self {
        self.is_witness = true;
        self
    }

    /// Tells of a call that begins.
    fn keep_time(
        &self,
        call: impl FnOnce(&mut TimeSheet, TaskId, u64, TurnMax) -> Result<(), String>,
    ) {
        let mut state = self.world.lock();
        if !state.checks_workers {
            return;
        }
        let (now, turn_max) = (state.now, state.turn_max());
        let kept = call(state.time_sheet(self.owner), self.task, now, turn_max);
        drop(state);
        if let Err(text) = kept {
            self.world.violate(format_args!("{:?}: {text}", self.owner));
        }
    }

    /// An instance that failed, or that saw a record before, should have been thrown away.
    fn check_memory(&mut self, batch: &Batch) {
        if self.failed {
            let task = self.task;
            self.world.violate(format_args!("{task} works on with an instance that failed"));
        }
        if self.name == CHAIN {
            return;
        }
        for (&input, &offset) in batch.inputs.iter().zip(&batch.records.offsets) {
            let before = self.memory.insert(input, offset);
            if before.is_some_and(|before| before >= offset) {
                let task = self.task;
                self.world.violate(format_args!(
                    "an instance of {task} got offset {offset} of input {input} after {before:?}"
                ));
            }
        }
    }

    /// Stream time is that of all records before, whatever happened in between.
    fn check_stream_time(&self, batch: &Batch) {
        if self.name == CHAIN {
            return;
        }
        let mut state = self.world.lock();
        if !state.checks_workers {
            return;
        }
        let plan = state.plan.clone();
        let inputs = &plan.topology.subtopology(self.task).inputs;
        let mut known = NO_TIMESTAMP;
        for (input, place) in inputs.iter().zip(0u32..) {
            let mut rows = batch.inputs.iter().zip(&batch.records.offsets);
            let Some((_, &first)) = rows.find(|(input, _)| **input == place) else { continue };
            let partition = TopicPartition::new(input.topic, self.task.partition);
            let history = state.cluster.partition(partition).history();
            let from = state.time_counts_from(self.owner, partition);
            let before = history.take_while(|(offset, _)| *offset < first);
            let before = before.filter(|(offset, _)| *offset >= from);
            let times = before.map(|(_, record)| time_told_by(record.timestamp));
            known = times.max().unwrap_or(known).max(known);
        }
        let exact = inputs.len() == 1;
        if state.has_lost(self.task) {
            return; // The time went with the offsets.
        }
        if batch.stream_time < known || (exact && batch.stream_time != known) {
            let (task, found) = (self.task, batch.stream_time);
            state.violate(format_args!("stream time of {task} is {found} instead of {known}"));
            drop(state);
            self.world.survive(self.owner.pod);
        }
    }

    fn emit(&self, emits: &mut Emits, output: &str, cause: i32, key: &[u8], value: &str) {
        let Some(&output) = self.outputs.get(output) else { return };
        if let Some(says) = &self.says {
            let headers = emits.headers.get_or_insert_default();
            let own = (Some(VERSION_HEADER), Some(says.as_bytes()));
            let pad = (self.behaviour == Behaviour::EmitsMore)
                .then_some((Some(b"pad".as_slice()), Some([b'x'; 200].as_slice())));
            headers.push(emits.outputs.len(), std::iter::once(own).chain(pad));
        }
        emits.causes.push(cause);
        emits.outputs.push(output);
        emits.keys.push(Some(key));
        emits.values.push(Some(value.as_bytes()));
        emits.timestamps.push(TIMESTAMP_OF_CAUSE);
        emits.partitions.push(PARTITION_BY_KEY);
    }

    fn handle(
        &self,
        batch: &Batch,
        row: &Row<'_>,
        state: &mut State,
        effects: &mut Effects,
    ) -> Result<(), Failure> {
        let store = if self.name == CHAIN { CHAINED } else { COUNTS };
        let count = add(state, store, row.key)?;
        // A failure after the first write: what was written must not stay.
        self.check_failure(row)?;
        let cause = i32::try_from(row.row).expect("a batch is small");
        let (input, partition, offset) = row.stamp;
        let stamp = format!("{input}/{partition}/{offset}");
        let emits = &mut effects.emits;
        let way = poison::way(&self.world.lock().plan, &self.name, row.stamp);
        if let Some(Way::TooLargeState) = way {
            // Under a key of its own, as below.
            let value = "x".repeat(RECORD_BYTES_MAX);
            state.put(store, format!("{stamp} is too large").as_bytes(), Some(value.as_bytes()));
            return Ok(());
        }
        if let Some(Way::TooLarge) = way {
            self.emit(emits, OUT, cause, row.key, &"x".repeat(RECORD_BYTES_MAX));
        }
        self.emit(emits, OUT, cause, row.key, &format!("{stamp}/{count}"));
        let key = [format!("{}:", batch.partition).as_bytes(), row.key].concat();
        self.emit(emits, LATEST, cause, &key, &count.to_string());
        if let Some(Way::TooLargeLatest) = way {
            // Under a key of its own: nothing that comes later may take its place.
            self.emit(emits, LATEST, cause, stamp.as_bytes(), &"x".repeat(RECORD_BYTES_MAX));
        }
        self.emit(emits, HANDED, cause, row.key, &stamp);
        let group = format!("g{}", row.key.iter().map(|byte| u32::from(*byte)).sum::<u32>() % 4);
        self.emit(emits, NEXT, cause, group.as_bytes(), &stamp);
        if self.name == COUNT {
            let key = [format!("{}:", row.input).as_bytes(), row.key].concat();
            state.put(TABLE, &key, row.value);
        }
        let message = format!("{} {} {stamp} {}", self.task, self.name, row.offset);
        effects.telemetry.lines.push(LogLine { level: Level::Info, message });
        Ok(())
    }

    fn handle_all(&mut self, batch: &Batch, state: &mut State) -> Result<Effects, Failure> {
        let mut effects = Effects { emits: Emits::default(), telemetry: Telemetry::default() };
        let records = &batch.records;
        for (row, (key, value)) in records.keys.iter().zip(&records.values).enumerate() {
            let input = batch.inputs[row];
            let offset = records.offsets[row];
            let stamp = self.stamp(batch, row);
            let row = Row { row, input, offset, key: key.unwrap_or(b"-"), value, stamp };
            self.handle(batch, &row, state, &mut effects)?;
        }
        if self.says.is_some() {
            let value = SampleValue::Count(self.version);
            effects.telemetry.samples.push(Sample { name: "version".to_owned(), value });
        }
        Ok(effects)
    }

    /// Where a record of a batch comes from.
    fn stamp(&self, batch: &Batch, row: usize) -> Stamp {
        if self.name != CHAIN {
            return (batch.inputs[row], batch.partition, batch.records.offsets[row]);
        }
        let value = batch.records.values.iter().nth(row).flatten();
        check::stamp(value.unwrap_or_default()).expect("it is handed stamps").0
    }

    /// Tells the worker's ledger of a call.
    fn account(&mut self, batch: &Batch, failure: Option<&Failure>) {
        let records = batch.records.len();
        self.last = u32::try_from(records).expect("a batch is small");
        self.records += records as u64;
        self.uses += records as u64;
        if self.says.is_none() {
            return;
        }
        let stamps: Vec<Stamp> = (0..records).map(|row| self.stamp(batch, row)).collect();
        let transform =
            TransformId { subtopology: self.task.subtopology, transform: self.transform };
        let (version, behaviour) = (self.version, self.behaviour);
        let is_poison = failure.is_some_and(|failure| failure.message == POISON);
        let failure = failure.map(|failure| failure.kind);
        let call = Call { transform, version, behaviour, stamps: &stamps, failure, is_poison };
        let mut state = self.world.lock();
        match self.is_witness {
            true => state.swaps.ledger(self.owner).opinion(&call),
            false => state.swaps.ledger(self.owner).called(&call),
        }
    }
}

impl Processor for SimProcessor {
    fn setup(&self) -> &Setup {
        &self.setup
    }

    fn process(&mut self, batch: &Batch, state: &mut State) -> Result<Effects, Failure> {
        match self.name.as_str() {
            SPARE => {}
            CHAIN => self.keep_time(|sheet, _, now, max| sheet.goes_on(now, max)),
            _ => self.keep_time(|sheet, task, now, max| sheet.processes(task, now, max)),
        }
        self.world.point(self.owner.pod, "guest.process");
        self.world.lock().dawdle(|slow| slow.guest);
        self.check_memory(batch);
        self.check_stream_time(batch);
        let result = match self.name.as_str() {
            SPARE => Ok(Effects::default()),
            _ => self.handle_all(batch, state),
        };
        self.failed = result.is_err();
        if self.failed {
            self.world.lock().hang();
        }
        self.account(batch, result.as_ref().err());
        let (task, name, rows) = (self.task, &self.name, &batch.records.offsets);
        let (version, failure) = (self.version, result.as_ref().err());
        self.world.lock().note(
            self.owner.pod,
            format_args!("{task} {name} v{version} processes {rows:?} {failure:?}"),
        );
        result
    }

    fn punctuate(&mut self, due: &Punctuation, state: &mut State) -> Result<Effects, Failure> {
        let schedule = usize::try_from(due.schedule).expect("small");
        let is_planned = schedule < self.schedules;
        let by_wall = is_planned && self.setup.schedules[schedule].clock == Clock::WallClock;
        self.keep_time(|sheet, task, now, max| sheet.punctuates((task, by_wall), now, max));
        self.world.point(self.owner.pod, "guest.process");
        self.world.lock().dawdle(|slow| slow.guest);
        if self.failed || due.time > due.stream_time.max(due.wall_clock) {
            let task = self.task;
            self.world.violate(format_args!("{task} was punctuated wrongly: {due:?}"));
        }
        let (time, times) = self.told.entry(due.schedule).or_insert((due.time, 0));
        *times = if *time == due.time { *times + 1 } else { 1 };
        *time = due.time;
        if *times > 3 {
            let task = self.task;
            self.world.violate(format_args!("{task} is punctuated again and again: {due:?}"));
        }
        let (name, key) = match self.setup.schedules[schedule].clock {
            _ if !is_planned => ("more", MORE_TICKS),
            Clock::StreamTime => ("stream", STREAM_TICKS),
            Clock::WallClock => ("wall", WALL_TICKS),
        };
        let mut effects = Effects::default();
        if self.name == SPARE {
            return Ok(effects);
        }
        let result = add(state, COUNTS, key).and_then(|count| {
            self.check_leak(None)?;
            let value = match name {
                _ if self.world.lock().plan.refusals.has_bad_ticks(self.task) => {
                    "x".repeat(RECORD_BYTES_MAX)
                }
                "stream" => format!("{count}/{}/{}", due.time, due.stream_time),
                _ => format!("{count}"),
            };
            let key = format!("{name} {}", self.task);
            if !is_planned {
                return Ok(());
            }
            self.emit(&mut effects.emits, TICKS, NO_CAUSE, key.as_bytes(), &value);
            Ok(())
        });
        self.failed = result.is_err();
        self.uses += 1;
        self.account(&Batch::default(), result.as_ref().err());
        let task = self.task;
        self.world
            .lock()
            .note(self.owner.pod, format_args!("{task} punctuates {due:?} {result:?}"));
        result.map(|()| effects)
    }

    fn cost(&self) -> Cost {
        self.behaviour.cost(self.last)
    }
}

fn failure(kind: FailureKind, record: Option<usize>, message: &str) -> Failure {
    Failure { kind, record, message: message.to_owned() }
}

fn state_failure(error: &StoreError) -> Failure {
    failure(FailureKind::State, None, &error.to_string())
}

/// Adds one to a count.
fn add(state: &mut State, store: usize, key: &[u8]) -> Result<u64, Failure> {
    let value = state.get(store, key).map_err(|error| state_failure(&error))?;
    let count = value.map_or(0, |value| number(&value)) + 1;
    state.put(store, key, Some(count.to_string().as_bytes()));
    Ok(count)
}

/// The number that a value says; 0 for one that says none.
pub(crate) fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}
