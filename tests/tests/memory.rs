//! One agent with two hundred stateful partitions under load stays within its memory budget.

#![allow(clippy::print_stdout, reason = "how much it took is for whoever runs this")]

use std::time::Duration;

use anyhow::{Result, ensure};
use sidestream_tests::{
    agent::Agent,
    broker,
    load::{self, Record},
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
