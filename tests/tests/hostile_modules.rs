//! Modules that mean harm: each is refused or stopped within its limit, with its own error, and
//! the process and its other instances go on.

use std::{
    collections::BTreeMap,
    sync::OnceLock,
    time::{Duration, Instant},
};

use sidestream::guest::{Config, Context, Engine, Error, Guest, Output, Store};
use sidestream_core::{
    column::Column as Rows,
    record::{Batch, Records},
    task::{Effects, Failure, FailureKind, Processor, State},
};
use sidestream_sim::contract::processor::Committed;
use sidestream_tests::modules::{Answer, Column, Field, Wat, refusal, setup};

const MEBIBYTE: usize = 1 << 20;

/// What `wasi:io/poll` and `wasi:clocks/monotonic-clock` have of what is used here.
const WASI: &str = "
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

fn config() -> Config {
    Config {
        memory_bytes_max: 16 * MEBIBYTE,
        call_time_max: Duration::from_millis(200),
        output_bytes_max: MEBIBYTE,
        record_bytes_max: 1_000,
        table_elements_max: 1_000,
        scan_entries_max: 2,
        ..Config::default()
    }
}

/// One engine for all: what one module does must not harm the next.
fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(&config()).unwrap())
}

fn context() -> Context {
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

fn batch() -> Batch {
    Batch {
        partition: 0,
        stream_time: -1,
        wall_clock: 1_700_000_000_000,
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
fn state() -> State {
    let entry = |key: &[u8]| (key.to_vec(), key.repeat(2));
    let first = BTreeMap::from([entry(b"secret")]);
    let second = BTreeMap::from([entry(b"a"), entry(b"b"), entry(b"c")]);
    State::new(Box::new(Committed { stores: vec![first, second] }), 2)
}

fn instance(module: &Wat) -> Result<Guest, Failure> {
    let module = engine().load(&module.component().unwrap(), "hostile").unwrap();
    module.instantiate(context())
}

fn process(module: &Wat) -> Result<Effects, Failure> {
    process_on(module, &mut state())
}

fn process_on(module: &Wat, state: &mut State) -> Result<Effects, Failure> {
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
fn check(module: &Wat, kind: FailureKind, message: &str) {
    let began = Instant::now();
    check_failure(&process(module).expect_err("it is stopped"), kind, message);
    assert!(began.elapsed() < Duration::from_secs(20), "it was stopped late");
    let good = process(&Wat::counter()).expect("other instances go on");
    assert_eq!(good.emits.len(), 2);
}

fn check_failure(failure: &Failure, kind: FailureKind, message: &str) {
    assert_eq!(failure.kind, kind, "{failure}");
    assert!(failure.message.contains(message), "{failure}");
}

fn does(process: &str) -> Wat {
    Wat { process: process.to_owned(), ..Wat::default() }
}

fn answers(answer: Answer) -> Wat {
    Wat { answer, ..Wat::default() }
}

fn refused(bytes: &[u8]) -> Error {
    engine().load(bytes, "hostile").expect_err("it is refused")
}

#[test]
fn what_is_not_a_component_is_refused() {
    let counter = Wat::counter();
    let component = counter.component().unwrap();
    assert!(matches!(refused(b"#!/bin/sh"), Error::NotWasm { .. }));
    assert!(matches!(refused(&counter.core_module().unwrap()), Error::CoreModule { .. }));
    for bytes in (0..component.len()).step_by(97).chain([component.len() - 1]) {
        match refused(&component[..bytes]) {
            Error::Truncated { .. } => {}
            // Cut between two of its sections: what is left is a component without exports.
            Error::Export { reason, .. } => assert!(reason.contains("or cut off"), "{reason}"),
            other => panic!("{bytes}: {other}"),
        }
    }
    let mut garbled = component.clone();
    garbled[8..].fill(0xff);
    assert!(matches!(refused(&garbled), Error::Invalid { .. } | Error::Truncated { .. }));
    let small = Engine::new(&Config { module_bytes_max: 100, ..config() }).unwrap();
    assert!(matches!(small.load(&component, "m"), Err(Error::TooLarge { .. })));
}

#[test]
fn a_compilation_has_an_end() {
    let component = Wat::counter().component().unwrap();
    let hasty = Engine::new(&Config { compile_time_max: Duration::ZERO, ..config() }).unwrap();
    assert!(matches!(hasty.load(&component, "m"), Err(Error::CompileTime { .. })));
}

#[test]
fn forbidden_imports_are_refused_by_name() {
    let import = |import: &str, packages: &str| {
        let module = Wat {
            imports: format!("import {import};"),
            packages: packages.to_owned(),
            fields: format!("(import \"{import}\" \"send\" (func $send (result i32)))"),
            process: "(drop (call $send))".to_owned(),
            ..Wat::default()
        };
        refused(&module.component().unwrap()).to_string()
    };
    let error = import("wasi:http/outgoing-handler@0.2.3", WASI);
    assert!(error.contains("imports `wasi:http/outgoing-handler@0.2.3`"), "{error}");
    assert!(error.contains("`state` and `telemetry`"), "{error}");
    let own = "package evil:corp { interface door { send: func() -> u32; } }";
    let error = import("evil:corp/door", own);
    assert!(error.contains("imports `evil:corp/door`"), "{error}");
    let later = "package sidestream:transform@9.0.0 { interface state { send: func() -> u32; } }";
    let error = import("sidestream:transform/state@9.0.0", later);
    assert!(error.contains("imports `sidestream:transform/state@9.0.0`"), "{error}");
}

#[test]
fn a_grant_does_not_stretch_to_other_types() {
    let packages = "package wasi:random@0.2.3 { interface random { roll: func() -> u32; } }";
    let module = Wat {
        imports: "import wasi:random/random@0.2.3;".to_owned(),
        packages: packages.to_owned(),
        fields: "(import \"wasi:random/random@0.2.3\" \"roll\" (func $roll (result i32)))"
            .to_owned(),
        process: "(drop (call $roll))".to_owned(),
        ..Wat::default()
    };
    let error = refused(&module.component().unwrap()).to_string();
    assert!(error.contains("imports `wasi:random/random@0.2.3`"), "{error}");
    assert!(error.contains("roll"), "{error}");
}

#[test]
fn another_world_is_refused_by_name() {
    let core = wat::parse_str(r#"(module (func (export "run")))"#).unwrap();
    let wit = "package some:thing; world other { export run: func(); }";
    let component = sidestream_tests::modules::component(core, wit, "other").unwrap();
    let error = refused(&component).to_string();
    assert!(error.contains("sidestream:transform/columnar@0.1.0"), "{error}");
    assert!(error.contains("it exports `run`"), "{error}");
}

#[test]
fn an_endless_loop_is_stopped() {
    check(&does("(loop $forever (br $forever))"), FailureKind::Deadline, "200 ms");
    let at_start = Wat { initialise: "(loop $forever (br $forever))".to_owned(), ..Wat::default() };
    check_failure(&instance(&at_start).err().unwrap(), FailureKind::Deadline, "200 ms");
    let on_instantiation = Wat {
        fields: "(func $start (loop $forever (br $forever))) (start $start)".to_owned(),
        ..Wat::default()
    };
    check_failure(&instance(&on_instantiation).err().unwrap(), FailureKind::Deadline, "200 ms");
}

/// A module that waits for an hour, in the way of `wait`.
fn sleeper(wait: &str) -> Wat {
    Wat {
        imports: "import wasi:clocks/monotonic-clock@0.2.3;".to_owned(),
        packages: WASI.to_owned(),
        fields: r#"
            (import "wasi:clocks/monotonic-clock@0.2.3" "now" (func $now (result i64)))
            (import "wasi:clocks/monotonic-clock@0.2.3" "subscribe-duration"
                (func $subscribe (param i64) (result i32)))
            (import "wasi:io/poll@0.2.3" "[method]pollable.block" (func $block (param i32)))
            (import "wasi:io/poll@0.2.3" "poll" (func $poll (param i32 i32 i32)))
            (global $began (mut i64) (i64.const 0))
        "#
        .to_owned(),
        process: wait.to_owned(),
        answer: Answer::one(b"k", b"awake"),
        ..Wat::default()
    }
}

#[test]
fn waits_are_over_at_once() {
    let hour = "(i64.const 3600000000000)";
    for wait in [
        format!("(call $block (call $subscribe {hour}))"),
        format!(
            "(i32.store (i32.const 512) (call $subscribe {hour}))
             (call $poll (i32.const 512) (i32.const 1) (i32.const 520))"
        ),
    ] {
        let effects = process(&sleeper(&wait)).expect("nothing happens to it");
        assert_eq!(effects.emits.values, Rows::from_iter([Some(&b"awake"[..])]));
    }
}

#[test]
fn time_stands_still_within_a_call() {
    let wait = "(global.set $began (call $now))
                (loop $again
                    (br_if $again (i64.lt_u
                        (call $now) (i64.add (global.get $began) (i64.const 1000000)))))";
    check(&sleeper(wait), FailureKind::Deadline, "200 ms");
}

#[test]
fn the_network_is_closed() {
    let module = Wat {
        imports: "import wasi:sockets/tcp-create-socket@0.2.3;".to_owned(),
        packages: WASI.to_owned(),
        fields: r#"(import "wasi:sockets/tcp-create-socket@0.2.3" "create-tcp-socket"
            (func $create (param i32 i32)))"#
            .to_owned(),
        // A result that is an error, `access-denied`: what is left of the call is the trap.
        process: r#"(call $create (i32.const 0) (i32.const 512))
            (if (i32.and
                    (i32.eq (i32.load8_u (i32.const 512)) (i32.const 1))
                    (i32.eq (i32.load8_u (i32.const 516)) (i32.const 1)))
                (then) (else unreachable))"#
            .to_owned(),
        answer: Answer::one(b"k", b"denied"),
        ..Wat::default()
    };
    assert_eq!(process(&module).expect("it is told").emits.len(), 1);
}

#[test]
fn a_trap_says_where_and_what_was_said() {
    let module = Wat {
        imports: "import wasi:cli/stderr@0.2.3;".to_owned(),
        packages: WASI.to_owned(),
        fields: r#"
            (import "wasi:cli/stderr@0.2.3" "get-stderr" (func $stderr (result i32)))
            (import "wasi:io/streams@0.2.3" "[method]output-stream.blocking-write-and-flush"
                (func $write (param i32 i32 i32 i32)))
            (data (i32.const 600) "panicked: no luck\0a")
            (func $give_up unreachable)
        "#
        .to_owned(),
        process: "(call $write (call $stderr) (i32.const 600) (i32.const 18) (i32.const 512))
                  (call $give_up)"
            .to_owned(),
        ..Wat::default()
    };
    check(&module, FailureKind::Trap, "it said: panicked: no luck; in give_up < process");
}

#[test]
fn random_numbers_are_the_same_for_the_same_task() {
    let module = Wat {
        imports: "import wasi:random/random@0.2.3;".to_owned(),
        packages: WASI.to_owned(),
        fields: r#"(import "wasi:random/random@0.2.3" "get-random-u64" (func $random (result i64)))
            (import "sidestream:transform/state@0.1.0" "put"
                (func $put (param i32 i32 i32 i32 i32 i32)))"#
            .to_owned(),
        process: "(i64.store (i32.const 512) (call $random))
            (call $put (i32.const 0) (i32.const 512) (i32.const 1)
                (i32.const 1) (i32.const 512) (i32.const 8))"
            .to_owned(),
        ..Wat::default()
    };
    let draw = || {
        let mut state = state();
        process_on(&module, &mut state).expect("it may draw");
        state.changes()
    };
    assert_eq!(draw(), draw());
    assert_eq!(draw()[1].len(), 1);
}

#[test]
fn memory_is_limited_over_all_memories() {
    let grow = "(drop (memory.grow (i32.const 1000))) unreachable";
    check(&does(grow), FailureKind::Limit, "bytes of memory and may have 16777216");
    let loops = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
    check(&does(loops), FailureKind::Limit, "may have 16777216");
    let many = "(memory (export \"memory\") 128) (memory 100) (memory 100)".to_owned();
    let many = Wat { memory: many, ..Wat::default() };
    check_failure(&instance(&many).err().unwrap(), FailureKind::Limit, "may have 16777216");
    let large = "(memory (export \"memory\") 65536)".to_owned();
    let large = Wat { memory: large, ..Wat::default() };
    check_failure(&instance(&large).err().unwrap(), FailureKind::Limit, "may have 16777216");
}

#[test]
fn the_process_has_a_budget() {
    let memory_total_bytes_max = 20 * MEBIBYTE;
    let engine = Engine::new(&Config { memory_total_bytes_max, ..config() }).unwrap();
    let module = engine.load(&Wat::counter().component().unwrap(), "counter").unwrap();
    let first = module.instantiate(context()).expect("there is room for two");
    let second = module.instantiate(context()).expect("there is room for two");
    assert!((16 * MEBIBYTE..17 * MEBIBYTE).contains(&engine.memory_bytes()));
    let third = module.instantiate(context()).err().expect("there is no room for three");
    check_failure(&third, FailureKind::Limit, "20971520 bytes that all instances together");
    drop(first);
    module.instantiate(context()).expect("there is room again");
    drop(second);
    assert_eq!(engine.memory_bytes(), 0);
}

#[test]
fn tables_and_their_number_are_limited() {
    let grows = Wat {
        fields: "(table $t 1 funcref)".to_owned(),
        process: "(drop (table.grow $t (ref.null func) (i32.const 100000))) unreachable".to_owned(),
        ..Wat::default()
    };
    check(&grows, FailureKind::Limit, "elements in its tables and may have 1000");
    let large = Wat { fields: "(table 2000 funcref)".to_owned(), ..Wat::default() };
    check_failure(&instance(&large).err().unwrap(), FailureKind::Limit, "may have 1000");
}

#[test]
fn the_stack_is_limited() {
    let module = Wat {
        fields: "(func $deep (param i32) (result i32)
                     (i32.add (call $deep (local.get 0)) (call $deep (i32.const 1))))"
            .to_owned(),
        process: "(drop (call $deep (i32.const 0)))".to_owned(),
        ..Wat::default()
    };
    check(&module, FailureKind::Limit, "bytes of stack");
}

#[test]
fn huge_answers_are_not_taken() {
    let mut answer = Answer::one(b"k", b"v");
    answer.lies = vec![(Field::ValueData, 4 << 20)];
    check(&answers(answer.clone()), FailureKind::Limit, "too much data");
    answer.lies = vec![(Field::Causes, u32::MAX)];
    check(&answers(answer), FailureKind::Malformed, "");
    let record = Answer::one(b"k", &[b'v'; 2_000]);
    check(&answers(record), FailureKind::Limit, "row 0 of emits has 2001 bytes");
    let write = Answer::write(0, b"k", &[b'v'; 2_000]);
    check(&answers(write), FailureKind::Limit, "row 0 of writes has 2001 bytes");
}

#[test]
fn malformed_columns_are_not_taken() {
    let one = Answer::one(b"key", b"value");
    let malformed = |change: &dyn Fn(&mut Answer), message: &str| {
        let mut answer = one.clone();
        change(&mut answer);
        check(&answers(answer), FailureKind::Malformed, message);
    };
    malformed(&|a| a.keys.lengths = vec![4], "emits.keys: the lengths add up to 4 bytes");
    malformed(&|a| a.values.lengths = vec![-2], "emits.values: row 0 has the length -2");
    malformed(&|a| a.values.lengths = vec![], "emits.values: the lengths add up to 0");
    malformed(&|a| a.keys = Column::of(&[b"a", b"b"]), "emits.keys has 2 rows instead of 1");
    malformed(&|a| a.causes = vec![], "emits.causes has 0 rows instead of 1");
    malformed(&|a| a.causes = vec![2], "emits.causes is 2: the batch has 2 rows");
    malformed(&|a| a.causes = vec![-1], "emits.causes is -1: the batch has 2 rows");
    malformed(&|a| a.timestamps = vec![], "emits.timestamps has 0 rows");
    malformed(&|a| a.timestamps = vec![-5], "emits.timestamps is -5");
    malformed(&|a| a.partitions = vec![0, 0], "emits.partitions has 2 rows");
    let headers = |counts: Vec<u32>, names: &[&[u8]], values: &[&[u8]]| {
        Some((counts, Column::of(names), Column::of(values)))
    };
    malformed(&|a| a.headers = headers(vec![2], &[b"n"], &[b"v"]), "counts come to 2 headers");
    malformed(&|a| a.headers = headers(vec![1], &[b"n"], &[]), "headers.values has 0 rows");
    malformed(&|a| a.headers = headers(vec![1, 0], &[b"n"], &[b"v"]), "counts has 2 rows");
    malformed(&|a| a.headers = headers(vec![1], &[&[0xff]], &[b"v"]), "not UTF-8");
    let whole = Answer { headers: headers(vec![u32::MAX], &[], &[]), ..one.clone() };
    assert_eq!(process(&answers(whole)).expect("the headers of its cause").emits.len(), 1);
}

#[test]
fn unknown_outputs_and_partitions_are_not_taken() {
    let to = |output: u32, partition: i32| {
        let mut answer = Answer::one(b"k", b"v");
        answer.outputs = vec![output];
        answer.partitions = vec![partition];
        answers(answer)
    };
    check(&to(2, -1), FailureKind::Malformed, "emits.outputs is 2: there are 2 outputs");
    check(&to(0, 4), FailureKind::Malformed, "output `out` has 4 partitions");
    check(&to(0, -2), FailureKind::Malformed, "output `out` has 4 partitions");
    check(&to(1, 0), FailureKind::Malformed, "output `next` stays in its partition");
    assert_eq!(process(&to(0, 3)).expect("it is there").emits.partitions, [3]);
}

#[test]
fn unknown_stores_and_null_keys_are_not_taken() {
    check(&answers(Answer::write(1, b"k", b"v")), FailureKind::Malformed, "has 1 stores");
    let mut null = Answer::write(0, b"k", b"v");
    null.write_keys = Column { data: vec![], lengths: vec![-1] };
    check(&answers(null), FailureKind::Malformed, "row 0 of writes.keys is null");
    let get = Wat {
        fields: r#"(import "sidestream:transform/state@0.1.0" "get"
            (func $get (param i32 i32 i32 i32)))"#
            .to_owned(),
        process: "(call $get (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 512))".to_owned(),
        ..Wat::default()
    };
    check(&get, FailureKind::Malformed, "it used store 1");
    let get_many = Wat {
        fields: r#"(import "sidestream:transform/state@0.1.0" "get-many"
            (func $get_many (param i32 i32 i32 i32 i32 i32)))"#
            .to_owned(),
        process: "(i32.store (i32.const 512) (i32.const -1))
            (call $get_many (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 512) (i32.const 1) (i32.const 520))"
            .to_owned(),
        ..Wat::default()
    };
    check(&get_many, FailureKind::Malformed, "row 0 of the keys of get-many is null");
}

#[test]
fn a_transform_sees_its_own_stores_only() {
    let mut state = state();
    process_on(&answers(Answer::write(0, b"k", b"v")), &mut state).expect("it may write");
    let changes = state.changes();
    assert!(changes[0].is_empty());
    assert_eq!(changes[1].len(), 1);
}

#[test]
fn scans_are_cut_to_the_bound_of_the_host() {
    let module = Wat {
        fields: r#"(import "sidestream:transform/state@0.1.0" "scan"
            (func $scan (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#
            .to_owned(),
        // Everything without end: two rows come, and word that there are more.
        process: "(call $scan (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1)
                (i32.const 512))
            (if (i32.ne (i32.load (i32.const 524)) (i32.const 2)) (then unreachable))
            (if (i32.ne (i32.load8_u (i32.const 544)) (i32.const 1)) (then unreachable))"
            .to_owned(),
        answer: Answer::one(b"k", b"v"),
        ..Wat::default()
    };
    assert_eq!(process(&module).expect("it is cut").emits.len(), 1);
}

#[test]
fn a_flood_of_writes_is_stopped() {
    let module = Wat {
        fields: r#"(import "sidestream:transform/state@0.1.0" "put"
            (func $put (param i32 i32 i32 i32 i32 i32)))"#
            .to_owned(),
        process: "(loop $more
                (call $put (i32.const 0) (i32.const 0) (i32.const 500)
                    (i32.const 1) (i32.const 0) (i32.const 500))
                (br $more))"
            .to_owned(),
        ..Wat::default()
    };
    check(&module, FailureKind::Limit, "more than the 1048576 bytes of a call");
}

#[test]
fn a_flood_of_lines_is_cut() {
    let module = Wat {
        fields: r#"(import "sidestream:transform/telemetry@0.1.0" "log"
            (func $log (param i32 i32 i32)))
            (global $lines (mut i32) (i32.const 0))
            (data (i32.const 600) "a\1b[31mb")"#
            .to_owned(),
        process: "(loop $more
                (call $log (i32.const 2) (i32.const 600) (i32.const 7))
                (global.set $lines (i32.add (global.get $lines) (i32.const 1)))
                (br_if $more (i32.lt_u (global.get $lines) (i32.const 1000))))"
            .to_owned(),
        ..Wat::default()
    };
    let lines = process(&module).expect("it may talk").telemetry.lines;
    assert_eq!(lines.len(), 101);
    assert_eq!(lines[0].message, "a [31mb");
    assert!(lines[100].message.contains("900 more lines"), "{}", lines[100].message);
}

#[test]
fn a_module_says_why_it_fails() {
    let answer = |kind, row, message: &str| {
        let failure = Some((kind, row, message.to_owned()));
        process(&answers(Answer { failure, ..Answer::default() })).expect_err("it fails")
    };
    let failure = answer(1, 1, "no\u{1b}pe");
    check_failure(&failure, FailureKind::Reject, "no pe");
    assert_eq!(failure.record, Some(1));
    assert_eq!(answer(0, -1, "later").record, None);
    check_failure(&answer(0, 2, "later"), FailureKind::Malformed, "row 2, which is not there");
    check_failure(&answer(9, 0, "what"), FailureKind::Malformed, "");
}

#[test]
fn a_module_that_does_not_initialise_says_why() {
    let refuses = Wat { setup: refusal("no such table"), ..Wat::default() };
    check_failure(&instance(&refuses).err().unwrap(), FailureKind::Initialise, "no such table");
    let traps = Wat { initialise: "unreachable".to_owned(), ..Wat::default() };
    check_failure(&instance(&traps).err().unwrap(), FailureKind::Initialise, "it trapped");
}

#[test]
fn punctuations_that_make_no_sense_are_refused() {
    for interval in [0, u64::MAX] {
        let module = Wat { setup: setup(false, &[interval]), ..Wat::default() };
        check_failure(&instance(&module).err().unwrap(), FailureKind::Malformed, "every");
    }
    let many = Wat { setup: setup(false, &[1; 30]), ..Wat::default() };
    assert_eq!(instance(&many).expect("thirty are fine").setup().schedules.len(), 30);
    let engine = Engine::new(&Config { schedules_max: 29, ..config() }).unwrap();
    let module = engine.load(&many.component().unwrap(), "many").unwrap();
    let failure = module.instantiate(context()).err().unwrap();
    check_failure(&failure, FailureKind::Limit, "30 punctuations and may have 29");
}
