//! What the other tests stand on, tested on real brokers: they answer, die and come back with their
//! data; a load can be counted; the proxy holds ends of transactions back and delivers them late.

use std::time::Duration;

use anyhow::Result;
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use sidestream_tests::{
    broker::{Cluster, Options, shared},
    follow::{self, Follower},
    load::{self, Record},
    proxy::{Api, Proxy},
    topics, wait,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn produce(bootstrap: &str, topic: &str, count: usize) -> Result<()> {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("acks", "all").create()?;
    for number in 0..count {
        let key = number.to_string();
        let record = BaseRecord::to(topic).partition(0).key(&key).payload("value");
        producer.send(record).map_err(|(error, _)| error)?;
    }
    Ok(producer.flush(Duration::from_secs(60))?)
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let mut cluster = Cluster::start(&Options::default()).unwrap();
    topics::create(&cluster.bootstrap(), "kept", 1, &[]).unwrap();
    produce(&cluster.bootstrap(), "kept", 10).unwrap();
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
    produce(&cluster.bootstrap(), "replicated", 5).unwrap();
    cluster.kill(1).unwrap();
    produce(&cluster.bootstrap(), "replicated", 5).unwrap();
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

#[test]
fn a_load_is_what_its_seed_says_and_a_group_lags_behind_it() -> Result<()> {
    let bootstrap = shared().bootstrap();
    let topic = topics::unique("load");
    topics::create(&bootstrap, &topic, 2, &[])?;
    let values = |records: Vec<follow::Record>| -> Vec<String> {
        let mut values: Vec<_> = records.iter().map(follow::Record::value_text).collect();
        values.sort();
        values
    };
    let maker: load::Maker = |number, random| Record {
        value: Some(format!("{number}-{}", random.next()).into_bytes()),
        ..Record::default()
    };
    let mut follower = Follower::new(&bootstrap, &topic)?;
    load::send_all(&bootstrap, &topic, (3, maker), 100)?;
    let first = values(follower.read_to_end(PATIENCE)?);
    load::send_all(&bootstrap, &topic, (3, maker), 100)?;
    assert_eq!(values(follower.read_to_end(PATIENCE)?), first);
    let load = load::Load::start(&bootstrap, &topic, (3, maker), 1_000)?;
    wait::until_true("load", PATIENCE, || Ok(load.sent() >= 100))?;
    let sent = usize::try_from(load.finish()?)?;
    assert_eq!(follow::lag(&bootstrap, "nobody", &topic)?, 200 + sent);
    Ok(())
}

fn transactional(bootstrap: &str) -> Result<BaseProducer> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("transactional.id", "delayed")
        .create()?;
    producer.init_transactions(PATIENCE)?;
    Ok(producer)
}

fn begin(producer: &BaseProducer, value: &str) -> Result<()> {
    producer.begin_transaction()?;
    let record = BaseRecord::to("delayed").partition(0).key("key").payload(value);
    producer.send(record).map_err(|(error, _)| error)?;
    Ok(producer.flush(PATIENCE)?)
}

#[test]
fn an_end_of_a_transaction_comes_late() -> Result<()> {
    let proxy = Proxy::start()?;
    let _cluster = Cluster::start(&Options::behind(&proxy))?;
    let bootstrap = proxy.bootstrap();
    topics::create(&bootstrap, "delayed", 1, &[])?;

    let first = transactional(&bootstrap)?;
    begin(&first, "first")?;
    proxy.hold(Api::EndTxn, 1, Duration::from_secs(4));
    assert!(first.commit_transaction(Duration::from_secs(1)).is_err());
    assert_eq!((proxy.held(), proxy.delivered_late()), (1, 0));

    // The successor's epoch ends the transaction by aborting it; a new one is open when the late
    // end arrives.
    let second = transactional(&bootstrap)?;
    begin(&second, "second")?;
    let delivered = || Ok(proxy.delivered_late() == 1);
    wait::until_true("late delivery", PATIENCE, delivered)?;
    let mut follower = Follower::new(&bootstrap, "delayed")?;
    assert_eq!(follower.read_to_end(PATIENCE)?, []);
    second.commit_transaction(PATIENCE)?;

    let committed = || Ok(topics::stable_ends(&bootstrap, "delayed")?[0] == 4);
    wait::until_true("commit", PATIENCE, committed)?;
    let records = follower.read_to_end(PATIENCE)?;
    let values: Vec<_> = records.iter().map(|record| record.value_text()).collect();
    assert_eq!(values, ["second"]);
    Ok(())
}
