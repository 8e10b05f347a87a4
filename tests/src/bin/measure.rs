//! `measure [RECORDS]`: what an agent costs on a topic that is full already, for pass-through and
//! count (records a second, CPU seconds for a million records, the most memory), and how soon an
//! agent with a gigabyte of state works again after a SIGKILL. See `./dev measure`.

#![allow(clippy::print_stdout, reason = "a program for people")]

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use sidestream_tests::{
    agent::modules,
    broker::{Cluster, Options},
    load::{self, Load, Maker, Record},
    random::Random,
    topics,
};
use tempfile::TempDir;

const PARTITIONS: i32 = 4;
const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 100;
/// Keys of the large state, and the bytes of each.
const LARGE_KEYS: u64 = 1_000_000;
const LARGE_KEY_BYTES: usize = 1_000;
const KILLS: usize = 5;
/// How long one pipeline may take for all records.
const PATIENCE: Duration = Duration::from_secs(900);
/// The clock ticks of `/proc/PID/stat`, the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() -> Result<()> {
    let records = std::env::args().nth(1).map(|text| text.parse()).transpose()?;
    let records: u64 = records.unwrap_or(10_000_000);
    let cluster = Cluster::start(&Options::default())?;
    let bootstrap = cluster.bootstrap();
    fill(&bootstrap, "in", small, records)?;
    for (name, is_stateful) in [("pass-through", false), ("count", true)] {
        println!("{name}: {}", throughput(&bootstrap, name, is_stateful, records)?);
    }
    fill(&bootstrap, "large", large, LARGE_KEYS)?;
    println!("restart with a gigabyte of state: {}", restarts(&bootstrap)?);
    Ok(())
}

fn small(_: u64, random: &mut Random) -> Record {
    let key = random.within(0..KEYS).to_be_bytes().to_vec();
    Record { key: Some(key), value: Some(vec![b'x'; VALUE_BYTES]), timestamp: None }
}

fn large(number: u64, _: &mut Random) -> Record {
    let mut key = vec![b'k'; LARGE_KEY_BYTES];
    key[..8].copy_from_slice(&(number % LARGE_KEYS).wrapping_mul(0x9e37_79b9).to_be_bytes());
    Record { key: Some(key), value: Some(Vec::new()), timestamp: None }
}

fn fill(bootstrap: &str, topic: &str, maker: Maker, records: u64) -> Result<()> {
    println!("filling the topic `{topic}` with {records} records");
    topics::create(bootstrap, topic, PARTITIONS, &[])?;
    load::send_all(bootstrap, topic, (1, maker), records)
}

fn throughput(bootstrap: &str, name: &str, is_stateful: bool, records: u64) -> Result<String> {
    let mut agent = Agent::start(bootstrap, (name, name), "in", is_stateful)?;
    agent.wait_for(|offsets| offsets.iter().sum::<u64>() > 0)?;
    let (from, since) = (agent.committed()?.iter().sum::<u64>(), Instant::now());
    agent.wait_for(|offsets| offsets.iter().sum::<u64>() >= records)?;
    let seconds = since.elapsed().as_secs_f64();
    let (cpu, memory) = agent.usage()?;
    #[allow(clippy::cast_precision_loss, reason = "counts of records are far below 2^52")]
    let (rest, millions) = ((records - from) as f64, records as f64 / 1e6);
    let (rate, cpu) = (rest / seconds, cpu / millions);
    Ok(format!("{rate:.0} records/s, {cpu:.2} CPU s a million, {memory} MiB at most"))
}

/// Kills an agent under load and starts it again; the time until every partition has gone on.
fn restarts(bootstrap: &str) -> Result<String> {
    let mut agent = Agent::start(bootstrap, ("large", "count"), "large", true)?;
    agent.wait_for(|offsets| offsets.iter().sum::<u64>() >= LARGE_KEYS)?;
    let load = Load::start(bootstrap, "large", (2, large), 2_000)?;
    let mut times = Vec::new();
    for _ in 0..KILLS {
        thread::sleep(Duration::from_secs(2));
        agent.kill()?;
        let before = agent.committed()?;
        let since = Instant::now();
        agent.spawn()?;
        agent.wait_for(|now| now.iter().zip(&before).all(|(now, before)| now > before))?;
        times.push(since.elapsed());
    }
    drop(load);
    times.sort_unstable();
    let (median, most) = (times[KILLS / 2], times[KILLS - 1]);
    Ok(format!("all partitions go on after {median:.2?} (median of {KILLS}; at most {most:.2?})"))
}

/// An agent with one transform; dropping it ends it.
struct Agent {
    reader: BaseConsumer,
    input: String,
    folder: TempDir,
    process: Option<Child>,
}

impl Agent {
    fn start(
        bootstrap: &str,
        (application, module): (&str, &str),
        input: &str,
        is_stateful: bool,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (output, stores) = match is_stateful {
            true => ("counts", "    stores: [counts]\n"),
            false => ("out", ""),
        };
        let topic = format!("{application}-{output}");
        topics::create(bootstrap, &topic, PARTITIONS, &[])?;
        let pipeline = format!(
            "application: {application}\n\
             kafka: {{ bootstrap.servers: \"{bootstrap}\" }}\n\
             state: {{ directory: {state} }}\n\
             transforms:\n  - name: {module}\n    module: {file}\n    inputs: [{input}]\n{stores}    \
             outputs: {{ {output}: {topic} }}\n",
            state = folder.path().join("state").display(),
            file = modules().join(format!("{module}.wasm")).display(),
        );
        std::fs::write(folder.path().join("pipeline.yaml"), pipeline)?;
        let reader = topics::reader(bootstrap, application)?;
        let mut agent = Self { reader, input: input.to_owned(), folder, process: None };
        agent.spawn()?;
        Ok(agent)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spawn(&mut self) -> Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.file("log"))?;
        let mut command = Command::new(std::env::current_exe()?.with_file_name("sidestream"));
        command.arg("run").arg(self.file("pipeline.yaml")).stderr(Stdio::from(log));
        self.process = Some(command.spawn()?);
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// The committed offset of each partition of the input.
    fn committed(&self) -> Result<Vec<u64>> {
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            list.add_partition(&self.input, partition);
        }
        let committed = self.reader.committed_offsets(list, Duration::from_secs(10))?;
        let offset = |offset| match offset {
            Offset::Offset(offset) => u64::try_from(offset).unwrap_or(0),
            _ => 0,
        };
        Ok(committed.elements().iter().map(|element| offset(element.offset())).collect())
    }

    fn wait_for(&mut self, enough: impl Fn(&[u64]) -> bool) -> Result<()> {
        let since = Instant::now();
        // While offsets are pending in a transaction there is no answer; the next one has it.
        while !self.committed().is_ok_and(|offsets| enough(&offsets)) {
            ensure!(since.elapsed() < PATIENCE, "not done in time");
            let process = self.process.as_mut().context("the agent is not running")?;
            if process.try_wait()?.is_some() {
                let log = std::fs::read_to_string(self.file("log"))?;
                anyhow::bail!("the agent ended by itself:\n{log}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// CPU seconds so far, and the most memory so far in MiB.
    fn usage(&self) -> Result<(f64, u64)> {
        let id = self.process.as_ref().context("the agent is not running")?.id();
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{id}/{file}"));
        let stat = read("stat")?;
        let fields = stat.rsplit(')').next().context("no stat")?.split_whitespace();
        // User and system time are fields 14 and 15; the first two were cut off.
        let ticks: f64 = fields.skip(11).take(2).flat_map(str::parse::<f64>).sum();
        let status = read("status")?;
        let mut lines = status.lines();
        let peak = lines.find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").trim().parse()?;
        Ok((ticks / TICKS_PER_SECOND, kilobytes / 1024))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.kill());
    }
}
