//! An application that begins anew: its offsets, topics and state end together, and its results are
//! those of the input once more.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use sidestream_dev_broker::{DevBroker, Options};
use sidestream_tests::{
    agent::PATIENCE,
    follow, load, operate,
    random::Random,
    scene::{Play, Scene},
    wait,
};

/// How often each key came, into a topic and a store.
const COUNT: Play = Play {
    pipeline: "\
{head}
transforms:
  - name: count
    module: {modules}/count.wasm
    inputs: ['{topic:in}']
    stores: [counts]
    outputs: { counts: '{topic:counts}' }
",
    inputs: &[("in", record, 0)],
    outputs: &["counts"],
    stores: &["counts"],
    ..Play::NOTHING
};

const RECORDS: u64 = 200;
const KEYS: u64 = 20;

fn record(number: u64, _: &mut Random) -> load::Record {
    load::Record {
        key: Some(format!("key-{}", number % KEYS).into_bytes()),
        value: Some(b"value".to_vec()),
        timestamp: None,
    }
}

/// Waits until all of the input is processed.
fn wait_until_processed(scene: &Scene) -> Result<()> {
    let topic = scene.topic("in");
    let done = || Ok(follow::lag(scene.bootstrap(), scene.application(), &topic)? == 0);
    wait::until_true("end of the input", PATIENCE, done)
}

/// The last count of each key that stands in the output.
fn counts(scene: &Scene) -> Result<BTreeMap<String, String>> {
    let records = scene.read(&scene.topic("counts"))?;
    Ok(records.iter().map(|record| (record.key_text(), record.value_text())).collect())
}

#[test]
fn a_reset_lets_an_application_begin_anew() -> Result<()> {
    let broker = DevBroker::start(Options::default())?;
    let mut scene = Scene::on_own_broker(&broker.bootstrap(), COUNT)?;
    load::send_all(scene.bootstrap(), &scene.topic("in"), (1, record), RECORDS)?;
    scene.start_agents(1)?;
    wait_until_processed(&scene)?;
    let first = counts(&scene)?;
    ensure!(first.len() == KEYS as usize, "{first:?}");

    let file = scene.agents[0].pipeline_file().display().to_string();
    let reset = |more: &[&str]| operate::run(&[&["reset", "--pipeline", &file], more].concat());
    let refused = reset(&[])?;
    ensure!(refused.exit == 6 && refused.text.contains("in use"), "{refused:?}");
    ensure!(scene.agents[0].terminate()?.success(), "{}", scene.told());
    // The membership of an agent that was stopped lasts until its session ends.
    let refused = reset(&["--wait", "0"])?;
    ensure!(refused.exit == 4 && refused.text.contains("has members"), "{refused:?}");

    let changelog = scene.changelog("counts");
    let dry = reset(&["--dry-run"])?.json()?;
    ensure!(dry["topics"] == serde_json::json!([changelog]) && dry["tasks"] == 4, "{dry}");
    scene.agents[0].start()?;
    wait_until_processed(&scene)?;
    ensure!(counts(&scene)? == first, "a dry run changed something");
    ensure!(scene.agents[0].terminate()?.success(), "{}", scene.told());

    let done = reset(&[])?.json()?;
    ensure!(done["topics"] == dry["topics"] && done["tasks"] == 4, "{done}");
    let nothing = reset(&[])?.json()?;
    ensure!(nothing["topics"] == serde_json::json!([]) && nothing["tasks"] == 0, "{nothing}");
    let before = scene.read(&scene.topic("counts"))?.len();
    scene.agents[0].start()?;
    wait_until_processed(&scene)?;
    ensure!(counts(&scene)? == first, "what was counted before is counted again");
    ensure!(scene.read(&scene.topic("counts"))?.len() > before, "nothing was read again");
    ensure!(scene.agents[0].terminate()?.success(), "{}", scene.told());
    Ok(())
}
