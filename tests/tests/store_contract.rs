//! The contract of a state store, on RocksDB and in memory.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::sync::Arc;

use sidestream::state::{Config, StoreKind, StoreSpec, Stores, TaskStores};
use sidestream_core::{record::TaskId, task::StateStore};
use sidestream_sim::contract::store::{Home, check_all};
use tempfile::TempDir;

/// A state directory of its own.
struct Agent {
    folder: TempDir,
    stores: Option<Arc<Stores>>,
    kinds: [StoreKind; 2],
}

impl Agent {
    fn new(kinds: [StoreKind; 2]) -> Self {
        let mut agent = Self { folder: tempfile::tempdir().unwrap(), stores: None, kinds };
        agent.restart();
        agent
    }
}

impl Home for Agent {
    fn open(&mut self) -> Box<dyn StateStore> {
        let store = |(name, kind): (&str, StoreKind)| StoreSpec { name: name.to_owned(), kind };
        let stores = TaskStores {
            stores: ["first", "second"].into_iter().zip(self.kinds).map(store).collect(),
            inputs: vec!["input".to_owned()],
        };
        let task = TaskId { subtopology: 0, partition: 3 };
        let opened = self.stores.as_ref().unwrap().open(task, &stores).unwrap();
        assert_eq!(opened.rebuilt, None);
        opened.store
    }

    fn restart(&mut self) {
        self.stores = None;
        let config = Config::new(self.folder.path(), "contract");
        self.stores = Some(Stores::open_directory(&config).unwrap());
    }

    fn is_persistent(&self) -> bool {
        self.kinds == [StoreKind::RocksDb; 2]
    }
}

#[test]
fn rocksdb_keeps_the_contract() {
    check_all(|| Agent::new([StoreKind::RocksDb; 2]));
}

#[test]
fn memory_keeps_the_contract() {
    check_all(|| Agent::new([StoreKind::Memory; 2]));
}
