//! What makes simulated stores and processors.

use sidestream_core::{
    record::TaskId,
    task::{Failure, StateStore, StoreError},
    worker::{Environment, Version},
};

use crate::{disk::SimStore, guest::SimProcessor, world::World};

/// The environment of a worker.
pub(crate) struct SimEnvironment {
    pub(crate) world: World,
    pub(crate) pod: usize,
}

impl Environment for SimEnvironment {
    type Processor = SimProcessor;

    fn open(&mut self, task: TaskId) -> Result<Box<dyn StateStore>, StoreError> {
        self.world.point(self.pod, "store.open");
        let mut state = self.world.lock();
        let disk = state.pods[self.pod].disk;
        if !state.pods[self.pod].open.insert(task) {
            return Err(StoreError::Busy);
        }
        state.last_disk.insert(task, disk);
        state.note(self.pod, format_args!("{task} opened"));
        Ok(Box::new(SimStore { world: self.world.clone(), pod: self.pod, task }))
    }

    fn close(&mut self, task: TaskId, store: Box<dyn StateStore>) {
        drop(store);
        let mut state = self.world.lock();
        state.note(self.pod, format_args!("{task} closed"));
        if !state.pods[self.pod].open.remove(&task) {
            state.violate(format_args!("{task} was closed without being open"));
        }
        drop(state);
        self.world.point(self.pod, "store.close");
    }

    fn processor(
        &mut self,
        task: TaskId,
        transform: usize,
        _: Version,
    ) -> Result<SimProcessor, Failure> {
        self.world.point(self.pod, "guest.new");
        SimProcessor::new(&self.world, self.pod, task, transform)
    }
}
