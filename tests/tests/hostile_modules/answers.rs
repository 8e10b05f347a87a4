//! What is not taken as an answer.

use sidestream_core::task::FailureKind;
use sidestream_tests::modules::{Answer, Column, Wat};

use crate::harness::{answers, check, check_failure, process, process_on, state};

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
