//! What a worker makes its tasks of: state from the pool, instances of modules.

use std::sync::Arc;

use sidestream_core::{
    record::TaskId,
    task::{Failure, StateStore, StoreError},
    topology::Version,
    worker::{self},
};
use tracing::warn;

use crate::{
    doing::{Call, Doing},
    modules::{code::Codes, measured::Measured},
    state::{Stores, TaskStores},
};

/// What all workers of the process share to make their tasks of.
pub(crate) struct Parts {
    pub(crate) stores: Arc<Stores>,
    /// For each sub-topology, what the state of its tasks consists of.
    pub(crate) task_stores: Vec<TaskStores>,
    pub(crate) codes: Arc<Codes>,
}

/// One worker's view of the parts.
pub(crate) struct Environment {
    pub(crate) worker: usize,
    pub(crate) parts: Arc<Parts>,
}

impl Environment {
    fn doing(&self) -> &Doing {
        &self.parts.codes.doings[self.worker]
    }
}

impl worker::Environment for Environment {
    type Processor = Measured;

    fn open(&mut self, task: TaskId) -> Result<Box<dyn StateStore>, StoreError> {
        let _during = self.doing().begin_of(Call::OpenState, task, None);
        let parts = &self.parts;
        let stores = &parts.task_stores[usize::from(task.subtopology)];
        let opened = parts.stores.open(task, stores)?;
        if let Some(reason) = opened.rebuilt {
            warn!(task = %task, reason, "the state was corrupt; it is set aside and rebuilt from its changelog");
        }
        Ok(opened.store)
    }

    fn close(&mut self, task: TaskId, mut store: Box<dyn StateStore>) {
        let _during = self.doing().begin_of(Call::CloseState, task, None);
        if let Err(error) = store.flush() {
            warn!(task = %task, error = %error, "the state could not be flushed; a restart restores more");
        }
        self.parts.stores.close(store);
    }

    fn processor(
        &mut self,
        task: TaskId,
        transform: usize,
        version: Version,
    ) -> Result<Measured, Failure> {
        let _during = self.doing().begin_of(Call::Instantiate, task, Some(transform));
        self.parts.codes.instance(self.worker, task, transform, version)
    }

    fn witness(
        &mut self,
        task: TaskId,
        transform: usize,
        version: Version,
    ) -> Result<Measured, Failure> {
        self.parts.codes.witness(self.worker, task, transform, version)
    }
}
