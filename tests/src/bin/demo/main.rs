//! The whole thing in a minute: a broker, a generator, two agents with word count; one is
//! killed without warning, the other takes over, the first comes back; a module is swapped while
//! records flow, and a bad one is rolled back by itself; in the end every count is compared with
//! one made without the agents. The exit code is 0 if all are exact.
//!
//! The broker is the embedded one, or with `--brokers SERVERS` any that is there.

#![allow(clippy::print_stdout, reason = "a program for people to watch")]

mod swaps;
mod watch;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use sidestream_dev_broker::{self as dev_broker, DevBroker};
use sidestream_tests::{scene::Scene, word_count::WORD_COUNT_FOR_PEOPLE};
use watch::Watch;

/// How long to look on where nothing has to be waited for.
const LOOK: Duration = Duration::from_secs(8);

/// How long a takeover may take: the session and transaction timeouts of the agents are 6 s.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match play() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nthe demo failed: {error:?}");
            ExitCode::FAILURE
        }
    }
}

/// The scene, and the embedded broker if it plays on that.
fn scene() -> Result<(Scene, Option<DevBroker>)> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--brokers", servers] => Ok((Scene::new(servers, WORD_COUNT_FOR_PEOPLE)?, None)),
        [] => {
            println!("starting the embedded broker; it keeps everything in memory");
            let broker = DevBroker::start(dev_broker::Options::default())?;
            let scene = Scene::on_own_broker(&broker.bootstrap(), WORD_COUNT_FOR_PEOPLE)?;
            Ok((scene, Some(broker)))
        }
        _ => bail!("usage: demo [--brokers SERVERS]"),
    }
}

/// A new build takes over on both agents, and a bad module on none.
fn swap(scene: &Scene, watch: &mut Watch) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("sidestream-demo-").tempdir()?;
    let (good, bad) = (swaps::new_build()?, swaps::trapping()?);
    for (agent, name) in [(0, "agent-a"), (1, "agent-b")] {
        watch.say(&format!("{name} is given a new build of `count`, while records flow"));
        let file = folder.path().join("new-build.wasm");
        let (outcome, why) = swaps::swap(scene, watch, agent, (&file, &good))?;
        watch.say(&format!("{name}: {outcome}: {why}"));
        ensure!(outcome == "kept", "a good module is kept");
    }
    watch.say("agent-a is given a module that traps at its first record");
    let file = folder.path().join("trapping.wasm");
    let (outcome, why) = swaps::swap(scene, watch, 0, (&file, &bad))?;
    watch.say(&format!("agent-a: {outcome}: {why}"));
    ensure!(outcome == "rolled_back", "a bad module is rolled back");
    Ok(())
}

fn play() -> Result<()> {
    let started = Instant::now();
    let (mut scene, _broker) = scene()?;
    println!("starting two agents and a generator of lines on {}", scene.bootstrap());
    scene.start_load(1)?;
    scene.start_agents(2)?;
    let mut watch = Watch::new(&scene, started)?;
    watch.until("both agents have tasks", PATIENCE, |watch| watch.tasks.both())?;
    watch.for_a_while(LOOK)?;

    watch.say("agent-a is killed, without warning");
    scene.agents[0].kill()?;
    watch.until("agent-b has all tasks", PATIENCE, |watch| watch.tasks.only_second())?;
    // The dead agent's last transaction is still open, until the broker ends it.
    let before = watch.outputs.clone();
    let went_on = |watch: &Watch| watch.went_on_since(&before);
    watch.until("agent-b counts on in every partition", PATIENCE, went_on)?;
    watch.for_a_while(LOOK / 2)?;

    watch.say("agent-a starts again, on the state it had");
    scene.agents[0].start()?;
    watch.until("both agents have tasks", PATIENCE, |watch| watch.tasks.both())?;
    watch.for_a_while(LOOK)?;

    swap(&scene, &mut watch)?;

    watch.say("the generator stops; the agents finish what is there and stop");
    let lines = scene.settle()?;
    watch.for_a_while(Duration::from_secs(1))?;
    let exact = scene.check()?;
    watch.say(&format!("checked without the agents: {exact} ({lines} lines were sent)"));
    println!("done in {} s", started.elapsed().as_secs());
    Ok(())
}
