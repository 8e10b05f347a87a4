//! What a fuzzer asks of this room; the test of the corpus asks the same of what was found.

mod input;

use std::{sync::Arc, time::Duration};

use sidestream_core::{
    column::Column,
    record::{Emits, HEADERS_OF_CAUSE, Headers, NO_CAUSE, PARTITION_BY_KEY, Records},
    task::{Effects, Failure, State, Stateless, Telemetry, fuzz},
};

use self::input::Input;
use super::{
    Config, Output, answer,
    answer::Causes,
    bindings::sidestream::transform::{
        state as wit_state,
        types::{self as wit, BytesColumnResult},
    },
    failure::Breach,
    host::Host,
    limits::{Budget, Limiter},
    wasi::{Call, Surroundings},
};

/// How many calls of its host a guest makes before it answers.
const CALLS_MAX: u8 = 16;

/// Takes `data` for what a guest asks of its host in a call, and what it answers then, most of it
/// sound and some of it not.
///
/// Panics if what is taken breaks what the core relies on, and if a refusal has no reason.
pub fn answer(data: &[u8]) {
    let mut input = Input(data);
    let config = Arc::new(config());
    let outputs = vec![
        Output { name: "fixed".to_owned(), partitions: None },
        Output { name: "spread".to_owned(), partitions: Some(4) },
    ];
    let limiter = Limiter::new(Arc::new(Budget::new(1 << 20)), &config);
    let surroundings = Surroundings::new(b"fuzz");
    let shared = (Arc::clone(&config), outputs.clone());
    let mut host = Host::new(limiter, surroundings, shared.0, shared.1, vec![1, 0]);
    host.begin(Call::Initialise, State::new(Box::new(Stateless), 2), 0);

    check_setup(&input.setup(), &config);
    let records = input.records();
    let causes = match input.byte() % 4 {
        0 => Causes::Punctuation,
        _ => Causes::Rows(&records),
    };
    for _ in 0..input.byte() % CALLS_MAX {
        if let Err(error) = input.call(&mut host) {
            check_breach(error.downcast().expect("a host ends a call with a breach"));
        }
    }
    match input.byte() % 8 {
        0 => check_failure(&answer::failure(&input.failure(), causes, &config)),
        _ => match host.finish(input.effects(), causes) {
            Ok(effects) => {
                check_effects(&effects, causes, &outputs, &config);
                match causes {
                    Causes::Rows(records) => fuzz::routed(records, &effects.emits),
                    Causes::Punctuation => fuzz::routed(&Records::default(), &effects.emits),
                }
            }
            Err(breach) => check_breach(breach),
        },
    }
    check_state(&host.end());
}

/// Limits so low that they are met.
fn config() -> Config {
    Config {
        memory_bytes_max: 4 << 10,
        batch_time_max: Duration::from_secs(3_600),
        output_bytes_max: 2 << 10,
        record_bytes_max: 256,
        scan_entries_max: 8,
        scan_bytes_max: 512,
        get_keys_max: 8,
        schedules_max: 4,
        log_lines_max: 4,
        log_line_bytes_max: 32,
        metrics_max: 4,
        observations_max: 8,
        ..Config::default()
    }
}

fn check_setup(asked: &wit::Setup, config: &Config) {
    match answer::setup(asked, config) {
        Ok(setup) => {
            assert_eq!(
                (setup.headers, setup.schedules.len()),
                (asked.headers, asked.schedules.len())
            );
            assert!(setup.schedules.iter().all(|schedule| !schedule.interval.is_zero()));
        }
        Err(breach) => check_breach(breach),
    }
}

fn check_breach(breach: Breach) {
    let failure = breach.into_failure();
    assert!(!failure.message.is_empty(), "a breach has a reason: {failure:?}");
    check_failure(&failure);
}

fn check_failure(failure: &Failure) {
    assert!(!failure.message.contains(char::is_control), "{failure:?}");
}

fn check_effects(effects: &Effects, causes: Causes<'_>, outputs: &[Output], config: &Config) {
    let Effects { emits, telemetry } = effects;
    let rows = emits.len();
    let columns = [emits.keys.len(), emits.values.len()];
    let lists = [emits.causes.len(), emits.timestamps.len(), emits.partitions.len()];
    assert!(columns.iter().chain(&lists).all(|length| *length == rows), "{emits:?}");
    for (output, partition) in emits.outputs.iter().zip(&emits.partitions) {
        let output = &outputs[*output as usize];
        let partitions = output.partitions.unwrap_or(0);
        let fits = *partition == PARTITION_BY_KEY || (0..partitions).contains(partition);
        assert!(fits, "{partition} of {output:?}");
    }
    for cause in &emits.causes {
        match causes {
            Causes::Punctuation => assert_eq!(*cause, NO_CAUSE),
            Causes::Rows(records) => {
                assert!(usize::try_from(*cause).is_ok_and(|row| row < records.len()), "{cause}");
            }
        }
    }
    check_columns(emits, config);
    check_telemetry(telemetry, config);
}

fn check_columns(emits: &Emits, config: &Config) {
    for column in [&emits.keys, &emits.values] {
        let (data, lengths) = column.clone().into_parts();
        assert_eq!(Column::from_parts(data, lengths).as_ref(), Ok(column));
        assert!(column.iter().flatten().all(|row| row.len() <= config.record_bytes_max));
    }
    assert!(emits.keys.data().len() + emits.values.data().len() <= config.output_bytes_max);
    if let Some(headers) = &emits.headers {
        check_headers(headers, emits.len());
    }
}

fn check_headers(headers: &Headers, rows: usize) {
    assert!(headers.counts.is_empty() || headers.counts.len() == rows, "{headers:?}");
    let own = headers.counts.iter().filter(|count| **count != HEADERS_OF_CAUSE);
    assert_eq!(own.map(|count| *count as usize).sum::<usize>(), headers.names.len());
    assert_eq!(headers.names.len(), headers.values.len());
    let is_name = |name: Option<&[u8]>| name.is_some_and(|name| std::str::from_utf8(name).is_ok());
    assert!(headers.names.iter().all(is_name), "{headers:?}");
}

fn check_telemetry(telemetry: &Telemetry, config: &Config) {
    let lines = &telemetry.lines;
    // One more says how much was left out.
    assert!(lines.len() <= config.log_lines_max + 1, "{lines:?}");
    for line in lines {
        let is_ours = line.message.ends_with("were left out");
        assert!(is_ours || line.message.len() <= config.log_line_bytes_max, "{line:?}");
        assert!(!line.message.contains(char::is_control), "{line:?}");
    }
    assert!(telemetry.samples.len() <= config.metrics_max + config.observations_max);
    for sample in &telemetry.samples {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(sample.name.chars().all(is_plain) && !sample.name.is_empty(), "{sample:?}");
    }
}

/// The last change of each key, each key once.
fn check_state(state: &State) {
    for changes in state.changes() {
        assert_eq!(changes.keys.len(), changes.values.len());
        let keys: Vec<_> = changes.keys.iter().collect();
        assert!(keys.iter().all(Option::is_some), "{keys:?}");
        let mut unique = keys.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), keys.len(), "{keys:?}");
    }
}

fn check_entries(entries: &wit_state::Entries, prefix: &[u8], reverse: bool) {
    let column = |column: &BytesColumnResult| {
        Column::from_parts(column.data.clone(), column.lengths.clone()).expect("hosts give columns")
    };
    let (keys, values) = (column(&entries.keys), column(&entries.values));
    assert_eq!(keys.len(), values.len());
    assert!(values.iter().all(|value| value.is_some()), "a deleted entry was found");
    let mut keys: Vec<_> = keys.iter().flatten().collect();
    assert!(keys.iter().all(|key| key.starts_with(prefix)), "{keys:?}");
    if reverse {
        keys.reverse();
    }
    assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
}
