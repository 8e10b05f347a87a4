//! What every [`Processor`] must keep to, so that tasks can rely on it.
//!
//! A real one and a simulated one pass the same suite: [`check`] on a [`Subject`].

use std::{collections::BTreeMap, ops::Bound};

use sidestream_core::{
    column::Column,
    record::{Batch, Changes, Emits, NO_CAUSE, Origin, Records},
    task::{
        Effects, Entries, Failure, Position, Processor, Punctuation, Scan, State, StateStore,
        StoreError,
    },
};

/// Something that makes processors of one kind.
pub trait Subject {
    /// The kind.
    type Processor: Processor;

    /// How many stores the transform has.
    fn stores(&self) -> usize;

    /// How many outputs it has.
    fn outputs(&self) -> usize;

    /// A new instance.
    fn processor(&mut self) -> Self::Processor;

    /// Records that it can process. Some have the same key, so that later ones read what earlier
    /// ones wrote.
    fn batch(&self) -> Batch;

    /// A batch that it fails on, and at which row; `None` if there is no such batch.
    fn failing_batch(&self) -> Option<(Batch, usize)>;
}

/// Holds a subject to the contract. Panics where it is broken.
pub fn check<S: Subject>(subject: &mut S) {
    it_asks_for_the_same_whenever_it_is_asked(subject);
    what_it_emits_is_well_formed(subject);
    the_same_records_on_the_same_state_give_the_same(subject);
    its_memory_is_not_state(subject);
    a_batch_may_be_divided_anywhere(subject);
    nothing_comes_of_no_records(subject);
    a_failure_names_its_record_and_can_be_undone(subject);
    punctuations_have_no_cause(subject);
}

/// What a run left behind: what was emitted, and the changes of each store.
#[derive(Debug, PartialEq)]
struct Outcome {
    emits: Vec<Emitted>,
    changes: Vec<BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
}

/// A record that was emitted, with its cause's offset in place of its row.
#[derive(Debug, PartialEq)]
struct Emitted {
    offset: i64,
    output: u32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp: i64,
    partition: i32,
}

fn it_asks_for_the_same_whenever_it_is_asked<S: Subject>(subject: &mut S) {
    let mut processor = subject.processor();
    let setup = processor.setup().clone();
    assert!(setup.schedules.iter().all(|schedule| schedule.interval.as_millis() >= 1));
    let mut state = empty_state(subject);
    processor.process(&subject.batch(), &mut state).expect("it can process these");
    assert_eq!(*processor.setup(), setup);
    assert_eq!(*subject.processor().setup(), setup);
}

fn what_it_emits_is_well_formed<S: Subject>(subject: &mut S) {
    let batch = subject.batch();
    let mut state = empty_state(subject);
    let effects = subject.processor().process(&batch, &mut state).expect("it can process these");
    check_columns(&effects.emits, subject.outputs());
    let rows = 0..i32::try_from(batch.records.len()).expect("few records");
    assert!(effects.emits.causes.iter().all(|cause| rows.contains(cause)));
    assert_eq!(state.stores(), subject.stores(), "the state is given back");
}

fn the_same_records_on_the_same_state_give_the_same<S: Subject>(subject: &mut S) {
    let batches = [subject.batch()];
    assert_eq!(run(subject, &batches, Instances::One), run(subject, &batches, Instances::One));
}

fn its_memory_is_not_state<S: Subject>(subject: &mut S) {
    let batches = divide(&subject.batch(), 2);
    assert_eq!(run(subject, &batches, Instances::One), run(subject, &batches, Instances::Many));
}

fn a_batch_may_be_divided_anywhere<S: Subject>(subject: &mut S) {
    let whole = run(subject, &[subject.batch()], Instances::One);
    for rows in [1, 3] {
        let batches = divide(&subject.batch(), rows);
        assert_eq!(run(subject, &batches, Instances::One), whole);
    }
}

fn nothing_comes_of_no_records<S: Subject>(subject: &mut S) {
    let mut state = empty_state(subject);
    let nothing = Batch { inputs: Vec::new(), records: Records::default(), ..subject.batch() };
    let effects = subject.processor().process(&nothing, &mut state).expect("nothing can fail");
    assert!(effects.emits.is_empty());
    assert!(state.changes().iter().all(Changes::is_empty));
}

fn a_failure_names_its_record_and_can_be_undone<S: Subject>(subject: &mut S) {
    let Some((batch, row)) = subject.failing_batch() else { return };
    let mut state = empty_state(subject);
    subject.processor().process(&subject.batch(), &mut state).expect("it can process these");
    let before = changes(&state);
    let savepoint = state.savepoint();
    let mut processor = subject.processor();
    let failure = processor.process(&batch, &mut state).expect_err("it fails on this batch");
    assert_eq!(failure.record, Some(row), "{failure}");
    assert_eq!(state.stores(), subject.stores(), "the state is given back");
    state.rollback(&savepoint);
    assert_eq!(changes(&state), before);
    let again = subject.processor().process(&batch, &mut state).expect_err("it fails again");
    assert_eq!((again.kind, again.record), (failure.kind, failure.record));
}

fn punctuations_have_no_cause<S: Subject>(subject: &mut S) {
    let mut processor = subject.processor();
    let mut state = empty_state(subject);
    let batch = subject.batch();
    processor.process(&batch, &mut state).expect("it can process these");
    for schedule in 0..processor.setup().schedules.len() {
        let due = Punctuation {
            schedule: u32::try_from(schedule).expect("few schedules"),
            time: batch.wall_clock,
            partition: batch.partition,
            stream_time: batch.records.timestamps.iter().copied().max().unwrap_or(-1),
            wall_clock: batch.wall_clock,
        };
        let effects = processor.punctuate(&due, &mut state).expect("it can punctuate");
        check_columns(&effects.emits, subject.outputs());
        assert!(effects.emits.causes.iter().all(|&cause| cause == NO_CAUSE));
        assert_eq!(state.stores(), subject.stores(), "the state is given back");
    }
}

fn check_columns(emits: &Emits, outputs: usize) {
    let rows = emits.len();
    let lengths = [
        emits.causes.len(),
        emits.keys.len(),
        emits.values.len(),
        emits.timestamps.len(),
        emits.partitions.len(),
    ];
    assert_eq!(lengths, [rows; 5]);
    assert!(emits.outputs.iter().all(|&output| (output as usize) < outputs));
    if let Some(headers) = &emits.headers {
        assert!(headers.counts.is_empty() || headers.counts.len() == rows);
        assert_eq!(headers.names.len(), headers.values.len());
    }
}

/// Whether a run has one instance or a new one for each batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Instances {
    One,
    Many,
}

fn run<S: Subject>(subject: &mut S, batches: &[Batch], instances: Instances) -> Outcome {
    let mut state = empty_state(subject);
    let mut processor = subject.processor();
    let mut emits = Vec::new();
    for batch in batches {
        if instances == Instances::Many {
            processor = subject.processor();
        }
        let outcome: Result<Effects, Failure> = processor.process(batch, &mut state);
        let effects = outcome.expect("it can process these");
        emits.extend(emitted(batch, &effects.emits));
    }
    Outcome { emits, changes: changes(&state) }
}

fn emitted(batch: &Batch, emits: &Emits) -> Vec<Emitted> {
    let owned = |row: Option<&[u8]>| row.map(<[u8]>::to_vec);
    let pairs = emits.keys.iter().zip(&emits.values);
    pairs
        .enumerate()
        .map(|(row, (key, value))| Emitted {
            offset: usize::try_from(emits.causes[row])
                .map_or(-1, |cause| batch.records.offsets[cause]),
            output: emits.outputs[row],
            key: owned(key),
            value: owned(value),
            timestamp: emits.timestamps[row],
            partition: emits.partitions[row],
        })
        .collect()
}

fn changes(state: &State) -> Vec<BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
    let of_store = |changes: &Changes| {
        let pairs = changes.keys.iter().zip(&changes.values);
        pairs
            .map(|(key, value)| (key.unwrap_or_default().to_vec(), value.map(<[u8]>::to_vec)))
            .collect()
    };
    state.changes().iter().map(of_store).collect()
}

/// Divides a batch without headers into some of at most `rows` rows, as a task does.
fn divide(batch: &Batch, rows: usize) -> Vec<Batch> {
    let records = &batch.records;
    let pick = |column: &Column, from: usize| column.iter().skip(from).take(rows).collect();
    (0..records.len())
        .step_by(rows)
        .map(|from| {
            let to = (from + rows).min(records.len());
            let before = records.timestamps[..from].iter().copied();
            Batch {
                partition: batch.partition,
                stream_time: before.fold(batch.stream_time, i64::max),
                wall_clock: batch.wall_clock,
                origin: Origin { offset: records.offsets[from], ..batch.origin },
                inputs: batch.inputs[from..to].to_vec(),
                records: Records {
                    offsets: records.offsets[from..to].to_vec(),
                    timestamps: records.timestamps[from..to].to_vec(),
                    timestamp_types: records.timestamp_types[from..to].to_vec(),
                    keys: pick(&records.keys, from),
                    values: pick(&records.values, from),
                    ..Records::default()
                },
            }
        })
        .collect()
}

fn empty_state<S: Subject>(subject: &S) -> State {
    let stores = vec![BTreeMap::new(); subject.stores()];
    State::new(Box::new(Committed { stores }), subject.stores())
}

/// Committed state in maps.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// The entries of each store.
    pub stores: Vec<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl StateStore for Committed {
    fn get(&self, store: usize, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.stores[store].get(key).cloned())
    }

    fn get_many(&self, store: usize, keys: &Column) -> Result<Column, StoreError> {
        let entries = &self.stores[store];
        let value = |key: Option<&[u8]>| entries.get(key.unwrap_or_default()).map(Vec::as_slice);
        Ok(keys.iter().map(value).collect())
    }

    fn scan(&self, store: usize, scan: &Scan) -> Result<Entries, StoreError> {
        let inside = |key: &[u8]| {
            let lower = match &scan.from {
                Bound::Included(from) => key >= from.as_slice(),
                Bound::Excluded(from) => key > from.as_slice(),
                Bound::Unbounded => true,
            };
            let upper = match &scan.to {
                Bound::Included(to) => key <= to.as_slice(),
                Bound::Excluded(to) => key < to.as_slice(),
                Bound::Unbounded => true,
            };
            lower && upper
        };
        let mut found: Vec<_> = self.stores[store].iter().filter(|(key, _)| inside(key)).collect();
        if scan.reverse {
            found.reverse();
        }
        let mut entries = Entries { more: found.len() > scan.limit, ..Entries::default() };
        for (key, value) in found.into_iter().take(scan.limit) {
            entries.keys.push(Some(key));
            entries.values.push(Some(value));
        }
        Ok(entries)
    }

    fn position(&self) -> Result<Position, StoreError> {
        Ok(Position { stores: vec![None; self.stores.len()], ..Position::default() })
    }

    fn apply(&mut self, changes: &[Changes], _: &Position) -> Result<(), StoreError> {
        for (entries, changes) in self.stores.iter_mut().zip(changes) {
            for (key, value) in changes.keys.iter().zip(&changes.values) {
                let key = key.unwrap_or_default().to_vec();
                match value {
                    Some(value) => drop(entries.insert(key, value.to_vec())),
                    None => drop(entries.remove(&key)),
                }
            }
        }
        Ok(())
    }

    fn reset(&mut self, store: usize) -> Result<(), StoreError> {
        self.stores[store].clear();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}
