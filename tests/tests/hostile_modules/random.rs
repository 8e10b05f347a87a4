//! Random numbers, and floating point.

use sidestream_core::{
    record::{Batch, Origin},
    task::{Processor, Punctuation},
};
use sidestream_tests::modules::{Wat, setup};

use crate::harness::{WASI, batch, instance, state};

/// What a call does to write a number under an empty key.
fn draws() -> Wat {
    let draw = "(i64.store (i32.const 512) (call $random))
        (call $put (i32.const 0) (i32.const 512) (i32.const 0)
            (i32.const 1) (i32.const 512) (i32.const 8))";
    Wat {
        imports: "import wasi:random/random@0.2.3;".to_owned(),
        packages: WASI.to_owned(),
        fields: r#"(import "wasi:random/random@0.2.3" "get-random-u64" (func $random (result i64)))
            (import "sidestream:transform/state@0.1.0" "put"
                (func $put (param i32 i32 i32 i32 i32 i32)))"#
            .to_owned(),
        process: draw.to_owned(),
        punctuate: draw.to_owned(),
        setup: setup(false, &[1_000, 1_000]),
        ..Wat::default()
    }
}

/// What new instances draw in these calls, one after another on the same instance.
fn drawn(calls: &[Call]) -> Vec<Vec<u8>> {
    let mut guest = instance(&draws()).expect("it initialises");
    let one = |call: &Call| {
        let mut state = state();
        match call {
            Call::Process(origin) => {
                guest.process(&Batch { origin: *origin, ..batch() }, &mut state)
            }
            Call::Punctuate(due) => guest.punctuate(due, &mut state),
        }
        .expect("it may draw");
        state.changes()[1].values.data().to_vec()
    };
    calls.iter().map(one).collect()
}

enum Call {
    Process(Origin),
    Punctuate(Punctuation),
}

#[test]
fn random_numbers_are_those_of_the_record_and_no_other_gets_them() {
    let at = |offset, sibling| Call::Process(Origin { offset, sibling, ..Origin::default() });
    let due = |schedule, time| {
        Call::Punctuate(Punctuation { schedule, time, partition: 0, stream_time: 0, wall_clock: 0 })
    };
    let calls = [at(7, 0), at(7, 1), at(8, 0), due(0, 5), due(0, 6), due(1, 5)];
    let numbers = drawn(&calls);
    assert!(numbers.iter().all(|number| number.len() == 8));
    for (place, call) in calls.into_iter().enumerate() {
        // An instance that is made for it, as after a failure or a restart, draws the same.
        assert_eq!(drawn(&[call]), [numbers[place].clone()]);
        assert!(!numbers[..place].contains(&numbers[place]), "{place} was drawn before");
    }
}

#[test]
fn what_is_not_a_number_has_the_same_bits_everywhere() {
    let module = Wat {
        fields: r#"(import "sidestream:transform/state@0.1.0" "put"
            (func $put (param i32 i32 i32 i32 i32 i32)))
            (global $zero (mut f64) (f64.const 0))"#
            .to_owned(),
        process: "(f64.store (i32.const 512) (f64.div (global.get $zero) (global.get $zero)))
            (call $put (i32.const 0) (i32.const 512) (i32.const 0)
                (i32.const 1) (i32.const 512) (i32.const 8))"
            .to_owned(),
        ..Wat::default()
    };
    let mut state = state();
    instance(&module).expect("it initialises").process(&batch(), &mut state).expect("it divides");
    let bits = 0x7ff8_0000_0000_0000_u64;
    assert_eq!(state.changes()[1].values.data(), bits.to_le_bytes());
}
