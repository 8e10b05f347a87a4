//! The state of a task: its RocksDB and its stores in memory, as one.

use std::{ops::Bound, path::PathBuf, sync::Arc, time::Instant};

use rocksdb::{DBRawIteratorWithThreadMode, ErrorKind, ReadOptions};
use sidestream_core::{
    column::Column,
    record::Changes,
    task::{Entries, Position, Scan, StateStore, StoreError},
};

use super::{
    StoreKind, TaskStores,
    database::{Database, range},
    memory::Memory,
    position,
    read::{Place, Reader},
    resources::Resources,
};

/// All stores of a task.
pub(super) struct TaskState {
    stores: TaskStores,
    /// In the order of the stores.
    slots: Vec<Slot>,
    /// Only if one of the stores is kept on disk.
    database: Option<Database>,
    position: Position,
}

/// Where a store is.
enum Slot {
    /// In the database, by its index there.
    Disk(usize),
    /// Here.
    Memory(Memory),
}

impl TaskState {
    /// Opens the state of a task, whose database is at `path`. If it was damaged, everything is
    /// empty and the second value says why.
    pub(super) fn open(
        stores: &TaskStores,
        path: PathBuf,
        resources: &Arc<Resources>,
    ) -> Result<(Self, Option<String>), StoreError> {
        let on_disk = stores.stores.iter().filter(|store| store.kind == StoreKind::RocksDb);
        let names: Vec<_> = on_disk.map(|store| store.name.as_str()).collect();
        let mut state = Self {
            slots: slots(stores),
            stores: stores.clone(),
            database: None,
            position: Position { stores: vec![None; stores.stores.len()], ..Position::default() },
        };
        if names.is_empty() {
            return Ok((state, None));
        }
        let (database, mut rebuilt) = Database::open(path, names.into_iter(), resources)?;
        state.database = Some(database);
        if let Err(error) = state.load() {
            let StoreError::Corrupt { message, .. } = error else { return Err(error) };
            state.replace()?;
            rebuilt = Some(message);
        }
        Ok((state, rebuilt))
    }

    /// Takes the position from the database, and empties stores that have none: what is in them is
    /// of an unknown time.
    fn load(&mut self) -> Result<(), StoreError> {
        let Some(database) = &self.database else { return Ok(()) };
        if let Some(bytes) = database.position()? {
            let stored = position::decode(&bytes)
                .map_err(|error| database.found_damage(error.to_string()))?;
            let names: Vec<_> = self.stores.stores.iter().map(|s| s.name.as_str()).collect();
            self.position = stored.of(&names, &self.stores.inputs);
        }
        for (index, slot) in self.slots.iter().enumerate() {
            match slot {
                // What is in memory has just begun.
                Slot::Memory(_) => self.position.stores[index] = None,
                &Slot::Disk(store) if self.position.stores[index].is_none() => {
                    database.clear(store, &self.encode(&self.position))?;
                }
                Slot::Disk(_) => {}
            }
        }
        Ok(())
    }

    /// What these are the stores of.
    pub(super) fn stores(&self) -> &TaskStores {
        &self.stores
    }

    /// What others than its owner read it with.
    pub(super) fn reader(&self) -> Reader {
        let place = |slot: &Slot| match slot {
            Slot::Disk(_) => Place::Disk(self.database().shared()),
            Slot::Memory(memory) => Place::Memory(memory.shared()),
        };
        Reader { stores: self.stores.clone(), places: self.slots.iter().map(place).collect() }
    }

    /// The damage found since it was opened.
    pub(super) fn damage(&self) -> Option<String> {
        self.database.as_ref().and_then(Database::damage)
    }

    /// Whether it could always be read and written since it was opened; otherwise opening it again
    /// may help.
    pub(super) fn is_sound(&self) -> bool {
        self.database.as_ref().is_none_or(Database::is_sound)
    }

    /// Sets a damaged database aside and begins with an empty one.
    pub(super) fn replace(&mut self) -> Result<(), StoreError> {
        for (slot, position) in self.slots.iter().zip(&mut self.position.stores) {
            if let Slot::Disk(_) = slot {
                *position = None;
            }
        }
        match &mut self.database {
            Some(database) => database.replace(),
            None => Ok(()),
        }
    }

    /// Bytes of the stores in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        let bytes = |slot: &Slot| match slot {
            Slot::Disk(_) => 0,
            Slot::Memory(memory) => memory.bytes(),
        };
        self.slots.iter().map(bytes).sum()
    }

    /// A position as the database keeps it: without the stores in memory.
    fn encode(&self, position: &Position) -> Vec<u8> {
        let names = self.stores.stores.iter().map(|store| {
            let kept = match store.kind {
                StoreKind::RocksDb => true,
                StoreKind::Memory => false,
            };
            (store.name.as_str(), kept)
        });
        position::encode(position, names, &self.stores.inputs)
    }

    fn clear(&mut self, store: usize) -> Result<(), StoreError> {
        self.position.stores[store] = None;
        let position = self.encode(&self.position);
        match &mut self.slots[store] {
            Slot::Memory(memory) => {
                memory.clear();
                Ok(())
            }
            &mut Slot::Disk(store) => self.database().clear(store, &position),
        }
    }

    fn database(&self) -> &Database {
        self.database.as_ref().expect("a store on disk has a database")
    }
}

fn slots(stores: &TaskStores) -> Vec<Slot> {
    let mut on_disk = 0..;
    let slot = |kind| match kind {
        StoreKind::RocksDb => Slot::Disk(on_disk.next().expect("the range has no end")),
        StoreKind::Memory => Slot::Memory(Memory::default()),
    };
    stores.stores.iter().map(|store| store.kind).map(slot).collect()
}

impl StateStore for TaskState {
    fn get(&self, store: usize, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match &self.slots[store] {
            Slot::Disk(store) => self.database().get(*store, key),
            Slot::Memory(memory) => Ok(memory.get(key)),
        }
    }

    fn get_many(&self, store: usize, keys: &Column) -> Result<Column, StoreError> {
        match &self.slots[store] {
            Slot::Disk(store) => self.database().get_many(*store, keys),
            Slot::Memory(memory) => Ok(memory.get_many(keys)),
        }
    }

    fn scan(&self, store: usize, scan: &Scan) -> Result<Entries, StoreError> {
        match &self.slots[store] {
            Slot::Disk(store) => self.database().scan(*store, scan),
            Slot::Memory(memory) => Ok(memory.scan(scan)),
        }
    }

    fn position(&self) -> Result<Position, StoreError> {
        Ok(self.position.clone())
    }

    fn apply(&mut self, changes: &[Changes], position: &Position) -> Result<(), StoreError> {
        debug_assert_eq!(changes.len(), self.slots.len(), "one element for each store");
        if let Some(database) = &self.database {
            let on_disk = self.slots.iter().zip(changes).filter_map(|(slot, changes)| match slot {
                Slot::Disk(store) => Some((*store, changes)),
                Slot::Memory(_) => None,
            });
            database.apply(on_disk, &self.encode(position))?;
        }
        let changes = changes.iter().zip(&position.stores);
        for (slot, (changes, store)) in self.slots.iter_mut().zip(changes) {
            if let Slot::Memory(memory) = slot {
                memory.apply(changes, store.as_ref(), &position.inputs);
            }
        }
        self.position.clone_from(position);
        Ok(())
    }

    fn reset(&mut self, store: usize) -> Result<(), StoreError> {
        if self.damage().is_some() {
            self.replace()?;
        }
        match self.clear(store) {
            // Found just now: an empty database has nothing left to clear.
            Err(StoreError::Corrupt { .. }) => self.replace(),
            cleared => cleared,
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        match &self.database {
            Some(database) => database.sync(),
            None => Ok(()),
        }
    }
}

/// Deleted entries that RocksDB passes over before the time is looked at for the first time.
const SKIPPED_FIRST: u64 = 1 << 14;

/// Collects entries until a scan's limits are reached.
pub(super) struct Page {
    scan: Scan,
    entries: Entries,
    bytes: usize,
}

impl Page {
    pub(super) fn new(scan: &Scan) -> Self {
        Self { scan: scan.clone(), entries: Entries::default(), bytes: 0 }
    }

    /// Takes entries of a database, whose iterator `rows` makes.
    ///
    /// RocksDB doesn't say how far it came when too many deleted entries cut it short. So it begins
    /// again behind the last entry that was taken, and may pass over twice as many: what is done in
    /// vain is no more than what is done.
    pub(super) fn read<'r, D: rocksdb::DBAccess + 'r>(
        mut self,
        rows: impl Fn(ReadOptions) -> DBRawIteratorWithThreadMode<'r, D>,
        failed: impl Fn(&rocksdb::Error) -> StoreError,
    ) -> Result<Entries, StoreError> {
        let began = Instant::now();
        let mut skipped_max = SKIPPED_FIRST;
        while let Some(mut options) = range(&self.scan) {
            options.set_max_skippable_internal_keys(skipped_max);
            match self.fill(&mut rows(options)) {
                Ok(()) => break,
                Err(error) if error.kind() != ErrorKind::Incomplete => return Err(failed(&error)),
                Err(_) if began.elapsed() >= self.scan.time_max => {
                    return Err(StoreError::Slow(self.scan.time_max));
                }
                Err(_) => skipped_max = skipped_max.saturating_mul(2),
            }
            self.go_on();
        }
        Ok(self.entries)
    }

    /// Lets the scan begin behind the last entry that was taken.
    fn go_on(&mut self) {
        let Some(Some(last)) = self.entries.keys.iter().last() else { return };
        let behind = Bound::Excluded(last.to_vec());
        match self.scan.reverse {
            true => self.scan.to = behind,
            false => self.scan.from = behind,
        }
    }

    /// Takes an entry, unless it is beyond the limits; then it says so.
    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) -> bool {
        let bytes = key.len() + value.len();
        let keys = self.entries.keys.len();
        if keys >= self.scan.limit || (keys > 0 && self.bytes + bytes > self.scan.bytes_max) {
            self.entries.more = true;
            return false;
        }
        self.bytes += bytes;
        self.entries.keys.push(Some(key));
        self.entries.values.push(Some(value));
        true
    }

    /// Takes entries from where the rows of the scan begin.
    fn fill<D: rocksdb::DBAccess>(
        &mut self,
        rows: &mut DBRawIteratorWithThreadMode<'_, D>,
    ) -> Result<(), rocksdb::Error> {
        match self.scan.reverse {
            true => rows.seek_to_last(),
            false => rows.seek_to_first(),
        }
        while let Some((key, value)) = rows.item() {
            if !self.push(key, value) {
                break;
            }
            match self.scan.reverse {
                true => rows.prev(),
                false => rows.next(),
            }
        }
        rows.status()
    }

    pub(super) fn into_entries(self) -> Entries {
        self.entries
    }
}
