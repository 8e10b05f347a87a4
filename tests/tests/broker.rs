//! The brokers that other tests stand on: a real one answers, dies, and comes back with its data.

use std::time::Duration;

use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use sidestream_tests::{
    broker::{Cluster, Options, shared},
    topics, wait,
};

fn produce(bootstrap: &str, topic: &str, count: usize) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("acks", "all")
        .create()
        .unwrap();
    for number in 0..count {
        let key = number.to_string();
        producer.send(BaseRecord::to(topic).partition(0).key(&key).payload("value")).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let mut cluster = Cluster::start(&Options::default()).unwrap();
    topics::create(&cluster.bootstrap(), "kept", 1, &[]).unwrap();
    produce(&cluster.bootstrap(), "kept", 10);
    cluster.kill(0).unwrap();
    cluster.restart(0).unwrap();
    let whole = || Ok(topics::ends(&cluster.bootstrap(), "kept")? == [10]);
    wait::until_true("data", Duration::from_secs(60), whole).unwrap();
}

#[test]
fn three_brokers_go_on_without_one() {
    let options = Options { nodes: 3, ..Options::default() };
    let mut cluster = Cluster::start(&options).unwrap();
    topics::create(&cluster.bootstrap(), "replicated", 1, &[("min.insync.replicas", "2")]).unwrap();
    produce(&cluster.bootstrap(), "replicated", 5);
    cluster.kill(1).unwrap();
    produce(&cluster.bootstrap(), "replicated", 5);
    cluster.restart(1).unwrap();
    assert_eq!(topics::ends(&cluster.bootstrap(), "replicated").unwrap(), [10]);
}

#[test]
fn stable_ends_stop_at_an_open_transaction() {
    let bootstrap = shared().bootstrap();
    let topic = topics::unique("open");
    topics::create(&bootstrap, &topic, 1, &[]).unwrap();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .set("transactional.id", &topic)
        .create()
        .unwrap();
    producer.init_transactions(Duration::from_secs(60)).unwrap();
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::to(&topic).partition(0).key("k").payload("v")).unwrap();
    producer.flush(Duration::from_secs(60)).unwrap();
    assert_eq!(topics::ends(&bootstrap, &topic).unwrap(), [1]);
    assert_eq!(topics::stable_ends(&bootstrap, &topic).unwrap(), [0]);
    producer.commit_transaction(Duration::from_secs(60)).unwrap();
    let stable = || Ok(topics::stable_ends(&bootstrap, &topic)? == [2]);
    wait::until_true("commit", Duration::from_secs(60), stable).unwrap();
    assert_eq!(topics::committed(&bootstrap, &topic, &topic).unwrap(), [None]);
    topics::delete(&bootstrap, &topic).unwrap();
}
