//! What a worker makes its tasks of: state from the pool, instances of the loaded modules.

use std::sync::Arc;

use sidestream_core::{
    record::TaskId,
    task::{Failure, StateStore, StoreError},
    topology::{Route, Topology},
    worker,
};
use tracing::warn;

use super::measured::Measured;
use crate::{
    guest::{self, Module},
    state::{Stores, TaskStores},
    telemetry::metrics::TransformMetrics,
};

/// What all workers of the process share to make their tasks of.
pub(super) struct Parts {
    pub(super) application: String,
    pub(super) topology: Arc<Topology>,
    pub(super) stores: Arc<Stores>,
    /// For each sub-topology, what the state of its tasks consists of.
    pub(super) task_stores: Vec<TaskStores>,
    /// For each sub-topology and transform, the module and its configuration.
    pub(super) modules: Vec<Vec<Code>>,
}

/// What a transform runs.
pub(super) struct Code {
    pub(super) module: Module,
    /// A JSON object.
    pub(super) config: String,
    /// What it costs.
    pub(super) metrics: Option<Arc<TransformMetrics>>,
}

/// One worker's view of the parts.
#[derive(Clone)]
pub(super) struct Environment(pub(super) Arc<Parts>);

impl worker::Environment for Environment {
    type Processor = Measured;

    fn open(&mut self, task: TaskId) -> Result<Box<dyn StateStore>, StoreError> {
        let parts = &self.0;
        let stores = &parts.task_stores[usize::from(task.subtopology)];
        let opened = parts.stores.open(task, stores)?;
        if let Some(reason) = opened.rebuilt {
            warn!(task = %task, reason, "the state was corrupt; it is set aside and rebuilt from its changelog");
        }
        Ok(opened.store)
    }

    fn close(&mut self, task: TaskId, mut store: Box<dyn StateStore>) {
        if let Err(error) = store.flush() {
            warn!(task = %task, error = %error, "the state could not be flushed; a restart restores more");
        }
        self.0.stores.close(store);
    }

    fn processor(&mut self, task: TaskId, transform: usize) -> Result<Measured, Failure> {
        let code = &self.0.modules[usize::from(task.subtopology)][transform];
        let parts = &self.0;
        let context = context(&parts.application, &parts.topology, task, transform, &code.config);
        let guest = code.module.instantiate(&context).inspect_err(|failure| {
            if let Some(metrics) = &code.metrics {
                metrics.failure(failure.kind);
            }
        })?;
        Ok(Measured::new(guest, code.metrics.clone()))
    }
}

/// What an instance of a transform's module works for, and with.
pub(super) fn context(
    application: &str,
    topology: &Topology,
    task: TaskId,
    transform: usize,
    config: &str,
) -> guest::Context {
    let subtopology = topology.subtopology(task);
    let transform = &subtopology.transforms[transform];
    let outputs = transform.outputs.iter().map(|output| guest::Output {
        name: output.name.clone(),
        partitions: match &output.route {
            Route::Topic(topic) => Some(topology.topic(*topic).partitions),
            Route::Transforms(_) => None,
        },
    });
    let stores = transform
        .stores
        .iter()
        .map(|&index| guest::Store { name: subtopology.stores[index].name.clone(), index });
    guest::Context {
        application: application.to_owned(),
        transform: transform.name.clone(),
        partition: task.partition,
        inputs: transform.inputs.clone(),
        outputs: outputs.collect(),
        stores: stores.collect(),
        config: config.to_owned(),
    }
}
