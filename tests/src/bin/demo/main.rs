//! The whole thing in a minute: a real broker, a generator, two agents with word count; one is
//! killed without warning, the other takes over, the first comes back, and in the end every count
//! is compared with one made without the agents. The exit code is 0 if all are exact.

#![allow(clippy::print_stdout, reason = "a program for people to watch")]

mod watch;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;
use sidestream_tests::{
    broker::{Cluster, Options},
    scene::Scene,
    word_count::WORD_COUNT_FOR_PEOPLE,
};
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

fn play() -> Result<()> {
    let started = Instant::now();
    println!("starting Apache Kafka");
    let cluster = Cluster::start(&Options::default())?;
    let bootstrap = cluster.bootstrap();
    let mut scene = Scene::on_own_broker(&bootstrap, WORD_COUNT_FOR_PEOPLE)?;
    println!("it listens on {bootstrap}; starting two agents and a generator of lines");
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

    watch.say("the generator stops; the agents finish what is there and stop");
    let lines = scene.settle()?;
    watch.for_a_while(Duration::from_secs(1))?;
    let exact = scene.check()?;
    watch.say(&format!("checked without the agents: {exact} ({lines} lines were sent)"));
    println!("done in {} s", started.elapsed().as_secs());
    Ok(())
}
