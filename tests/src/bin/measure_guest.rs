//! What the border to guests costs: `measure_guest MODULE.wasm [OUTPUT...]`, run by hand. The CPU
//! time to load and to instantiate a module, and for each record of batches of several sizes, with
//! 10-byte keys of which there are 1,000, 100-byte values, and a store `counts` in memory.

#![allow(clippy::print_stdout, reason = "it is run by hand to be read")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use sidestream::guest::{Config, Context, Engine, Guest, Module, Output, Store};
use sidestream_core::{
    column::Column,
    record::{Batch, Origin, Records},
    task::{Processor, State},
};
use sidestream_sim::contract::processor::Committed;

const BATCHES: [usize; 4] = [1, 16, 256, 1_000];
const MEASURED: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("which module?")?;
    measure(&path, &arguments.collect::<Vec<_>>()).context(path)
}

/// The CPU time of this thread.
fn cpu_time() -> Result<Duration> {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = times.split(' ').next().context("no time")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

fn measure(path: &str, outputs: &[String]) -> Result<()> {
    let bytes = std::fs::read(path)?;
    let engine = Engine::new(&Config::default())?;
    let began = Instant::now();
    let module = engine.load(&bytes, path)?;
    println!("{path}: {} bytes, loaded in {:?}", bytes.len(), began.elapsed());
    let began = cpu_time()?;
    for _ in 0..100 {
        drop(instantiate(&module, outputs)?);
    }
    println!("  instantiated in {:?}", (cpu_time()? - began) / 100);
    for rows in BATCHES {
        let mut guest = instantiate(&module, outputs)?;
        let cost = nanoseconds(&mut guest, rows)?;
        println!(
            "  batch of {rows}: {cost} ns a record, {} bytes of memory",
            engine.memory_bytes()
        );
    }
    Ok(())
}

fn instantiate(module: &Module, outputs: &[String]) -> Result<Guest> {
    let output = |name: &String| Output { name: name.clone(), partitions: Some(4) };
    let context = Context {
        application: "measure".to_owned(),
        transform: "transform".to_owned(),
        partition: 0,
        inputs: vec!["input".to_owned()],
        outputs: outputs.iter().map(output).collect(),
        stores: vec![Store { name: "counts".to_owned(), index: 0 }],
        config: "{}".to_owned(),
    };
    module.instantiate(&context).map_err(|failure| anyhow!("{failure}"))
}

fn nanoseconds(guest: &mut Guest, rows: usize) -> Result<u128> {
    let mut state = State::new(Box::new(Committed { stores: vec![BTreeMap::new()] }), 1);
    let batch = batch(rows);
    let mut records = 0u128;
    let began = cpu_time()?;
    let until = Instant::now() + MEASURED;
    while Instant::now() < until {
        guest.process(&batch, &mut state).map_err(|failure| anyhow!("{failure}"))?;
        state.clear();
        records += rows as u128;
    }
    Ok((cpu_time()? - began).as_nanos() / records)
}

fn batch(rows: usize) -> Batch {
    let count = i64::try_from(rows).expect("few");
    let keys: Vec<_> = (0..rows).map(|row| format!("key-{:06}", row % 1_000)).collect();
    Batch {
        partition: 0,
        stream_time: 0,
        wall_clock: 1_700_000_000_000,
        origin: Origin::default(),
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
