//! `measure [RECORDS]`: what an agent costs on a topic that is full already, for pass-through and
//! count: records a second, CPU seconds for a million records, the most memory. See
//! `./dev measure`.

#![allow(clippy::print_stdout, reason = "a program for people")]

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sidestream_tests::{
    agent::modules,
    broker::{Cluster, Options},
    load::{self, Record},
    random::Random,
    topics, wait,
};

const PARTITIONS: i32 = 4;
const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 100;
/// How long one pipeline may take for all records.
const PATIENCE: Duration = Duration::from_secs(600);
/// The clock ticks of `/proc/PID/stat`, the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() -> Result<()> {
    let records = std::env::args().nth(1).map(|text| text.parse()).transpose()?;
    let records: u64 = records.unwrap_or(10_000_000);
    println!("starting Apache Kafka, filling a topic with {records} records");
    let cluster = Cluster::start(&Options::default())?;
    let bootstrap = cluster.bootstrap();
    topics::create(&bootstrap, "in", PARTITIONS, &[])?;
    load::send_all(&bootstrap, "in", (1, record), records)?;
    for (name, stores, output) in [("pass-through", "", "out"), ("count", "[counts]", "counts")] {
        topics::create(&bootstrap, output, PARTITIONS, &[])?;
        let measured = measure(&bootstrap, name, stores, output, records)?;
        println!("{name}: {measured}");
    }
    Ok(())
}

fn record(_: u64, random: &mut Random) -> Record {
    let key = random.within(0..KEYS).to_be_bytes().to_vec();
    Record { key: Some(key), value: Some(vec![b'x'; VALUE_BYTES]), timestamp: None }
}

fn measure(
    bootstrap: &str,
    name: &str,
    stores: &str,
    output: &str,
    records: u64,
) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let stores = if stores.is_empty() { String::new() } else { format!("    stores: {stores}\n") };
    let pipeline = format!(
        "application: {name}\nkafka: {{ bootstrap.servers: \"{bootstrap}\" }}\nstate: {{ directory: \
         {state} }}\ntransforms:\n  - name: {name}\n    module: {module}\n    inputs: \
         [in]\n{stores}    outputs: {{ {output}: {output} }}\n",
        state = folder.path().join("state").display(),
        module = modules().join(format!("{name}.wasm")).display(),
    );
    let file = folder.path().join("pipeline.yaml");
    std::fs::write(&file, pipeline)?;
    let binary = std::env::current_exe()?.with_file_name("sidestream");
    let child = Command::new(binary).arg("run").arg(&file).stderr(Stdio::null()).spawn()?;
    let mut agent = Agent(child);
    let processed = || -> Result<u64> {
        let committed = topics::committed(bootstrap, name, "in").unwrap_or_default();
        Ok(committed.iter().flatten().map(|&offset| u64::try_from(offset).unwrap_or(0)).sum())
    };
    wait::until_true("first records", PATIENCE, || Ok(processed()? > 0))?;
    let (from, since) = (processed()?, Instant::now());
    wait::until_true("all records", PATIENCE, || Ok(processed()? >= records))?;
    let seconds = since.elapsed().as_secs_f64();
    ensure!(agent.0.try_wait()?.is_none(), "the agent ended by itself");
    #[allow(clippy::cast_precision_loss, reason = "counts of records are far below 2^52")]
    let (rest, millions) = ((records - from) as f64, records as f64 / 1e6);
    let (cpu, memory) = agent.usage()?;
    Ok(format!(
        "{:.0} records/s, {:.2} CPU s a million, {memory} MiB at most",
        rest / seconds,
        cpu / millions
    ))
}

/// A running agent; dropping it ends it.
struct Agent(Child);

impl Agent {
    /// CPU seconds so far, and the most memory so far in MiB.
    fn usage(&self) -> Result<(f64, u64)> {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id()));
        let stat = read("stat")?;
        let fields: Vec<&str> =
            stat.rsplit(')').next().context("no stat")?.split_whitespace().collect();
        // User and system time are fields 14 and 15; the name, field 2, was cut off.
        let ticks: f64 =
            fields.get(11..13).context("no times")?.iter().flat_map(|f| f.parse::<f64>()).sum();
        let status = read("status")?;
        let peak =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").trim().parse()?;
        Ok((ticks / TICKS_PER_SECOND, kilobytes / 1024))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
