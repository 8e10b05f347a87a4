//! What brokers do not store beside an offset.

use anyhow::{Context, Result, ensure};
use sidestream_tests::{
    agent::PATIENCE,
    follow,
    load::{self, Record},
    random::Random,
    scene::{PARTITIONS, Play, Scene},
    wait,
};

use super::behind_proxy;

/// Punctuations and a store make what is stored beside an offset longer than the broker takes.
const TOO_MUCH: Play = Play {
    pipeline: "\
{head}
limits: { retry_backoff: 10ms }
transforms:
  - name: ticking
    module: {modules}/tick.wasm
    inputs: ['{topic:nothing}']
    stores: [ticks]
    outputs: { ticks: '{topic:ticks}' }
  - name: passing
    module: {modules}/pass-through.wasm
    inputs: ['{topic:in}']
    outputs: { out: '{topic:out}' }
",
    inputs: &[("nothing", numbered, 0), ("in", numbered, 0)],
    outputs: &["ticks", "out"],
    stores: &["ticks"],
    ..Play::NOTHING
};

fn numbered(number: u64, _: &mut Random) -> Record {
    let text = Some(number.to_string().into_bytes());
    Record { key: text.clone(), value: text, timestamp: None }
}

#[test]
fn metadata_that_brokers_refuse_stops_the_tasks_that_ask_for_it_alone() -> Result<()> {
    const COUNT: u64 = 100;
    let proxy = behind_proxy();
    let mut scene = Scene::new(&proxy.bootstrap(), TOO_MUCH)?;
    let (input, out) = (scene.topic("in"), scene.topic("out"));
    scene.start_agents(1)?;
    load::send_all(scene.bootstrap(), &input, (1, numbered), COUNT)?;
    let stopped = || {
        let log = scene.agents[0].log();
        let stopped = log.lines().filter(|line| line.contains("a task was stopped"));
        let stopped: Vec<String> = stopped.map(str::to_owned).collect();
        Ok((stopped.len() >= usize::try_from(PARTITIONS)?).then_some(stopped))
    };
    let stopped = wait::until("stopped tasks", PATIENCE, stopped).with_context(|| scene.told())?;
    for line in &stopped {
        let is_told =
            line.contains("offset.metadata.max.bytes") && line.contains("fewer punctuations");
        ensure!(is_told && line.contains(&scene.topic("nothing")), "{line}");
    }
    load::send_all(scene.bootstrap(), &input, (2, numbered), COUNT)?;
    let all = || Ok(follow::lag(scene.bootstrap(), scene.application(), &input)? == 0);
    wait::until_true("the other tasks", PATIENCE, all).with_context(|| scene.told())?;
    ensure!(scene.read(&out)?.len() == 2 * usize::try_from(COUNT)?, "each comes out once");
    ensure!(scene.read(&scene.topic("ticks"))?.is_empty(), "nothing of what was refused is seen");
    ensure!(scene.agents[0].log().matches("a task was stopped").count() == stopped.len());
    scene.agents[0].terminate().map(drop)
}
