//! A store in memory.

use std::{collections::BTreeMap, sync::Arc};

use sidestream_core::{
    column::Column,
    record::Changes,
    task::{Entries, InputPosition, Scan, StorePosition},
};

use super::{read::SharedMemory, task::Page};
use crate::lock::Held;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A sorted map of keys and values. Its owner reads it without a lock, and takes one to change it:
/// others read it under that lock.
#[derive(Debug, Default)]
pub(super) struct Memory {
    entries: Arc<Map>,
    bytes: usize,
    shared: SharedMemory,
}

/// A store in memory as others than its owner see it.
#[derive(Debug, Default)]
pub(super) struct View {
    entries: Arc<Map>,
    pub(super) position: Option<StorePosition>,
    pub(super) inputs: Vec<InputPosition>,
    bytes: usize,
}

impl View {
    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.entries.get(key).cloned()
    }

    pub(super) fn scan(&self, scan: &Scan) -> Entries {
        scan_map(&self.entries, scan)
    }

    /// The bytes of all keys and values, and how many there are.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.bytes as u64, self.entries.len() as u64)
    }
}

impl Memory {
    /// Where others find it.
    pub(super) fn shared(&self) -> SharedMemory {
        Arc::clone(&self.shared)
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.entries.get(key).cloned()
    }

    pub(super) fn get_many(&self, keys: &Column) -> Column {
        keys.iter()
            .map(|key| self.entries.get(key.unwrap_or_default()).map(Vec::as_slice))
            .collect()
    }

    pub(super) fn scan(&self, scan: &Scan) -> Entries {
        scan_map(&self.entries, scan)
    }

    /// Applies changes and says where they bring the store to.
    pub(super) fn apply(
        &mut self,
        changes: &Changes,
        position: Option<&StorePosition>,
        inputs: &[InputPosition],
    ) {
        let shared = Arc::clone(&self.shared);
        let mut view = shared.held();
        // Nobody else has the map then, so that it is changed where it is.
        view.entries = Arc::default();
        let entries = Arc::make_mut(&mut self.entries);
        for (key, value) in changes.keys.iter().zip(&changes.values) {
            let key = key.unwrap_or_default();
            let before = match value {
                Some(value) => {
                    self.bytes += key.len() + value.len();
                    entries.insert(key.to_vec(), value.to_vec())
                }
                None => entries.remove(key),
            };
            self.bytes -= before.map_or(0, |value| key.len() + value.len());
        }
        view.entries = Arc::clone(&self.entries);
        view.bytes = self.bytes;
        view.position = position.cloned();
        view.inputs.clear();
        view.inputs.extend_from_slice(inputs);
    }

    pub(super) fn clear(&mut self) {
        let mut view = self.shared.held();
        *view = View::default();
        self.entries = Arc::default();
        self.bytes = 0;
    }

    /// The bytes of all keys and values.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn scan_map(map: &Map, scan: &Scan) -> Entries {
    let mut page = Page::new(scan);
    if scan.is_empty() {
        return page.into_entries();
    }
    let bounds = (scan.from.as_ref().map(Vec::as_slice), scan.to.as_ref().map(Vec::as_slice));
    let mut range = map.range::<[u8], _>(bounds);
    while let Some((key, value)) = if scan.reverse { range.next_back() } else { range.next() } {
        if !page.push(key, value) {
            break;
        }
    }
    page.into_entries()
}
