//! Outputs: each input's is there once, in order, with the values of the fold.

use std::collections::{BTreeMap, BTreeSet};

use sidestream_core::record::{
    NO_TIMESTAMP, Offset, TaskId, TopicIndex, TopicPartition, time_told_by,
};

use super::{Stamp, key_of, stamp, text};
use crate::{
    guest::number,
    pipeline::{CHAIN, COUNT, LATEST, NEXT, OUT, SUM, TICKS},
    world::State,
};

/// Checks all outputs of a sub-topology.
pub(super) fn check(state: &State, subtopology: u16) -> Result<(), String> {
    let first = if subtopology == 0 { COUNT } else { SUM };
    for (transform, output) in [(first, OUT), (CHAIN, OUT), (first, NEXT)] {
        if let Some(topic) = state.output_topic(subtopology, transform, output) {
            check_stamped(state, subtopology, (transform, topic), output)
                .map_err(|error| format!("{transform}-{output}: {error}"))?;
        }
    }
    if let Some(topic) = state.output_topic(subtopology, first, LATEST) {
        check_latest(state, subtopology, (first, topic))
            .map_err(|error| format!("latest: {error}"))?;
    }
    if let Some(topic) = state.output_topic(subtopology, first, TICKS) {
        check_ticks(state, subtopology, topic).map_err(|error| format!("ticks: {error}"))?;
    }
    Ok(())
}

fn check_stamped(
    state: &State,
    subtopology: u16,
    (transform, topic): (&str, TopicIndex),
    output: &str,
) -> Result<(), String> {
    let exactly_once = state.plan.config.exactly_once;
    let records = state.processed(subtopology, transform);
    let counted = output == OUT;
    let had_output = |stamp: &Stamp| state.had_output(subtopology, *stamp, (transform, output));
    let mut expected: BTreeSet<Stamp> = records.keys().copied().filter(had_output).collect();
    let mut last: BTreeMap<(TopicPartition, u32, i32), Offset> = BTreeMap::new();
    let mut counts: BTreeMap<(i32, Vec<u8>), u64> = BTreeMap::new();
    for (partition, offset, record) in state.topic_records(topic) {
        let value = record.value.as_deref().unwrap_or_default();
        let (stamp, count) =
            stamp(value).ok_or_else(|| format!("offset {offset} is no stamp: {}", text(value)))?;
        let input = records.get(&stamp).ok_or_else(|| format!("{stamp:?} is nobody's"))?;
        if !expected.remove(&stamp) && exactly_once {
            return Err(format!("{stamp:?} is there twice"));
        }
        if input.timestamp != record.timestamp {
            let (found, time) = (record.timestamp, input.timestamp);
            return Err(format!("{stamp:?} has the time {found} instead of {time}"));
        }
        let before = last.insert((partition, stamp.0, stamp.1), stamp.2);
        if exactly_once && before.is_some_and(|before| before >= stamp.2) {
            return Err(format!("{stamp:?} comes after {before:?}"));
        }
        if !counted {
            continue;
        }
        let key = key_of(input);
        if record.key.as_ref() != Some(&key) {
            return Err(format!("{stamp:?} has a wrong key"));
        }
        let known = counts.entry((stamp.1, key)).or_default();
        *known += 1;
        if exactly_once && count != Some(*known) {
            return Err(format!("{stamp:?} has count {count:?} instead of {known}"));
        }
    }
    let task = |partition| TaskId { subtopology, partition };
    match expected.iter().find(|stamp| !state.is_hindered(task(stamp.1))) {
        Some(stamp) => Err(format!("{stamp:?} is lost")),
        None => Ok(()),
    }
}

/// One record for each key and transaction at most: they rise, and the last one is the count.
fn check_latest(
    state: &State,
    subtopology: u16,
    (transform, topic): (&str, TopicIndex),
) -> Result<(), String> {
    check_once_for_each_key(state, topic)?;
    let mut last: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for (_, offset, record) in state.topic_records(topic) {
        let count = number(record.value.as_deref().unwrap_or_default());
        let key = record.key.clone().unwrap_or_default();
        let before = last.insert(key.clone(), count).unwrap_or(0);
        if state.plan.config.exactly_once && before >= count {
            let key = text(&key);
            return Err(format!("{key} goes from {before} to {count} at offset {offset}"));
        }
    }
    let mut expected: BTreeMap<(i32, Vec<u8>), u64> = BTreeMap::new();
    for ((_, partition, _), record) in state.processed(subtopology, transform) {
        *expected.entry((partition, key_of(&record))).or_default() += 1;
    }
    for ((partition, key), count) in expected {
        let name = [format!("{partition}:").as_bytes(), &key].concat();
        let found = last.get(&name).copied();
        let poisoned = state.is_hindered(TaskId { subtopology, partition });
        let right = match state.plan.config.exactly_once {
            true => found == Some(count),
            false => found.is_some_and(|found| found >= count),
        };
        if !poisoned && !right {
            return Err(format!("{} is {found:?} instead of {count}", text(&name)));
        }
    }
    Ok(())
}

/// No transaction holds two records of a key.
fn check_once_for_each_key(state: &State, topic: TopicIndex) -> Result<(), String> {
    if !state.plan.config.exactly_once {
        return Ok(());
    }
    for partition in 0..state.plan.topology.topic(topic).partitions {
        let log = state.cluster.partition(TopicPartition::new(topic, partition));
        let mut keys: BTreeSet<(u64, &[u8])> = BTreeSet::new();
        for entry in &log.entries {
            match &entry.record {
                Some(record) => {
                    let key = record.key.as_deref().unwrap_or_default();
                    if !keys.insert((entry.producer, key)) {
                        return Err(format!("{} is there twice in a transaction", text(key)));
                    }
                }
                None => keys.retain(|(producer, _)| *producer != entry.producer),
            }
        }
    }
    Ok(())
}

/// Punctuations are numbered without gaps; those by stream time are what the input says.
fn check_ticks(state: &State, subtopology: u16, topic: TopicIndex) -> Result<(), String> {
    if !state.plan.config.exactly_once {
        return Ok(()); // What is punctuated again has another number.
    }
    let mut ticks: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (_, _, record) in state.topic_records(topic) {
        let key = text(record.key.as_deref().unwrap_or_default());
        ticks.entry(key).or_default().push(text(record.value.as_deref().unwrap_or_default()));
    }
    for (key, values) in &ticks {
        for (value, place) in values.iter().zip(1u64..) {
            let count = value.split('/').next().and_then(|count| count.parse().ok());
            if count != Some(place) {
                return Err(format!("{key} has {value} as its {place}."));
            }
        }
    }
    let definition = &state.plan.topology.subtopologies[usize::from(subtopology)];
    let Some(interval) = state.plan.shape.stream_punctuation else { return Ok(()) };
    let has_changed = state.before.as_ref().is_some_and(|before| !before.same_schedules);
    let has_changed = has_changed || state.was_set(subtopology);
    if definition.inputs.len() > 1 || has_changed || state.swaps.reschedule(subtopology) {
        return Ok(());
    }
    for partition in 0..definition.partitions {
        let task = TaskId { subtopology, partition };
        let interval = i64::try_from(interval).expect("small");
        let expected = expected_ticks(state, task, interval);
        let found = ticks.get(&format!("stream {task}")).cloned().unwrap_or_default();
        let may_lack = usize::from(is_put_off(state, task, interval));
        let same = match state.is_hindered(task) {
            true => expected.starts_with(&found),
            false => expected.starts_with(&found) && expected.len() <= found.len() + may_lack,
        };
        if !same {
            return Err(format!("{task} has the punctuations {found:?} instead of {expected:?}"));
        }
    }
    Ok(())
}

/// Whether a punctuation that is due is left to the next life of a task, as is committed beside the
/// offsets of its first input: `1;STREAM TIME;TRANSFORM,SCHEDULE,CLOCK,INTERVAL,NEXT;..`.
fn is_put_off(state: &State, task: TaskId, interval: i64) -> bool {
    let input = &state.plan.topology.subtopology(task).inputs[0];
    let partition = TopicPartition::new(input.topic, task.partition);
    let Some(committed) = state.cluster.group.offsets.get(&partition) else { return false };
    let mut parts = committed.metadata.split(';').skip(1);
    let time: Option<i64> = parts.next().and_then(|time| time.parse().ok());
    let next = |part: &str| {
        let (schedule, next) = part.rsplit_once(',')?;
        let is_it = schedule.ends_with(&format!(",s,{interval}"));
        next.parse().ok().filter(|_: &i64| is_it)
    };
    parts.filter_map(next).any(|next| Some(next) <= time)
}

/// When a task is punctuated by stream time: after the record that reaches the moment, once for
/// all that were missed, in step with 0.
fn expected_ticks(state: &State, task: TaskId, interval: i64) -> Vec<String> {
    let (mut time, mut next, mut ticks) = (NO_TIMESTAMP, 0, Vec::new());
    for ((_, partition, _), record) in state.input_records(task.subtopology) {
        if partition != task.partition {
            continue;
        }
        time = time.max(time_told_by(record.timestamp));
        if time >= next && time != NO_TIMESTAMP {
            let due = time - (time - next) % interval;
            next = due + interval;
            ticks.push(format!("{}/{due}/{time}", ticks.len() + 1));
        }
    }
    ticks
}
