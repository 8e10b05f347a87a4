use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ops::Bound,
    rc::Rc,
};

use crate::{
    bindings::sidestream::transform::{
        state::{Entries, KeyBound, KeyRange},
        telemetry::Level,
        types::{BytesColumn, Writes},
    },
    host::Host,
};

pub(super) type Entry = (Vec<u8>, Vec<u8>);

/// How many entries a scan gives at most, whatever it asks for; few, so that tests see pages.
const SCAN_ENTRIES_MAX: usize = 3;

/// An agent in memory.
#[derive(Default)]
pub(super) struct MemoryHost {
    /// The stores as of the last call that succeeded, and what this call changed early.
    pub(super) stores: RefCell<Vec<BTreeMap<Vec<u8>, Vec<u8>>>>,
    pub(super) lines: RefCell<Vec<(Level, String)>>,
    pub(super) counts: RefCell<BTreeMap<String, u64>>,
    pub(super) observations: RefCell<BTreeMap<String, Vec<f64>>>,
    /// How many calls of `get`, `get_many`, `put_many` and the scans there were.
    pub(super) crossings: Cell<u64>,
}

/// What a call that fails takes back.
pub(super) struct Savepoint {
    stores: Vec<BTreeMap<Vec<u8>, Vec<u8>>>,
    lines: usize,
    counts: BTreeMap<String, u64>,
    observations: BTreeMap<String, Vec<f64>>,
}

impl MemoryHost {
    pub(super) fn savepoint(&self) -> Savepoint {
        Savepoint {
            stores: self.stores.borrow().clone(),
            lines: self.lines.borrow().len(),
            counts: self.counts.borrow().clone(),
            observations: self.observations.borrow().clone(),
        }
    }

    pub(super) fn roll_back(&self, savepoint: Savepoint) {
        self.stores.replace(savepoint.stores);
        self.lines.borrow_mut().truncate(savepoint.lines);
        self.counts.replace(savepoint.counts);
        self.observations.replace(savepoint.observations);
    }

    pub(super) fn write(&self, writes: &Writes) {
        let mut stores = self.stores.borrow_mut();
        let rows = writes.keys.rows().zip(writes.values.rows());
        for (&store, (key, value)) in writes.stores.iter().zip(rows) {
            let (store, key) = (&mut stores[store as usize], key.expect("no key is null"));
            match value {
                Some(value) => store.insert(key.to_vec(), value.to_vec()),
                None => store.remove(key),
            };
        }
    }

    fn entries(&self, store: u32, prefix: &[u8], range: &KeyRange) -> Entries {
        self.cross();
        let stores = self.stores.borrow();
        let bounds = (bound(&range.lower), bound(&range.upper));
        let is_in = |(key, _): &(&Vec<u8>, &Vec<u8>)| {
            key.starts_with(prefix) && is_within(key.as_slice(), bounds)
        };
        let mut found: Vec<_> = stores[store as usize].iter().filter(is_in).collect();
        if range.reverse {
            found.reverse();
        }
        let limit = SCAN_ENTRIES_MAX.min(range.limit as usize);
        let more = found.len() > limit;
        found.truncate(limit);
        Entries {
            keys: found.iter().map(|(key, _)| Some(key.as_slice())).collect(),
            values: found.iter().map(|(_, value)| Some(value.as_slice())).collect(),
            more,
        }
    }

    fn cross(&self) {
        self.crossings.set(self.crossings.get() + 1);
    }
}

fn bound(bound: &KeyBound) -> Bound<&[u8]> {
    match bound {
        KeyBound::Unbounded => Bound::Unbounded,
        KeyBound::Included(key) => Bound::Included(key),
        KeyBound::Excluded(key) => Bound::Excluded(key),
    }
}

fn is_within(key: &[u8], (lower, upper): (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    let above = match lower {
        Bound::Unbounded => true,
        Bound::Included(lower) => key >= lower,
        Bound::Excluded(lower) => key > lower,
    };
    let below = match upper {
        Bound::Unbounded => true,
        Bound::Included(upper) => key <= upper,
        Bound::Excluded(upper) => key < upper,
    };
    above && below
}

impl Host for Rc<MemoryHost> {
    fn get(&self, store: u32, key: &[u8]) -> Option<Vec<u8>> {
        self.cross();
        self.stores.borrow()[store as usize].get(key).cloned()
    }

    fn get_many(&self, store: u32, keys: &BytesColumn) -> BytesColumn {
        self.cross();
        let stores = self.stores.borrow();
        let value = |key: &[u8]| stores[store as usize].get(key).map(Vec::as_slice);
        keys.rows().map(|key| value(key.expect("no key is null"))).collect()
    }

    fn put_many(&self, writes: &Writes) {
        self.cross();
        self.write(writes);
    }

    fn scan(&self, store: u32, range: &KeyRange) -> Entries {
        self.entries(store, b"", range)
    }

    fn scan_prefix(&self, store: u32, prefix: &[u8], range: &KeyRange) -> Entries {
        self.entries(store, prefix, range)
    }

    fn level_min(&self) -> Level {
        Level::Trace
    }

    fn log(&self, level: Level, message: &str) {
        self.lines.borrow_mut().push((level, message.to_owned()));
    }

    fn count(&self, name: &str, by: u64) {
        *self.counts.borrow_mut().entry(name.to_owned()).or_default() += by;
    }

    fn observe(&self, name: &str, value: f64) {
        self.observations.borrow_mut().entry(name.to_owned()).or_default().push(value);
    }
}
