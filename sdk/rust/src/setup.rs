//! What a transform finds and asks for when it is initialised.

use std::{fmt, rc::Rc, time::Duration};

use serde::de::DeserializeOwned;

use crate::{
    bindings::sidestream::transform::types,
    codec::Codec,
    output::Output,
    record::Input,
    store::Store,
    task::Task,
    telemetry::{Counter, Histogram},
};

pub use types::Clock;

/// What the pipeline gives a transform to work with, and what the transform asks for.
pub struct Setup {
    task: Rc<Task>,
    wishes: types::Setup,
}

/// A punctuation that comes again and again; [`Setup::schedule`] gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Schedule(pub(crate) u32);

/// Why a transform can't work with what the pipeline gives it. It is made of any text by `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupError {
    message: String,
}

impl Setup {
    pub(crate) fn new(task: Rc<Task>) -> Self {
        Self { task, wishes: types::Setup { headers: false, schedules: Vec::new() } }
    }

    pub(crate) fn into_wishes(self) -> types::Setup {
        self.wishes
    }

    pub(crate) fn task(&self) -> Rc<Task> {
        Rc::clone(&self.task)
    }

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

    /// The names of the transform's inputs: topics, or other transforms.
    #[must_use]
    pub fn inputs(&self) -> &[String] {
        &self.task.context.inputs
    }

    /// The names of its outputs.
    #[must_use]
    pub fn outputs(&self) -> &[String] {
        &self.task.context.outputs
    }

    /// The names of its stores.
    #[must_use]
    pub fn stores(&self) -> &[String] {
        &self.task.context.stores
    }

    /// The transform's configuration as the pipeline file says it; `{}` if it says none.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, SetupError> {
        serde_json::from_str(&self.task.context.config)
            .map_err(|error| SetupError::new(format_args!("config: {error}")))
    }

    /// The input of that name, to compare [`Record::input`](crate::Record::input) with.
    pub fn input(&self, name: &str) -> Result<Input, SetupError> {
        find("input", self.inputs(), name).map(Input)
    }

    /// The output of that name.
    pub fn output<K, V>(&self, name: &str) -> Result<Output<K, V>, SetupError> {
        let index = find("output", self.outputs(), name)?;
        Ok(Output::new(self.task(), index))
    }

    /// The store of that name.
    pub fn store<K: Codec, V: Codec>(&self, name: &str) -> Result<Store<K, V>, SetupError> {
        let index = find("store", self.stores(), name)?;
        Ok(Store::new(self.task(), index))
    }

    /// Asks for the headers of records, which otherwise stay with the agent. Records that are
    /// emitted have the headers of their cause also without that.
    pub fn want_headers(&mut self) {
        self.wishes.headers = true;
    }

    /// Asks for a punctuation each `interval` by `clock`. By stream time the first one comes with
    /// the first record.
    pub fn schedule(&mut self, interval: Duration, clock: Clock) -> Result<Schedule, SetupError> {
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        if interval_ms == 0 {
            return Err(SetupError::new("a punctuation's interval must be at least 1 ms"));
        }
        let index = u32::try_from(self.wishes.schedules.len()).map_err(SetupError::new)?;
        self.wishes.schedules.push(types::Schedule { clock, interval_ms });
        Ok(Schedule(index))
    }

    /// A counter of the transform's own. Names have letters, digits and `_`.
    #[must_use]
    pub fn counter(&self, name: &str) -> Counter {
        Counter::new(&self.task, name)
    }

    /// A histogram of the transform's own. Names have letters, digits and `_`.
    #[must_use]
    pub fn histogram(&self, name: &str) -> Histogram {
        Histogram::new(self.task(), name)
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("context", &self.task.context)
            .field("wishes", &self.wishes)
            .finish()
    }
}

fn find(kind: &str, names: &[String], name: &str) -> Result<u32, SetupError> {
    let index = names.iter().zip(0..).find_map(|(other, index)| (other == name).then_some(index));
    index.ok_or_else(|| {
        SetupError::new(format_args!(
            "the pipeline has no {kind} `{name}` for this transform; it has: {}",
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        ))
    })
}

impl SetupError {
    /// An error that says `message`.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string() }
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SetupError {}

impl From<&str> for SetupError {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

impl From<String> for SetupError {
    fn from(message: String) -> Self {
        Self { message }
    }
}
