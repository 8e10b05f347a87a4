//! State on disk: what a crash, a damaged file, a changed pipeline and another worker leave of it.
//!
//! The state under test counts: change `i` (from 0) sets key `i % KEYS` to `i` in store `counts`,
//! and in store `marks` sets it if `i` is even and deletes it if not. So the position tells what
//! must be there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod corruption;
mod deleted;
mod kill;
mod sharing;
mod topology;

use std::{ops::Bound, path::Path, sync::Arc, time::Duration};

use sidestream::state::{Config, Opened, StoreKind, StoreSpec, Stores, TaskStores};
use sidestream_core::{
    record::{Changes, TaskId, TopicId},
    task::{Position, Scan, StateStore, StoreError, StorePosition},
};

/// How many keys are written in turn.
const KEYS: i64 = 500;
/// How many bytes each value has.
const VALUE_BYTES: usize = 400;

const TASK: TaskId = TaskId { subtopology: 0, partition: 3 };

fn stores_named(names: &[&str]) -> TaskStores {
    let store = |name: &&str| StoreSpec { name: (*name).to_owned(), kind: StoreKind::RocksDb };
    TaskStores { stores: names.iter().map(store).collect(), inputs: vec!["input".to_owned()] }
}

fn counting_stores() -> TaskStores {
    stores_named(&["counts", "marks"])
}

/// An agent with little memory, so that much is written to tables.
fn config(directory: &Path) -> Config {
    Config { memory_bytes_max: 8 << 20, ..Config::new(directory, "test") }
}

fn agent(directory: &Path) -> Arc<Stores> {
    Stores::open_directory(&config(directory)).unwrap()
}

fn open(agent: &Arc<Stores>) -> Opened {
    agent.open(TASK, &counting_stores()).unwrap()
}

fn position(offset: i64, stores: usize) -> Position {
    let store = StorePosition { offset, topic_id: TopicId([1; 16]), leader_epoch: 0 };
    Position {
        stores: vec![Some(store); stores],
        inputs: vec![offset.into()],
        committed_at: offset,
    }
}

fn value(i: i64) -> Vec<u8> {
    // Not compressible, so that tables are as large as what is in them.
    let mut state = i.cast_unsigned() | 1;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    });
    i.to_be_bytes().into_iter().chain(noise).take(VALUE_BYTES).collect()
}

/// Applies change `i`.
fn count(store: &mut dyn StateStore, i: i64) -> Result<(), StoreError> {
    let key = (i % KEYS).to_be_bytes();
    let mut changes = vec![Changes::default(); 2];
    for change in &mut changes {
        change.keys.push(Some(&key));
    }
    changes[0].values.push(Some(&value(i)));
    changes[1].values.push((i % 2 == 0).then_some(&value(i)));
    store.apply(&changes, &position(i + 1, 2))
}

/// The offset of both stores.
fn offset(store: &dyn StateStore) -> i64 {
    let stores = store.position().unwrap().stores;
    assert_eq!(stores[0], stores[1], "one position for all");
    stores[0].as_ref().map_or(0, |position| position.offset)
}

fn all() -> Scan {
    Scan {
        from: Bound::Unbounded,
        to: Bound::Unbounded,
        reverse: false,
        limit: usize::MAX,
        bytes_max: usize::MAX,
        time_max: Duration::MAX,
    }
}

/// Checks that the stores hold what their position says; an error is what they said themselves.
fn check_counts(store: &dyn StateStore) -> Result<(), StoreError> {
    let offset = offset(store);
    let last_of = |key: i64| (0..offset).rev().find(|i| i % KEYS == key);
    for (index, all_kept) in [(0, true), (1, false)] {
        let found = store.scan(index, &all())?;
        let found: Vec<_> = found.keys.iter().map(Option::unwrap).zip(&found.values).collect();
        let expected: Vec<_> = (0..KEYS)
            .filter_map(|key| Some((key.to_be_bytes(), last_of(key)?)))
            .filter(|(_, i)| all_kept || i % 2 == 0)
            .map(|(key, i)| (key, value(i)))
            .collect();
        assert_eq!(found.len(), expected.len(), "store {index} at offset {offset}");
        for ((key, value), (expected_key, expected_value)) in found.iter().zip(&expected) {
            assert_eq!(*key, expected_key);
            assert_eq!(*value, Some(expected_value.as_slice()), "store {index}, key {key:?}");
        }
    }
    Ok(())
}
