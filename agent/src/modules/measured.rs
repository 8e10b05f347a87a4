//! What calls of modules take, by two looks at the clock around each; a call's processor time is the
//! guest's own to tell.

use std::{sync::Arc, time::Instant};

use sidestream_core::{
    record::{Batch, TaskId},
    task::{Cost, Effects, Failure, Processor, Punctuation, Setup, State},
    topology::Version,
};

use super::code::LastCall;
use crate::{
    doing::{Call, Doing},
    guest::Guest,
    telemetry::metrics::TransformMetrics,
};

/// An instance of a module whose calls are measured.
pub(crate) struct Measured {
    guest: Guest,
    version: Version,
    place: Place,
    metrics: Option<Arc<TransformMetrics>>,
    memory_bytes: usize,
}

/// Where an instance works, and where its calls are told of.
pub(crate) struct Place {
    pub(crate) doing: Arc<Doing>,
    pub(crate) task: TaskId,
    pub(crate) transform: usize,
    pub(crate) last_call: Arc<LastCall>,
}

impl Measured {
    pub(crate) fn new(
        guest: Guest,
        version: Version,
        place: Place,
        metrics: Option<Arc<TransformMetrics>>,
    ) -> Self {
        let mut measured = Self { guest, version, place, metrics, memory_bytes: 0 };
        measured.note_memory();
        measured
    }

    fn note_memory(&mut self) {
        let before = std::mem::replace(&mut self.memory_bytes, self.guest.memory_bytes());
        if let Some(metrics) = &self.metrics {
            metrics.memory(before, self.memory_bytes);
        }
    }

    fn measure(
        &mut self,
        (kind, records): (Call, usize),
        call: impl FnOnce(&mut Guest) -> Result<Effects, Failure>,
    ) -> Result<Effects, Failure> {
        let Place { doing, task, transform, last_call } = &self.place;
        let during = doing.begin_of(kind, *task, Some(*transform));
        let start = Instant::now();
        last_call.begins(self.version, start);
        let outcome = call(&mut self.guest);
        let took = start.elapsed();
        last_call.ended(start, took);
        drop(during);
        if let Some(metrics) = &self.metrics {
            metrics.call(records as u64, took, self.guest.cost().cpu);
            if let Err(failure) = &outcome {
                metrics.failure(failure.kind);
            }
        }
        self.note_memory();
        outcome
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if let Some(metrics) = &self.metrics {
            metrics.memory(self.memory_bytes, 0);
        }
    }
}

impl Processor for Measured {
    fn setup(&self) -> &Setup {
        self.guest.setup()
    }

    fn process(&mut self, batch: &Batch, state: &mut State) -> Result<Effects, Failure> {
        let rows = batch.records.offsets.len();
        self.measure((Call::Process, rows), |guest| guest.process(batch, state))
    }

    fn punctuate(&mut self, due: &Punctuation, state: &mut State) -> Result<Effects, Failure> {
        self.measure((Call::Punctuate, 0), |guest| guest.punctuate(due, state))
    }

    fn cost(&self) -> Cost {
        self.guest.cost()
    }
}
