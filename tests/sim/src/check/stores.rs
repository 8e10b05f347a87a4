//! Stores: what is on disk is the fold of the changelog up to its position, and in the end the
//! fold of the input.

use std::collections::BTreeMap;

use sidestream_core::record::{Offset, TaskId, TopicPartition};

use super::{key_of, text};
use crate::{
    cluster::{Fate, LogRecord, index},
    disk::Contents,
    guest::number,
    pipeline::{CHAIN, CHAINED, COUNT, COUNTS, SUM, TABLE},
    world::State,
};

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// All records of a changelog that are committed, also where the marker is still to come.
fn decided(state: &State, changelog: TopicPartition) -> impl Iterator<Item = (Offset, &LogRecord)> {
    let entries = state.cluster.partition(changelog).entries.iter().zip(0..);
    entries
        .filter(|(entry, _)| match entry.fate {
            Fate::Committed => true,
            Fate::Open => state.cluster.coordinator.will_commit(entry.producer),
            Fate::Aborted => false,
        })
        .filter_map(|(entry, offset)| Some((offset, entry.record.as_ref()?)))
}

/// The fold of a changelog below an offset.
fn folded(state: &State, changelog: TopicPartition, below: Offset) -> Entries {
    let mut entries = Entries::new();
    for (_, record) in decided(state, changelog).take_while(|(offset, _)| *offset < below) {
        let key = record.key.clone().unwrap_or_default();
        match &record.value {
            Some(value) => entries.insert(key, value.clone()),
            None => entries.remove(&key),
        };
    }
    entries
}

/// Whatever is on any disk is the fold of the changelog up to its position.
pub(super) fn check_disks(state: &State) -> Result<(), String> {
    for &(changelog, offset) in &state.passed {
        let entry = &state.cluster.partition(changelog).entries[index(offset)];
        if entry.fate == Fate::Committed {
            return Err(format!("a store went past {offset} of {changelog:?} before its commit"));
        }
    }
    for (disk, place) in state.disks.iter().zip(0..) {
        for (&task, files) in &disk.tasks {
            check_contents(state, task, files.contents())
                .map_err(|error| format!("disk {place}: {error}"))?;
        }
    }
    Ok(())
}

/// What the stores of a task hold is the fold of their changelogs up to their positions.
pub(super) fn check_contents(
    state: &State,
    task: TaskId,
    contents: &Contents,
) -> Result<(), String> {
    let definitions = &state.plan.topology.subtopology(task).stores;
    for (store, definition) in definitions.iter().enumerate() {
        let changelog = TopicPartition::new(definition.changelog, task.partition);
        let position = contents.position.stores[store].as_ref();
        let below = position.map_or(0, |position| position.offset);
        let mut expected = folded(state, changelog, below);
        let mut found = contents.stores[store].clone();
        if state.plan.faults.compact > 0 {
            // A compacted changelog lacks what changes again further on.
            for (_, record) in decided(state, changelog).filter(|(offset, _)| *offset >= below) {
                let key = record.key.as_deref().unwrap_or_default();
                expected.remove(key);
                found.remove(key);
            }
        }
        if found != expected {
            let name = &definition.name;
            let difference = difference(&found, &expected);
            return Err(format!(
                "{name} of {task} is not its changelog below {below}: {difference}"
            ));
        }
    }
    Ok(())
}

fn difference(found: &Entries, expected: &Entries) -> String {
    let keys = found.keys().chain(expected.keys());
    keys.filter(|key| found.get(*key) != expected.get(*key))
        .map(|key| {
            let show = |entries: &Entries| entries.get(key).map(|value| text(value));
            format!("{} is {:?} instead of {:?}", text(key), show(found), show(expected))
        })
        .next()
        .unwrap_or_default()
}

/// In the end a task's state is the fold of its input, in its changelog and where it was last.
pub(super) fn check_task(state: &State, task: TaskId) -> Result<(), String> {
    if state.is_hindered(task) {
        return Ok(());
    }
    let expected = expected_state(state, task);
    let definitions = &state.plan.topology.subtopology(task).stores;
    let files = state.last_disk.get(&task).and_then(|&disk| state.disks[disk].tasks.get(&task));
    for (store, definition) in definitions.iter().enumerate() {
        let changelog = TopicPartition::new(definition.changelog, task.partition);
        let name = format!("{} of {task}", definition.name);
        let in_changelog = folded(state, changelog, Offset::MAX);
        let is_user = |(key, _): &(&Vec<u8>, &Vec<u8>)| !key.starts_with(b"#");
        let users: Entries =
            in_changelog.iter().filter(is_user).map(|(k, v)| (k.clone(), v.clone())).collect();
        let right = match state.plan.config.exactly_once || store == TABLE {
            true => users == expected[store],
            false => counts_reach(&users, &expected[store]),
        };
        if !right {
            let difference = difference(&users, &expected[store]);
            return Err(format!("the changelog of {name} is not the fold: {difference}"));
        }
        if let Some(files) = files
            && behind(state, task).is_none()
            && files.contents().stores[store] != in_changelog
        {
            let difference = difference(&files.contents().stores[store], &in_changelog);
            return Err(format!("{name} on disk is not what it was last: {difference}"));
        }
        check_compacted(state, changelog, &in_changelog)
            .map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

/// Whether every count is there, and is at least what is expected.
fn counts_reach(found: &Entries, expected: &Entries) -> bool {
    let reaches = |(key, least): (&Vec<u8>, &Vec<u8>)| {
        found.get(key).is_some_and(|count| number(count) >= number(least))
    };
    found.len() == expected.len() && expected.iter().all(reaches)
}

/// Which store of a task, where it is open, does not hold all of its changelog yet.
pub(super) fn behind(state: &State, task: TaskId) -> Option<String> {
    let disk = *state.last_disk.get(&task)?;
    let position = &state.disks[disk].tasks.get(&task)?.contents().position;
    let definitions = &state.plan.topology.subtopology(task).stores;
    definitions.iter().zip(&position.stores).find_map(|(definition, position)| {
        let changelog = TopicPartition::new(definition.changelog, task.partition);
        let last = state.cluster.partition(changelog).history().last()?.0;
        let offset = position.as_ref().map_or(0, |position| position.offset);
        let name = &definition.name;
        (offset <= last && !state.is_hindered(task))
            .then(|| format!("{name} of {task} is at {offset}, below {last}"))
    })
}

/// What compaction left of a changelog is still all of it. (Of deletes it may forget some.)
fn check_compacted(
    state: &State,
    changelog: TopicPartition,
    expected: &Entries,
) -> Result<(), String> {
    let slice = state.cluster.partition(changelog).read(0, usize::MAX);
    let mut entries = Entries::new();
    for (_, record) in slice.records {
        let key = record.key.unwrap_or_default();
        match record.value {
            Some(value) => entries.insert(key, value),
            None => entries.remove(&key),
        };
    }
    match entries == *expected {
        true => Ok(()),
        false => Err(format!("compacted wrongly: {}", difference(&entries, expected))),
    }
}

/// The stores of a task, as the fold of its input.
fn expected_state(state: &State, task: TaskId) -> Vec<Entries> {
    let definitions = &state.plan.topology.subtopology(task).stores;
    let mut stores = vec![Entries::new(); definitions.len()];
    let first = if task.subtopology == 0 { COUNT } else { SUM };
    for (store, transform) in [(COUNTS, first), (CHAINED, CHAIN)] {
        let Some(entries) = stores.get_mut(store) else { continue };
        let records = state.processed(task.subtopology, transform);
        for (_, record) in records.iter().filter(|(stamp, _)| stamp.1 == task.partition) {
            let key = key_of(record);
            let count = entries.get(&key).map_or(0, |value| number(value)) + 1;
            entries.insert(key, count.to_string().into_bytes());
        }
    }
    let Some(table) = stores.get_mut(TABLE) else { return stores };
    for ((input, partition, _), record) in state.processed(task.subtopology, first) {
        let key = [format!("{input}:").as_bytes(), &key_of(&record)].concat();
        match record.value {
            _ if partition != task.partition => {}
            Some(value) => drop(table.insert(key, value)),
            None => drop(table.remove(&key)),
        }
    }
    stores
}
