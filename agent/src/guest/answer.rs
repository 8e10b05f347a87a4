//! Checks what a guest answers, before any of it counts.

use sidestream_core::{
    column::{Column, ColumnError},
    record::{
        Emits, HEADERS_OF_CAUSE, Headers, NO_CAUSE, NO_TIMESTAMP, PARTITION_BY_KEY, Records,
        TIMESTAMP_OF_CAUSE,
    },
    task::{Clock, Failure, FailureKind, Schedule, Setup},
};
use std::time::Duration;

use super::{Config, Output, bindings::sidestream::transform::types as wit, failure::Breach, text};

/// No schedule is further apart: ten years, in milliseconds. It keeps sums of times in range.
const INTERVAL_MS_MAX: u64 = 10 * 366 * 24 * 3600 * 1000;

/// What a record that is emitted takes of the host besides its key, value and headers, and what each
/// of its headers takes.
const ROW_BYTES: usize = 64;
const HEADER_BYTES: usize = 32;

/// What a call was about: decides which causes its emits may have, and which headers go through.
#[derive(Clone, Copy, Debug)]
pub(super) enum Causes<'a> {
    /// A batch with these records.
    Rows(&'a Records),
    /// A punctuation.
    Punctuation,
}

impl Causes<'_> {
    fn has(self, cause: i32) -> bool {
        match self {
            Self::Rows(records) => usize::try_from(cause).is_ok_and(|row| row < records.len()),
            Self::Punctuation => cause == NO_CAUSE,
        }
    }

    /// The headers of each row; empty if none has any.
    fn headers(self) -> Vec<HeaderSize> {
        match self {
            Self::Rows(records) => header_sizes(&records.headers),
            Self::Punctuation => Vec::new(),
        }
    }
}

/// How large the headers of a record are.
#[derive(Clone, Copy, Debug, Default)]
struct HeaderSize {
    count: usize,
    bytes: usize,
}

/// Takes what a guest wants of its host.
pub(super) fn setup(answer: &wit::Setup, config: &Config) -> Result<Setup, Breach> {
    if answer.schedules.len() > config.schedules_max {
        return Err(Breach::limit(format!(
            "it asked for {} punctuations and may have {}",
            answer.schedules.len(),
            config.schedules_max
        )));
    }
    let schedule = |schedule: &wit::Schedule| match schedule.interval_ms {
        1..=INTERVAL_MS_MAX => Ok(Schedule {
            clock: match schedule.clock {
                wit::Clock::StreamTime => Clock::StreamTime,
                wit::Clock::WallClock => Clock::WallClock,
            },
            interval: Duration::from_millis(schedule.interval_ms),
        }),
        interval => Err(Breach::malformed(format!(
            "a punctuation every {interval} ms is not between 1 ms and 10 years"
        ))),
    };
    let schedules = answer.schedules.iter().map(schedule).collect::<Result<_, _>>()?;
    Ok(Setup { headers: answer.headers, schedules })
}

/// Takes a guest's own failure.
pub(super) fn failure(answer: &wit::Failure, causes: Causes<'_>, config: &Config) -> Failure {
    let message = text::clean(&answer.message, config.log_line_bytes_max);
    let kind = match answer.kind {
        wit::FailureKind::Retry => FailureKind::Retry,
        wit::FailureKind::Reject => FailureKind::Reject,
    };
    match (answer.row, causes) {
        (NO_CAUSE, _) => Failure { kind, record: None, message },
        (row, Causes::Rows(_)) if causes.has(row) => {
            Failure { kind, record: usize::try_from(row).ok(), message }
        }
        (row, _) => Breach::malformed(format!(
            "it failed at row {row}, which is not there, saying: {message}"
        ))
        .into_failure(),
    }
}

/// Takes a column of the guest; `what` names it.
pub(super) fn column(answer: wit::BytesColumnResult, what: &str) -> Result<Column, Breach> {
    Column::from_parts(answer.data, answer.lengths)
        .map_err(|error: ColumnError| Breach::malformed(format!("{what}: {error}")))
}

/// Refuses a column that has another number of rows, or nulls where there can't be any.
pub(super) fn rows(what: &str, actual: usize, expected: usize) -> Result<(), Breach> {
    match actual == expected {
        true => Ok(()),
        false => Err(Breach::malformed(format!("{what} has {actual} rows instead of {expected}"))),
    }
}

/// Refuses a column with a null in it.
pub(super) fn no_nulls(what: &str, column: &Column) -> Result<(), Breach> {
    match column.lengths().iter().position(|&length| length < 0) {
        None => Ok(()),
        Some(row) => Err(Breach::malformed(format!("row {row} of {what} is null"))),
    }
}

/// Refuses a row that no producer would take.
fn record_size(what: &str, row: usize, bytes: usize, config: &Config) -> Result<(), Breach> {
    match bytes <= config.record_bytes_max {
        true => Ok(()),
        false => Err(Breach::limit(format!(
            "row {row} of {what} has {bytes} bytes with its headers and may have {} \
             (`limits.record_bytes_max`)",
            config.record_bytes_max
        ))),
    }
}

/// Refuses key-value pairs of which one is too large.
pub(super) fn record_sizes(
    what: &str,
    keys: &Column,
    values: &Column,
    config: &Config,
) -> Result<(), Breach> {
    if keys.data().len() + values.data().len() <= config.record_bytes_max {
        return Ok(());
    }
    let lengths = keys.lengths().iter().zip(values.lengths());
    for (row, (&key, &value)) in lengths.enumerate() {
        record_size(what, row, bytes(key) + bytes(value), config)?;
    }
    Ok(())
}

fn bytes(length: i32) -> usize {
    usize::try_from(length).unwrap_or(0)
}

/// Holds what is emitted to the limits of a record and of a call, each record with the headers that
/// it will have: those of its cause are copied for each, and so cost the guest nothing.
fn emitted_sizes(emits: &Emits, causes: Causes<'_>, config: &Config) -> Result<(), Breach> {
    let inherited = causes.headers();
    let own = emits.headers.as_ref().map(header_sizes);
    let mut sum: usize = 0;
    let lengths = emits.keys.lengths().iter().zip(emits.values.lengths());
    for (row, (&key, &value)) in lengths.enumerate() {
        let headers = match &own {
            Some(own) if !is_of_cause(emits, row) => own.get(row),
            _ => usize::try_from(emits.causes[row]).ok().and_then(|cause| inherited.get(cause)),
        };
        let headers = headers.copied().unwrap_or_default();
        let bytes = bytes(key) + bytes(value) + headers.bytes;
        record_size("emits", row, bytes, config)?;
        sum = sum.saturating_add(bytes + ROW_BYTES + headers.count * HEADER_BYTES);
        if sum > config.output_bytes_max {
            return Err(Breach::limit(format!(
                "what it emits takes more than the {} bytes of a call (`limits.output_bytes_max`), \
                 each record with its headers and {ROW_BYTES} more; emit less in a call",
                config.output_bytes_max
            )));
        }
    }
    Ok(())
}

fn is_of_cause(emits: &Emits, row: usize) -> bool {
    let counts = emits.headers.as_ref().map(|headers| &headers.counts);
    counts.is_none_or(|counts| counts.get(row) == Some(&HEADERS_OF_CAUSE))
}

/// Takes what a guest emits.
pub(super) fn emits(
    answer: wit::Emits,
    causes: Causes<'_>,
    outputs: &[Output],
    config: &Config,
) -> Result<Emits, Breach> {
    let count = answer.outputs.len();
    rows("emits.causes", answer.causes.len(), count)?;
    rows("emits.timestamps", answer.timestamps.len(), count)?;
    rows("emits.partitions", answer.partitions.len(), count)?;
    let emits = Emits {
        keys: column(answer.keys, "emits.keys")?,
        values: column(answer.values, "emits.values")?,
        headers: match answer.headers {
            Some(answer) => Some(headers(answer, count)?),
            None => None,
        },
        causes: answer.causes,
        outputs: answer.outputs,
        timestamps: answer.timestamps,
        partitions: answer.partitions,
    };
    rows("emits.keys", emits.keys.len(), count)?;
    rows("emits.values", emits.values.len(), count)?;
    if let Some(row) = emits.causes.iter().position(|&cause| !causes.has(cause)) {
        let cause = emits.causes[row];
        return Err(Breach::malformed(format!(
            "row {row} of emits.causes is {cause}: {}",
            match causes {
                Causes::Rows(records) => format!("the batch has {} rows", records.len()),
                Causes::Punctuation => "a punctuation has no records, its cause is -1".to_owned(),
            }
        )));
    }
    for (row, (&output, &partition)) in emits.outputs.iter().zip(&emits.partitions).enumerate() {
        target(row, output, partition, outputs)?;
    }
    let valid = |time: i64| time >= NO_TIMESTAMP || time == TIMESTAMP_OF_CAUSE;
    if let Some(row) = emits.timestamps.iter().position(|&time| !valid(time)) {
        let time = emits.timestamps[row];
        return Err(Breach::malformed(format!("row {row} of emits.timestamps is {time}")));
    }
    emitted_sizes(&emits, causes, config)?;
    Ok(emits)
}

fn target(row: usize, output: u32, partition: i32, outputs: &[Output]) -> Result<(), Breach> {
    let Some(known) = usize::try_from(output).ok().and_then(|output| outputs.get(output)) else {
        return Err(Breach::malformed(format!(
            "row {row} of emits.outputs is {output}: there are {} outputs",
            outputs.len()
        )));
    };
    match known.partitions {
        _ if partition == PARTITION_BY_KEY => Ok(()),
        Some(partitions) if (0..partitions).contains(&partition) => Ok(()),
        Some(partitions) => Err(Breach::malformed(format!(
            "row {row} of emits.partitions is {partition}: output `{}` has {partitions} partitions",
            known.name
        ))),
        None => Err(Breach::malformed(format!(
            "row {row} of emits.partitions is {partition}: output `{}` stays in its partition",
            known.name
        ))),
    }
}

fn headers(answer: wit::HeadersResult, records: usize) -> Result<Headers, Breach> {
    let names = column(answer.names, "headers.names")?;
    let values = column(answer.values, "headers.values")?;
    if !answer.counts.is_empty() {
        rows("headers.counts", answer.counts.len(), records)?;
    }
    let own = |&count: &u32| u64::from(own_headers(count));
    let count: u64 = answer.counts.iter().map(own).sum();
    if count != names.len() as u64 {
        return Err(Breach::malformed(format!(
            "headers.counts come to {count} headers, but there are {} names",
            names.len()
        )));
    }
    rows("headers.values", values.len(), names.len())?;
    no_nulls("headers.names", &names)?;
    for (row, name) in names.iter().enumerate() {
        if std::str::from_utf8(name.unwrap_or_default()).is_err() {
            return Err(Breach::malformed(format!("row {row} of headers.names is not UTF-8")));
        }
    }
    Ok(Headers { counts: answer.counts, names, values })
}

/// How many headers of its own a record has.
const fn own_headers(count: u32) -> u32 {
    match count {
        HEADERS_OF_CAUSE => 0,
        count => count,
    }
}

/// The headers of each record that are its own; empty if none has any.
fn header_sizes(headers: &Headers) -> Vec<HeaderSize> {
    let mut lengths = headers.names.lengths().iter().zip(headers.values.lengths());
    let size = |&count: &u32| {
        let count = own_headers(count) as usize;
        let of_record = lengths.by_ref().take(count);
        let bytes = of_record.map(|(&name, &value)| bytes(name) + bytes(value)).sum();
        HeaderSize { count, bytes }
    };
    headers.counts.iter().map(size).collect()
}
