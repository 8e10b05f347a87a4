//! An engine with tight limits, and what shows that it goes on.

use std::{
    collections::BTreeMap,
    sync::OnceLock,
    time::{Duration, Instant},
};

use sidestream::guest::{Config, Context, Engine, Guest, Output, Store};
use sidestream_core::{
    record::{Batch, Origin, Records},
    task::{Effects, Failure, FailureKind, Processor, State},
};
use sidestream_sim::contract::processor::Committed;
use sidestream_tests::modules::{Answer, Wat};

pub(crate) const MEBIBYTE: usize = 1 << 20;

/// What `wasi:io/poll` and `wasi:clocks/monotonic-clock` have of what is used here.
pub(crate) const WASI: &str = "
    package wasi:io@0.2.3 {
        interface poll {
            resource pollable { block: func(); ready: func() -> bool; }
            poll: func(in: list<borrow<pollable>>) -> list<u32>;
        }
        interface error { resource error { to-debug-string: func() -> string; } }
        interface streams {
            use error.{error};
            variant stream-error { last-operation-failed(error), closed }
            resource output-stream {
                blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
            }
        }
    }
    package wasi:clocks@0.2.3 {
        interface monotonic-clock {
            use wasi:io/poll@0.2.3.{pollable};
            now: func() -> u64;
            subscribe-duration: func(when: u64) -> pollable;
        }
    }
    package wasi:cli@0.2.3 {
        interface stderr {
            use wasi:io/streams@0.2.3.{output-stream};
            get-stderr: func() -> output-stream;
        }
    }
    package wasi:random@0.2.3 {
        interface random { get-random-u64: func() -> u64; }
    }
    package wasi:sockets@0.2.3 {
        interface network {
            enum error-code { unknown, access-denied, not-supported }
            resource network;
        }
        interface tcp-create-socket {
            use network.{error-code};
            enum ip-address-family { ipv4, ipv6 }
            create-tcp-socket: func(family: ip-address-family) -> result<u32, error-code>;
        }
    }
    package wasi:http@0.2.3 { interface outgoing-handler { send: func() -> u32; } }
";

pub(crate) fn config() -> Config {
    Config {
        memory_bytes_max: 16 * MEBIBYTE,
        batch_time_max: Duration::from_millis(200),
        output_bytes_max: MEBIBYTE,
        record_bytes_max: 1_000,
        table_elements_max: 1_000,
        scan_entries_max: 2,
        ..Config::default()
    }
}

/// One engine for all: what one module does must not harm the next.
pub(crate) fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(&config()).expect("the machine runs WebAssembly"))
}

pub(crate) fn context() -> Context {
    Context {
        application: "application".to_owned(),
        transform: "transform".to_owned(),
        partition: 0,
        inputs: vec!["in".to_owned()],
        outputs: vec![
            Output { name: "out".to_owned(), partitions: Some(4) },
            Output { name: "next".to_owned(), partitions: None },
        ],
        stores: vec![Store { name: "store".to_owned(), index: 1 }],
        config: "{}".to_owned(),
    }
}

pub(crate) fn batch() -> Batch {
    Batch {
        partition: 0,
        stream_time: -1,
        wall_clock: 1_700_000_000_000,
        origin: Origin { offset: 7, ..Origin::default() },
        inputs: vec![0, 0],
        records: Records {
            offsets: vec![7, 8],
            timestamps: vec![1, 2],
            timestamp_types: vec![0, 0],
            keys: [Some(&b"a"[..]), None].into_iter().collect(),
            values: [None, Some(&b"v"[..])].into_iter().collect(),
            ..Records::default()
        },
    }
}

/// A task with two stores; the transform's only one is the second.
pub(crate) fn state() -> State {
    let entry = |key: &[u8]| (key.to_vec(), key.repeat(2));
    let first = BTreeMap::from([entry(b"secret")]);
    let second = BTreeMap::from([entry(b"a"), entry(b"b"), entry(b"c")]);
    State::new(Box::new(Committed { stores: vec![first, second] }), 2)
}

pub(crate) fn instance(module: &Wat) -> Result<Guest, Failure> {
    let module = engine().load(&component(module), "hostile").expect("it is a module");
    module.instantiate(&context())
}

pub(crate) fn process(module: &Wat) -> Result<Effects, Failure> {
    process_on(module, &mut state())
}

/// Lets a new instance process another batch than [`batch`].
pub(crate) fn process_batch(module: &Wat, batch: &Batch) -> Result<Effects, Failure> {
    instance(module).expect("it initialises").process(batch, &mut state())
}

pub(crate) fn process_on(module: &Wat, state: &mut State) -> Result<Effects, Failure> {
    let mut guest = instance(module).expect("it initialises");
    let outcome = guest.process(&batch(), state);
    assert_eq!(state.stores(), 2, "the state is given back");
    if outcome.is_err() {
        let again = guest.process(&batch(), state).expect_err("the instance is of no use");
        assert!(again.message.contains("failed before"), "{again}");
        assert_eq!(state.stores(), 2, "the state is given back");
    }
    outcome
}

/// Checks how a module fails when it gets a batch, and that a good one works afterwards.
pub(crate) fn check(module: &Wat, kind: FailureKind, message: &str) {
    let began = Instant::now();
    check_failure(&process(module).expect_err("it is stopped"), kind, message);
    assert!(began.elapsed() < Duration::from_secs(20), "it was stopped late");
    let good = process(&Wat::counter()).expect("other instances go on");
    assert_eq!(good.emits.len(), 2);
}

pub(crate) fn check_failure(failure: &Failure, kind: FailureKind, message: &str) {
    assert_eq!(failure.kind, kind, "{failure}");
    assert!(failure.message.contains(message), "{failure}");
}

pub(crate) fn does(process: &str) -> Wat {
    Wat { process: process.to_owned(), ..Wat::default() }
}

pub(crate) fn answers(answer: Answer) -> Wat {
    Wat { answer, ..Wat::default() }
}

pub(crate) fn component(module: &Wat) -> Vec<u8> {
    module.component().expect("it can be assembled")
}
