//! What the border to guests costs: `measure_guest MODULE.wasm...`, run by hand. For each module
//! the time to compile and to instantiate it, and the nanoseconds for each record of batches of
//! several sizes, with 10-byte keys and 100-byte values and, if it has a store, 1,000 keys.

#![allow(clippy::print_stdout, reason = "it is run by hand to be read")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use sidestream::guest::{Config, Context, Engine, Module, Output, Store};
use sidestream_core::{
    column::Column,
    record::{Batch, Records},
    task::{Processor, State},
};
use sidestream_sim::contract::processor::Committed;

const BATCHES: [usize; 4] = [1, 16, 256, 1_000];
const MEASURED: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    for path in std::env::args().skip(1) {
        measure(&path).with_context(|| path.clone())?;
    }
    Ok(())
}

fn measure(path: &str) -> Result<()> {
    let bytes = std::fs::read(path)?;
    let engine = Engine::new(&Config::default())?;
    let began = Instant::now();
    let module = engine.load(&bytes, path)?;
    println!("{path}: {} bytes, loaded in {:?}", bytes.len(), began.elapsed());
    let began = Instant::now();
    for _ in 0..100 {
        drop(instantiate(&module)?);
    }
    println!("  instantiated in {:?}", began.elapsed() / 100);
    println!("  memory of an instance: {} bytes", {
        let _instance = instantiate(&module)?;
        engine.memory_bytes()
    });
    for rows in BATCHES {
        println!("  batch of {rows}: {} ns a record", nanoseconds(&module, rows)?);
    }
    Ok(())
}

fn instantiate(module: &Module) -> Result<sidestream::guest::Guest> {
    let output = |name: &str| Output { name: name.to_owned(), partitions: Some(4) };
    let context = Context {
        application: "measure".to_owned(),
        transform: "transform".to_owned(),
        partition: 0,
        inputs: vec!["input".to_owned()],
        outputs: vec![output("output")],
        stores: vec![Store { name: "counts".to_owned(), index: 0 }],
        config: "{}".to_owned(),
    };
    module.instantiate(context).map_err(|failure| anyhow!("{failure}"))
}

fn nanoseconds(module: &Module, rows: usize) -> Result<u128> {
    let mut guest = instantiate(module)?;
    let mut state = State::new(Box::new(Committed { stores: vec![BTreeMap::new()] }), 1);
    let batch = batch(rows);
    let mut records = 0u128;
    let began = Instant::now();
    while began.elapsed() < MEASURED {
        guest.process(&batch, &mut state).map_err(|failure| anyhow!("{failure}"))?;
        state.clear();
        records += rows as u128;
    }
    Ok(began.elapsed().as_nanos() / records)
}

fn batch(rows: usize) -> Batch {
    let count = i64::try_from(rows).expect("few");
    let keys: Vec<_> = (0..rows).map(|row| format!("key-{:06}", row % 1_000)).collect();
    Batch {
        partition: 0,
        stream_time: 0,
        wall_clock: 1_700_000_000_000,
        inputs: vec![0; rows],
        records: Records {
            offsets: (0..count).collect(),
            timestamps: (0..count).collect(),
            timestamp_types: vec![0; rows],
            keys: keys.iter().map(|key| Some(key.as_bytes())).collect::<Column>(),
            values: (0..rows).map(|_| Some(&[b'v'; 100][..])).collect::<Column>(),
            ..Records::default()
        },
    }
}
