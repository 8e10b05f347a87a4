//! Scans over what was deleted.

use std::{ops::Bound, time::Duration};

use sidestream::state::{Config, Stores};
use sidestream_core::{
    column::Column,
    record::Changes,
    task::{Scan, StateStore, StoreError},
};

use crate::{all, open, position};

/// More deleted entries in a row than a scan passes over before it looks at the time.
const DELETED: u32 = 20_000;

/// Sets these keys of the first store, or deletes them.
fn change(store: &mut dyn StateStore, keys: impl Iterator<Item = u32>, value: Option<&[u8]>) {
    let mut changes = vec![Changes::default(); 2];
    for key in keys {
        changes[0].keys.push(Some(&key.to_be_bytes()));
        changes[0].values.push(value);
    }
    store.apply(&changes, &position(1, 2)).unwrap();
}

#[test]
fn a_scan_over_deleted_entries_finds_what_is_between_them_or_ends_in_time() {
    let folder = tempfile::tempdir().unwrap();
    // With so much memory nothing is written to tables, so that nobody compacts what was deleted.
    let config = Config { memory_bytes_max: 256 << 20, ..Config::new(folder.path(), "test") };
    let agent = Stores::open_directory(&config).unwrap();
    let mut store = open(&agent).store;
    let kept = [DELETED / 2, DELETED, 2 * DELETED];
    change(store.as_mut(), 0..=2 * DELETED, Some(b"v"));
    change(store.as_mut(), (0..=2 * DELETED).filter(|key| !kept.contains(key)), None);

    let keys = |keys: &[u32]| {
        let bytes: Vec<_> = keys.iter().map(|key| key.to_be_bytes()).collect();
        bytes.iter().map(|key| Some(&key[..])).collect::<Column>()
    };
    let found = store.scan(0, &all()).unwrap();
    assert_eq!((found.keys, found.more), (keys(&kept), false));
    let reverse = Scan { reverse: true, limit: 2, ..all() };
    let found = store.scan(0, &reverse).unwrap();
    assert_eq!((found.keys, found.more), (keys(&[2 * DELETED, DELETED]), true));

    let hasty = Scan { time_max: Duration::ZERO, ..all() };
    assert_eq!(store.scan(0, &hasty).unwrap_err(), StoreError::Slow(Duration::ZERO));
    let from = Bound::Included(DELETED.to_be_bytes().to_vec());
    let near = Scan { from, limit: 1, ..hasty };
    // Whether more come is beyond the deleted ones behind it.
    assert_eq!(store.scan(0, &near).unwrap_err(), StoreError::Slow(Duration::ZERO));
}
