//! What a call knows of a store: what it wrote, and what it read.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::bindings::sidestream::transform::types::{BytesColumn, Writes};

/// The entries of a store that a call has read or written, so that it reads its own writes and
/// asks the agent for each key once. All keys and values lie in one buffer: an entry costs no
/// allocation of its own.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    index: HashTable<usize>,
    /// The entries that were written and not handed over yet, in the order of their first write.
    written: Vec<usize>,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    key: Span,
    value: Option<Span>,
    /// How many bytes there are where the value lies; a later value that fits takes its place.
    value_room: Span,
    written: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: usize,
    length: usize,
}

impl Overlay {
    /// What is known of a key: nothing, or its value, or that it has none.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let entry = &self.entries[self.find(hash(key), key)?];
        Some(entry.value.map(|span| self.slice(span)))
    }

    /// Learns what the agent's store has for a key.
    pub(crate) fn learn(&mut self, key: &[u8], value: Option<&[u8]>) {
        let entry = self.entry(key);
        self.set(entry, value);
    }

    /// Writes a value, or deletes with none.
    pub(crate) fn write(&mut self, key: &[u8], value: Option<&[u8]>) {
        let entry = self.entry(key);
        self.set(entry, value);
        if !std::mem::replace(&mut self.entries[entry].written, true) {
            self.written.push(entry);
        }
    }

    /// Appends to `writes` what was written since the last time, and the number of the store to
    /// each. It stays known.
    pub(crate) fn hand_over(&mut self, store: u32, writes: &mut Writes) {
        for entry in std::mem::take(&mut self.written) {
            self.entries[entry].written = false;
            let entry = &self.entries[entry];
            writes.stores.push(store);
            writes.keys.push(Some(self.slice(entry.key)));
            writes.values.push(entry.value.map(|span| self.slice(span)));
        }
    }

    /// Whether something was written since the last handing over.
    pub(crate) fn is_written(&self) -> bool {
        !self.written.is_empty()
    }

    /// How many bytes the entries take, about.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Forgets everything, keeps the buffers.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.index.clear();
        self.written.clear();
    }

    /// Those of `keys` of which nothing is known, each once; null ones are left out.
    pub(crate) fn unknown<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> BytesColumn {
        let mut column = BytesColumn::new();
        let mut asked: HashTable<&[u8]> = HashTable::new();
        for key in keys {
            let hash = hash(key);
            if self.find(hash, key).is_none() && asked.find(hash, |other| *other == key).is_none() {
                asked.insert_unique(hash, key, |key| self::hash(key));
                column.push(Some(key));
            }
        }
        column
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        let is_it = |&entry: &usize| self.slice(self.entries[entry].key) == key;
        self.index.find(hash, is_it).copied()
    }

    fn entry(&mut self, key: &[u8]) -> usize {
        let hash = hash(key);
        if let Some(entry) = self.find(hash, key) {
            return entry;
        }
        let entry = self.entries.len();
        let key = self.append(key);
        let value_room = Span::default();
        self.entries.push(Entry { hash, key, value: None, value_room, written: false });
        self.index.insert_unique(hash, entry, |&entry| self.entries[entry].hash);
        entry
    }

    fn set(&mut self, entry: usize, value: Option<&[u8]>) {
        let room = self.entries[entry].value_room;
        let span = value.map(|value| {
            if value.len() > room.length {
                return self.append(value);
            }
            let span = Span { start: room.start, length: value.len() };
            self.bytes[span.start..span.start + span.length].copy_from_slice(value);
            span
        });
        let entry = &mut self.entries[entry];
        entry.value = span;
        entry.value_room = span.filter(|span| span.length > room.length).unwrap_or(room);
    }

    fn append(&mut self, bytes: &[u8]) -> Span {
        let span = Span { start: self.bytes.len(), length: bytes.len() };
        self.bytes.extend_from_slice(bytes);
        span
    }

    fn slice(&self, span: Span) -> &[u8] {
        &self.bytes[span.start..span.start + span.length]
    }
}

impl Writes {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { stores: Vec::new(), keys: BytesColumn::new(), values: BytesColumn::new() }
    }
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(key);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_shrink_grow_and_go() {
        let mut overlay = Overlay::default();
        assert_eq!(overlay.get(b"k"), None);
        overlay.learn(b"k", Some(b"abc"));
        overlay.write(b"other", Some(b"untouched"));
        for value in [Some(&b"x"[..]), Some(b"xyz"), None, Some(b""), Some(b"longer")] {
            overlay.write(b"k", value);
            assert_eq!(overlay.get(b"k"), Some(value));
            assert_eq!(overlay.get(b"other"), Some(Some(&b"untouched"[..])));
        }
        overlay.clear();
        assert_eq!(overlay.get(b"k"), None);
        assert!(!overlay.is_written());
    }

    #[test]
    fn the_last_write_of_each_key_is_handed_over_once() {
        let mut overlay = Overlay::default();
        overlay.learn(b"read", Some(b"r"));
        overlay.write(b"b", Some(b"1"));
        overlay.write(b"a", Some(b"2"));
        overlay.write(b"b", None);
        let mut writes = Writes::new();
        overlay.hand_over(7, &mut writes);
        assert_eq!(writes.stores, [7, 7]);
        assert_eq!(writes.keys.rows().collect::<Vec<_>>(), [Some(&b"b"[..]), Some(b"a")]);
        assert_eq!(writes.values.rows().collect::<Vec<_>>(), [None, Some(&b"2"[..])]);
        let mut again = Writes::new();
        overlay.hand_over(7, &mut again);
        assert!(again.stores.is_empty());
        assert_eq!(overlay.get(b"b"), Some(None));
    }

    #[test]
    fn unknown_keys_are_asked_for_once() {
        let mut overlay = Overlay::default();
        overlay.learn(b"known", None);
        let keys = [&b"x"[..], b"known", b"", b"x", b""];
        let unknown = overlay.unknown(keys.into_iter());
        assert_eq!(unknown.rows().collect::<Vec<_>>(), [Some(&b"x"[..]), Some(b"")]);
    }

    #[test]
    fn many_keys_stay_apart() {
        let mut overlay = Overlay::default();
        for key in 0..5_000u32 {
            overlay.write(&key.to_be_bytes(), Some(&(key * 2).to_be_bytes()));
        }
        for key in 0..5_000u32 {
            let value = (key * 2).to_be_bytes();
            assert_eq!(overlay.get(&key.to_be_bytes()), Some(Some(&value[..])));
        }
    }
}
