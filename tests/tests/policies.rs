//! Poison against real agents on a real broker, over kills: what fails is passed over as its
//! transform's policy says, and everything else comes out once and in order.

#[path = "policies/vanishing.rs"]
mod vanishing;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use sidestream_tests::{
    agent::{Agent, PATIENCE},
    broker, follow, load, operate,
    policies::POLICIES,
    random::Random,
    scene::{PARTITIONS, Play, Scene},
    topics, wait,
};

#[test]
fn poison_is_passed_over_and_nothing_else_is_over_kills() -> Result<()> {
    let mut scene = Scene::new(&broker::shared().bootstrap(), POLICIES)?;
    scene.start_load(21)?;
    scene.start_agents(2)?;
    scene.wait_for_progress()?;
    scene.kill_in_turn(4)?;
    scene.settle()?;
    scene.check().map(drop)
}

/// One transform whose task is to stop at the first poison; its load is sent by the test.
const FAILING: Play = Play {
    pipeline: "\
{head}
limits: { retry_backoff: 10ms }
transforms:
  - name: failing
    module: {modules}/poison.wasm
    inputs: ['{topic:in}']
    outputs: { out: '{topic:out}' }
    config: { trap: ['bad'] }
",
    inputs: &[("in", record, 0)],
    outputs: &["out"],
    ..Play::NOTHING
};

/// Record 70 is poison.
fn record(number: u64, _: &mut Random) -> load::Record {
    let word = if number == 70 { "bad" } else { "fine" };
    let value = Some(format!("{word} {number}").into_bytes());
    load::Record { key: Some(number.to_string().into_bytes()), value, timestamp: None }
}

#[test]
fn without_a_policy_a_task_stops_at_the_record_and_others_go_on() -> Result<()> {
    let mut scene = Scene::new(&broker::shared().bootstrap(), FAILING)?;
    let bootstrap = scene.bootstrap().to_owned();
    load::send_all(&bootstrap, &scene.topic("in"), (1, record), 400)?;
    let inputs = scene.read(&scene.topic("in"))?;
    let poison = inputs.iter().find(|input| input.value_text() == "bad 70");
    let Some(poison) = poison.cloned() else { anyhow::bail!("it was not sent") };
    scene.start_agents(1)?;
    let stopped = scene.agents[0].wait_for_log("a task was stopped")?;
    let place = format!("at offset {}", poison.offset);
    ensure!(stopped.contains(&place) && stopped.contains("gave up after 5 attempts"), "{stopped}");
    let comes = inputs.iter().filter(|i| i.partition != poison.partition).count();
    let others = || {
        let outputs = scene.read(&scene.topic("out"))?;
        Ok(outputs.iter().filter(|o| o.partition != poison.partition).count() == comes)
    };
    wait::until_true("records of other partitions", PATIENCE, others)?;
    let outputs = scene.read(&scene.topic("out"))?;
    let own = outputs.iter().filter(|output| output.partition == poison.partition).count();
    ensure!(i64::try_from(own)? <= poison.offset, "something came out after the poison");
    ensure!(scene.agents[0].is_running()?, "the agent goes on");
    scene.agents[0].terminate().map(drop)
}

/// One transform whose output's topic takes smaller records than its client does.
const REFUSED: Play = Play {
    pipeline: "\
{head}
limits: { retry_backoff: 10ms }
transforms:
  - name: passing
    module: {modules}/poison.wasm
    inputs: ['{topic:in}']
    outputs: { out: '{topic:out}' }
    on_error: { dead_letter: '{application}-dead' }
",
    inputs: &[("in", large_or_small, 0)],
    outputs: &["out"],
    ..Play::NOTHING
};

/// What the topic takes in one batch.
const BATCH_BYTES_MAX: usize = 20_000;

/// One record in forty is too large for the topic.
fn large_or_small(number: u64, _: &mut Random) -> load::Record {
    let size = if number % 40 == 3 { 2 * BATCH_BYTES_MAX } else { 10 };
    let value = Some(format!("{number:0size$}").into_bytes());
    load::Record { key: Some(number.to_string().into_bytes()), value, timestamp: None }
}

/// The same without a policy.
const STOPPED: Play = Play {
    pipeline: "\
{head}
limits: { retry_backoff: 10ms }
transforms:
  - name: passing
    module: {modules}/poison.wasm
    inputs: ['{topic:in}']
    outputs: { out: '{topic:out}' }
",
    ..REFUSED
};

#[test]
fn a_stopped_task_goes_on_when_what_stopped_it_is_put_right() -> Result<()> {
    let mut scene = Scene::new(&broker::shared().bootstrap(), STOPPED)?;
    let bootstrap = scene.bootstrap().to_owned();
    let limit = |bytes: usize| [("max.message.bytes", bytes.to_string())];
    topics::configure(&bootstrap, &scene.topic("out"), &limit(BATCH_BYTES_MAX))?;
    load::send_all(&bootstrap, &scene.topic("in"), (1, large_or_small), 20)?;
    scene.start_agents(1)?;
    let stopped = scene.agents[0].wait_for_log("a task was stopped")?;
    ensure!(stopped.contains("give the transform an `on_error`"), "{stopped}");
    let state = scene.agents[0].state_directory().display().to_string();
    let run = |arguments: &[&str]| operate::run(&[arguments, &["--state", &state]].concat());
    let status = run(&["status"])?.text;
    ensure!(status.contains("once that is put right, `sidestream retry 0_"), "{status}");
    let resumed = run(&["resume"])?;
    ensure!(resumed.exit == 0 && resumed.json()?["stopped"].as_array().map(Vec::len) == Some(1));
    let again = run(&["retry"])?;
    ensure!(again.exit == 1 && again.text.contains("was stopped again"), "{again:?}");
    let absent = run(&["retry", "7_7"])?;
    ensure!(absent.exit == 1 && absent.text.contains("is not here"), "{absent:?}");
    topics::configure(&bootstrap, &scene.topic("out"), &limit(4 * BATCH_BYTES_MAX))?;
    let well = || Ok(run(&["retry"])?.exit == 0);
    wait::until_true("a task that runs again", PATIENCE, well)?;
    let all = || Ok(scene.read(&scene.topic("out"))?.len() == 20);
    wait::until_true("all records", PATIENCE, all)?;
    ensure!(run(&["retry"])?.json()?["tasks"].as_array().is_some_and(Vec::is_empty));
    scene.agents[0].terminate().map(drop)
}

#[test]
fn records_that_only_the_broker_refuses_follow_the_policy() -> Result<()> {
    let mut scene = Scene::new(&broker::shared().bootstrap(), REFUSED)?;
    let bootstrap = scene.bootstrap().to_owned();
    let limits = [("max.message.bytes", BATCH_BYTES_MAX.to_string())];
    topics::configure(&bootstrap, &scene.topic("out"), &limits)?;
    load::send_all(&bootstrap, &scene.topic("in"), (1, large_or_small), 200)?;
    scene.add_agent()?;
    let file = scene.agents[0].pipeline_file();
    let pipeline = std::fs::read_to_string(&file)?;
    // Else a batch of small records is too large as well.
    let batches = format!("    batch.size: {}\n", BATCH_BYTES_MAX / 2);
    std::fs::write(
        &file,
        pipeline.replacen("  producer:\n", &format!("  producer:\n{batches}"), 1),
    )?;
    scene.agents[0].start()?;
    scene.settle()?;
    let values = |topic: &str| -> Result<BTreeSet<String>> {
        let records = scene.read(topic)?;
        let values: BTreeSet<_> = records.iter().map(|record| record.value_text()).collect();
        ensure!(values.len() == records.len(), "{topic} has records twice");
        Ok(values)
    };
    let (large, small): (BTreeSet<_>, BTreeSet<_>) =
        values(&scene.topic("in"))?.into_iter().partition(|value| value.len() > BATCH_BYTES_MAX);
    ensure!(values(&scene.topic("out"))? == small, "all that are small come out");
    ensure!(values(&format!("{}-dead", scene.application()))? == large && large.len() == 5);
    Ok(())
}

/// A table whose changes go to a changelog that takes no more than so much in one batch.
const LARGE_STATE: Play = Play {
    pipeline: "\
{head}
limits: { retry_backoff: 10ms }
transforms:
  - name: enrich
    module: {modules}/enrich.wasm
    inputs: ['{topic:orders}', '{topic:customers}']
    stores: [customers]
    outputs: { enriched: '{topic:enriched}' }
    on_error: { dead_letter: '{application}-dead' }
",
    inputs: &[("orders", order, 0), ("customers", customer, 0)],
    outputs: &["enriched"],
    stores: &["customers"],
    ..Play::NOTHING
};

fn order(number: u64, _: &mut Random) -> load::Record {
    let value = Some(format!("{{\"id\": \"o-{number}\", \"amount\": 5}}").into_bytes());
    load::Record { key: Some(format!("c{}", number % 50).into_bytes()), value, timestamp: None }
}

/// One customer of fifty has a name that is too large for the changelog.
fn customer(number: u64, _: &mut Random) -> load::Record {
    let size = if number == 7 { 3 * BATCH_BYTES_MAX } else { 10 };
    let value = format!("{{\"name\": \"{}\", \"tier\": \"gold\"}}", "x".repeat(size));
    let key = Some(format!("c{number}").into_bytes());
    load::Record { key, value: Some(value.into_bytes()), timestamp: None }
}

#[test]
fn a_state_change_that_only_the_changelog_refuses_follows_the_policy_of_its_record() -> Result<()> {
    // The module knows its inputs by their topics' names.
    let cluster = broker::Cluster::start(&broker::Options::default())?;
    let mut scene = Scene::on_own_broker(&cluster.bootstrap(), LARGE_STATE)?;
    let bootstrap = scene.bootstrap().to_owned();
    let limit = BATCH_BYTES_MAX.to_string();
    let settings = [
        ("cleanup.policy", "compact"),
        ("delete.retention.ms", "604800000"),
        ("max.message.bytes", limit.as_str()),
    ];
    topics::create(&bootstrap, &scene.changelog("customers"), PARTITIONS, &settings)?;
    load::send_all(&bootstrap, &scene.topic("customers"), (1, customer), 50)?;
    load::send_all(&bootstrap, &scene.topic("orders"), (1, order), 400)?;
    scene.start_agents(1)?;
    scene.settle()?;
    let letters = scene.read(&format!("{}-dead", scene.application()))?;
    ensure!(letters.len() == 1, "{} letters instead of one", letters.len());
    ensure!(letters[0].key.as_deref() == Some(b"c7"), "another record was passed over");
    let exception = letters[0].header_text("__streams.errors.exception");
    ensure!(exception.as_deref() == Some("refused"), "{exception:?}");
    ensure!(scene.read(&scene.topic("enriched"))?.len() == 400, "all orders come out");
    Ok(())
}

/// Brokers take none of its letters as they are: the time of one, and the size of another.
const LETTERS: Play = Play {
    pipeline: "\
{head}
limits: { retry_backoff: 10ms }
transforms:
  - name: passing
    module: {modules}/poison.wasm
    inputs: ['{topic:in}']
    outputs: { out: '{topic:out}' }
    on_error: { dead_letter: '{application}-dead' }
",
    inputs: &[("in", of_another_time, 0)],
    outputs: &["out"],
    ..Play::NOTHING
};

/// Microseconds that are taken for milliseconds.
const FAR_AHEAD: i64 = 1_700_000_000_000_000;

fn of_another_time(number: u64, _: &mut Random) -> load::Record {
    let (value, timestamp) = match number {
        11 => ("far ahead".to_owned(), Some(FAR_AHEAD)),
        23 => ("x".repeat(2 * BATCH_BYTES_MAX), None),
        _ => (format!("fine {number}"), None),
    };
    let key = Some(number.to_string().into_bytes());
    load::Record { key, value: Some(value.into_bytes()), timestamp }
}

#[test]
fn a_letter_that_brokers_refuse_gets_through_without_what_they_refuse() -> Result<()> {
    let mut scene = Scene::new(&broker::shared().bootstrap(), LETTERS)?;
    let bootstrap = scene.bootstrap().to_owned();
    let any_time = [("message.timestamp.after.max.ms", i64::MAX.to_string())];
    topics::configure(&bootstrap, &scene.topic("in"), &any_time)?;
    let ahead = [("message.timestamp.after.max.ms", "3600000")];
    let limit = BATCH_BYTES_MAX.to_string();
    let small = [ahead[0], ("max.message.bytes", limit.as_str())];
    let dead = format!("{}-dead", scene.application());
    topics::create(&bootstrap, &dead, PARTITIONS, &small)?;
    let settings: Vec<(&str, String)> =
        small.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    topics::configure(&bootstrap, &scene.topic("out"), &settings)?;
    load::send_all(&bootstrap, &scene.topic("in"), (1, of_another_time), 100)?;
    scene.start_agents(1)?;
    scene.settle()?;
    ensure!(scene.read(&scene.topic("out"))?.len() == 98, "all others come out");
    let letters = scene.read(&dead)?;
    let letter = |key: &str| letters.iter().find(|of| of.key.as_deref() == Some(key.as_bytes()));
    let (Some(ahead), Some(large)) = (letter("11"), letter("23")) else {
        anyhow::bail!("a letter is missing of {}", letters.len())
    };
    ensure!(letters.len() == 2 && ahead.value_text() == "far ahead");
    let time = ahead.header_text("__sidestream.timestamp.replaced");
    ensure!(time == Some(FAR_AHEAD.to_string()), "{time:?}");
    let size = large.header_text("__sidestream.value.omitted");
    let is_told = size == Some((2 * BATCH_BYTES_MAX).to_string());
    ensure!(large.value.is_none() && is_told, "{size:?}");
    Ok(())
}
