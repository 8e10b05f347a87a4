//! What makes the parts of a task.

use crate::{
    record::TaskId,
    task::{Failure, Processor, StateStore, StoreError},
    topology::Version,
};

/// Makes stores and processors. The composition root implements it.
pub trait Environment {
    /// The processors it makes.
    type Processor: Processor;

    /// Opens the state of a task. [`StoreError::Busy`] while another worker still holds it.
    fn open(&mut self, task: TaskId) -> Result<Box<dyn StateStore>, StoreError>;

    /// Takes the state of a closed task back.
    fn close(&mut self, task: TaskId, store: Box<dyn StateStore>);

    /// Instantiates and initialises a version of the module of `transform` (an index into the
    /// transforms of the task's sub-topology) for a task.
    fn processor(
        &mut self,
        task: TaskId,
        transform: usize,
        version: Version,
    ) -> Result<Self::Processor, Failure>;

    /// Makes a processor as [`processor`](Self::processor) does, of the version before one on
    /// probation: what the latter failed at is tried on it, and nothing of what it does is used.
    fn witness(
        &mut self,
        task: TaskId,
        transform: usize,
        version: Version,
    ) -> Result<Self::Processor, Failure>;
}
