//! A store in memory.

use std::{collections::BTreeMap, ops::Bound};

use sidestream_core::{
    column::Column,
    record::Changes,
    task::{Entries, Scan},
};

use super::task::Page;

/// A sorted map of keys and values.
#[derive(Debug, Default)]
pub(super) struct Memory {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: usize,
}

impl Memory {
    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.entries.get(key).cloned()
    }

    pub(super) fn get_many(&self, keys: &Column) -> Column {
        keys.iter()
            .map(|key| self.entries.get(key.unwrap_or_default()).map(Vec::as_slice))
            .collect()
    }

    pub(super) fn scan(&self, scan: &Scan) -> Entries {
        let mut page = Page::new(scan);
        if is_empty_range(scan) {
            return page.into_entries();
        }
        let bounds = (scan.from.as_ref().map(Vec::as_slice), scan.to.as_ref().map(Vec::as_slice));
        let mut range = self.entries.range::<[u8], _>(bounds);
        while let Some((key, value)) = if scan.reverse { range.next_back() } else { range.next() } {
            if !page.push(key, value) {
                break;
            }
        }
        page.into_entries()
    }

    pub(super) fn apply(&mut self, changes: &Changes) {
        for (key, value) in changes.keys.iter().zip(&changes.values) {
            let key = key.unwrap_or_default();
            let before = match value {
                Some(value) => {
                    self.bytes += key.len() + value.len();
                    self.entries.insert(key.to_vec(), value.to_vec())
                }
                None => self.entries.remove(key),
            };
            self.bytes -= before.map_or(0, |value| key.len() + value.len());
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The bytes of all keys and values.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Whether no key can lie in the range (`BTreeMap::range` panics on such a one).
fn is_empty_range(scan: &Scan) -> bool {
    match (&scan.from, &scan.to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from >= to,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}
