//! Amounts that can't be, and sizes that depend on one another.

use crate::config::{
    pipeline::{Limits, Pipeline},
    problem::Problem,
};

/// How many transforms, inputs or outputs a pipeline may have, each for itself.
const PARTS_MAX: usize = 1_000;

/// What a message has beside key and value: its framing, some headers. With a record of 1 MB it
/// still is what brokers take unless told otherwise, 1,048,588 bytes.
const ROOM_BYTES: u64 = 48_000;

/// The least room for a message's framing, where the user says how large it may be.
const ROOM_BYTES_MIN: u64 = 1_024;

/// The most that librdkafka takes as `message.max.bytes`.
const MESSAGE_BYTES_MAX: u64 = 1_000_000_000;

/// Refuses amounts of which there is nothing, or more than there can be.
pub(crate) fn check(pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    let places = &pipeline.places;
    let parts =
        pipeline.transforms.iter().map(|t| t.inputs.len() + t.outputs.len() + t.stores.len());
    let start = places.of("transforms");
    if pipeline.transforms.is_empty() {
        problems.push(Problem::new(start, "`transforms` is empty", "add a transform"));
    }
    if parts.sum::<usize>() > PARTS_MAX || pipeline.transforms.len() > PARTS_MAX {
        problems.push(Problem::new(
            start,
            format!("the pipeline has more than {PARTS_MAX} inputs, outputs and stores"),
            "divide it into several pipelines",
        ));
    }
    problems.extend(memory(pipeline));
}

/// Parts of the memory that are more than the whole: those that the file gives, each at its place,
/// and all defaults at once.
fn memory(pipeline: &Pipeline) -> Vec<Problem> {
    let Limits { guest_memory_max, uncommitted_bytes_max, buffered_bytes_max, .. } =
        pipeline.limits;
    let parts = [
        ("limits.guest_memory_max", guest_memory_max),
        ("limits.uncommitted_bytes_max", uncommitted_bytes_max),
        ("limits.buffered_bytes_max", buffered_bytes_max),
    ];
    let places = &pipeline.places;
    let too_much = parts.into_iter().filter(|(_, bytes)| *bytes > pipeline.general.memory_max);
    let (given, defaults): (Vec<_>, Vec<_>) =
        too_much.partition(|(key, _)| places.given(key).is_some());
    let mut problems: Vec<_> = given
        .into_iter()
        .map(|(key, _)| {
            let message = format!("`{key}` is more than `memory_max`, of which it is a part");
            Problem::new(places.of(key), message, "lower it, or raise `memory_max`")
        })
        .collect();
    if let Some(most) = defaults.iter().map(|(_, bytes)| bytes).max() {
        let names: Vec<_> = defaults.iter().map(|(key, _)| format!("`{key}`")).collect();
        problems.push(Problem::new(
            places.of("memory_max"),
            format!("`memory_max` is less than a part of it: {}", names.join(", ")),
            format!("raise it to {}MiB or more, or lower these", most.div_ceil(1 << 20)),
        ));
    }
    problems
}

/// Settles how large records and messages may be, where the file gives one of the two, and refuses
/// what can't go together.
pub(crate) fn settle(pipeline: &mut Pipeline, problems: &mut Vec<Problem>) {
    let record_key = "limits.record_bytes_max";
    let record_at = pipeline.places.given(record_key);
    let message = pipeline.kafka.effective("producer", &["message.max.bytes"]);
    // What is no number is refused elsewhere.
    let message = message.and_then(|(key, bytes)| Some((key, bytes.parse::<u64>().ok()?)));
    let record = pipeline.limits.record_bytes_max;
    match message {
        None => {
            pipeline.kafka.message_bytes_max = record.saturating_add(ROOM_BYTES);
            if pipeline.kafka.message_bytes_max > MESSAGE_BYTES_MAX {
                let message = format!("`{record_key}` is more than any producer takes");
                let remedy = format!("write at most {}B", MESSAGE_BYTES_MAX - ROOM_BYTES);
                problems.push(Problem::new(pipeline.places.of(record_key), message, remedy));
            }
        }
        Some((key, bytes)) => {
            pipeline.kafka.message_bytes_max = bytes;
            let room = ROOM_BYTES_MIN.min(bytes / 2);
            if record_at.is_none() {
                pipeline.limits.record_bytes_max = record.min(bytes - room);
            } else if record > bytes - room {
                let line = record_at.map_or(1, |at| at.line);
                problems.push(Problem::new(
                    pipeline.places.of(&key),
                    format!(
                        "`{key}` ({bytes} bytes) has no room for a record of `{record_key}` \
                         ({record} bytes, line {line}) and its framing"
                    ),
                    format!(
                        "raise it to {} or more, lower the other, or remove either: it follows the \
                         other",
                        record + ROOM_BYTES_MIN
                    ),
                ));
            }
        }
    }
    let Limits { record_bytes_max, output_bytes_max, .. } = pipeline.limits;
    if record_bytes_max > output_bytes_max {
        let message = format!("`{record_key}` is more than `limits.output_bytes_max`");
        let remedy = "raise `limits.output_bytes_max`, which is for all records of a batch";
        problems.push(Problem::new(pipeline.places.of(record_key), message, remedy));
    }
}
