use std::{fmt, rc::Rc, time::Duration};

use super::{
    builder::TestDriverBuilder,
    emitted::outputs_of,
    host::{Entry, MemoryHost},
    record::{TestOutput, TestRecord, encode},
};
use crate::{
    bindings::sidestream::transform::types::{self, Batch, Clock, Effects, Headers},
    codec::{Decode, Encode},
    failure::FailureKind,
    module::{Instance, Process},
    task::time_told_by,
    telemetry::Level,
};

/// Runs a transform as the agent would, for one task.
///
/// What is piped in at once is a batch. A punctuation by stream time comes after the record that
/// makes it due, one by the wall clock when [`TestDriver::advance_wall_clock`] does. A call that
/// fails leaves nothing behind.
pub struct TestDriver {
    pub(super) instance: Instance<Box<dyn Process>>,
    pub(super) host: Rc<MemoryHost>,
    pub(super) context: types::Context,
    pub(super) headers: bool,
    pub(super) schedules: Vec<Due>,
    pub(super) stream_time: i64,
    pub(super) wall_clock: i64,
    pub(super) next_offsets: Vec<i64>,
    pub(super) outputs: Vec<TestOutput>,
}

/// When a punctuation is due next.
pub(super) struct Due {
    pub(super) clock: Clock,
    pub(super) interval_ms: i64,
    pub(super) next: i64,
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestFailure {
    /// What is to become of the record.
    pub kind: FailureKind,
    /// Which of the records that were piped in at once it was; none in a punctuation.
    pub record: Option<usize>,
    /// Why, for people.
    pub message: String,
}

impl TestDriver {
    /// Begins a driver: partition 0, one input `input`, configuration `{}`, and the wall clock at
    /// 0.
    #[must_use]
    pub fn builder() -> TestDriverBuilder {
        TestDriverBuilder::new()
    }

    /// Processes records as one batch, and does what they make due.
    pub fn pipe(
        &mut self,
        records: impl IntoIterator<Item = TestRecord>,
    ) -> Result<(), TestFailure> {
        let records: Vec<_> = records.into_iter().collect();
        let (mut rest, mut before) = (records.as_slice(), 0);
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at(self.until_due(rest));
            self.process(batch).map_err(|failure| failure.behind(before))?;
            self.punctuate(Clock::StreamTime)?;
            before += batch.len();
            rest = behind;
        }
        Ok(())
    }

    /// Moves the wall clock on, and does what becomes due: once for all that were missed.
    pub fn advance_wall_clock(&mut self, by: Duration) -> Result<(), TestFailure> {
        self.wall_clock += i64::try_from(by.as_millis()).expect("a test's time is not that long");
        self.punctuate(Clock::WallClock)
    }

    /// Takes what was emitted since the last time, in order.
    #[must_use]
    pub fn outputs(&mut self) -> Vec<TestOutput> {
        std::mem::take(&mut self.outputs)
    }

    /// The value that a store has for a key. Panics if there is no such store, or the value is no
    /// `V`.
    #[must_use]
    pub fn get<V: for<'v> Decode<'v>>(
        &self,
        store: &str,
        key: &(impl Encode + ?Sized),
    ) -> Option<V> {
        let stores = self.host.stores.borrow();
        let value = stores[self.store(store)].get(&encode(key));
        value.map(|value| V::decode(value).expect("the store has values of that type"))
    }

    /// Sets the value that a store has for a key.
    pub fn put(
        &mut self,
        store: &str,
        key: &(impl Encode + ?Sized),
        value: &(impl Encode + ?Sized),
    ) {
        let store = self.store(store);
        self.host.stores.borrow_mut()[store].insert(encode(key), encode(value));
    }

    /// All entries of a store as bytes, in the order of their keys.
    #[must_use]
    pub fn entries(&self, store: &str) -> Vec<Entry> {
        let stores = self.host.stores.borrow();
        stores[self.store(store)].iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// The log lines so far.
    #[must_use]
    pub fn log_lines(&self) -> Vec<(Level, String)> {
        self.host.lines.borrow().clone()
    }

    /// The sum of a counter so far.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        self.host.counts.borrow().get(name).copied().unwrap_or(0)
    }

    /// The values of a histogram so far, in order.
    #[must_use]
    pub fn histogram(&self, name: &str) -> Vec<f64> {
        self.host.observations.borrow().get(name).cloned().unwrap_or_default()
    }

    /// How often the transform asked the agent for state, or gave it some before its call ended.
    /// Each time costs far more than the work on a record.
    #[must_use]
    pub fn state_calls(&self) -> u64 {
        self.host.crossings.get()
    }

    fn store(&self, name: &str) -> usize {
        let store = self.context.stores.iter().position(|other| other == name);
        store.expect("the driver was built with a store of that name")
    }

    /// How many of `records` come before the next punctuation by stream time.
    fn until_due(&self, records: &[TestRecord]) -> usize {
        let schedules = self.schedules.iter().filter(|due| due.clock == Clock::StreamTime);
        let Some(next) = schedules.map(|due| due.next).min() else { return records.len() };
        let makes_due = records.iter().position(|record| time_told_by(record.timestamp) >= next);
        makes_due.map_or(records.len(), |index| index + 1)
    }

    fn process(&mut self, records: &[TestRecord]) -> Result<(), TestFailure> {
        let savepoint = self.host.savepoint();
        let offsets = self.next_offsets.clone();
        let batch = self.batch(records);
        match self.instance.process(&batch) {
            Ok(effects) => {
                let times = records.iter().map(|record| time_told_by(record.timestamp));
                let newest = times.max();
                self.stream_time = self.stream_time.max(newest.unwrap_or(-1));
                self.take(&effects, records);
                Ok(())
            }
            Err(failure) => {
                self.host.roll_back(savepoint);
                self.next_offsets = offsets;
                Err(failure.into())
            }
        }
    }

    fn punctuate(&mut self, clock: Clock) -> Result<(), TestFailure> {
        let now = match clock {
            Clock::StreamTime => self.stream_time,
            Clock::WallClock => self.wall_clock,
        };
        for schedule in 0..self.schedules.len() {
            let due = &mut self.schedules[schedule];
            if now < 0 || due.clock != clock || due.next > now {
                continue;
            }
            let time = now - (now - due.next) % due.interval_ms;
            due.next = time.saturating_add(due.interval_ms);
            let savepoint = self.host.savepoint();
            let punctuation = types::Punctuation {
                schedule: u32::try_from(schedule).expect("a module has few schedules"),
                time,
                partition: self.context.partition,
                stream_time: self.stream_time,
                wall_clock: self.wall_clock,
            };
            match self.instance.punctuate(&punctuation) {
                Ok(effects) => self.take(&effects, &[]),
                Err(failure) => {
                    self.host.roll_back(savepoint);
                    return Err(failure.into());
                }
            }
        }
        Ok(())
    }

    fn batch(&mut self, records: &[TestRecord]) -> Batch {
        let inputs: Vec<u32> = records.iter().map(|record| self.input(record)).collect();
        let offsets = records.iter().zip(&inputs).map(|(record, &input)| {
            let next = &mut self.next_offsets[input as usize];
            let offset = record.offset.unwrap_or(*next);
            *next = offset + 1;
            offset
        });
        Batch {
            partition: self.context.partition,
            stream_time: self.stream_time,
            wall_clock: self.wall_clock,
            offsets: offsets.collect(),
            timestamps: records.iter().map(|record| record.timestamp).collect(),
            timestamp_types: vec![0; records.len()],
            keys: records.iter().map(|record| record.key.as_deref()).collect(),
            values: records.iter().map(|record| record.value.as_deref()).collect(),
            headers: self.headers.then(|| headers_of(records)),
            inputs,
        }
    }

    fn input(&self, record: &TestRecord) -> u32 {
        let Some(name) = &record.input else { return 0 };
        let mut inputs = self.context.inputs.iter().zip(0..);
        let index = inputs.find_map(|(other, index)| (other == name).then_some(index));
        index.expect("the driver was built with an input of that name")
    }

    fn take(&mut self, effects: &Effects, records: &[TestRecord]) {
        self.host.write(&effects.writes);
        let emitted = outputs_of(&effects.emits, records, self.stream_time, &self.context.outputs);
        self.outputs.extend(emitted);
    }
}

fn headers_of(records: &[TestRecord]) -> Headers {
    let all = || records.iter().flat_map(|record| &record.headers);
    Headers {
        counts: records.iter().map(|record| record.headers.len() as u32).collect(),
        names: all().map(|(name, _)| Some(name.as_bytes())).collect(),
        values: all().map(|(_, value)| value.as_deref()).collect(),
    }
}

impl TestFailure {
    fn behind(mut self, before: usize) -> Self {
        self.record = self.record.map(|record| record + before);
        self
    }
}

impl From<types::Failure> for TestFailure {
    fn from(failure: types::Failure) -> Self {
        let kind = match failure.kind {
            types::FailureKind::Retry => FailureKind::Retry,
            types::FailureKind::Reject => FailureKind::Reject,
        };
        let record = usize::try_from(failure.row).ok();
        Self { kind, record, message: failure.message }
    }
}

impl fmt::Display for TestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TestFailure {}

impl fmt::Debug for TestDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestDriver").field("context", &self.context).finish_non_exhaustive()
    }
}
