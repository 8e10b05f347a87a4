//! What takes more than it may.

use sidestream::guest::{Config, Engine};
use sidestream_core::task::FailureKind;
use sidestream_tests::modules::{Answer, Field, Wat};

use crate::harness::{
    MEBIBYTE, answers, check, check_failure, config, context, does, instance, process,
};

#[test]
fn an_endless_loop_is_stopped() {
    check(&does("(loop $forever (br $forever))"), FailureKind::Deadline, "`limits.batch_time_max`");
    let at_start = Wat { initialise: "(loop $forever (br $forever))".to_owned(), ..Wat::default() };
    check_failure(&instance(&at_start).err().unwrap(), FailureKind::Deadline, "200 ms");
    let on_instantiation = Wat {
        fields: "(func $start (loop $forever (br $forever))) (start $start)".to_owned(),
        ..Wat::default()
    };
    check_failure(&instance(&on_instantiation).err().unwrap(), FailureKind::Deadline, "200 ms");
}

#[test]
fn memory_is_limited_over_all_memories() {
    let grow = "(drop (memory.grow (i32.const 1000))) unreachable";
    check(&does(grow), FailureKind::Limit, "may have 16777216 (`limits.guest_memory_max`)");
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
    let engine = |memory_total_bytes_max| {
        let engine = Engine::new(&Config { memory_total_bytes_max, ..config() }).unwrap();
        let module = engine.load(&Wat::counter().component().unwrap(), "counter").unwrap();
        (engine, module)
    };
    // Each takes eight, so that two have room.
    let (roomy, module) = engine(20 * MEBIBYTE);
    let first = module.instantiate(&context()).expect("there is room");
    let others: Vec<_> = (0..3).map(|_| module.instantiate(&context()).unwrap()).collect();
    assert!((8 * MEBIBYTE..9 * MEBIBYTE).contains(&roomy.memory_bytes()), "the others rest");
    drop(first);
    assert_eq!(roomy.memory_bytes(), 0);
    drop(others);
    let (_, module) = engine(7 * MEBIBYTE);
    let refused = module.instantiate(&context()).err().expect("there is no room for one");
    check_failure(&refused, FailureKind::Budget, "7340032 bytes that all instances together");
}

#[test]
fn tables_and_their_number_are_limited() {
    let grows = Wat {
        fields: "(table $t 1 funcref)".to_owned(),
        process: "(drop (table.grow $t (ref.null func) (i32.const 100000))) unreachable".to_owned(),
        ..Wat::default()
    };
    check(
        &grows,
        FailureKind::Limit,
        "its tables and may have 1000 (`limits.guest_table_elements_max`)",
    );
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
    check(&module, FailureKind::Limit, "`limits.guest_stack_max`");
}

#[test]
fn huge_answers_are_not_taken() {
    let mut answer = Answer::one(b"k", b"v");
    answer.lies = vec![(Field::ValueData, 4 << 20)];
    check(&answers(answer.clone()), FailureKind::Limit, "`limits.output_bytes_max`");
    answer.lies = vec![(Field::Causes, u32::MAX)];
    check(&answers(answer), FailureKind::Malformed, "");
    let record = Answer::one(b"k", &[b'v'; 2_000]);
    check(&answers(record), FailureKind::Limit, "row 0 of emits has 2001 bytes with its headers");
    let write = Answer::write(0, b"k", &[b'v'; 2_000]);
    check(&answers(write), FailureKind::Limit, "`limits.record_bytes_max`");
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
