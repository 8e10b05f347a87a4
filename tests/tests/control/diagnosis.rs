//! What keeps an agent from its work is named: the topic, and the setting that helps.

use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use sidestream_tests::{
    broker::{self, Cluster, Options},
    follow::Follower,
    load,
    random::Random,
    topics,
};

use super::*;

/// Words of lines, which nothing remembers.
pub(super) const SPLIT: &str = "\
application: {name}
kafka: { bootstrap.servers: '{bootstrap}' }
state: { directory: '{state}' }
transforms:
  - name: split
    module: {modules}/split-words.wasm
    inputs: [{ topic: '{name}-lines', start: earliest }]
    outputs: { words: '{name}-words' }
";

pub(super) fn check(agent: &Agent) -> Result<(i32, String)> {
    let answer = run(&["check", &agent.pipeline_file().display().to_string()])?;
    Ok((answer.exit, answer.text))
}

#[test]
fn a_cluster_with_too_few_brokers_or_replicas_is_told() -> Result<()> {
    const FACTOR: &str = "transaction.state.log.replication.factor";
    let properties = vec![(FACTOR.to_owned(), "5".to_owned())];
    let mut cluster = Cluster::start(&Options { nodes: 3, properties, ..Options::default() })?;
    let bootstrap = cluster.bootstrap();
    topics::create(&bootstrap, "few-lines", 1, &[])?;
    topics::create(&bootstrap, "few-words", 1, &[("min.insync.replicas", "3")])?;
    let folder = tempfile::tempdir()?;
    let mut agent = Agent::new(folder.path(), "few", &bootstrap, SPLIT)?;
    let (exit, told) = check(&agent)?;
    ensure!(exit == 4 && told.contains(&format!("{FACTOR} is 5")), "{exit} {told}");
    agent.start()?;
    let waits = || {
        let Ok(status) = ask(&agent, &["status"]) else { return Ok(false) };
        let reason = text(&status["not_ready_reason"]);
        Ok(reason.contains("transactional id") && reason.contains(&format!("{FACTOR} is 5")))
    };
    wait::until_true("what it waits for", PATIENCE, waits).with_context(|| agent.log_tail())?;
    agent.terminate()?;
    cluster.kill(2)?;
    let lacks = || {
        let (exit, told) = check(&agent)?;
        ensure!(exit == 4, "{exit} {told}");
        Ok(told.contains("`few-words` takes no writes")
            && told.contains("min.insync.replicas is 3"))
    };
    wait::until_true("replicas that are missing", PATIENCE, lacks)
}

fn line(number: u64, _: &mut Random) -> load::Record {
    let value = Some(format!("line{number}").into_bytes());
    load::Record { key: None, value, timestamp: None }
}

#[test]
fn replicas_that_go_missing_while_it_runs_are_told_and_waited_for() -> Result<()> {
    let mut cluster = Cluster::start(&Options { nodes: 3, ..Options::default() })?;
    let bootstrap = cluster.bootstrap();
    topics::create(&bootstrap, "all-lines", 1, &[])?;
    topics::create(&bootstrap, "all-words", 1, &[("min.insync.replicas", "3")])?;
    let folder = tempfile::tempdir()?;
    let mut agent = Agent::new(folder.path(), "all", &bootstrap, SPLIT)?;
    agent.start()?;
    wait_until_ready(&agent)?;
    cluster.kill(2)?;
    load::send_all(&bootstrap, "all-lines", (1, line), 10)?;
    let told = || {
        let Ok(status) = ask(&agent, &["status"]) else { return Ok(false) };
        let reason = text(&status["not_ready_reason"]);
        let parts =
            ["`all-words` takes no writes", "has 2 of 3 replicas", "min.insync.replicas is 3"];
        Ok(parts.iter().all(|part| reason.contains(part)))
    };
    wait::until_true("the topic and the setting", PATIENCE, told).with_context(|| {
        let status = ask(&agent, &["status"]);
        format!("{status:?}\n{}", agent.log_tail())
    })?;
    cluster.restart(2)?;
    let all = || Ok(Follower::new(&bootstrap, "all-words")?.read_to_end(PATIENCE)?.len() == 10);
    wait::until_true("all words, once", PATIENCE, all).with_context(|| agent.log_tail())?;
    wait_until_ready(&agent)?;
    agent.terminate().map(drop)
}

#[test]
fn what_a_transaction_of_another_producer_holds_back_is_lag() -> Result<()> {
    let bootstrap = broker::embedded().bootstrap();
    let name = topics::unique("held");
    let (lines, words) = (format!("{name}-lines"), format!("{name}-words"));
    topics::create(&bootstrap, &lines, 1, &[])?;
    topics::create(&bootstrap, &words, 1, &[])?;
    let folder = tempfile::tempdir()?;
    let mut agent = Agent::new(folder.path(), &name, &bootstrap, SPLIT)?;
    ensure!(check(&agent)?.0 == 0, "{:?}", check(&agent)?);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .set("transactional.id", format!("{name}-other"))
        .create()?;
    producer.init_transactions(PATIENCE)?;
    let send = |count: usize| -> Result<()> {
        producer.begin_transaction()?;
        for _ in 0..count {
            let record = BaseRecord::to(&lines).partition(0).key("k").payload("a line");
            producer.send(record).map_err(|(error, _)| error)?;
        }
        Ok(producer.flush(PATIENCE)?)
    };
    send(5)?;
    producer.commit_transaction(PATIENCE)?;
    // Records of a transaction that was dropped, and its marker, are no lag.
    send(7)?;
    producer.abort_transaction(PATIENCE)?;
    agent.start()?;
    let input = || {
        let Ok(status) = ask(&agent, &["status"]) else { return Ok((None, 0)) };
        let input = &status["workers"][0]["tasks"][0]["inputs"][0];
        Ok::<_, anyhow::Error>((input["lag"].as_u64(), input["held_back"].as_u64().unwrap_or(0)))
    };
    let wait_for = |what: &str, lag, held| {
        let there = || Ok(input()? == (Some(lag), held));
        wait::until_true(what, PATIENCE, there)
            .with_context(|| format!("{:?}\n{}", input(), agent.log_tail()))
    };
    wait_for("no lag", 0, 0)?;
    send(11)?;
    wait_for("lag behind an open transaction", 11, 11)?;
    producer.commit_transaction(PATIENCE)?;
    wait_for("no lag again", 0, 0)?;
    agent.terminate().map(drop)
}
