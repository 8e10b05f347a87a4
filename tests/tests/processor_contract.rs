//! The contract of `Processor`, held by a module in wasmtime.

use sidestream::guest::{Config, Context, Engine, Guest, Module, Output, Store};
use sidestream_core::{
    column::Column,
    record::{Batch, Origin, Records},
};
use sidestream_sim::contract::processor::{Subject, check};
use sidestream_tests::modules::{Wat, setup};

struct Counter {
    module: Module,
}

fn batch(keys: &[Option<&[u8]>]) -> Batch {
    let rows = i64::try_from(keys.len()).expect("few");
    Batch {
        partition: 3,
        stream_time: -1,
        wall_clock: 1_700_000_000_000,
        origin: Origin { offset: 100, ..Origin::default() },
        inputs: vec![0; keys.len()],
        records: Records {
            offsets: (100..100 + rows).collect(),
            timestamps: (1_000..1_000 + rows).collect(),
            timestamp_types: vec![0; keys.len()],
            keys: keys.iter().copied().collect(),
            values: keys.iter().map(|key| key.map(|_| &b"value"[..])).collect::<Column>(),
            ..Records::default()
        },
    }
}

impl Subject for Counter {
    type Processor = Guest;

    fn stores(&self) -> usize {
        1
    }

    fn outputs(&self) -> usize {
        1
    }

    fn processor(&mut self) -> Guest {
        let context = Context {
            application: "contract".to_owned(),
            transform: "counter".to_owned(),
            partition: 3,
            inputs: vec!["in".to_owned()],
            outputs: vec![Output { name: "out".to_owned(), partitions: Some(4) }],
            stores: vec![Store { name: "counts".to_owned(), index: 0 }],
            config: "{}".to_owned(),
        };
        self.module.instantiate(&context).expect("it initialises")
    }

    fn batch(&self) -> Batch {
        let keys: [Option<&[u8]>; 7] =
            [Some(b"a"), Some(b"bee"), Some(b"a"), None, Some(b""), Some(b"bee"), Some(b"a")];
        batch(&keys)
    }

    fn failing_batch(&self) -> Option<(Batch, usize)> {
        Some((batch(&[Some(b"a"), Some(b"c"), Some(b"!"), Some(b"a")]), 2))
    }
}

#[test]
fn a_module_keeps_the_contract() {
    let engine = Engine::new(&Config::default()).unwrap();
    let counter = Wat { setup: setup(false, &[1_000]), ..Wat::counter() };
    let module = engine.load(&counter.component().unwrap(), "counter").unwrap();
    check(&mut Counter { module });
}

#[test]
fn a_module_that_sees_headers_keeps_the_contract() {
    let engine = Engine::new(&Config::default()).unwrap();
    let counter = Wat { setup: setup(true, &[]), ..Wat::counter() };
    let module = engine.load(&counter.component().unwrap(), "counter").unwrap();
    check(&mut Counter { module });
}
