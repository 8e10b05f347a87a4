//! What fails for good is told of, and is in the dead-letter topic if its transform has one.

use std::collections::{BTreeMap, BTreeSet};

use sidestream_core::{
    record::{TaskId, TopicIndex},
    topology::OnError,
};

use super::{Stamp, key_of, text};
use crate::{
    cluster::LogRecord,
    pipeline::{CHAIN, COUNT},
    poison,
    world::State,
};

/// What a dead letter says: the headers' values by the last part of their names, key and value. What
/// brokers don't take is told by its size.
type Letter = (Vec<(&'static str, String)>, Vec<u8>, Option<Vec<u8>>);

const HEADERS: [&str; 7] =
    ["exception", "topic", "partition", "offset", "handed.over.by", "processor.node.id", "task.id"];

/// Checks them all.
pub(super) fn check(state: &State) -> Result<(), String> {
    let mut topics: BTreeMap<TopicIndex, BTreeMap<Letter, u64>> = BTreeMap::new();
    let mut passed_over: BTreeMap<(TaskId, usize, &str), u64> = BTreeMap::new();
    let mut hindered = BTreeSet::new();
    for (subtopology, definition) in (0u16..).zip(&state.plan.topology.subtopologies) {
        for (place, transform) in definition.transforms.iter().enumerate() {
            for (stamp, record) in state.reached(subtopology, &transform.name) {
                let Some(way) = poison::way(&state.plan, &transform.name, stamp) else { continue };
                let task = TaskId { subtopology, partition: stamp.1 };
                if state.is_hindered(task) {
                    hindered.insert(task.to_string());
                }
                *passed_over.entry((task, place, way.kind().name())).or_default() += 1;
                if let OnError::DeadLetter(topic) = transform.on_error.then {
                    let letter = letter(state, task, &transform.name, stamp, &record);
                    *topics.entry(topic).or_default().entry(letter).or_default() += 1;
                }
            }
        }
    }
    for (task, told) in &state.passed_over {
        // A process may die before it tells what it has committed.
        let most = passed_over.get(task).copied().unwrap_or(0);
        if *told > most && state.plan.config.exactly_once {
            return Err(format!(
                "{told} records are told to be passed over by {task:?}, not {most}"
            ));
        }
    }
    topics
        .into_iter()
        .try_for_each(|(topic, expected)| check_topic(state, topic, &expected, &hindered))
}

fn check_topic(
    state: &State,
    topic: TopicIndex,
    expected: &BTreeMap<Letter, u64>,
    hindered: &BTreeSet<String>,
) -> Result<(), String> {
    let mut found: BTreeMap<Letter, u64> = BTreeMap::new();
    for (_, _, record) in state.topic_records(topic) {
        *found.entry(parse(record)).or_default() += 1;
    }
    for letter in found.keys().chain(expected.keys()) {
        let (is, should) = (found.get(letter), expected.get(letter));
        let is_hindered = letter.0.iter().any(|(_, said)| hindered.contains(said));
        let right = match state.plan.config.exactly_once {
            true if is_hindered => is.is_none() || is == should,
            true => is == should,
            false => (is_hindered || is >= should) && should.is_some(),
        };
        if !right {
            return Err(format!("dead letter {letter:?} is there {is:?} times, not {should:?}"));
        }
    }
    Ok(())
}

fn letter(
    state: &State,
    task: TaskId,
    transform: &str,
    stamp: Stamp,
    record: &LogRecord,
) -> Letter {
    let (input, partition, offset) = stamp;
    let definition = state.plan.topology.subtopology(task);
    let topic = definition.inputs[input as usize].topic;
    let way = poison::way(&state.plan, transform, stamp).expect("only for such");
    let said = [
        way.kind().name().to_owned(),
        state.plan.topology.topic(topic).name.clone(),
        partition.to_string(),
        offset.to_string(),
        if transform == CHAIN { COUNT } else { "" }.to_owned(),
        transform.to_owned(),
        task.to_string(),
    ];
    let place = format!("{}-{}-{}", said[1], said[2], said[3]);
    let headers = HEADERS.into_iter().zip(said).collect();
    let (key, value) = match transform {
        CHAIN => {
            let value = format!("{input}/{partition}/{offset}").into_bytes();
            (key_of(record), Some(value))
        }
        _ => (record.key.clone().unwrap_or_default(), record.value.clone()),
    };
    let (loses_value, loses_key) = state.plan.refusals.cuts();
    let key = if loses_key { place.into_bytes() } else { key };
    match value {
        Some(value) if loses_value => (headers, key, Some(omitted(&value.len().to_string()))),
        value => (headers, key, value),
    }
}

fn omitted(size: &str) -> Vec<u8> {
    format!("omitted: {size}").into_bytes()
}

fn parse(record: &LogRecord) -> Letter {
    let header = |full: &str| {
        let found = record.headers.iter().find(|(name, _)| *name == full.as_bytes());
        found.map(|(_, value)| text(value.as_deref().unwrap_or_default()))
    };
    let value = |name: &str| header(&format!("__streams.errors.{name}")).unwrap_or_default();
    let headers = HEADERS.into_iter().map(|name| (name, value(name))).collect();
    let size = header("__sidestream.value.omitted").map(|size| omitted(&size));
    (headers, record.key.clone().unwrap_or_default(), record.value.clone().or(size))
}
