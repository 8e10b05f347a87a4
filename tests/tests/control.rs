//! Real agents on a real broker, watched, questioned and told what to do: by the command line over
//! the control interface, and by probes and metrics over HTTP.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

#[path = "control/access.rs"]
mod access;
#[path = "control/diagnosis.rs"]
mod diagnosis;
#[path = "control/questions.rs"]
mod questions;
#[path = "control/renewal.rs"]
mod renewal;
#[path = "control/rights.rs"]
mod rights;
#[path = "control/start.rs"]
mod start;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sidestream::control::client::{Client, Target};
use sidestream_tests::{
    agent::{Agent, PATIENCE},
    operate::{ask, configure, run},
    wait,
};

/// A pipeline whose brokers never answer: its agent stays at its start.
const WITHOUT_BROKERS: &str = "\
application: lonely
kafka: { bootstrap.servers: '127.0.0.1:1' }
state: { directory: '{state}' }
transforms:
  - name: split
    module: {modules}/split-words.wasm
    inputs: [lines]
    outputs: { words: words }
";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn tasks(status: &Value) -> Vec<&Value> {
    let workers = status["workers"].as_array().into_iter().flatten();
    workers.flat_map(|worker| worker["tasks"].as_array().into_iter().flatten()).collect()
}

/// Waits until the agent says that it is ready, and says where its probes are.
fn wait_until_ready(agent: &Agent) -> Result<String> {
    let ready = || {
        let Ok(status) = ask(agent, &["status"]) else { return Ok(None) };
        Ok((status["ready"] == true).then(|| text(&status["http_address"])))
    };
    wait::until("ready agent", PATIENCE, ready).with_context(|| agent.log_tail())
}

fn kinds(agent: &Agent) -> Result<Vec<String>> {
    let state = agent.state_directory().display().to_string();
    let answer = run(&["events", "--state", &state])?;
    ensure!(answer.exit == 0, "{answer:?}");
    let kind = |line: &str| Ok(text(&serde_json::from_str::<Value>(line)?["kind"]));
    answer.text.lines().map(kind).collect()
}

fn connect(agent: &Agent) -> Result<Client> {
    let address = format!("unix:{}/.control/socket", agent.state_directory().display());
    Ok(Client::connect(&Target { address, ..Target::default() })?)
}

/// An agent without brokers, with these keys.
fn lonely(folder: &Path, name: &str, keys: &str) -> Result<Agent> {
    let agent = Agent::new(folder, name, "", WITHOUT_BROKERS)?;
    configure(&agent, keys)?;
    Ok(agent)
}
