//! Measures the log on a real broker, by hand: milliseconds for each small commit, and CPU for
//! each record that is consumed and produced in transactions.
//!
//! `cargo run --release -p sidestream-tests --example log_speed -- [RECORDS]`
#![allow(clippy::print_stdout, reason = "what it measures is for people to read")]

use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use sidestream::kafka::{Config, KafkaPorts, Properties};
use sidestream_core::{
    ports::Transaction,
    record::{Committed, Outputs, PARTITION_BY_KEY},
};
use sidestream_sim::contract::log::{INPUT, OUTPUT, member::Member, topology};
use sidestream_tests::{broker, topics};

const VALUE: [u8; 100] = [b'x'; 100];
const SMALL_COMMITS: usize = 200;

fn main() -> Result<()> {
    let records = std::env::args().nth(1).map_or(Ok(1_000_000), |count| count.parse())?;
    let bootstrap = broker::shared().bootstrap();
    let mut topology = topology();
    for topic in &mut topology.topics {
        topics::create(&bootstrap, &topic.name, topic.partitions, &[])?;
    }
    let config = Config {
        application: "speed".to_owned(),
        identity: "agent".to_owned(),
        properties: Properties::from([("bootstrap.servers".to_owned(), bootstrap.clone())]),
        ..Config::default()
    };
    fill(&bootstrap, &topology.topic(INPUT).name, records)?;
    let mut member = Member::owner(KafkaPorts::connect(&config, &topology, 0)?.into());
    small_commits(&mut member, 0);
    small_commits(&mut member, SMALL_COMMITS);
    pass_through(&mut member, records)
}

fn fill(bootstrap: &str, topic: &str, records: usize) -> Result<()> {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("linger.ms", "50").create()?;
    for number in 0..records {
        let key = number.to_le_bytes();
        let partition = i32::from(number % 2 == 1);
        let mut record =
            BaseRecord::to(topic).partition(partition).key(&key[..]).payload(&VALUE[..]);
        while let Err((_, back)) = producer.send(record) {
            producer.poll(Duration::from_millis(10));
            record = back;
        }
    }
    Ok(producer.flush(Duration::from_secs(60))?)
}

fn small_commits(member: &mut Member, count: usize) {
    let mut times = Vec::new();
    for _ in 0..count {
        let mut transaction =
            member.transaction(sidestream_sim::contract::log::member::input(0), 0);
        push(&mut transaction.outputs, Some(b"key"), Some(&VALUE));
        let since = Instant::now();
        member.commit(&transaction).expect("a commit");
        times.push(since.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    times.sort();
    if let (Some(median), Some(worst)) = (times.get(count / 2), times.last()) {
        println!("small commit: median {median:?}, worst {worst:?}");
    }
}

fn push(outputs: &mut Outputs, key: Option<&[u8]>, value: Option<&[u8]>) {
    outputs.topics.push(OUTPUT);
    outputs.partitions.push(PARTITION_BY_KEY);
    outputs.timestamps.push(1_500_000_000_000);
    outputs.keys.push(key);
    outputs.values.push(value);
}

/// Consumes everything and produces it again, 100 ms of work in each transaction.
fn pass_through(member: &mut Member, records: usize) -> Result<()> {
    let (since, cpu) = (Instant::now(), cpu()?);
    let (mut done, mut commits, mut in_commit) = (0, 0, Duration::ZERO);
    let mut offsets = std::collections::BTreeMap::new();
    let mut last = Instant::now();
    while done < records || !offsets.is_empty() {
        member.turn();
        for fetched in member.fetched.drain(..) {
            done += fetched.records.len();
            let mut outputs = Outputs {
                topics: vec![OUTPUT; fetched.records.len()],
                partitions: vec![PARTITION_BY_KEY; fetched.records.len()],
                timestamps: fetched.records.timestamps,
                ..Outputs::default()
            };
            (outputs.keys, outputs.values) = (fetched.records.keys, fetched.records.values);
            member.ports.sink.produce(&outputs)?;
            offsets.insert(fetched.partition, fetched.next);
        }
        if !offsets.is_empty() && (done >= records || last.elapsed() > Duration::from_millis(100)) {
            let offsets = std::mem::take(&mut offsets).into_iter();
            let commit =
                |(partition, offset)| (partition, Committed { offset, metadata: String::new() });
            let transaction = Transaction {
                offsets: offsets.map(commit).collect(),
                membership: member.membership.clone(),
                ..Transaction::default()
            };
            last = Instant::now();
            member.commit(&transaction)?;
            in_commit += last.elapsed();
            commits += 1;
        }
    }
    let cpu = self::cpu()? - cpu;
    println!(
        "{records} records in {:?}, {commits} commits that took {in_commit:?}; {} ns of CPU each",
        since.elapsed(),
        cpu.as_nanos() / records as u128,
    );
    Ok(())
}

/// The CPU time of this process, all threads.
fn cpu() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}
