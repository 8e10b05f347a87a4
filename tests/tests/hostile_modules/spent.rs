//! What costs the guest next to nothing and the host much: it is counted all the same.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use sidestream::guest::{Config, Engine, Error};
use sidestream_core::{
    record::{Batch, Headers},
    task::{FailureKind, Processor},
};
use sidestream_tests::modules::{Answer, Column, Wat};

use crate::harness::{
    MEBIBYTE, answers, batch, check, check_failure, config, context, does, engine, instance,
    process, process_batch, state,
};

/// An answer that emits so many records without key and value, caused by row 0.
fn rows(count: usize) -> Answer {
    let nulls = || Column { data: Vec::new(), lengths: vec![-1; count] };
    Answer {
        causes: vec![0; count],
        outputs: vec![0; count],
        keys: nulls(),
        values: nulls(),
        timestamps: vec![i64::MIN; count],
        partitions: vec![-1; count],
        ..Answer::default()
    }
}

/// The usual batch, with one header of so many bytes at its first record.
fn with_header(bytes: usize) -> Batch {
    let mut batch = batch();
    batch.records.headers = Headers {
        counts: vec![1, 0],
        names: [Some(&b"h"[..])].into_iter().collect(),
        values: [Some(&vec![b'v'; bytes - 1][..])].into_iter().collect(),
    };
    batch
}

fn put(process: &str) -> Wat {
    Wat {
        fields: r#"(import "sidestream:transform/state@0.1.0" "put"
            (func $put (param i32 i32 i32 i32 i32 i32)))
            (global $calls (mut i32) (i32.const 0))"#
            .to_owned(),
        process: process.to_owned(),
        ..Wat::default()
    }
}

#[test]
fn headers_that_go_through_count_for_every_record() {
    let refused = |count, bytes, message: &str| {
        let failure = process_batch(&answers(rows(count)), &with_header(bytes)).unwrap_err();
        check_failure(&failure, FailureKind::Limit, message);
    };
    refused(2_000, 900, "more than the 1048576 bytes of a call (`limits.output_bytes_max`)");
    refused(1, 1_001, "row 0 of emits has 1001 bytes with its headers");
    let effects = process_batch(&answers(rows(900)), &with_header(900)).expect("it fits");
    assert_eq!(effects.emits.len(), 900);
    // Many headers without a byte cost as well.
    let mut many = batch();
    let nothing = || (0..1_000).map(|_| Some(&b""[..])).collect();
    many.records.headers = Headers { counts: vec![1_000, 0], names: nothing(), values: nothing() };
    let failure = process_batch(&answers(rows(100)), &many).unwrap_err();
    check_failure(&failure, FailureKind::Limit, "`limits.output_bytes_max`");
    // Records that say that they have none of their own are not charged.
    let mut none = rows(2_000);
    none.headers = Some((Vec::new(), Column::default(), Column::default()));
    let effects = process_batch(&answers(none), &with_header(900)).expect("they have no headers");
    assert_eq!(effects.emits.len(), 2_000);
    let mut of_cause = rows(2_000);
    of_cause.headers = Some((vec![u32::MAX; 2_000], Column::default(), Column::default()));
    let failure = process_batch(&answers(of_cause), &with_header(900)).unwrap_err();
    check_failure(&failure, FailureKind::Limit, "`limits.output_bytes_max`");
}

#[test]
fn small_records_and_changes_count() {
    check(&answers(rows(17_000)), FailureKind::Limit, "64 more; emit less in a call");
    assert_eq!(process(&answers(rows(16_000))).expect("it fits").emits.len(), 16_000);
    let count = 9_000;
    let changes = Answer {
        stores: vec![0; count],
        write_keys: Column { data: Vec::new(), lengths: vec![0; count] },
        write_values: Column { data: Vec::new(), lengths: vec![-1; count] },
        ..Answer::default()
    };
    check(&answers(changes), FailureKind::Limit, "128 of them for each change");
    let endless = put("(loop $more
        (call $put (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const 0))
        (br $more))");
    check(&endless, FailureKind::Limit, "more than the 1048576 bytes of a call");
}

#[test]
fn what_is_written_over_counts_until_the_transaction_ends() {
    let thousand = put("(loop $more
        (call $put (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const 0))
        (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (br_if $more (i32.lt_u (global.get $calls) (i32.const 1000))))");
    let mut state = state();
    let before = state.savepoint();
    instance(&thousand).unwrap().process(&batch(), &mut state).expect("it fits");
    assert_eq!(state.changes()[1].len(), 1, "all under one key");
    assert!(state.bytes() >= 100_000, "{}", state.bytes());
    state.rollback(&before);
    assert_eq!(state.bytes(), 0);
}

#[test]
fn what_an_instance_is_made_of_counts_as_its_memory() {
    let plain = instance(&Wat::default()).unwrap().memory_bytes();
    let fields = "(global i32 (i32.const 1))".repeat(50_000);
    let many = instance(&Wat { fields, ..Wat::default() }).unwrap().memory_bytes();
    assert!(many >= plain + 16 * 50_000, "{many} and {plain}");

    let loaded = |text: &str| engine().load(&wat::parse_str(text).unwrap(), "heavy").unwrap_err();
    let globals = "(global i32 (i32.const 1))".repeat(20_000);
    let instances = "(core instance (instantiate $m))".repeat(99);
    let heavy = loaded(&format!("(component (core module $m {globals}) {instances})"));
    assert!(matches!(heavy, Error::TooMuch { .. }), "{heavy}");
    assert!(heavy.to_string().contains("`limits.guest_memory_max`"), "{heavy}");
    let functions = "(func)".repeat(20_000);
    let escaping: String = (0..20_000).map(|function| format!(" {function}")).collect();
    let module = format!("(core module $m {functions} (elem declare func{escaping}))");
    let heavy = loaded(&format!("(component {module} {instances})"));
    assert!(heavy.to_string().contains("`limits.guest_memory_max`"), "{heavy}");
    let instances = "(core instance (instantiate $m))".repeat(101);
    let many = loaded(&format!("(component (core module $m) {instances})"));
    assert!(many.to_string().contains("101 core instances and may be of 100"), "{many}");
}

#[test]
fn what_an_instance_is_made_of_is_taken_from_the_budget() {
    let fields = "(global i32 (i32.const 1))".repeat(50_000);
    let module =
        Wat { fields, memory: "(memory (export \"memory\") 80)".to_owned(), ..Wat::default() };
    let component = module.component().unwrap();
    let engine = |memory_total_bytes_max| {
        Engine::new(&Config { memory_total_bytes_max, ..config() }).unwrap()
    };
    let memory = 80 * 65_536;
    let tight = engine(memory + 500_000);
    let refused = tight.load(&component, "m").unwrap().instantiate(&context()).err().unwrap();
    check_failure(&refused, FailureKind::Budget, "a quarter of `memory_max`");
    assert_eq!(tight.memory_bytes(), 0, "it is given back");
    let roomy = engine(2 * (memory + 1_000_000));
    let guest = roomy.load(&component, "m").unwrap().instantiate(&context()).unwrap();
    assert!(roomy.memory_bytes() >= memory + 800_000);
    drop(guest);
    assert_eq!(roomy.memory_bytes(), 0);
}

#[test]
fn the_numbers_of_parts_are_limited() {
    let memories = format!("(memory (export \"memory\") 128) {}", "(memory 0)".repeat(8));
    let memories = Wat { memory: memories, ..Wat::default() };
    let failure = instance(&memories).err().unwrap();
    check_failure(&failure, FailureKind::Limit, "8 memories");
    let tables = Wat { fields: "(table 0 funcref)".repeat(33), ..Wat::default() };
    check_failure(&instance(&tables).err().unwrap(), FailureKind::Limit, "32 tables");

    let refused = |text: &str| {
        let error = engine().load(&wat::parse_str(text).unwrap(), "hostile").unwrap_err();
        assert!(matches!(error, Error::TooMuch { .. }), "{error}");
        error.to_string()
    };
    let import = |n| format!("(import \"wasi:random/random@0.2.{n}\" (instance))");
    let imports: String = (0..201).map(import).collect();
    let error = refused(&format!("(component {imports})"));
    assert!(error.contains("it imports 201 interfaces and may import 200"), "{error}");
    let types = "(type u8)".repeat(100_001);
    let error = refused(&format!("(component {types})"));
    assert!(error.contains("it has 100001 types and may have 100000"), "{error}");
}

#[test]
fn a_refusal_that_was_survived_is_not_the_reason_of_a_later_trap() {
    let module = Wat {
        initialise: "(drop (memory.grow (i32.const 60000)))".to_owned(),
        ..does("unreachable")
    };
    check(&module, FailureKind::Trap, "unreachable");
    let module = Wat {
        fields: "(global $calls (mut i32) (i32.const 0))".to_owned(),
        process: "(if (global.get $calls) (then unreachable))
            (global.set $calls (i32.const 1))
            (drop (memory.grow (i32.const 60000)))"
            .to_owned(),
        ..Wat::default()
    };
    let mut guest = instance(&module).unwrap();
    guest.process(&batch(), &mut state()).expect("it lives with that");
    let failure = guest.process(&batch(), &mut state()).unwrap_err();
    check_failure(&failure, FailureKind::Trap, "unreachable");
}

#[test]
fn what_is_said_and_counted_has_a_size() {
    let module = Wat {
        fields: r#"(import "sidestream:transform/telemetry@0.1.0" "log"
            (func $log (param i32 i32 i32)))
            (import "sidestream:transform/telemetry@0.1.0" "observe"
            (func $observe (param i32 i32 f64)))
            (global $times (mut i32) (i32.const 0))
            (data (i32.const 600) "size")"#
            .to_owned(),
        process: "(loop $more
                (call $log (i32.const 2) (i32.const 600) (i32.const 4))
                (call $observe (i32.const 600) (i32.const 4) (f64.const inf))
                (call $observe (i32.const 600) (i32.const 4) (f64.const 1))
                (global.set $times (i32.add (global.get $times) (i32.const 1)))
                (br_if $more (i32.lt_u (global.get $times) (i32.const 50))))"
            .to_owned(),
        ..Wat::default()
    };
    let telemetry = process(&module).expect("it may talk").telemetry;
    assert_eq!((telemetry.lines.len(), telemetry.samples.len()), (50, 50), "inf is no size");
    assert!(telemetry.bytes() >= 50 * (4 + 4 + 24 + 24), "{}", telemetry.bytes());
}

#[test]
fn keys_are_looked_up_a_bounded_number_at_a_time() {
    let get_many = |count: u32| Wat {
        fields: r#"(import "sidestream:transform/state@0.1.0" "get-many"
            (func $get_many (param i32 i32 i32 i32 i32 i32)))"#
            .to_owned(),
        // Empty keys: their lengths are where nothing was written.
        process: format!(
            "(call $get_many (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 5000000) (i32.const {count}) (i32.const 512))"
        ),
        ..Wat::default()
    };
    check(&get_many(200_000), FailureKind::Limit, "200000 keys at a time and may ask for 100000");
    assert_eq!(MEBIBYTE, config().output_bytes_max);
    process(&get_many(1_000)).expect("it may look up a thousand");
}

#[test]
fn names_of_a_file_reach_nobody_raw_or_whole() {
    let evil = format!("a\\n\\1b]52;c;\\07{}", "x".repeat(10_000));
    let exports = |names: &[String]| {
        let export = |name: &String| format!("(export \"{name}\" (type $t))");
        let exports: String = names.iter().map(export).collect();
        let text = format!("(component (type $t u8) {exports})");
        engine().load(&wat::parse_str(&text).unwrap(), "hostile").unwrap_err().to_string()
    };
    let error = exports(&[evil]);
    assert!(!error.contains(char::is_control), "{error:?}");
    assert!(error.len() < 4_000, "{}", error.len());
    let many: Vec<_> = (0..40).map(|n| format!("{}{n}", "x".repeat(5_000))).collect();
    let error = exports(&many);
    assert!(error.contains("and more"), "{error}");
    assert!(error.len() < 4_000, "{}", error.len());
}

#[test]
fn proposals_are_granted_by_name() {
    for module in ["(memory i64 1)", "(memory 1 (pagesize 1))", "(memory 1 1 shared)"] {
        let text = format!("(component (core module {module}))");
        let error = engine().load(&wat::parse_str(&text).unwrap(), "new").unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{module}: {error}");
    }
}
