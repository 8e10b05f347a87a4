//! The log's contract on a real broker, watched through clients of rust-rdkafka.

use std::{
    marker::PhantomData,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Header, Headers as _, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use sidestream::kafka::{Admin, Config, KafkaPorts, Properties};
use sidestream_core::{
    ports::Ports,
    record::{Outputs, Records, TopicPartition},
    topology::Topology,
};
use sidestream_sim::contract::log::{End, Harness};
use sidestream_tests::{broker, topics};

const PATIENCE: Duration = Duration::from_secs(30);

/// The broker that all tests share.
pub(crate) trait Shared {
    /// Its `bootstrap.servers`.
    fn bootstrap() -> String;
}

/// Apache Kafka.
pub(crate) struct Apache;

impl Shared for Apache {
    fn bootstrap() -> String {
        broker::shared().bootstrap()
    }
}

/// The agent's own broker for development.
pub(crate) struct Embedded;

impl Shared for Embedded {
    fn bootstrap() -> String {
        broker::embedded().bootstrap()
    }
}

/// Topics of its own on a shared broker.
pub(crate) struct KafkaHarness<B> {
    broker: PhantomData<B>,
    bootstrap: String,
    topology: Topology,
    config: Config,
    open: Option<BaseProducer>,
}

impl<B: Shared> Harness for KafkaHarness<B> {
    fn start(topology: &Topology) -> Self {
        let bootstrap = B::bootstrap();
        let mut topology = topology.clone();
        for topic in &mut topology.topics {
            topic.name = topics::unique(&topic.name);
            // Records of long ago, which a broker would delete half a minute after its start.
            let forever = [("retention.ms", "-1")];
            topics::create(&bootstrap, &topic.name, topic.partitions, &forever).unwrap();
        }
        let servers = ("bootstrap.servers".to_owned(), bootstrap.clone());
        let config = Config {
            application: topics::unique("application"),
            identity: "agent".to_owned(),
            workers: 2,
            properties: Properties::from([servers]),
            session_timeout: Duration::from_secs(30),
            ..Config::default()
        };
        Self { broker: PhantomData, bootstrap, topology, config, open: None }
    }

    fn ports(&mut self, worker: usize) -> Ports {
        KafkaPorts::connect(&self.config, &self.topology, worker).unwrap().into()
    }

    fn fence(&mut self, worker: usize) {
        let admin = Admin::new(&self.config).unwrap();
        admin.settle(&[self.config.transactional_id(worker)]).unwrap();
    }

    fn write(&mut self, outputs: &Outputs, end: End) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("transactional.id", topics::unique("writer"))
            .create()
            .unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        self.send(&producer, outputs);
        producer.flush(PATIENCE).unwrap();
        match end {
            End::Committed => producer.commit_transaction(PATIENCE).unwrap(),
            End::Aborted => producer.abort_transaction(PATIENCE).unwrap(),
            End::Open => self.open = Some(producer),
        }
    }

    fn commit_open(&mut self) {
        let producer = self.open.take().expect("a transaction is open");
        producer.commit_transaction(PATIENCE).unwrap();
    }

    fn read(&mut self, partition: TopicPartition) -> Records {
        let topic = &self.topology.topic(partition.topic).name;
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", "contract")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, partition.partition, Offset::Offset(0)).unwrap();
        consumer.assign(&from).unwrap();
        let mut records = Records::default();
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            match consumer.poll(PATIENCE) {
                Some(Ok(message)) => {
                    records.offsets.push(message.offset());
                    records.keys.push(message.key());
                    records.values.push(message.payload());
                }
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return records,
                Some(Err(error)) => panic!("{error}"),
                None => {}
            }
        }
        panic!("the end of {topic} is not reached");
    }
}

impl<B> KafkaHarness<B> {
    fn send(&self, producer: &BaseProducer, outputs: &Outputs) {
        let pairs = outputs.headers.names.iter().zip(&outputs.headers.values);
        let mut pairs = pairs.map(|(name, value)| (name.unwrap(), value));
        for (row, (key, value)) in outputs.keys.iter().zip(&outputs.values).enumerate() {
            let topic = &self.topology.topic(outputs.topics[row]).name;
            let mut record = BaseRecord::<[u8], [u8]>::to(topic)
                .partition(outputs.partitions[row])
                .timestamp(outputs.timestamps[row]);
            (record.key, record.payload) = (key, value);
            let count = outputs.headers.counts.get(row).map_or(0, |&count| count as usize);
            let mut headers = OwnedHeaders::new();
            for (name, value) in pairs.by_ref().take(count) {
                let key = std::str::from_utf8(name).unwrap();
                headers = headers.insert(Header { key, value });
            }
            if headers.count() > 0 {
                record = record.headers(headers);
            }
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
    }
}
