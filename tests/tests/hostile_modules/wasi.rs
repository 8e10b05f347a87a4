//! What the closed WASI does to those that count on an open one.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use sidestream_core::{column::Column as Rows, task::FailureKind};
use sidestream_tests::modules::{self, Answer, Wat};

use crate::harness::{WASI, check, engine, process};

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
fn closed_interfaces_may_be_imported_as_wasi_has_them() {
    let names = [
        "filesystem/types",
        "sockets/network",
        "sockets/instance-network",
        "sockets/ip-name-lookup",
        "sockets/tcp",
        "sockets/tcp-create-socket",
        "sockets/udp",
        "sockets/udp-create-socket",
    ];
    let imports: String = names.map(|name| format!("import wasi:{name}@0.2.4;")).concat();
    let wit = format!(
        "package sidestream:hostile;\n{}\nworld module {{
             include sidestream:transform/columnar@0.1.0;\n{imports}\n}}",
        include_str!("wasi.wit")
    );
    let component = modules::importer(&wit, "module").unwrap();
    let module = engine().load(&component, "importer").expect("it has nothing but WASI's");
    let imported = |name| module.imports().contains(&format!("wasi:{name}@0.2.4"));
    assert!(names.into_iter().all(imported), "{:?}", module.imports());
}

#[test]
fn closed_interfaces_have_no_functions_and_types_of_a_module_s_own() {
    let flags = "flags t { a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15 }";
    let refused = |interface: &str, function: &str| {
        let packages = format!(
            "package wasi:sockets@0.2.3 {{ interface {interface} {{ {flags} {function} }} }}"
        );
        let import = format!("import wasi:sockets/{interface}@0.2.3;");
        let wit = format!(
            "package sidestream:hostile;\n{packages}\nworld module {{
                 include sidestream:transform/columnar@0.1.0;\n{import}\n}}"
        );
        let component = modules::importer(&wit, "module").unwrap();
        engine().load(&component, "hostile").expect_err("it is refused").to_string()
    };
    let error = refused("flood", "f: func(x: list<t>);");
    assert!(error.contains("imports `wasi:sockets/flood@0.2.3`, which is not granted"), "{error}");
    let error = refused("network", "f: func(x: list<t>);");
    assert!(error.contains("no function `f`"), "{error}");
    let error = refused("instance-network", "instance-network: func(x: list<t>);");
    assert!(error.contains("arguments of `instance-network` are not those"), "{error}");
    let wide = "instance-network: func(x: tuple<t, t, t, t, t>);";
    let error = refused("instance-network", wide);
    assert!(error.contains("arguments of `instance-network` are not those"), "{error}");
}
