//! The embedded broker and Apache Kafka pass the same checks; and what the embedded one alone does:
//! it forgets, and it holds no more than it is told to.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]
#![allow(clippy::print_stderr, reason = "what became of each check is for whoever runs this")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    error::RDKafkaErrorCode,
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};
use sidestream_dev_broker::{DevBroker, Options};
use sidestream_tests::{
    agent::modules,
    broker::{self, Cluster, Release},
    checks,
    follow::Follower,
    operate, topics,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn tell(line: &str) {
    eprintln!("{line}");
}

#[test]
fn the_embedded_broker_passes_all_checks() {
    let broker = DevBroker::start(Options::default()).unwrap();
    checks::run(&broker.bootstrap(), "", tell).unwrap();
}

#[test]
fn apache_kafka_passes_all_checks() {
    checks::run(&broker::shared().bootstrap(), "", tell).unwrap();
}

#[test]
fn an_older_apache_kafka_passes_all_checks() {
    let oldest = broker::Options { release: Release::Oldest, ..broker::Options::default() };
    let cluster = Cluster::start(&oldest).unwrap();
    checks::run(&cluster.bootstrap(), "", tell).unwrap();
}

/// Remembers why records were not delivered.
#[derive(Default)]
struct Refusals(std::sync::Mutex<Vec<RDKafkaErrorCode>>);

impl rdkafka::ClientContext for Refusals {}

impl ProducerContext for Refusals {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap().push(error.rdkafka_error_code().unwrap());
        }
    }
}

/// Sends so many records of a kilobyte, one batch each; why some were not delivered.
fn fill(bootstrap: &str, topic: &str, count: usize) -> Vec<RDKafkaErrorCode> {
    let producer: BaseProducer<Refusals> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("batch.num.messages", "1")
        .set("linger.ms", "0")
        .create_with_context(Refusals::default())
        .unwrap();
    let value = vec![b'x'; 1_000];
    for number in 0..count {
        let key = number.to_string();
        let record = BaseRecord::to(topic).partition(0).key(&key).payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    producer.context().0.lock().unwrap().clone()
}

fn first_offset(bootstrap: &str, topic: &str) -> i64 {
    Follower::new(bootstrap, topic).unwrap().read_to_end(PATIENCE).unwrap()[0].offset
}

#[test]
fn the_oldest_records_go_when_there_is_no_room() {
    let options = Options { bytes_max: 100_000, ..Options::default() };
    let broker = DevBroker::start(options).unwrap();
    let bootstrap = broker.bootstrap();
    for topic in ["old", "new"] {
        topics::create(&bootstrap, topic, 1, &[]).unwrap();
        assert_eq!(fill(&bootstrap, topic, 70), []);
    }
    assert!(first_offset(&bootstrap, "old") > 40);
    assert_eq!(first_offset(&bootstrap, "new"), 0);
}

#[test]
fn what_must_be_kept_is_kept_and_more_is_refused() {
    let options = Options { bytes_max: 100_000, ..Options::default() };
    let broker = DevBroker::start(options).unwrap();
    let bootstrap = broker.bootstrap();
    topics::create(&bootstrap, "kept", 1, &[("cleanup.policy", "compact")]).unwrap();
    let refused = fill(&bootstrap, "kept", 120);
    assert!(!refused.is_empty() && refused.len() < 40, "{} are refused", refused.len());
    assert!(refused.iter().all(|code| *code == RDKafkaErrorCode::PolicyViolation), "{refused:?}");
    assert_eq!(first_offset(&bootstrap, "kept"), 0);
}

#[test]
fn the_last_of_each_key_outlives_compaction() {
    let options = Options { bytes_max: 4 << 20, ..Options::default() };
    let broker = DevBroker::start(options).unwrap();
    let bootstrap = broker.bootstrap();
    topics::create(&bootstrap, "changelog", 1, &[("cleanup.policy", "compact")]).unwrap();
    // Twelve times the same thousand keys: far more than may be held.
    for _ in 0..12 {
        assert_eq!(fill(&bootstrap, "changelog", 1_000), []);
        sidestream_tests::wait::until_true("compaction", PATIENCE, || {
            let mut follower = Follower::new(&bootstrap, "changelog")?;
            let records = follower.read_to_end(PATIENCE)?;
            let mut keys: Vec<_> = records.iter().map(|record| record.key.clone()).collect();
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), 1_000, "a key is lost");
            Ok(records.len() < 2_500)
        })
        .unwrap();
    }
}

#[test]
fn a_stopped_broker_leaves_nothing() {
    let broker = DevBroker::start(Options::default()).unwrap();
    let address = broker.address();
    assert!(address.ip().is_loopback());
    topics::create(&broker.bootstrap(), "topic", 1, &[]).unwrap();
    broker.stop();
    // Another test's connection may have taken the port meanwhile.
    let start = || Ok(Some(DevBroker::start(Options { address, ..Options::default() })?));
    let again = sidestream_tests::wait::until("the same address", PATIENCE, start).unwrap();
    assert_eq!(topics::partition_count(&again.bootstrap(), "topic").unwrap(), None);
}

#[test]
fn nonsense_ends_its_connection_alone() {
    let broker = DevBroker::start(Options::default()).unwrap();
    let unknown_request = [0, 0, 0, 8, 0x7f, 0, 0, 0, 0, 0, 0, 1];
    let unknown_version = [0, 0, 0, 10, 0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff];
    let cut_off = [0, 0, 0, 14, 0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0, 9, 0, 0];
    let negative = [0xff; 8];
    let http = b"GET / HTTP/1.1\r\n\r\n";
    for nonsense in [&unknown_request[..], &unknown_version, &cut_off, &negative, http] {
        let mut stream = TcpStream::connect(broker.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(nonsense).unwrap();
        // Closed, one way or the other, and nothing said.
        assert_eq!(stream.read(&mut [0; 100]).unwrap_or(0), 0, "{nonsense:?}");
    }
    topics::create(&broker.bootstrap(), "topic", 1, &[]).unwrap();
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = DevBroker::start(Options { address, ..Options::default() }).unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[test]
fn topics_come_to_be_only_where_that_was_asked_for() {
    let count = |auto_create_topics| {
        let options = Options { auto_create_topics, default_partitions: 3, ..Options::default() };
        let broker = DevBroker::start(options).unwrap();
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", broker.bootstrap())
            .set("message.timeout.ms", "3000")
            .create()
            .unwrap();
        producer.client().fetch_metadata(Some("topic"), PATIENCE).unwrap();
        topics::partition_count(&broker.bootstrap(), "topic").unwrap()
    };
    assert_eq!((count(false), count(true)), (None, Some(3)));
}

#[test]
fn a_check_suggests_the_topic_that_was_probably_meant() {
    let bootstrap = broker::embedded().bootstrap();
    let payments = topics::unique("payments");
    topics::create(&bootstrap, &payments, 1, &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pipeline.yaml");
    let pipeline = format!(
        "application: a\nkafka: {{ bootstrap.servers: '{bootstrap}' }}\ntransforms:\n  - name: t\n\
         \x20   module: {}/pass-through.wasm\n    inputs: ['{payments}x']\n",
        modules().display()
    );
    std::fs::write(&file, pipeline).unwrap();
    let answer = operate::run(&["check", file.to_str().unwrap()]).unwrap();
    let suggestion = format!("did you mean `{payments}`?");
    assert!(answer.exit == 4 && answer.text.contains(&suggestion), "{answer:?}");
}
