//! One agent stays within its memory budget: with two hundred stateful partitions under load, and
//! with modules that make it hold what costs them nothing.

#![allow(clippy::print_stdout, reason = "how much it took is for whoever runs this")]

use std::time::Duration;

use anyhow::{Result, ensure};
use sidestream_tests::{
    agent::Agent,
    broker,
    load::{self, Record},
    modules::{Answer, Column, Wat},
    random::Random,
    topics::{self, Observer},
    wait,
};

const PARTITIONS: i32 = 200;
const RECORDS: u64 = 400_000;
const PATIENCE: Duration = Duration::from_secs(240);

/// The budget in the pipeline file.
const MEMORY_MAX: u64 = 256 << 20;

const PIPELINE: &str = "\
application: {application}
kafka: { bootstrap.servers: '{bootstrap}' }
workers: 2
memory_max: 256MiB
identity: {name}
state: { directory: {state} }
transforms:
  - name: count
    module: {modules}/count.wasm
    inputs: ['{application}-in']
    stores: [counts]
    outputs: { counts: '{application}-out' }
";

fn record(_: u64, random: &mut Random) -> Record {
    let key = random.within(0..200_000).to_string().into_bytes();
    Record { key: Some(key), value: Some(vec![b'x'; 300]), timestamp: None }
}

#[test]
fn two_hundred_stateful_partitions_stay_within_the_budget() -> Result<()> {
    let bootstrap = broker::shared().bootstrap();
    let application = topics::unique("many");
    let (input, output) = (format!("{application}-in"), format!("{application}-out"));
    topics::create(&bootstrap, &input, PARTITIONS, &[])?;
    topics::create(&bootstrap, &output, PARTITIONS, &[])?;
    load::send_all(&bootstrap, &input, (3, record), RECORDS)?;
    let folder = tempfile::tempdir()?;
    let pipeline = PIPELINE.replace("{application}", &application);
    let mut agent = Agent::new(folder.path(), "agent", &bootstrap, &pipeline)?;
    agent.start()?;
    let observer = Observer::new(&bootstrap, &application)?;
    let done = || {
        ensure!(agent.is_running()?, "{}", agent.log_tail());
        let position = observer.position(std::slice::from_ref(&input), PARTITIONS)?;
        Ok(position.values().map(|offset| (*offset).max(0)).sum::<i64>() == RECORDS as i64)
    };
    wait::until_true("end of the work", PATIENCE, done)?;
    let peak = agent.peak_memory_bytes()?;
    println!("{} MiB at most, of a budget of {} MiB", peak >> 20, MEMORY_MAX >> 20);
    ensure!(peak <= MEMORY_MAX, "{} MiB, more than {} MiB", peak >> 20, MEMORY_MAX >> 20);
    ensure!(agent.terminate()?.success(), "{}", agent.log_tail());
    Ok(())
}

/// One module emits a record with large headers, the next one a thousand records that have them as
/// well; a third one writes nothing at all under the same key, again and again.
const FREE: &str = "\
application: {application}
kafka: { bootstrap.servers: '{bootstrap}' }
memory_max: 256MiB
commit_interval: 5s
limits: { batch_records_max: 1 }
identity: {name}
state: { directory: {state} }
transforms:
  - name: large-headers
    module: {folder}/large-headers.wasm
    inputs: ['{application}-in']
    outputs: { to: {} }
  - name: many-records
    module: {folder}/many-records.wasm
    inputs: [{ transform: large-headers, output: to }]
    outputs: { out: '{application}-out' }
    on_error: skip
  - name: free-writes
    module: {folder}/free-writes.wasm
    inputs: ['{application}-in']
    stores: [writes]
";

const WRITES: u32 = 100_000;

/// With how much of memory it got through its records.
fn peak_of_free_work(records: u64) -> Result<u64> {
    let bootstrap = broker::embedded().bootstrap();
    let application = topics::unique("free");
    let (input, output) = (format!("{application}-in"), format!("{application}-out"));
    topics::create(&bootstrap, &input, 1, &[])?;
    topics::create(&bootstrap, &output, 1, &[])?;
    load::send_all(&bootstrap, &input, (3, record), records)?;
    let folder = tempfile::tempdir()?;
    let header =
        |bytes: usize| (vec![1], Column::of(&[b"h"]), Column::of(&[&vec![b'v'; bytes][..]]));
    let large = Answer { headers: Some(header(900_000)), ..Answer::one(b"k", b"v") };
    let nulls = || Column { data: Vec::new(), lengths: vec![-1; 1_000] };
    let many = Answer {
        causes: vec![0; 1_000],
        outputs: vec![0; 1_000],
        keys: nulls(),
        values: nulls(),
        timestamps: vec![i64::MIN; 1_000],
        partitions: vec![-1; 1_000],
        ..Answer::default()
    };
    let free = Wat {
        fields: r#"(import "sidestream:transform/state@0.1.0" "put"
            (func $put (param i32 i32 i32 i32 i32 i32)))
            (global $left (mut i32) (i32.const 0))"#
            .to_owned(),
        process: format!(
            "(global.set $left (i32.const {WRITES}))
            (loop $more
                (call $put (i32.const 0) (i32.const 0) (i32.const 0)
                    (i32.const 0) (i32.const 0) (i32.const 0))
                (global.set $left (i32.sub (global.get $left) (i32.const 1)))
                (br_if $more (global.get $left)))"
        ),
        ..Wat::default()
    };
    for (name, module) in [
        ("large-headers", Wat { answer: large, ..Wat::default() }),
        ("many-records", Wat { answer: many, ..Wat::default() }),
        ("free-writes", free),
    ] {
        std::fs::write(folder.path().join(name).with_extension("wasm"), module.component()?)?;
    }
    let pipeline = FREE
        .replace("{application}", &application)
        .replace("{folder}", &folder.path().display().to_string());
    let mut agent = Agent::new(folder.path(), "agent", &bootstrap, &pipeline)?;
    agent.start()?;
    let observer = Observer::new(&bootstrap, &application)?;
    let done = || {
        ensure!(agent.is_running()?, "{}", agent.log_tail());
        let position = observer.position(std::slice::from_ref(&input), 1)?;
        Ok(position.values().all(|offset| *offset == records as i64))
    };
    wait::until_true("end of the work", PATIENCE, done)?;
    let peak = agent.peak_memory_bytes()?;
    let skipped = agent.log().contains("limits.output_bytes_max");
    ensure!(skipped, "the log says which limit it is: {}", agent.log_tail());
    ensure!(agent.terminate()?.success(), "{}", agent.log_tail());
    Ok(peak)
}

#[test]
fn what_costs_modules_nothing_stays_within_the_budget() -> Result<()> {
    let peak = peak_of_free_work(60)?;
    println!("{} MiB at most, of a budget of {} MiB", peak >> 20, MEMORY_MAX >> 20);
    ensure!(peak <= MEMORY_MAX, "{} MiB, more than {} MiB", peak >> 20, MEMORY_MAX >> 20);
    Ok(())
}
