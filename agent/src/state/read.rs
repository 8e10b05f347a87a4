//! Reading committed state beside the worker that owns it.
//!
//! What is read in one call is of one moment, and comes with the position that it stands for: of a
//! store on disk by a snapshot of RocksDB, in which the position is an entry like any other; of one
//! in memory by keeping its next change back meanwhile. So a call must be bounded.

use std::sync::{Arc, Mutex, Weak};

use sidestream_core::{
    record::Offset,
    task::{Entries, InputPosition, Position, Scan, StoreError, StorePosition},
};

use super::{
    StoreSpec, TaskStores,
    database::{POSITION_KEY, STORE_PREFIX},
    memory::View,
    position,
    resources::Families,
    task::Page,
};
use crate::lock::Held;

/// What to read of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The values of these keys.
    Get(Vec<Vec<u8>>),
    /// Entries in the order of their keys.
    Scan(Scan),
}

/// What a store answered, and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// How far the store's changelog is in it.
    pub position: StorePosition,
    /// The next offset of each input of the task, if it is known, with the input's topic.
    pub inputs: Vec<(String, Offset)>,
    /// What was found.
    pub found: Found,
}

/// What was found in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// For each key its value, if it has one.
    Values(Vec<Option<Vec<u8>>>),
    /// Entries, as far as the limits of the scan go.
    Entries(Entries),
}

/// A store could not be read. The variants say what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No worker has the task: ask the agent that has.
    #[error("the task is not here")]
    NotHere,
    /// Look at the pipeline.
    #[error("the task has no such store")]
    NoStore,
    /// The store is opened, restored or rebuilt: try again later.
    #[error("the store can't be read until its restore has begun")]
    NotReady,
    /// Look at the disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where others than its owner find a task's database; changes when that is replaced.
pub(super) type SharedDatabase = Arc<Mutex<Weak<Families>>>;

/// Where others than its owner find what a task has in memory.
pub(super) type SharedMemory = Arc<Mutex<View>>;

/// Reads one task's stores.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) stores: TaskStores,
    /// In the order of the stores.
    pub(super) places: Vec<Place>,
}

/// Where a store is.
#[derive(Clone)]
pub(super) enum Place {
    Disk(SharedDatabase),
    Memory(SharedMemory),
}

impl Reader {
    pub(super) fn read(&self, store: &str, query: &Query) -> Result<Reading, ReadError> {
        let index = self.stores.stores.iter().position(|spec| spec.name == store);
        let index = index.ok_or(ReadError::NoStore)?;
        match &self.places[index] {
            Place::Disk(database) => {
                let families = database.held().upgrade();
                let families = families.ok_or(ReadError::NotReady)?;
                self.read_disk(&families, store, query)
            }
            Place::Memory(view) => {
                let view = view.held();
                let position = view.position.clone().ok_or(ReadError::NotReady)?;
                let found = match query {
                    Query::Get(keys) => {
                        Found::Values(keys.iter().map(|key| view.get(key)).collect())
                    }
                    Query::Scan(scan) => Found::Entries(view.scan(scan)),
                };
                Ok(Reading { position, inputs: self.inputs(&view.inputs), found })
            }
        }
    }

    /// Name, bytes and keys of each store that is open.
    pub(super) fn sizes(&self) -> Vec<(String, u64, u64)> {
        let size = |(spec, place): (&StoreSpec, &Place)| {
            let (bytes, keys) = match place {
                Place::Disk(database) => {
                    let families = database.held();
                    families.upgrade()?.size(&format!("{STORE_PREFIX}{}", spec.name))?
                }
                Place::Memory(view) => view.held().size(),
            };
            Some((spec.name.clone(), bytes, keys))
        };
        self.stores.stores.iter().zip(&self.places).filter_map(size).collect()
    }

    fn read_disk(
        &self,
        families: &Families,
        store: &str,
        query: &Query,
    ) -> Result<Reading, ReadError> {
        // While a store is emptied its column family is not there.
        let family = families.db.cf_handle(&format!("{STORE_PREFIX}{store}"));
        let family = family.ok_or(ReadError::NotReady)?;
        let failed = |error: rocksdb::Error| StoreError::Failed(error.to_string());
        let snapshot = families.db.snapshot();
        let stored = snapshot.get(POSITION_KEY).map_err(failed)?.ok_or(ReadError::NotReady)?;
        let stored = position::decode(&stored)
            .map_err(|error| StoreError::Failed(format!("the state is corrupt: {error}")))?;
        let Position { mut stores, inputs, .. } = stored.of(&[store], &self.stores.inputs);
        let position = stores.pop().flatten().ok_or(ReadError::NotReady)?;
        let found = match query {
            Query::Get(keys) => {
                let value = |key: &Vec<u8>| snapshot.get_cf(&family, key).map_err(failed);
                Found::Values(keys.iter().map(value).collect::<Result<_, _>>()?)
            }
            Query::Scan(scan) => {
                let rows = |options| snapshot.raw_iterator_cf_opt(&family, options);
                let failed = |error: &rocksdb::Error| StoreError::Failed(error.to_string());
                Found::Entries(Page::new(scan).read(rows, failed)?)
            }
        };
        Ok(Reading { position, inputs: self.inputs(&inputs), found })
    }

    fn inputs(&self, inputs: &[InputPosition]) -> Vec<(String, Offset)> {
        self.stores.inputs.iter().cloned().zip(inputs.iter().map(|input| input.offset)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{ops::Bound, thread, time::Duration};

    use sidestream_core::{
        record::{Changes, TaskId, TopicId},
        task::StateStore,
    };

    use super::*;
    use crate::state::{Config, StoreKind, StoreSpec, Stores};

    const TASK: TaskId = TaskId { subtopology: 0, partition: 3 };

    fn stores() -> TaskStores {
        let spec = |name: &str, kind| StoreSpec { name: name.to_owned(), kind };
        TaskStores {
            stores: vec![spec("disk", StoreKind::RocksDb), spec("memory", StoreKind::Memory)],
            inputs: vec!["lines".to_owned()],
        }
    }

    /// Two keys of each store get the number, and the position says so.
    fn write(state: &mut dyn StateStore, number: i64) {
        let mut changes = Changes::default();
        for key in [b"a", b"b"] {
            changes.keys.push(Some(key));
            changes.values.push(Some(&number.to_be_bytes()));
        }
        let at = StorePosition { offset: number, topic_id: TopicId::default(), leader_epoch: 0 };
        let position = Position {
            stores: vec![Some(at.clone()), Some(at)],
            inputs: vec![(2 * number).into()],
            committed_at: 0,
        };
        state.apply(&[changes.clone(), changes], &position).unwrap();
    }

    /// What a reading says its number is, in its position and everywhere else.
    fn number(reading: &Reading) -> i64 {
        let number = reading.position.offset;
        assert_eq!(reading.inputs, [("lines".to_owned(), 2 * number)]);
        let value = number.to_be_bytes();
        match &reading.found {
            Found::Values(values) => {
                assert_eq!(*values, [Some(value.to_vec()), None, Some(value.to_vec())]);
            }
            Found::Entries(entries) => {
                let found: Vec<_> = entries.values.iter().flatten().collect();
                assert_eq!(found, [value, value]);
            }
        }
        number
    }

    fn queries() -> [Query; 2] {
        let scan = Scan {
            from: Bound::Unbounded,
            to: Bound::Unbounded,
            reverse: false,
            limit: 10,
            bytes_max: 1_000,
            time_max: Duration::MAX,
        };
        let keys = [&b"a"[..], b"none", b"b"];
        [Query::Get(keys.map(<[u8]>::to_vec).into()), Query::Scan(scan)]
    }

    #[test]
    fn a_reading_is_of_one_moment_while_the_task_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let owner = Stores::open_directory(&Config::new(folder.path(), "app")).unwrap();
        assert_eq!(owner.read(TASK, "disk", &queries()[0]), Err(ReadError::NotHere));
        let mut state = owner.open(TASK, &stores()).unwrap().store;
        for store in ["disk", "memory"] {
            assert_eq!(owner.read(TASK, store, &queries()[0]), Err(ReadError::NotReady));
        }
        assert_eq!(owner.read(TASK, "other", &queries()[0]), Err(ReadError::NoStore));
        write(state.as_mut(), 1);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                (2..2_000).for_each(|number| write(state.as_mut(), number));
            });
            let mut last = [0, 0];
            while !writer.is_finished() {
                for (store, last) in ["disk", "memory"].into_iter().zip(&mut last) {
                    for query in queries() {
                        let now = number(&owner.read(TASK, store, &query).unwrap());
                        assert!(now >= *last, "{store} goes back from {last} to {now}");
                        *last = now;
                    }
                }
            }
        });
        for store in ["disk", "memory"] {
            assert_eq!(number(&owner.read(TASK, store, &queries()[1]).unwrap()), 1_999);
        }
        assert_eq!(owner.sizes().len(), 2);
        state.reset(0).unwrap();
        state.reset(1).unwrap();
        for store in ["disk", "memory"] {
            assert_eq!(owner.read(TASK, store, &queries()[0]), Err(ReadError::NotReady));
        }
        drop(state);
        assert_eq!(owner.read(TASK, "disk", &queries()[0]), Err(ReadError::NotHere));
    }
}
