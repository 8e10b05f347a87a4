//! The proxy itself: an end of a transaction that it holds back reaches the broker late, after its
//! client has given up and a successor has settled the transaction, and changes nothing any more.

use std::time::Duration;

use anyhow::Result;
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use sidestream_tests::{
    broker::{Cluster, Options},
    follow::Follower,
    proxy::Proxy,
    topics, wait,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn producer(bootstrap: &str) -> Result<BaseProducer> {
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

    let first = producer(&bootstrap)?;
    begin(&first, "first")?;
    proxy.hold_ends(1, Duration::from_secs(4));
    assert!(first.commit_transaction(Duration::from_secs(1)).is_err());
    assert_eq!((proxy.held(), proxy.delivered_late()), (1, 0));

    // The successor's epoch ends the transaction by aborting it; a new one is open when the late
    // end arrives.
    let second = producer(&bootstrap)?;
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
