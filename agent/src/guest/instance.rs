//! One instance of a module, for one task.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sidestream_core::{
    column::Column,
    record::{Batch, Timestamp},
    task::{Cost, Effects, Failure, FailureKind, Processor, Punctuation, Setup, State},
};

use super::{
    Module,
    answer::{self, Causes},
    bindings::{
        Columnar,
        sidestream::transform::types::{self as wit, BytesColumnParam, HeadersParam},
    },
    clock::thread_cpu_time,
    failure,
    host::Host,
    limits::{Denial, Limiter},
    module::Code,
    text,
    wasi::{Call, Surroundings},
};

/// How many handles of resources an instance may hold at a time.
pub(super) const HANDLES_MAX: usize = 10_000;

/// What an instance works for, and with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The pipeline's application id.
    pub application: String,
    /// The transform's name.
    pub transform: String,
    /// The task's partition.
    pub partition: i32,
    /// The names of its inputs.
    pub inputs: Vec<String>,
    /// Its outputs.
    pub outputs: Vec<Output>,
    /// Its stores.
    pub stores: Vec<Store>,
    /// Its configuration, a JSON object.
    pub config: String,
}

/// An output of a transform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// How many partitions there are to choose from; `None` if what is emitted stays in the task.
    pub partitions: Option<i32>,
}

/// A store of a transform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Its name.
    pub name: String,
    /// Which of the task's stores it is.
    pub index: usize,
}

/// An instance of a module, initialised. After a failure it is of no use any more: every further
/// call fails. While memory is short it rests between its calls: a module's memory is never state.
pub struct Guest {
    module: Module,
    context: Context,
    setup: Setup,
    instance: Instance,
    /// Of the last call.
    cpu: Duration,
}

enum Instance {
    Live(Box<Live>),
    Resting,
    Failed(Failure),
}

struct Live {
    module: Module,
    store: wasmtime::Store<Host>,
    exports: Columnar,
}

impl Guest {
    /// Instantiates `module` and initialises the instance.
    pub(super) fn new(module: &Module, context: &Context) -> Result<Self, Failure> {
        let (live, setup) = Live::start(module, context)?;
        let (module, context, instance) = (module.clone(), context.clone(), Instance::Live(live));
        let mut guest = Self { module, context, setup, instance, cpu: Duration::ZERO };
        guest.rest_if_memory_is_short();
        Ok(guest)
    }

    /// Bytes that the instance takes of memory; none while it rests.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match &self.instance {
            Instance::Live(live) => live.store.data().limiter.memory_bytes(),
            Instance::Resting | Instance::Failed(_) => 0,
        }
    }

    fn call(
        &mut self,
        state: &mut State,
        call: impl FnOnce(&mut Live, &mut State) -> Result<Effects, Failure>,
    ) -> Result<Effects, Failure> {
        let before = thread_cpu_time();
        let outcome = self.wake().and_then(|live| call(live, state));
        self.cpu = thread_cpu_time().saturating_sub(before);
        match &outcome {
            Ok(_) => self.rest_if_memory_is_short(),
            Err(failure) if !matches!(self.instance, Instance::Failed(_)) => {
                let message = format!("the instance failed before: {}", failure.message);
                let failure = Failure { kind: failure.kind, record: None, message };
                self.instance = Instance::Failed(failure);
            }
            Err(_) => {}
        }
        outcome
    }

    fn wake(&mut self) -> Result<&mut Live, Failure> {
        if matches!(self.instance, Instance::Resting) {
            // Whatever is wrong here is not the fault of the records that it is woken for.
            let (live, setup) = Live::start(&self.module, &self.context).map_err(|failure| {
                match failure.kind.is_of_record() {
                    true => Failure { kind: FailureKind::Initialise, ..failure },
                    false => failure,
                }
            })?;
            same_answer(&self.setup, &setup)?;
            self.instance = Instance::Live(live);
        }
        match &mut self.instance {
            Instance::Live(live) => Ok(live),
            Instance::Failed(failure) => Err(failure.clone()),
            Instance::Resting => unreachable!("it was woken"),
        }
    }

    fn rest_if_memory_is_short(&mut self) {
        let spare = self.module.inner.shared.config.calls_at_once_max;
        if let Instance::Live(live) = &self.instance
            && !live.store.data().limiter.leaves_room_for(spare)
        {
            self.instance = Instance::Resting;
        }
    }
}

/// An instance that is made anew has to ask for what the one before asked for.
fn same_answer(before: &Setup, now: &Setup) -> Result<(), Failure> {
    if before == now {
        return Ok(());
    }
    let message =
        "initialise gave another answer than before; it must not depend on time or chance, \
                   since an instance may be made anew at any moment"
            .to_owned();
    Err(Failure { kind: FailureKind::Initialise, record: None, message })
}

impl Processor for Guest {
    fn setup(&self) -> &Setup {
        &self.setup
    }

    fn process(&mut self, batch: &Batch, state: &mut State) -> Result<Effects, Failure> {
        let headers = self.setup.headers;
        self.call(state, |live, state| live.process(batch, headers, state))
    }

    fn punctuate(&mut self, due: &Punctuation, state: &mut State) -> Result<Effects, Failure> {
        self.call(state, |live, state| live.punctuate(due, state))
    }

    fn cost(&self) -> Cost {
        Cost { cpu: self.cpu, memory_bytes: self.memory_bytes() }
    }
}

impl Live {
    /// An instance that is initialised, and what it said to that.
    fn start(module: &Module, context: &Context) -> Result<(Box<Self>, Setup), Failure> {
        let mut live = Self::new(module, context).map_err(in_initialise)?;
        let setup = live.initialise(context).map_err(in_initialise)?;
        Ok((Box::new(live), setup))
    }

    fn new(module: &Module, context: &Context) -> Result<Self, Failure> {
        let shared = &module.inner.shared;
        let config = &shared.config;
        let seed = format!(
            "{}/{}/{}/{}",
            context.application, context.transform, context.partition, module.inner.digest
        );
        let mut limiter = Limiter::new(Arc::clone(&shared.budget), config);
        limiter.charge(module.inner.weight.bytes).map_err(Denial::into_failure)?;
        let mut surroundings = Surroundings::new(seed.as_bytes());
        surroundings.begin(Call::Initialise, now());
        let host = Host::new(
            limiter,
            surroundings,
            Arc::clone(config),
            context.outputs.clone(),
            context.stores.iter().map(|store| store.index).collect(),
        );
        let mut store = wasmtime::Store::new(&shared.engine, host);
        store.limiter(|host| &mut host.limiter);
        store.set_hostcall_fuel(config.output_bytes_max);
        store.set_max_component_handles(HANDLES_MAX);
        store.set_epoch_deadline(shared.call_ticks());
        let Code::Columnar(code) = &module.inner.code;
        match code.instantiate(&mut store) {
            Ok(exports) => Ok(Self { module: module.clone(), store, exports }),
            Err(error) => Err(failure::from_trap(&error, store.data_mut(), config)),
        }
    }

    fn initialise(&mut self, context: &Context) -> Result<Setup, Failure> {
        let outputs: Vec<_> = context.outputs.iter().map(|output| output.name.as_str()).collect();
        let stores: Vec<_> = context.stores.iter().map(|store| store.name.as_str()).collect();
        let inputs: Vec<_> = context.inputs.iter().map(String::as_str).collect();
        let argument = wit::Context {
            application: &context.application,
            transform: &context.transform,
            partition: context.partition,
            inputs: &inputs,
            outputs: &outputs,
            stores: &stores,
            config: &context.config,
        };
        let shared = Arc::clone(&self.module.inner.shared);
        self.store.data_mut().begin(Call::Initialise, State::default(), now());
        self.store.set_epoch_deadline(shared.call_ticks());
        let transform = self.exports.sidestream_transform_transform();
        match transform.call_initialise(&mut self.store, argument) {
            Ok(Ok(setup)) => {
                answer::setup(&setup, &shared.config).map_err(|breach| breach.into_failure())
            }
            Ok(Err(message)) => Err(Failure {
                kind: FailureKind::Initialise,
                record: None,
                message: text::clean(&message, shared.config.log_line_bytes_max),
            }),
            Err(error) => Err(failure::from_trap(&error, self.store.data_mut(), &shared.config)),
        }
    }

    fn process(
        &mut self,
        batch: &Batch,
        headers: bool,
        state: &mut State,
    ) -> Result<Effects, Failure> {
        let records = &batch.records;
        let argument = wit::Batch {
            partition: batch.partition,
            stream_time: batch.stream_time,
            wall_clock: batch.wall_clock,
            inputs: &batch.inputs,
            offsets: &records.offsets,
            timestamps: &records.timestamps,
            timestamp_types: &records.timestamp_types,
            keys: lower(&records.keys),
            values: lower(&records.values),
            headers: headers.then(|| HeadersParam {
                counts: &records.headers.counts,
                names: lower(&records.headers.names),
                values: lower(&records.headers.values),
            }),
        };
        self.begin(Call::Process(batch.origin), state, batch.wall_clock);
        let transform = self.exports.sidestream_transform_transform();
        let answer = transform.call_process(&mut self.store, argument);
        self.end(answer, Causes::Rows(records), state)
    }

    fn punctuate(&mut self, due: &Punctuation, state: &mut State) -> Result<Effects, Failure> {
        let argument = wit::Punctuation {
            schedule: due.schedule,
            time: due.time,
            partition: due.partition,
            stream_time: due.stream_time,
            wall_clock: due.wall_clock,
        };
        self.begin(Call::Punctuate(due.schedule, due.time), state, due.wall_clock);
        let transform = self.exports.sidestream_transform_transform();
        let answer = transform.call_punctuate(&mut self.store, argument);
        self.end(answer, Causes::Punctuation, state)
    }

    /// Lends the state to the instance for a call.
    fn begin(&mut self, call: Call, state: &mut State, wall_clock: Timestamp) {
        self.store.data_mut().begin(call, std::mem::take(state), wall_clock);
        self.store.set_epoch_deadline(self.module.inner.shared.call_ticks());
    }

    /// Takes the state back, whatever the call came to.
    fn end(
        &mut self,
        answer: wasmtime::Result<Result<wit::Effects, wit::Failure>>,
        causes: Causes<'_>,
        state: &mut State,
    ) -> Result<Effects, Failure> {
        let config = &self.module.inner.shared.config;
        let host = self.store.data_mut();
        let outcome = match answer {
            Ok(Ok(effects)) => host.finish(effects, causes).map_err(|breach| breach.into_failure()),
            Ok(Err(failure)) => Err(answer::failure(&failure, causes, config)),
            Err(error) => Err(failure::from_trap(&error, host, config)),
        };
        *state = host.end();
        outcome
    }
}

fn lower(column: &Column) -> BytesColumnParam<'_> {
    BytesColumnParam { data: column.data(), lengths: column.lengths() }
}

/// Limits and deadlines keep their kind; all else that goes wrong before the first record says
/// that the module does not initialise.
fn in_initialise(failure: Failure) -> Failure {
    match failure.kind {
        FailureKind::Trap => Failure {
            kind: FailureKind::Initialise,
            message: format!("it trapped: {}", failure.message),
            ..failure
        },
        FailureKind::Retry
        | FailureKind::Reject
        | FailureKind::Initialise
        | FailureKind::Deadline
        | FailureKind::Limit
        | FailureKind::Malformed
        | FailureKind::Refused
        | FailureKind::Budget
        | FailureKind::State => failure,
    }
}

/// The time, for the clocks that initialise sees.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::try_from(since.as_millis()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_changes_is_refused_with_what_it_must_not_depend_on() {
        let plain = Setup::default();
        assert_eq!(same_answer(&plain, &plain), Ok(()));
        let other = Setup { headers: true, ..Setup::default() };
        let failure = same_answer(&plain, &other).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Initialise);
        let rule = "must not depend on time or chance";
        assert!(failure.message.contains(rule), "{failure}");
    }
}
