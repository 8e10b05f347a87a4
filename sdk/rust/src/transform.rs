//! What users write.

use std::{fmt, marker::PhantomData, rc::Rc};

use crate::{
    codec::Encode,
    failure::{Failure, Outcome},
    output::{Output, no_such_output},
    record::Record,
    setup::{Schedule, Setup, SetupError},
    task::Task,
};

/// A step of a pipeline: records in, records out, with state in stores.
///
/// An instance works for one task. The agent may replace it between any two calls, so whatever
/// must not be lost belongs in a [`Store`](crate::Store), not in a field.
///
/// [`transform!`](crate::transform!) makes a module of it.
pub trait Transform: Sized {
    /// Makes the transform. An error says for people why it can't work with what the pipeline
    /// gives it, and the pipeline doesn't start.
    fn init(setup: &mut Setup) -> Result<Self, SetupError>;

    /// Processes a record.
    fn process(&mut self, record: &Record<'_>, context: &mut Context<'_>) -> Outcome;

    /// Does what is due. It is called for the punctuations that [`Setup::schedule`] asked for.
    fn punctuate(&mut self, punctuation: &Punctuation, context: &mut Context<'_>) -> Outcome {
        let _ = (punctuation, context);
        Ok(())
    }
}

/// A punctuation that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Punctuation {
    pub(crate) schedule: u32,
    pub(crate) time: i64,
}

impl Punctuation {
    /// Which one.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule(self.schedule)
    }

    /// The time it was due for, by its own clock, in milliseconds since 1970-01-01 UTC. When
    /// several were missed, one call comes for all of them.
    #[must_use]
    pub fn time(&self) -> i64 {
        self.time
    }
}

/// The task at work: its names, its times and a short way to its outputs.
pub struct Context<'a> {
    pub(crate) task: &'a Rc<Task>,
    pub(crate) call: PhantomData<&'a mut ()>,
}

impl Context<'_> {
    /// The pipeline's application id.
    #[must_use]
    pub fn application(&self) -> &str {
        &self.task.context.application
    }

    /// The transform's name in the pipeline.
    #[must_use]
    pub fn transform(&self) -> &str {
        &self.task.context.transform
    }

    /// The partition of the task.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.task.context.partition
    }

    /// The name of the input that a record came by.
    #[must_use]
    pub fn input_name(&self, record: &Record<'_>) -> &str {
        self.task.context.inputs.get(record.input as usize).map_or("", String::as_str)
    }

    /// Stream time: the highest timestamp of the task's records up to and including this one, in
    /// milliseconds since 1970-01-01 UTC; -1 if there was none.
    #[must_use]
    pub fn stream_time(&self) -> i64 {
        self.task.now.get().stream_time
    }

    /// The time of the machine in milliseconds since 1970-01-01 UTC. It stands still within a
    /// batch.
    #[must_use]
    pub fn wall_clock(&self) -> i64 {
        self.task.now.get().wall_clock
    }

    /// Emits a key and a value to every output, the rest as [`Output::emit`] has it.
    pub fn emit<K, V>(&mut self, key: &K, value: &V) -> Outcome
    where
        K: Encode + ?Sized,
        V: Encode + ?Sized,
    {
        self.every_output().try_for_each(|output| self.task.emit(output, key, value))
    }

    /// Passes a record on to every output: key, value, timestamp and headers as they came. The
    /// key decides the partition.
    pub fn forward(&mut self, record: &Record<'_>) {
        self.every_output().for_each(|output| self.task.forward(output, record));
    }

    /// Passes a record on to every output with another value: the key, which may be null, timestamp
    /// and headers as they came.
    pub fn forward_with<V: Encode + ?Sized>(&mut self, record: &Record<'_>, value: &V) -> Outcome {
        self.every_output().try_for_each(|output| self.task.forward_with(output, record, value))
    }

    /// The output of that name; one that the pipeline doesn't have rejects the record. A
    /// transform that keeps what [`Setup::output`] gives finds out when it is initialised.
    pub fn output<K, V>(&self, name: &str) -> Result<Output<K, V>, Failure> {
        let names = &self.task.context.outputs;
        let mut indices = names.iter().zip(0..);
        let index = indices.find_map(|(other, index)| (other == name).then_some(index));
        let index = index.ok_or_else(|| no_such_output(name))?;
        Ok(Output::new(Rc::clone(self.task), index))
    }

    fn every_output(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.task.context.outputs.len()).unwrap_or(u32::MAX)
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("context", &self.task.context).finish_non_exhaustive()
    }
}
