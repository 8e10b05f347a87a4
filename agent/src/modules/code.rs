//! What the transforms run: the versions of their modules, and instances of them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sidestream_core::{
    record::{TaskId, TransformId},
    task::Failure,
    topology::{Route, Topology, Version},
};

use super::measured::{Measured, Place};
use crate::{
    doing::Doing,
    guest::{self, Engine, Guest, Module},
    lock::Held,
    telemetry::metrics::TransformMetrics,
};

/// The versions of a transform that instances are made of.
struct Modules {
    /// The one that runs, but for another one on probation.
    in_force: (Version, Module),
    known: BTreeMap<Version, Module>,
}

/// The code of all transforms.
pub(crate) struct Codes {
    pub(crate) application: String,
    pub(crate) topology: Arc<Topology>,
    pub(crate) engine: Engine,
    /// By sub-topology and transform.
    pub(crate) codes: Vec<Vec<Code>>,
    /// Of each worker.
    pub(crate) doings: Vec<Arc<Doing>>,
}

/// What one transform runs.
pub(crate) struct Code {
    /// The transform's name.
    pub(crate) name: String,
    /// A JSON object.
    config: String,
    metrics: Option<Arc<TransformMetrics>>,
    /// The versions that instances are made of.
    modules: Mutex<Modules>,
    /// Of each worker.
    last_calls: Vec<Arc<LastCall>>,
}

impl Code {
    /// The code of a transform that starts with `module`.
    pub(crate) fn new(
        name: &str,
        config: &str,
        module: Module,
        metrics: Option<Arc<TransformMetrics>>,
        workers: usize,
    ) -> Self {
        Self {
            name: name.to_owned(),
            config: config.to_owned(),
            metrics,
            modules: Mutex::new(Modules {
                in_force: (0, module.clone()),
                known: BTreeMap::from([(0, module)]),
            }),
            last_calls: (0..workers).map(|_| Arc::default()).collect(),
        }
    }

    fn modules(&self) -> MutexGuard<'_, Modules> {
        self.modules.held()
    }

    /// The version in force, and its module; while one is on probation, the one before it.
    pub(crate) fn running(&self) -> (Version, Module) {
        self.modules().in_force.clone()
    }

    /// A version has passed its probation.
    pub(crate) fn put_in_force(&self, version: Version, module: Module) {
        self.modules().in_force = (version, module);
    }

    /// The module of a version that may be in force.
    fn known(&self, version: Version) -> Module {
        let module = self.modules().known.get(&version).cloned();
        module.expect("a version is known for as long as it may be in force")
    }

    /// Makes a version known, so that instances can be made of it.
    pub(crate) fn add(&self, version: Version, module: Module) {
        self.modules().known.insert(version, module);
    }

    /// Forgets a version that no worker has in force, or will have.
    pub(crate) fn remove(&self, version: Version) {
        self.modules().known.remove(&version);
    }

    /// How long each worker did no work of this transform when `version` took over, where it did
    /// some since.
    pub(crate) fn pauses(&self, version: Version) -> Vec<(usize, Duration)> {
        let pauses = self.last_calls.iter().map(|last| last.pause(version)).enumerate();
        pauses.filter_map(|(worker, pause)| Some((worker, pause?))).collect()
    }
}

impl Codes {
    /// The code of a transform.
    pub(crate) fn of(&self, id: TransformId) -> &Code {
        &self.codes[usize::from(id.subtopology)][id.transform]
    }

    /// Finds a transform by its name.
    pub(crate) fn find(&self, name: &str) -> Option<TransformId> {
        let subtopologies = (0u16..).zip(&self.codes);
        subtopologies
            .flat_map(|(subtopology, codes)| {
                codes
                    .iter()
                    .enumerate()
                    .map(move |(transform, code)| (TransformId { subtopology, transform }, code))
            })
            .find_map(|(id, code)| (code.name == name).then_some(id))
    }

    /// The names of all transforms.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.codes.iter().flatten().map(|code| code.name.as_str())
    }

    /// Makes an instance of a module for a task of a transform.
    pub(crate) fn guest(
        &self,
        module: &Module,
        task: TaskId,
        transform: usize,
    ) -> Result<Guest, Failure> {
        let id = TransformId { subtopology: task.subtopology, transform };
        let config = &self.of(id).config;
        module.instantiate(&context(&self.application, &self.topology, task, transform, config))
    }

    /// Makes an instance of `version` for a task of a worker.
    pub(crate) fn instance(
        &self,
        worker: usize,
        task: TaskId,
        transform: usize,
        version: Version,
    ) -> Result<Measured, Failure> {
        let code = self.of(TransformId { subtopology: task.subtopology, transform });
        let module = code.known(version);
        let guest = self.guest(&module, task, transform).inspect_err(|failure| {
            if let Some(metrics) = &code.metrics {
                metrics.failure(failure.kind);
            }
        })?;
        let place = Place {
            doing: Arc::clone(&self.doings[worker]),
            task,
            transform,
            last_call: Arc::clone(&code.last_calls[worker]),
        };
        Ok(Measured::new(guest, version, place, code.metrics.clone()))
    }

    /// Makes an instance of `version` to try something on whose outcome is all that counts: no
    /// metric knows of it.
    pub(crate) fn witness(
        &self,
        worker: usize,
        task: TaskId,
        transform: usize,
        version: Version,
    ) -> Result<Measured, Failure> {
        let code = self.of(TransformId { subtopology: task.subtopology, transform });
        let guest = self.guest(&code.known(version), task, transform)?;
        let doing = Arc::clone(&self.doings[worker]);
        let place = Place { doing, task, transform, last_call: Arc::default() };
        Ok(Measured::new(guest, version, place, None))
    }
}

/// When a transform's code was last at work in a worker, and which version that was.
#[derive(Debug)]
pub(crate) struct LastCall {
    start: Instant,
    version: AtomicU64,
    /// Since `start`, in nanoseconds; 0 before the first call.
    ended_at: AtomicU64,
    /// How long nothing was done when `version` took over, in nanoseconds; 0 if that is not known.
    pause: AtomicU64,
}

impl Default for LastCall {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            version: AtomicU64::new(0),
            ended_at: AtomicU64::new(0),
            pause: AtomicU64::new(0),
        }
    }
}

impl LastCall {
    fn since_start(&self, moment: Instant) -> u64 {
        u64::try_from(moment.duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    /// An instance of `version` begins a call. Only the worker's own thread says so.
    pub(crate) fn begins(&self, version: Version, at: Instant) {
        if self.version.load(Ordering::Relaxed) == version {
            return;
        }
        let pause = match self.ended_at.load(Ordering::Relaxed) {
            0 => 0,
            ended_at => self.since_start(at).saturating_sub(ended_at),
        };
        self.pause.store(pause, Ordering::Relaxed);
        self.version.store(version, Ordering::Release);
    }

    /// A call that began at `at` has ended after `took`.
    pub(crate) fn ended(&self, at: Instant, took: Duration) {
        self.ended_at.store(self.since_start(at + took).max(1), Ordering::Relaxed);
    }

    fn pause(&self, version: Version) -> Option<Duration> {
        if self.version.load(Ordering::Acquire) != version {
            return None;
        }
        Some(self.pause.load(Ordering::Relaxed))
            .filter(|&pause| pause > 0)
            .map(Duration::from_nanos)
    }
}

/// What an instance of a transform's module works for, and with.
pub(crate) fn context(
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
