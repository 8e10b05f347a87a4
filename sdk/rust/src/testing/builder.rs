use std::rc::Rc;

use serde::Serialize;

use super::{
    driver::{Due, TestDriver},
    host::MemoryHost,
};
use crate::{
    bindings::sidestream::transform::types::{self, Clock},
    failure::Outcome,
    module::{Instance, Process, Whole},
    record::Record,
    setup::{Setup, SetupError},
    transform::{Context, Punctuation, Transform},
};

/// What a [`TestDriver`] gives its transform to work with; begun by [`TestDriver::builder`].
#[derive(Clone, Debug)]
pub struct TestDriverBuilder {
    context: types::Context,
    wall_clock: i64,
}

impl TestDriverBuilder {
    pub(super) fn new() -> Self {
        let context = types::Context {
            application: "test".to_owned(),
            transform: "test".to_owned(),
            partition: 0,
            inputs: Vec::new(),
            outputs: Vec::new(),
            stores: Vec::new(),
            config: "{}".to_owned(),
        };
        Self { context, wall_clock: 0 }
    }

    /// Adds an input.
    #[must_use]
    pub fn input(mut self, name: &str) -> Self {
        self.context.inputs.push(name.to_owned());
        self
    }

    /// Adds an output.
    #[must_use]
    pub fn output(mut self, name: &str) -> Self {
        self.context.outputs.push(name.to_owned());
        self
    }

    /// Adds a store.
    #[must_use]
    pub fn store(mut self, name: &str) -> Self {
        self.context.stores.push(name.to_owned());
        self
    }

    /// Sets the configuration. Panics if it is no JSON.
    #[must_use]
    pub fn config(mut self, config: impl Serialize) -> Self {
        self.context.config = serde_json::to_string(&config).expect("a configuration is JSON");
        self
    }

    /// Sets the task's partition.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.context.partition = partition;
        self
    }

    /// Sets the wall clock, in milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn wall_clock(mut self, wall_clock: i64) -> Self {
        self.wall_clock = wall_clock;
        self
    }

    /// Makes the transform. An error is the transform's own.
    pub fn start<T: Transform + 'static>(self) -> Result<TestDriver, SetupError> {
        self.start_with(|setup| Ok(Box::new(Whole(T::init(setup)?))))
    }

    /// Takes a function as the transform, as [`function!`](crate::function!) does.
    #[must_use]
    pub fn start_function(
        self,
        function: fn(&Record<'_>, &mut Context<'_>) -> Outcome,
    ) -> TestDriver {
        let started = self.start_with(|_| Ok(Box::new(Function(function))));
        started.expect("a function alone asks for nothing")
    }

    fn start_with(
        mut self,
        init: impl FnOnce(&mut Setup) -> Result<Box<dyn Process>, SetupError>,
    ) -> Result<TestDriver, SetupError> {
        if self.context.inputs.is_empty() {
            self = self.input("input");
        }
        let host = Rc::new(MemoryHost::default());
        host.stores.borrow_mut().resize_with(self.context.stores.len(), Default::default);
        let (instance, wishes) =
            Instance::initialise(self.context.clone(), Box::new(Rc::clone(&host)), init)?;
        let due = |schedule: &types::Schedule| {
            let interval_ms = i64::try_from(schedule.interval_ms).unwrap_or(i64::MAX);
            let next = match schedule.clock {
                Clock::StreamTime => 0,
                Clock::WallClock => self.wall_clock.saturating_add(interval_ms),
            };
            Due { clock: schedule.clock, interval_ms, next }
        };
        Ok(TestDriver {
            instance,
            host,
            headers: wishes.headers,
            schedules: wishes.schedules.iter().map(due).collect(),
            stream_time: -1,
            wall_clock: self.wall_clock,
            next_offsets: vec![0; self.context.inputs.len()],
            outputs: Vec::new(),
            context: self.context,
        })
    }
}

/// A function as a [`Process`].
struct Function(fn(&Record<'_>, &mut Context<'_>) -> Outcome);

impl Process for Function {
    fn process(&mut self, record: &Record<'_>, context: &mut Context<'_>) -> Outcome {
        self.0(record, context)
    }

    fn punctuate(&mut self, _: &Punctuation, _: &mut Context<'_>) -> Outcome {
        Ok(())
    }
}

impl Process for Box<dyn Process> {
    fn process(&mut self, record: &Record<'_>, context: &mut Context<'_>) -> Outcome {
        (**self).process(record, context)
    }

    fn punctuate(&mut self, punctuation: &Punctuation, context: &mut Context<'_>) -> Outcome {
        (**self).punctuate(punctuation, context)
    }
}
