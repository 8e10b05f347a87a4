//! What makes simulated stores and processors.

use sidestream_core::{
    record::{TaskId, TransformId},
    task::{Failure, StateStore, StoreError},
    topology::Version,
    worker::Environment,
};

use crate::{
    disk::{SimStore, full},
    guest::SimProcessor,
    swap::Owner,
    world::World,
};

/// The environment of a worker.
pub(crate) struct SimEnvironment {
    pub(crate) world: World,
    pub(crate) owner: Owner,
}

impl Environment for SimEnvironment {
    type Processor = SimProcessor;

    fn open(&mut self, task: TaskId) -> Result<Box<dyn StateStore>, StoreError> {
        self.world.point(self.owner.pod, "store.open");
        let mut state = self.world.lock();
        let (disk, rate) = (state.pods[self.owner.pod].disk, state.faults().open);
        if state.prng.one_in(rate) && state.strike(task) {
            state.note(self.owner.pod, format_args!("{task} can't be opened"));
            return Err(full());
        }
        if !state.pods[self.owner.pod].open.insert(task) {
            return Err(StoreError::Busy);
        }
        state.last_disk.insert(task, disk);
        state.note(self.owner.pod, format_args!("{task} opened"));
        Ok(Box::new(SimStore { world: self.world.clone(), pod: self.owner.pod, task }))
    }

    fn close(&mut self, task: TaskId, mut store: Box<dyn StateStore>) {
        let flushed = store.flush();
        drop(store);
        let mut state = self.world.lock();
        state.note(self.owner.pod, format_args!("{task} closed, flushed: {flushed:?}"));
        if !state.pods[self.owner.pod].open.remove(&task) {
            state.violate(format_args!("{task} was closed without being open"));
        }
        drop(state);
        self.world.point(self.owner.pod, "store.close");
    }

    fn processor(
        &mut self,
        task: TaskId,
        transform: usize,
        version: Version,
    ) -> Result<SimProcessor, Failure> {
        self.world.point(self.owner.pod, "guest.new");
        SimProcessor::new(&self.world, self.owner, (task, transform), version).inspect_err(
            |failure| {
                let id = TransformId { subtopology: task.subtopology, transform };
                let mut state = self.world.lock();
                state.swaps.ledger(self.owner).failed(id, version, failure.kind);
            },
        )
    }

    fn witness(
        &mut self,
        task: TaskId,
        transform: usize,
        version: Version,
    ) -> Result<SimProcessor, Failure> {
        self.world.point(self.owner.pod, "guest.new");
        let made = SimProcessor::new(&self.world, self.owner, (task, transform), version);
        made.map(SimProcessor::into_witness).inspect_err(|_| {
            self.world.lock().swaps.ledger(self.owner).something_failed();
        })
    }
}
