//! An agent under load: its state against its changelogs, its metrics, a pause, and a restore.

use std::{collections::BTreeMap, fs};

use anyhow::bail;
use sidestream_tests::{
    broker,
    operate::{http, listening, read_metrics},
    scene::Scene,
    topics,
    word_count::WORD_COUNT,
};

use super::*;

/// The committed offset of every input of every task.
fn offsets(status: &Value) -> BTreeMap<(String, i64), Option<i64>> {
    let inputs = tasks(status).into_iter().flat_map(|task| task["inputs"].as_array().unwrap());
    inputs
        .map(|input| {
            let place = (text(&input["topic"]), input["partition"].as_i64().unwrap());
            (place, input["committed_offset"].as_i64())
        })
        .collect()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = text(hex);
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a changelog's partition comes to, from its first record to before `end`.
fn fold(scene: &Scene, store: &str, partition: i64, end: i64) -> Result<Map> {
    let changelog = scene.changelog(store);
    let place = usize::try_from(partition)?;
    let visible = || Ok(topics::stable_ends(scene.bootstrap(), &changelog)?[place] >= end);
    wait::until_true("markers of the changelog", PATIENCE, visible)?;
    let mut map = Map::new();
    for record in scene.read(&changelog)? {
        if i64::from(record.partition) == partition && record.offset < end {
            let key = record.key.unwrap_or_default();
            match record.value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
    }
    Ok(map)
}

/// Compares each page of a scan with the changelog at the page's own position; says how many
/// entries there were.
fn check_scan(scene: &Scene, agent: &Agent, partition: i64) -> Result<usize> {
    let number = partition.to_string();
    let scan = ["state", "scan", "counts", "--partition", &number, "--limit", "100000"];
    let answer = ask(agent, &scan)?;
    let mut after: Option<Vec<u8>> = None;
    let mut count = 0;
    let pages = answer["pages"].as_array().context("pages")?;
    for (index, page) in pages.iter().enumerate() {
        let end = page["position"]["changelog_offset"].as_i64().context("a position")?;
        let expected = fold(scene, "counts", partition, end)?;
        let entries = page["entries"].as_array().context("entries")?.iter();
        let found: Vec<(Vec<u8>, Vec<u8>)> =
            entries.map(|e| (bytes(&e["key_hex"]), bytes(&e["value_hex"]))).collect();
        let last = index + 1 == pages.len();
        let within = |key: &Vec<u8>| {
            after.as_ref().is_none_or(|after| key > after)
                && (last || found.last().is_some_and(|(last, _)| key <= last))
        };
        let expected: Vec<_> = expected.into_iter().filter(|(key, _)| within(key)).collect();
        ensure!(found == expected, "partition {partition}, page {index}, position {end}");
        count += found.len();
        after = found.last().map(|(key, _)| key.clone()).or(after);
    }
    Ok(count)
}

fn check_status(status: &Value) -> Result<()> {
    ensure!(tasks(status).len() == 8, "two sub-topologies of four partitions: {status}");
    for task in tasks(status) {
        ensure!(task["state"] == "running", "{task}");
    }
    for transform in status["transforms"].as_array().context("transforms")? {
        let digest = text(&transform["digest"]);
        ensure!(digest.len() == 64 && digest.chars().all(|c| c.is_ascii_hexdigit()), "{digest}");
        let versions = transform["versions"].as_array().context("versions")?;
        let [version] = versions.as_slice() else { bail!("one was never swapped: {transform}") };
        ensure!(version["digest"] == digest.as_str() && version["running"] == true, "{transform}");
        ensure!(version["on_probation"] == false, "{transform}");
    }
    Ok(())
}

/// While it is paused, nothing moves although records arrive; then everything is of one moment.
fn check_pause(scene: &Scene, agent: &Agent) -> Result<()> {
    ask(agent, &["pause"])?;
    let before = ask(agent, &["status"])?;
    ensure!(before["paused"] == true && before["ready"] == true, "{before}");
    let lines = scene.topic("lines");
    let arrived = topics::ends(scene.bootstrap(), &lines)?;
    let more = || {
        let now = topics::ends(scene.bootstrap(), &lines)?;
        Ok(now.iter().zip(&arrived).all(|(now, before)| *now > before + 50))
    };
    wait::until_true("records that arrive meanwhile", PATIENCE, more)?;
    let after = ask(agent, &["status"])?;
    ensure!(offsets(&before) == offsets(&after), "{before}\n{after}");
    ensure!(scene.open_transactions()?.is_empty(), "a transaction is open during a pause");
    let counts = (0..4).map(|partition| check_scan(scene, agent, partition));
    let counts: Vec<usize> = counts.collect::<Result<_>>()?;
    ensure!(counts.iter().sum::<usize>() > 100, "{counts:?}");
    let behind = || {
        let status = ask(agent, &["status"])?;
        let lags = tasks(&status).into_iter().flat_map(|t| t["inputs"].as_array().unwrap());
        Ok(lags.filter_map(|input| input["lag"].as_u64()).sum::<u64>() > 100)
    };
    wait::until_true("lag during the pause", PATIENCE, behind)?;
    ask(agent, &["resume"]).map(drop)
}

fn check_keys(scene: &Scene, agent: &Agent) -> Result<()> {
    let page = ask(agent, &["state", "scan", "counts", "--limit", "3"])?;
    let key = text(&page["pages"][0]["entries"][0]["key"]);
    let got = ask(agent, &["state", "get", "counts", &key])?;
    let readings = got["readings"].as_array().context("readings")?;
    ensure!(readings.len() == 4, "one for each task: {got}");
    for reading in readings {
        let position = &reading["position"];
        let (partition, end) = (position["partition"].as_i64(), &position["changelog_offset"]);
        let (partition, end) = (partition.context("a partition")?, end.as_i64());
        let expected = fold(scene, "counts", partition, end.context("an offset")?)?;
        let found = &reading["values"][0]["value_hex"];
        let found = found.as_str().map(|_| bytes(found));
        ensure!(found.as_ref() == expected.get(key.as_bytes()), "{key} in {reading}");
    }
    let owner = &got["owners"][0];
    let has = |reading: &&Value| !reading["values"][0]["value_hex"].is_null();
    let found = readings.iter().find(has).context("a task has it")?;
    ensure!(owner["task"] == found["position"]["task"] && owner["here"] == true, "{got}");
    let state = agent.state_directory().display().to_string();
    let absent = run(&["state", "get", "counts", &key, "hex:00", "--state", &state])?;
    let told: Value = serde_json::from_str(&absent.text)?;
    ensure!(absent.exit == 9 && told["problems"].as_array().map(Vec::len) == Some(1), "{absent:?}");
    ensure!(absent.text.contains("has no `hex:00`"), "{absent:?}");
    let wrong = run(&["state", "get", "nothing", "a", "--state", &state])?;
    ensure!(wrong.exit == 1 && wrong.text.contains("there are: counts"), "{wrong:?}");
    Ok(())
}

fn metrics(address: &str) -> Result<BTreeMap<String, f64>> {
    let (status, kind, body) = http(address, "GET", "/metrics")?;
    ensure!(status == 200 && kind.starts_with("text/plain; version=0.0.4"), "{status} {kind}");
    read_metrics(&body)
}

fn check_metrics(address: &str) -> Result<()> {
    let told = metrics(address)?;
    for (series, at_least) in [
        ("sidestream_ready", 1.0),
        ("sidestream_live", 1.0),
        ("sidestream_tasks{state=\"running\"}", 8.0),
        ("sidestream_records_total{worker=\"0\"}", 100.0),
        ("sidestream_output_records_total{worker=\"0\"}", 100.0),
        ("sidestream_changelog_records_total{worker=\"0\"}", 100.0),
        ("sidestream_commits_total{worker=\"0\",outcome=\"committed\"}", 2.0),
        ("sidestream_commit_duration_seconds_count{worker=\"0\"}", 2.0),
        ("sidestream_batches_total{transform=\"count\"}", 2.0),
        ("sidestream_guest_cpu_seconds_total{transform=\"count\"}", 0.0001),
        ("sidestream_guest_memory_bytes{transform=\"split\"}", 65_536.0),
        ("sidestream_stream_time_lag_seconds{task=\"0_0\"}", 0.0),
        ("sidestream_store_bytes{store=\"counts\",task=\"1_0\"}", 1.0),
        ("sidestream_store_keys{store=\"counts\",task=\"1_0\"}", 1.0),
        ("sidestream_store_cache_bytes", 1.0),
    ] {
        let value = told.get(series).with_context(|| format!("{series} in {told:#?}"))?;
        ensure!(*value >= at_least, "{series} is {value}");
    }
    ensure!(http(address, "GET", "/livez")?.0 == 200, "live");
    ensure!(http(address, "GET", "/readyz")?.0 == 200, "ready");
    for (method, path, status) in [
        ("POST", "/metrics", 405),
        ("DELETE", "/livez", 405),
        ("GET", "/", 404),
        ("POST", "/swap", 404),
    ] {
        ensure!(http(address, method, path)?.0 == status, "{method} {path}");
    }
    Ok(())
}

#[test]
fn an_agent_is_watched_questioned_and_told_what_to_do() -> Result<()> {
    let mut scene = Scene::new(&broker::shared().bootstrap(), WORD_COUNT)?;
    scene.start_load(41)?;
    scene.add_agent()?;
    configure(&scene.agents[0], "http: { listen: 0 }")?;
    scene.agents[0].start()?;
    let address = wait_until_ready(&scene.agents[0])?;
    scene.wait_for_progress()?;
    let agent = &scene.agents[0];
    let all = || Ok(check_status(&ask(agent, &["status"])?).is_ok());
    wait::until_true("tasks that run", PATIENCE, all)?;
    let health = ["", "sidestream.control.v1.Control"];
    let mut client = connect(agent)?;
    let serves = || Ok(health.iter().all(|name| client.health(name).is_ok_and(|serves| serves)));
    wait::until_true("health", PATIENCE, serves)?;
    let services = connect(agent)?.services()?;
    for service in ["sidestream.control.v1.Control", "grpc.health.v1.Health"] {
        ensure!(services.iter().any(|name| name == service), "{services:?}");
    }
    for partition in 0..4 {
        check_scan(&scene, agent, partition)?;
    }
    check_keys(&scene, agent)?;
    check_metrics(&address)?;
    ensure!(listening(agent.process_id()?)? == [address.clone()], "only what is configured");
    check_pause(&scene, agent)?;
    scene.wait_for_progress()?;
    scene.finish_load()?;
    let caught_up = || {
        let told = metrics(&address)?;
        let lags: Vec<_> =
            told.iter().filter(|(name, _)| name.starts_with("sidestream_lag_records")).collect();
        Ok(lags.len() == 8 && lags.iter().all(|(_, lag)| **lag == 0.0))
    };
    wait::until_true("lag of zero", PATIENCE, caught_up)?;
    check_series(&mut scene, &address)?;
    let agent = &scene.agents[0];
    let told = kinds(agent)?;
    for kind in ["started", "task_created", "task_running", "paused", "resumed"] {
        ensure!(told.iter().any(|found| found == kind), "{kind} in {told:?}");
    }
    // All of it anew: the restore is waited for, and what it comes to is right.
    scene.agents[0].kill()?;
    fs::remove_dir_all(scene.agents[0].state_directory())?;
    scene.agents[0].start()?;
    wait_until_ready(&scene.agents[0])?;
    let agent = &scene.agents[0];
    let all = || Ok(check_status(&ask(agent, &["status"])?).is_ok());
    wait::until_true("restored tasks", PATIENCE, all)?;
    ensure!(kinds(agent)?.iter().any(|kind| kind == "task_restoring"), "it restores");
    for partition in 0..4 {
        check_scan(&scene, agent, partition)?;
    }
    ask(agent, &["drain"])?;
    ensure!(scene.agents[0].wait_for_end()?.success(), "drained");
    scene.settle()?;
    scene.check().map(drop)
}

/// The series of a task leave with it when another agent takes it, and come back with it.
fn check_series(scene: &mut Scene, address: &str) -> Result<()> {
    let counts = |told: &BTreeMap<String, f64>| {
        [
            "sidestream_lag_records{",
            "sidestream_store_bytes{",
            "sidestream_stream_time_lag_seconds{",
        ]
        .map(|of| told.keys().filter(|series| series.starts_with(of)).count())
    };
    let all = counts(&metrics(address)?);
    ensure!(all[0] == 8 && all[1] == 4, "{all:?}");
    let other = scene.add_agent()?;
    scene.agents[other].start()?;
    let half = || Ok(counts(&metrics(address)?)[..2] == [4, 2]);
    wait::until_true("half of the series", PATIENCE, half).with_context(|| scene.told())?;
    ensure!(counts(&metrics(address)?)[2] <= 4, "stream time is that of the tasks here");
    ask(&scene.agents[other], &["drain", "--leave"])?;
    scene.agents[other].wait_for_end()?;
    let back = || Ok(counts(&metrics(address)?)[..2] == all[..2]);
    wait::until_true("all series again", PATIENCE, back).with_context(|| scene.told())
}
