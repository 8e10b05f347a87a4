//! What calls of modules and commits take, by two looks at the clock around each; a call's processor
//! time is the guest's own to tell.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sidestream_core::{
    record::{Batch, Committed, Offset, Outputs, TaskId, TopicPartition},
    task::{Cost, Effects, Failure, Processor, Punctuation, Setup, State},
    topology::{Start, Version},
    worker::{
        Bounds, Event, FetchPosition, Log, LogError, Membership, Receipt, Transaction, Unreadable,
    },
};

use super::code::LastCall;
use crate::{
    doing::{Call, Doing},
    guest::Guest,
    telemetry::metrics::{TransformMetrics, WorkerMetrics},
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
        kind: Call,
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
            metrics.call(took, self.guest.cost().cpu);
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
        self.measure(Call::Process, |guest| guest.process(batch, state))
    }

    fn punctuate(&mut self, due: &Punctuation, state: &mut State) -> Result<Effects, Failure> {
        self.measure(Call::Punctuate, |guest| guest.punctuate(due, state))
    }

    fn cost(&self) -> Cost {
        self.guest.cost()
    }
}

/// A log whose commits are measured, and whose calls are told of.
pub(crate) struct MeasuredLog<L> {
    pub(crate) log: L,
    pub(crate) doing: Arc<Doing>,
    pub(crate) metrics: Arc<WorkerMetrics>,
}

impl<L: Log> Log for MeasuredLog<L> {
    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<Receipt, LogError> {
        let _during = self.doing.begin(Call::Commit);
        let start = Instant::now();
        let outcome = self.log.commit(transaction);
        self.metrics.commit(outcome.as_ref().err(), start.elapsed());
        outcome
    }

    fn poll(&mut self, wait: Duration, events: &mut Vec<Event>) -> Result<(), LogError> {
        let _during = self.doing.begin(Call::Poll);
        self.log.poll(wait, events)
    }

    fn assign(&mut self, positions: &[FetchPosition]) -> Result<Membership, LogError> {
        let _during = self.doing.begin(Call::Assign);
        self.log.assign(positions)
    }

    fn unassign(&mut self) -> Result<(), LogError> {
        let _during = self.doing.begin(Call::Assign);
        self.log.unassign()
    }

    fn seek(&mut self, positions: &[FetchPosition]) -> Result<(), LogError> {
        let _during = self.doing.begin(Call::Assign);
        self.log.seek(positions)
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let _during = self.doing.begin(Call::Assign);
        self.log.pause(partitions)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let _during = self.doing.begin(Call::Assign);
        self.log.resume(partitions)
    }

    fn hurry(&mut self, request_time_max: Duration) {
        self.log.hurry(request_time_max);
    }

    fn committed(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError> {
        let _during = self.doing.begin(Call::Offsets);
        self.log.committed(partitions)
    }

    fn start_offset(
        &mut self,
        partition: TopicPartition,
        start: Start,
    ) -> Result<Offset, LogError> {
        let _during = self.doing.begin(Call::Offsets);
        self.log.start_offset(partition, start)
    }

    fn bounds(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Result<Bounds, Unreadable>>, LogError> {
        let _during = self.doing.begin(Call::Offsets);
        self.log.bounds(partitions)
    }

    fn restore(
        &mut self,
        partition: TopicPartition,
        offset: Offset,
        leader_epoch: i32,
    ) -> Result<(), LogError> {
        let _during = self.doing.begin(Call::Assign);
        self.log.restore(partition, offset, leader_epoch)
    }

    fn stop_restore(&mut self, partition: TopicPartition) -> Result<(), LogError> {
        let _during = self.doing.begin(Call::Assign);
        self.log.stop_restore(partition)
    }

    fn produce(&mut self, outputs: &Outputs) -> Result<(), LogError> {
        let _during = self.doing.begin(Call::Produce);
        self.log.produce(outputs)
    }

    fn abort(&mut self) -> Result<(), LogError> {
        let _during = self.doing.begin(Call::Abort);
        self.log.abort()
    }

    fn recover(&mut self) -> Result<(), LogError> {
        let _during = self.doing.begin(Call::Recover);
        self.log.recover()
    }

    fn purge(&mut self, below: &[(TopicPartition, Offset)]) {
        self.log.purge(below);
    }

    fn leave(&mut self) -> Result<(), LogError> {
        let _during = self.doing.begin(Call::Leave);
        self.log.leave()
    }
}
