//! Real agents and their inputs: where they begin to read, and what comes of an input that grows.

use anyhow::{Context, Result, ensure};
use sidestream_tests::{
    agent::PATIENCE,
    broker, follow,
    load::{self, Record},
    random::Random,
    scene::{PARTITIONS, Play, Scene},
    topics, wait,
};

/// Passes on what it reads.
const PASSING: Play = Play {
    pipeline: "\
{head}
transforms:
  - name: passing
    module: {modules}/pass-through.wasm
    inputs: ['{topic:in}']
    outputs: { out: '{topic:out}' }
",
    inputs: &[("in", numbered::<0>, 0)],
    outputs: &["out"],
    ..Play::NOTHING
};

/// Passes on what comes after it has begun, and what was written at noon or later.
const BEGINNING: Play = Play {
    pipeline: "\
{head}
transforms:
  - name: latest
    module: {modules}/pass-through.wasm
    inputs: [{ topic: '{topic:latest}', start: latest }]
    outputs: { out: '{topic:latest-out}' }
  - name: timed
    module: {modules}/pass-through.wasm
    inputs: [{ topic: '{topic:timed}', start: 2026-01-31T12:00:00Z }]
    outputs: { out: '{topic:timed-out}' }
",
    inputs: &[("latest", numbered::<0>, 0), ("timed", numbered::<0>, 0)],
    outputs: &["latest-out", "timed-out"],
    ..Play::NOTHING
};

/// The start of the second, in milliseconds since 1970.
const NOON: i64 = 1_769_860_800_000;
/// How many records are sent at a time: each partition has many of them.
const COUNT: u64 = 100;

/// A record for each number, counted from `FROM`: one each second, of which number [`COUNT`] is the
/// first at noon.
fn numbered<const FROM: u64>(number: u64, _: &mut Random) -> Record {
    let number = FROM + number;
    let seconds = i64::try_from(number).expect("few") - i64::try_from(COUNT).expect("few");
    Record {
        key: Some(number.to_string().into_bytes()),
        value: Some(number.to_string().into_bytes()),
        timestamp: Some(NOON + seconds * 1_000),
    }
}

/// Sends the records from number `FROM` on to an input.
fn send<const FROM: u64>(scene: &Scene, input: &str) -> Result<()> {
    load::send_all(scene.bootstrap(), &scene.topic(input), (1, numbered::<FROM>), COUNT)
}

fn wait_until_read(scene: &Scene, input: &str) -> Result<()> {
    let topic = scene.topic(input);
    let all = || Ok(follow::lag(scene.bootstrap(), scene.application(), &topic)? == 0);
    wait::until_true("everything read", PATIENCE, all).with_context(|| scene.told())
}

/// Lets brokers keep what is in these topics, whose records are months old.
fn keep(scene: &Scene, names: &[&str]) -> Result<()> {
    let kept = [("retention.ms", "-1".to_owned())];
    names
        .iter()
        .try_for_each(|name| topics::configure(scene.bootstrap(), &scene.topic(name), &kept))
}

/// Waits until the group has an offset for each partition of an input.
fn wait_until_begun(scene: &Scene, input: &str) -> Result<()> {
    let topic = scene.topic(input);
    let all = || {
        let committed = topics::committed(scene.bootstrap(), scene.application(), &topic)?;
        Ok(committed.iter().all(Option::is_some))
    };
    wait::until_true("a beginning", PATIENCE, all).with_context(|| scene.told())
}

/// The numbers that came out are these, each once.
fn check(scene: &Scene, output: &str, expected: impl Iterator<Item = u64>) -> Result<()> {
    let came = scene.read(&scene.topic(output))?;
    let mut came: Vec<u64> =
        came.iter().map(|record| Ok(record.value_text().parse()?)).collect::<Result<_>>()?;
    came.sort_unstable();
    let expected: Vec<u64> = expected.collect();
    ensure!(came == expected, "{output}: {came:?} instead of {expected:?}\n{}", scene.told());
    Ok(())
}

#[test]
fn an_input_is_read_from_its_start_once_and_from_there_for_good() -> Result<()> {
    let mut scene = Scene::new(&broker::shared().bootstrap(), BEGINNING)?;
    keep(&scene, &["latest", "timed", "latest-out", "timed-out"])?;
    for input in ["latest", "timed"] {
        send::<0>(&scene, input)?;
    }
    send::<COUNT>(&scene, "timed")?;
    scene.start_agents(1)?;
    wait_until_begun(&scene, "latest")?;
    wait_until_read(&scene, "timed")?;
    check(&scene, "timed-out", COUNT..2 * COUNT)?;
    // It does not begin again, neither where it stands still nor in what it has not read.
    scene.agents[0].kill()?;
    send::<COUNT>(&scene, "latest")?;
    scene.agents[0].start()?;
    wait_until_read(&scene, "latest")?;
    for input in ["latest", "timed"] {
        send::<{ 2 * COUNT }>(&scene, input)?;
    }
    scene.agents[0].kill()?;
    scene.agents[0].start()?;
    wait_until_read(&scene, "latest")?;
    wait_until_read(&scene, "timed")?;
    scene.agents[0].terminate()?;
    check(&scene, "latest-out", COUNT..3 * COUNT)?;
    check(&scene, "timed-out", COUNT..3 * COUNT)
}

#[test]
fn an_input_that_grows_under_a_running_agent_ends_it_with_a_remedy_and_loses_nothing() -> Result<()>
{
    let mut scene = Scene::new(&broker::shared().bootstrap(), PASSING)?;
    scene.add_agent()?;
    let input = scene.topic("in");
    keep(&scene, &["in", "out"])?;
    // Clients look for it every five minutes otherwise.
    let often = "  consumer:\n    topic.metadata.refresh.interval.ms: 500\n";
    let agent = &mut scene.agents[0];
    let pipeline = std::fs::read_to_string(agent.pipeline_file())?;
    std::fs::write(agent.pipeline_file(), pipeline.replacen("  consumer:\n", often, 1))?;
    agent.start()?;
    send::<0>(&scene, "in")?;
    wait_until_read(&scene, "in")?;
    topics::grow(scene.bootstrap(), &input, usize::try_from(PARTITIONS)? + 2)?;
    send::<COUNT>(&scene, "in")?;
    let status = scene.agents[0].wait_for_end()?;
    let log = scene.agents[0].log();
    ensure!(!status.success(), "it ended with {status}: {log}");
    let told = format!("topic `{input}` had {PARTITIONS} partitions when the pipeline started");
    ensure!(log.contains(&told) && log.contains("without stores again as it is"), "{log}");
    scene.agents[0].start()?;
    wait_until_read(&scene, "in")?;
    scene.agents[0].terminate()?;
    check(&scene, "out", 0..2 * COUNT)?;
    let grown = scene.read(&input)?.iter().filter(|record| record.partition >= PARTITIONS).count();
    ensure!(grown > 0, "nothing was sent to what was added");
    Ok(())
}
