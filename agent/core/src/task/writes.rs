//! The writes of an open transaction to one store: what they replaced, and how a scan sees them.

use std::{collections::BTreeMap, ops::Bound};

use indexmap::{IndexMap, map::Entry};

use crate::{
    record::Changes,
    task::{Entries, Scan, State, StateStore, StoreError, state::Writer},
};

/// What a key holds besides its bytes once the writes are put in order.
pub(super) const INDEX_BYTES: usize = 64;
/// Room for so many writes is kept from one transaction to the next.
pub(super) const WRITES_KEPT: usize = 4_096;

/// Where a store's writes stood at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) undo: usize,
    pub(super) bytes: usize,
}

/// The writes of the open transaction to one store, the last one for each key.
#[derive(Default)]
pub(super) struct WriteBuffer {
    pub(super) writes: IndexMap<Vec<u8>, Write>,
    /// What each write replaced: its key's place, and the write before (`None`: a new key).
    pub(super) undo: Vec<(usize, Option<Write>)>,
    /// The places of the keys in order; made by the first scan of a transaction.
    sorted: Option<BTreeMap<Vec<u8>, usize>>,
    /// What the writes hold; what each of them replaced is still there, and counts.
    pub(super) bytes: usize,
    /// What `sorted` holds.
    pub(super) index_bytes: usize,
}

/// The last write to a key: its value, none if it deletes, and who wrote it.
pub(super) struct Write {
    pub(super) value: Option<Vec<u8>>,
    pub(super) writer: Writer,
}

impl WriteBuffer {
    pub(super) fn put(&mut self, key: &[u8], value: Option<&[u8]>, writer: Writer) {
        let write = Write { value: value.map(<[u8]>::to_vec), writer };
        self.bytes += State::write_bytes(key.len(), value.map_or(0, <[u8]>::len));
        match self.writes.entry(key.to_vec()) {
            Entry::Occupied(mut entry) => {
                let before = std::mem::replace(entry.get_mut(), write);
                self.undo.push((entry.index(), Some(before)));
            }
            Entry::Vacant(entry) => {
                let place = entry.index();
                if let Some(sorted) = &mut self.sorted {
                    sorted.insert(entry.key().clone(), place);
                    self.index_bytes += key.len() + INDEX_BYTES;
                }
                entry.insert(write);
                self.undo.push((place, None));
            }
        }
    }

    pub(super) fn rollback(&mut self, mark: Mark) {
        self.bytes = mark.bytes;
        for (place, before) in self.undo.drain(mark.undo..).rev() {
            match before {
                Some(write) => self.writes[place] = write,
                None => {
                    let (key, _) = self.writes.pop().expect("new keys are undone in reverse");
                    if let Some(sorted) = &mut self.sorted {
                        sorted.remove(&key);
                        self.index_bytes -= key.len() + INDEX_BYTES;
                    }
                }
            }
        }
        self.give_back();
    }

    pub(super) fn index(&mut self) {
        if self.sorted.is_none() {
            self.index_bytes = self.writes.keys().map(|key| key.len() + INDEX_BYTES).sum();
            self.sorted = Some(self.writes.keys().cloned().zip(0..).collect());
        }
    }

    /// Gives back the room of an unusual number of writes that are gone.
    fn give_back(&mut self) {
        let keep = |len: usize| WRITES_KEPT.max(2 * len);
        if self.undo.capacity() > 2 * keep(self.undo.len()) {
            self.undo.shrink_to(keep(self.undo.len()));
        }
        if self.writes.capacity() > 2 * keep(self.writes.len()) {
            self.writes.shrink_to(keep(self.writes.len()));
        }
    }

    pub(super) fn changes(&self) -> Changes {
        Changes {
            keys: self.writes.keys().map(|key| Some(key.as_slice())).collect(),
            values: self.writes.values().map(|write| write.value.as_deref()).collect(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.writes.clear();
        self.undo.clear();
        self.sorted = None;
        self.bytes = 0;
        self.index_bytes = 0;
        self.give_back();
    }
}

/// Merges the writes with pages of the committed entries. Deleted entries may make a page of
/// committed ones yield less than the limit, so pages are read until it is reached.
pub(super) fn merged_scan(
    below: &dyn StateStore,
    store: usize,
    buffer: &WriteBuffer,
    scan: &Scan,
) -> Result<Entries, StoreError> {
    let mut entries = Entries::default();
    if scan.is_empty() {
        return Ok(entries);
    }
    let mut merge = Merge::new(buffer, scan);
    let mut page = scan.clone();
    loop {
        let committed = below.scan(store, &page)?;
        let mut last = None;
        for (key, value) in committed.keys.iter().zip(&committed.values) {
            let key = key.unwrap_or_default();
            if !merge.committed(key, value, &mut entries) {
                return Ok(entries);
            }
            last = Some(key);
        }
        match (committed.more, last) {
            (true, Some(key)) if scan.reverse => page.to = Bound::Excluded(key.to_vec()),
            (true, Some(key)) => page.from = Bound::Excluded(key.to_vec()),
            _ => break,
        }
    }
    merge.rest(&mut entries);
    Ok(entries)
}

type Written<'a> = (&'a [u8], Option<&'a [u8]>);

struct Merge<'a> {
    writes: std::iter::Peekable<Box<dyn Iterator<Item = Written<'a>> + 'a>>,
    scan: &'a Scan,
    bytes: usize,
}

impl<'a> Merge<'a> {
    fn new(buffer: &'a WriteBuffer, scan: &'a Scan) -> Self {
        let sorted = buffer.sorted.as_ref().expect("indexed before a scan");
        let range = sorted
            .range::<[u8], _>((
                scan.from.as_ref().map(Vec::as_slice),
                scan.to.as_ref().map(Vec::as_slice),
            ))
            .map(|(key, &place)| (key.as_slice(), buffer.writes[place].value.as_deref()));
        let writes: Box<dyn Iterator<Item = Written<'a>> + 'a> = match scan.reverse {
            true => Box::new(range.rev()),
            false => Box::new(range),
        };
        Self { writes: writes.peekable(), scan, bytes: 0 }
    }

    /// Takes the next committed entry, after the writes that stand before it. Returns whether
    /// there is room for more.
    fn committed(&mut self, key: &[u8], value: Option<&[u8]>, entries: &mut Entries) -> bool {
        while let Some(&(written, new)) = self.writes.peek() {
            let order = match self.scan.reverse {
                true => key.cmp(written),
                false => written.cmp(key),
            };
            if order.is_gt() {
                break;
            }
            self.writes.next();
            if !self.push(written, new, entries) {
                return false;
            }
            if order.is_eq() {
                return true;
            }
        }
        self.push(key, value, entries)
    }

    /// Takes the writes that are left.
    fn rest(&mut self, entries: &mut Entries) {
        while let Some((key, value)) = self.writes.next() {
            if !self.push(key, value, entries) {
                return;
            }
        }
    }

    fn push(&mut self, key: &[u8], value: Option<&[u8]>, entries: &mut Entries) -> bool {
        let Some(value) = value else { return true };
        let bytes = key.len() + value.len();
        let full = entries.keys.len() >= self.scan.limit
            || (!entries.keys.is_empty() && self.bytes + bytes > self.scan.bytes_max);
        if full {
            entries.more = true;
            return false;
        }
        self.bytes += bytes;
        entries.keys.push(Some(key));
        entries.values.push(Some(value));
        true
    }
}
