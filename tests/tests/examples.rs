//! The modules of guest-examples, as WASM in the agent's own guest host: what the SDK says at the
//! border is what the host takes it for. Their logic is tested natively beside them.

use std::{fs, iter::repeat_n};

use sidestream::guest::{Config, Context, Engine, Guest, Output, Store};
use sidestream_core::{
    column::Column,
    record::{Batch, Changes, Origin, Records},
    task::{
        Effects, Entries, FailureKind, LogLine, Position, Processor, Punctuation, SampleValue,
        Scan, State, StateStore, StoreError,
    },
};

/// The committed state of a task that has just begun.
struct Nothing;

impl StateStore for Nothing {
    fn get(&self, _: usize, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(None)
    }

    fn get_many(&self, _: usize, keys: &Column) -> Result<Column, StoreError> {
        Ok(repeat_n(None, keys.len()).collect())
    }

    fn scan(&self, _: usize, _: &Scan) -> Result<Entries, StoreError> {
        Ok(Entries { keys: Column::default(), values: Column::default(), more: false })
    }

    fn position(&self) -> Result<Position, StoreError> {
        Ok(Position::default())
    }

    fn apply(&mut self, _: &[Changes], _: &Position) -> Result<(), StoreError> {
        Ok(())
    }

    fn reset(&mut self, _: usize) -> Result<(), StoreError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn guest(name: &str, inputs: &[&str], outputs: &[&str], stores: &[&str], config: &str) -> Guest {
    let engine = Engine::new(&Config::default()).expect("the defaults are valid");
    guest_of(&engine, name, inputs, outputs, stores, config)
}

fn guest_of(
    engine: &Engine,
    name: &str,
    inputs: &[&str],
    outputs: &[&str],
    stores: &[&str],
    config: &str,
) -> Guest {
    let path = sidestream_tests::agent::modules().join(format!("{name}.wasm"));
    let bytes = fs::read(path).expect("./dev guests has built the modules");
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let outputs = owned(outputs).into_iter().map(|name| Output { name, partitions: Some(4) });
    let stores = owned(stores).into_iter().enumerate().map(|(index, name)| Store { name, index });
    let context = Context {
        application: "test".to_owned(),
        transform: name.to_owned(),
        partition: 1,
        inputs: owned(inputs),
        outputs: outputs.collect(),
        stores: stores.collect(),
        config: config.to_owned(),
    };
    let module = engine.load(&bytes, name).expect("it is a module");
    module.instantiate(&context).expect("it has all it needs")
}

/// Records of the first input with these keys, values and timestamps.
fn batch(records: &[(Option<&str>, Option<&str>, i64)]) -> Batch {
    Batch {
        partition: 1,
        stream_time: -1,
        wall_clock: 0,
        origin: Origin { offset: 10, ..Origin::default() },
        inputs: vec![0; records.len()],
        records: Records {
            offsets: (10..).take(records.len()).collect(),
            timestamps: records.iter().map(|record| record.2).collect(),
            timestamp_types: vec![0; records.len()],
            keys: records.iter().map(|record| record.0.map(str::as_bytes)).collect(),
            values: records.iter().map(|record| record.1.map(str::as_bytes)).collect(),
            ..Records::default()
        },
    }
}

fn emitted(effects: &Effects) -> Vec<(Option<String>, Option<String>)> {
    let text = |row: Option<&[u8]>| row.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    effects.emits.keys.iter().map(text).zip(effects.emits.values.iter().map(text)).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(Option<String>, Option<String>)> {
    let some = |text: &str| Some(text.to_owned());
    expected.iter().map(|(key, value)| (some(key), some(value))).collect()
}

#[test]
fn records_pass_through() {
    let mut guest = guest("pass-through", &["in"], &["out"], &[], "{}");
    let mut state = State::new(Box::new(Nothing), 0);
    let records = batch(&[(Some("k"), Some("v"), 5), (None, Some(""), 6), (Some(""), None, 7)]);
    let effects = guest.process(&records, &mut state).unwrap();
    assert_eq!(effects.emits.keys, records.records.keys);
    assert_eq!(effects.emits.values, records.records.values);
    assert_eq!((effects.emits.causes, effects.emits.headers), (vec![0, 1, 2], None));
}

#[test]
fn guests_rest_while_memory_is_short() {
    const MEMORY: usize = 4 << 20;
    let config = Config { memory_total_bytes_max: MEMORY, ..Config::default() };
    let engine = Engine::new(&config).expect("it is valid");
    let guest = || guest_of(&engine, "count", &["in"], &["counts"], &["counts"], "{}");
    // Each takes more than a megabyte while it works.
    let mut guests: Vec<Guest> = (0..10).map(|_| guest()).collect();
    let mut state = State::new(Box::new(Nothing), 1);
    for round in 0..3 {
        for (number, guest) in guests.iter_mut().enumerate() {
            let effects = guest.process(&batch(&[(Some("a"), None, 0)]), &mut state).unwrap();
            let count = (round * 10 + number + 1).to_string();
            assert_eq!(emitted(&effects), pairs(&[("a", &count)]));
            assert!((1 << 20..=MEMORY).contains(&engine.memory_bytes()));
        }
    }
}

#[test]
fn words_are_split_and_counted() {
    let mut split = guest("split-words", &["lines"], &["words"], &[], "{}");
    let mut state = State::new(Box::new(Nothing), 0);
    let lines = batch(&[(None, Some("to be or"), 0), (None, Some(" not to be"), 0)]);
    let effects = split.process(&lines, &mut state).unwrap();
    let words = ["to", "be", "or", "not", "to", "be"];
    assert_eq!(emitted(&effects), pairs(&words.map(|word| (word, ""))));

    let mut count = guest("count-words", &["words"], &["counts"], &["counts"], "{}");
    let mut state = State::new(Box::new(Nothing), 1);
    let effects = count.process(&batch(&words.map(|w| (Some(w), None, 0))), &mut state).unwrap();
    let counts = [("to", "1"), ("be", "1"), ("or", "1"), ("not", "1"), ("to", "2"), ("be", "2")];
    assert_eq!(emitted(&effects), pairs(&counts));
    let effects = count.process(&batch(&[(Some("be"), None, 0)]), &mut state).unwrap();
    assert_eq!(emitted(&effects), pairs(&[("be", "3")]));
    assert_eq!(state.get(0, b"be").unwrap().as_deref(), Some(&b"3"[..]));
}

#[test]
fn counters_come_with_the_effects() {
    let mut guest = guest("count", &["in"], &["counts"], &["counts"], "{}");
    let mut state = State::new(Box::new(Nothing), 1);
    let records = batch(&[(Some("a"), None, 0), (None, None, 0), (Some("a"), None, 0)]);
    let effects = guest.process(&records, &mut state).unwrap();
    assert_eq!(emitted(&effects), pairs(&[("a", "1"), ("a", "2")]));
    let samples = &effects.telemetry.samples;
    assert_eq!((samples.len(), samples[0].value), (1, SampleValue::Count(1)));
}

#[test]
fn orders_get_their_customers() {
    let mut guest = guest("enrich", &["orders", "customers"], &["enriched"], &["customers"], "{}");
    let mut state = State::new(Box::new(Nothing), 1);
    let customer = r#"{"name":"Ada","tier":"gold"}"#;
    let order = r#"{"id":"o-1","amount":12}"#;
    let mut records = batch(&[(Some("c"), Some(customer), 0), (Some("c"), Some(order), 0)]);
    records.inputs[0] = 1;
    let effects = guest.process(&records, &mut state).unwrap();
    let enriched = format!(r#"{{"id":"o-1","amount":12,"customer":{customer}}}"#);
    assert_eq!(emitted(&effects), pairs(&[("c", &enriched)]));
}

#[test]
fn what_was_seen_long_ago_is_forgotten_by_punctuation() {
    let config = r#"{"within_ms": 100}"#;
    let mut guest = guest("dedupe", &["events"], &["unique"], &["seen", "expiries"], config);
    let mut state = State::new(Box::new(Nothing), 2);
    let records = batch(&[(Some("a"), Some("1"), 5), (Some("a"), Some("2"), 9)]);
    let effects = guest.process(&records, &mut state).unwrap();
    assert_eq!(emitted(&effects), pairs(&[("a", "1")]));
    for (stream_time, known) in [(104, true), (105, false)] {
        let due = Punctuation { schedule: 0, time: 100, partition: 1, stream_time, wall_clock: 0 };
        guest.punctuate(&due, &mut state).unwrap();
        assert_eq!(state.get(0, b"a").unwrap().is_some(), known);
    }
}

#[test]
fn stamps_say_where_a_record_was() {
    let mut guest = guest("stamp", &["in"], &["out"], &["stamps"], "{}");
    let mut state = State::new(Box::new(Nothing), 1);
    let effects = guest.process(&batch(&[(Some("k"), None, 0)]), &mut state).unwrap();
    assert_eq!(emitted(&effects), pairs(&[("k", "1")]));
    let headers = effects.emits.headers.unwrap();
    assert_eq!((headers.counts, headers.names.data()), (vec![3], &b"inputpartitionoffset"[..]));
    assert_eq!(headers.values.data(), b"in110");
}

#[test]
fn poison_fails_as_it_was_told_to() {
    let config = r#"{"trap": ["boom"], "reject": ["bad"], "retry": ["busy"]}"#;
    let cases = [
        ("bad", FailureKind::Reject, Some(1)),
        ("busy", FailureKind::Retry, Some(1)),
        ("boom", FailureKind::Trap, None),
    ];
    for (value, kind, record) in cases {
        let mut guest = guest("poison", &["in"], &["out"], &["seen"], config);
        let mut state = State::new(Box::new(Nothing), 1);
        let records = batch(&[(Some("k"), Some("fine"), 0), (Some("k"), Some(value), 0)]);
        let failure = guest.process(&records, &mut state).unwrap_err();
        assert_eq!((failure.kind, failure.record), (kind, record), "{failure}");
        assert!(record.is_none() || failure.message.ends_with("at offset 11"), "{failure}");
    }
}

#[test]
fn log_lines_come_with_the_effects() {
    let mut guest = guest("poison", &["in"], &["out"], &[], "{}");
    let mut state = State::new(Box::new(Nothing), 0);
    let effects = guest.process(&batch(&[(Some("k"), Some("fine"), 0)]), &mut state).unwrap();
    let lines: Vec<&LogLine> = effects.telemetry.lines.iter().collect();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].message, "value of 4 bytes at offset 10");
}
