//! Stores that outlive a process but may lose what was not synced, and the disks they are on.

use std::{collections::BTreeMap, ops::Bound};

use sidestream_core::{
    column::Column,
    record::{Changes, TaskId},
    task::{Entries, Position, Scan, StateStore, StoreError},
};

use crate::{prng::Prng, world::World};

/// What the stores of a task hold, with their position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) stores: Vec<BTreeMap<Vec<u8>, Vec<u8>>>,
    pub(crate) position: Position,
}

impl Contents {
    fn new(stores: usize) -> Self {
        let position = Position { stores: vec![None; stores], ..Position::default() };
        Self { stores: vec![BTreeMap::new(); stores], position }
    }

    fn rearrange(&mut self, places: &[Option<usize>], keeps_inputs: bool) {
        let old = std::mem::take(self);
        let store = |place: &Option<usize>| place.map(|place| old.stores[place].clone());
        self.stores = places.iter().map(|place| store(place).unwrap_or_default()).collect();
        let position = |place: &Option<usize>| place.and_then(|p| old.position.stores[p].clone());
        self.position = Position {
            stores: places.iter().map(position).collect(),
            inputs: if keeps_inputs { old.position.inputs.clone() } else { Vec::new() },
            committed_at: old.position.committed_at,
        };
    }

    fn apply(&mut self, changes: &[Changes], position: &Position) {
        for (store, changes) in self.stores.iter_mut().zip(changes) {
            for (key, value) in changes.keys.iter().zip(&changes.values) {
                let key = key.unwrap_or_default().to_vec();
                match value {
                    Some(value) => store.insert(key, value.to_vec()),
                    None => store.remove(&key),
                };
            }
        }
        self.position = position.clone();
    }
}

/// The files of a task: what is synced, and each state since.
#[derive(Clone, Debug)]
pub(crate) struct TaskFiles {
    synced: Contents,
    unsynced: Vec<Contents>,
    /// For each store, whether it is damaged.
    pub(crate) damaged: Vec<bool>,
}

/// States kept between syncs; the oldest is synced when there are more.
const UNSYNCED_MAX: usize = 8;

impl TaskFiles {
    /// Empty stores.
    pub(crate) fn new(stores: usize) -> Self {
        let damaged = vec![false; stores];
        Self { synced: Contents::new(stores), unsynced: Vec::new(), damaged }
    }

    /// Each store is another one from now on: that of the given place, or a new one. What is known
    /// of the inputs is kept or not.
    pub(crate) fn rearrange(&mut self, places: &[Option<usize>], keeps_inputs: bool) {
        let all = std::iter::once(&mut self.synced).chain(&mut self.unsynced);
        all.for_each(|contents| contents.rearrange(places, keeps_inputs));
        self.damaged =
            places.iter().map(|place| place.is_some_and(|place| self.damaged[place])).collect();
    }

    /// What a reader sees.
    pub(crate) fn contents(&self) -> &Contents {
        self.unsynced.last().unwrap_or(&self.synced)
    }

    fn write(&mut self, contents: Contents) {
        self.unsynced.push(contents);
        if self.unsynced.len() > UNSYNCED_MAX {
            self.synced = self.unsynced.remove(0);
        }
    }

    fn sync(&mut self) {
        if let Some(last) = self.unsynced.pop() {
            self.synced = last;
        }
        self.unsynced.clear();
    }

    /// Keeps what is synced, and by chance some of what came after it, in order.
    fn crash(&mut self, prng: &mut Prng) {
        let kept = prng.index(self.unsynced.len() + 1);
        self.unsynced.truncate(kept);
        self.sync();
    }
}

/// A disk of a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) tasks: BTreeMap<TaskId, TaskFiles>,
}

impl Disk {
    /// The process was killed; what `durable` disks were told is safe.
    pub(crate) fn crash(&mut self, prng: &mut Prng, durable: bool) {
        for files in self.tasks.values_mut() {
            if durable { files.sync() } else { files.crash(prng) }
        }
    }
}

/// An open store of a task.
pub(crate) struct SimStore {
    pub(crate) world: World,
    pub(crate) pod: usize,
    pub(crate) task: TaskId,
}

impl SimStore {
    fn read<T>(
        &self,
        store: usize,
        read: impl FnOnce(&BTreeMap<Vec<u8>, Vec<u8>>) -> T,
    ) -> Result<T, StoreError> {
        let mut state = self.world.lock();
        let rate = state.faults().corrupt;
        let task = self.task;
        let strike = state.prng.one_in(rate) && state.strike(task);
        let is_full = state.now.is_multiple_of(2);
        let files = state.files(self.pod, self.task);
        if strike && is_full {
            return Err(full());
        }
        files.damaged[store] |= strike;
        if files.damaged[store] {
            return Err(StoreError::Corrupt {
                store: Some(store),
                message: "a block does not match its checksum".to_owned(),
            });
        }
        Ok(read(&files.contents().stores[store]))
    }
}

impl StateStore for SimStore {
    fn get(&self, store: usize, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(store, |entries| entries.get(key).cloned())
    }

    fn get_many(&self, store: usize, keys: &Column) -> Result<Column, StoreError> {
        self.read(store, |entries| {
            let value = |key: Option<&[u8]>| entries.get(key.unwrap_or_default());
            keys.iter().map(|key| value(key).map(Vec::as_slice)).collect()
        })
    }

    fn scan(&self, store: usize, scan: &Scan) -> Result<Entries, StoreError> {
        self.read(store, |entries| scanned(entries, scan))
    }

    fn position(&self) -> Result<Position, StoreError> {
        let mut state = self.world.lock();
        Ok(state.files(self.pod, self.task).contents().position.clone())
    }

    fn apply(&mut self, changes: &[Changes], position: &Position) -> Result<(), StoreError> {
        self.world.point(self.pod, "store.apply");
        let mut state = self.world.lock();
        let (rate, task) = (state.faults().corrupt / 8, self.task);
        if state.prng.one_in(rate) && state.strike(task) {
            state.note(self.pod, format_args!("{task} finds the disk full"));
            return Err(full());
        }
        let files = state.files(self.pod, self.task);
        if let Some(store) = files.damaged.iter().position(|&damaged| damaged) {
            let message = "a write met a damaged table".to_owned();
            return Err(StoreError::Corrupt { store: Some(store), message });
        }
        let before = files.contents().clone();
        let mut contents = before.clone();
        contents.apply(changes, position);
        files.write(contents);
        if state.is_ahead(self.task, position) {
            let disk = state.pods[self.pod].disk;
            state.last_disk.insert(self.task, disk);
        }
        state.check_apply(self.task, &before.position, position);
        state.note(self.pod, format_args!("{} applied to {position:?}", self.task));
        drop(state);
        self.world.point(self.pod, "store.applied");
        Ok(())
    }

    fn reset(&mut self, store: usize) -> Result<(), StoreError> {
        self.world.point(self.pod, "store.reset");
        let mut state = self.world.lock();
        state.check_reset(self.pod, self.task, store);
        let files = state.files(self.pod, self.task);
        let mut contents = files.contents().clone();
        contents.stores[store].clear();
        contents.position.stores[store] = None;
        files.damaged[store] = false;
        files.write(contents);
        state.note(self.pod, format_args!("{} reset store {store}", self.task));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.world.point(self.pod, "store.flush");
        let mut state = self.world.lock();
        let rate = state.faults().flush;
        if state.prng.one_in(rate) {
            return Err(full());
        }
        state.files(self.pod, self.task).sync();
        Ok(())
    }
}

/// What is said where nothing can be written.
pub(crate) const NO_SPACE: &str = "no space left on device";

/// Why nothing can be written.
pub(crate) fn full() -> StoreError {
    StoreError::Failed(NO_SPACE.to_owned())
}

/// Reads what a scan asks for from the entries of a store.
fn scanned(entries: &BTreeMap<Vec<u8>, Vec<u8>>, scan: &Scan) -> Entries {
    let mut found = Entries::default();
    let (from, to) = (scan.from.as_ref(), scan.to.as_ref());
    let within = |key: &&Vec<u8>| {
        let above = match from {
            Bound::Included(from) => *key >= from,
            Bound::Excluded(from) => *key > from,
            Bound::Unbounded => true,
        };
        above
            && match to {
                Bound::Included(to) => *key <= to,
                Bound::Excluded(to) => *key < to,
                Bound::Unbounded => true,
            }
    };
    let mut keys: Vec<&Vec<u8>> = entries.keys().filter(within).collect();
    if scan.reverse {
        keys.reverse();
    }
    let mut bytes = 0;
    for key in keys {
        let value = &entries[key];
        let size = key.len() + value.len();
        let full = found.keys.len() >= scan.limit
            || (!found.keys.is_empty() && bytes + size > scan.bytes_max);
        if full {
            found.more = true;
            break;
        }
        bytes += size;
        found.keys.push(Some(key));
        found.values.push(Some(value));
    }
    found
}
