//! Between the border and a transform: batches become records, and what was done becomes effects.
//! Only the macros of this crate use what is public here.

#[cfg(target_arch = "wasm32")]
use std::cell::RefCell;
use std::{marker::PhantomData, rc::Rc};

use crate::{
    bindings::sidestream::transform::types,
    column::Rows,
    failure::{Failure, FailureKind, Outcome},
    host::Host,
    record::{Headers, Record},
    setup::{Setup, SetupError},
    task::{NO_ROW, Now, Task, time_told_by},
    telemetry,
    transform::{Context, Punctuation, Transform},
};

/// What an instance runs: a transform, or a function alone.
pub(crate) trait Process {
    fn process(&mut self, record: &Record<'_>, context: &mut Context<'_>) -> Outcome;
    fn punctuate(&mut self, punctuation: &Punctuation, context: &mut Context<'_>) -> Outcome;
}

/// A [`Transform`] as a [`Process`].
pub(crate) struct Whole<T>(pub(crate) T);

impl<T: Transform> Process for Whole<T> {
    fn process(&mut self, record: &Record<'_>, context: &mut Context<'_>) -> Outcome {
        self.0.process(record, context)
    }

    fn punctuate(&mut self, punctuation: &Punctuation, context: &mut Context<'_>) -> Outcome {
        self.0.punctuate(punctuation, context)
    }
}

/// A transform at work for a task.
pub(crate) struct Instance<P> {
    process: P,
    task: Rc<Task>,
}

impl<P: Process> Instance<P> {
    /// Makes the transform for the task that `context` describes, and says what it asks for.
    pub(crate) fn initialise(
        context: types::Context,
        host: Box<dyn Host>,
        init: impl FnOnce(&mut Setup) -> Result<P, SetupError>,
    ) -> Result<(Self, types::Setup), String> {
        let task = Rc::new(Task::new(context, host));
        telemetry::enter(&task);
        let mut setup = Setup::new(Rc::clone(&task));
        let process = init(&mut setup).map_err(|error| error.to_string())?;
        Ok((Self { process, task }, setup.into_wishes()))
    }

    /// Processes a batch; all of it, or nothing.
    pub(crate) fn process(
        &mut self,
        batch: &types::Batch,
    ) -> Result<types::Effects, types::Failure> {
        check(batch)?;
        let (stream_time, wall_clock) = (batch.stream_time, batch.wall_clock);
        self.begin(Now { row: NO_ROW, stream_time, wall_clock });
        self.task.prefetch_batch(batch);
        let mut context = Context { task: &self.task, call: PhantomData };
        let mut stream_time = batch.stream_time;
        for (record, row) in Records::of(batch).zip(0..) {
            stream_time = stream_time.max(time_told_by(record.timestamp));
            self.task.now.set(Now { row, stream_time, wall_clock });
            let outcome = self.process.process(&record, &mut context);
            outcome.map_err(|failure| failure.of_row(row))?;
        }
        Ok(self.task.end())
    }

    /// Does what is due; all of it, or nothing.
    pub(crate) fn punctuate(
        &mut self,
        due: &types::Punctuation,
    ) -> Result<types::Effects, types::Failure> {
        let (stream_time, wall_clock) = (due.stream_time, due.wall_clock);
        self.begin(Now { row: NO_ROW, stream_time, wall_clock });
        let punctuation = Punctuation { schedule: due.schedule, time: due.time };
        let mut context = Context { task: &self.task, call: PhantomData };
        let outcome = self.process.punctuate(&punctuation, &mut context);
        outcome.map_err(|failure| failure.of_row(NO_ROW))?;
        Ok(self.task.end())
    }

    fn begin(&self, now: Now) {
        telemetry::enter(&self.task);
        self.task.begin(now);
    }
}

impl Failure {
    fn of_row(self, row: i32) -> types::Failure {
        let kind = match self.kind() {
            FailureKind::Retry => types::FailureKind::Retry,
            FailureKind::Reject => types::FailureKind::Reject,
        };
        types::Failure { kind, row, message: self.message().to_owned() }
    }
}

/// Refuses a batch whose columns don't match.
fn check(batch: &types::Batch) -> Result<(), types::Failure> {
    let rows = batch.inputs.len();
    let same_length = [batch.offsets.len(), batch.timestamps.len(), batch.timestamp_types.len()];
    let sound = same_length.iter().all(|&length| length == rows)
        && batch.keys.is_sound(rows)
        && batch.values.is_sound(rows)
        && batch.headers.as_ref().is_none_or(|headers| headers.are_sound(rows));
    if sound {
        return Ok(());
    }
    Err(Failure::retry("the agent gave a batch whose columns don't match").of_row(NO_ROW))
}

impl types::Headers {
    fn are_sound(&self, rows: usize) -> bool {
        let count: u64 = self.counts.iter().map(|&count| u64::from(count)).sum();
        let rows_match = self.counts.is_empty() || self.counts.len() == rows;
        let headers = self.names.len();
        rows_match
            && count == headers as u64
            && self.names.is_sound(headers)
            && self.values.is_sound(headers)
    }
}

/// The records of a sound batch, in order.
struct Records<'a> {
    batch: &'a types::Batch,
    row: usize,
    keys: Rows<'a>,
    values: Rows<'a>,
    counts: std::slice::Iter<'a, u32>,
    headers: Headers<'a>,
}

impl<'a> Records<'a> {
    fn of(batch: &'a types::Batch) -> Self {
        let none = Headers { left: 0, names: Rows::default(), values: Rows::default() };
        let headers = batch.headers.as_ref().map_or(none, |headers| Headers {
            left: 0,
            names: headers.names.rows(),
            values: headers.values.rows(),
        });
        let counts = batch.headers.as_ref().map(|headers| headers.counts.iter());
        Self {
            batch,
            row: 0,
            keys: batch.keys.rows(),
            values: batch.values.rows(),
            counts: counts.unwrap_or_default(),
            headers,
        }
    }

    fn next_headers(&mut self) -> Headers<'a> {
        let headers = Headers { left: self.counts.next().copied().unwrap_or(0), ..self.headers };
        for _ in 0..headers.left {
            self.headers.names.next();
            self.headers.values.next();
        }
        headers
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        let row = self.row;
        self.row += 1;
        Some(Record {
            input: *self.batch.inputs.get(row)?,
            partition: self.batch.partition,
            offset: *self.batch.offsets.get(row)?,
            timestamp: *self.batch.timestamps.get(row)?,
            timestamp_type: *self.batch.timestamp_types.get(row)?,
            key: self.keys.next()?,
            value: self.values.next()?,
            headers: self.next_headers(),
        })
    }
}

/// Where a module keeps its instance.
#[doc(hidden)]
#[cfg(target_arch = "wasm32")]
pub struct Slot<T> {
    instance: RefCell<Option<Instance<Whole<T>>>>,
}

#[cfg(target_arch = "wasm32")]
impl<T: Transform> Slot<T> {
    /// A place without an instance.
    #[expect(clippy::new_without_default, reason = "it is for a constant, which default can't be")]
    #[must_use]
    pub const fn new() -> Self {
        Self { instance: RefCell::new(None) }
    }

    /// See the WIT package.
    pub fn initialise(&self, context: types::Context) -> Result<types::Setup, String> {
        report_panics();
        let init = |setup: &mut Setup| T::init(setup).map(Whole);
        let (instance, wishes) = Instance::initialise(context, Box::new(crate::host::Agent), init)?;
        self.instance.replace(Some(instance));
        Ok(wishes)
    }

    /// See the WIT package.
    pub fn process(&self, batch: types::Batch) -> Result<types::Effects, types::Failure> {
        self.with(|instance| instance.process(&batch))
    }

    /// See the WIT package.
    pub fn punctuate(&self, due: types::Punctuation) -> Result<types::Effects, types::Failure> {
        self.with(|instance| instance.punctuate(&due))
    }

    fn with<E>(
        &self,
        work: impl FnOnce(&mut Instance<Whole<T>>) -> Result<E, types::Failure>,
    ) -> Result<E, types::Failure> {
        match &mut *self.instance.borrow_mut() {
            Some(instance) => work(instance),
            None => Err(Failure::retry("the module was not initialised").of_row(NO_ROW)),
        }
    }
}

/// Has panics say why before they trap.
#[cfg(target_arch = "wasm32")]
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| crate::error!("{panic}")));
}

/// Makes a transform the module of this crate: `transform!(Type);`, once in a crate of the kind
/// `cdylib`. The type implements [`Transform`].
#[macro_export]
macro_rules! transform {
    ($transform:ty) => {
        // Outside of WASM nothing calls a transform but its tests.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn(&mut $crate::Setup) -> Result<$transform, $crate::SetupError> =
            <$transform as $crate::Transform>::init;

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::sidestream::transform::types;

            ::std::thread_local! {
                static SLOT: $crate::module::Slot<$transform> =
                    const { $crate::module::Slot::new() };
            }

            struct Module;

            impl $crate::bindings::exports::sidestream::transform::transform::Guest for Module {
                fn initialise(context: types::Context) -> Result<types::Setup, String> {
                    SLOT.with(|slot| slot.initialise(context))
                }

                fn process(batch: types::Batch) -> Result<types::Effects, types::Failure> {
                    SLOT.with(|slot| slot.process(batch))
                }

                fn punctuate(due: types::Punctuation) -> Result<types::Effects, types::Failure> {
                    SLOT.with(|slot| slot.punctuate(due))
                }
            }

            #[cfg(target_arch = "wasm32")]
    $crate::bindings::export!(Module with_types_in $crate::bindings);
        };
    };
}

/// Makes a function the module of this crate: `function!(name);`, or a closure that captures
/// nothing, once in a crate of the kind `cdylib`. It is called for each record, as
/// [`Transform::process`] is.
#[macro_export]
macro_rules! function {
    ($function:expr) => {
        const _: () = {
            struct Function;

            impl $crate::Transform for Function {
                fn init(_: &mut $crate::Setup) -> Result<Self, $crate::SetupError> {
                    Ok(Self)
                }

                fn process(
                    &mut self,
                    record: &$crate::Record<'_>,
                    context: &mut $crate::Context<'_>,
                ) -> $crate::Outcome {
                    const FUNCTION: fn(
                        &$crate::Record<'_>,
                        &mut $crate::Context<'_>,
                    ) -> $crate::Outcome = $function;
                    FUNCTION(record, context)
                }
            }

            $crate::transform!(Function);
        };
    };
}
