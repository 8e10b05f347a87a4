//! `chaos ROUNDS [SEED]`: real agents under real kills, then the verifier. See `./dev chaos`.

#![allow(clippy::print_stdout, reason = "a program for people")]

use std::{process::ExitCode, time::Instant};

use anyhow::{Context, Result};
use sidestream_tests::{
    broker::{Cluster, Options},
    chaos::{self, Plan},
    examples::EXAMPLES,
    scene::Scene,
};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match play(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nfailed: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn play(arguments: &[String]) -> Result<()> {
    let number = |index: usize| arguments.get(index).map(|text| text.parse::<u64>());
    let rounds = number(0).context("usage: chaos ROUNDS [SEED]")?.context("ROUNDS is a number")?;
    let seed = number(1).transpose().context("SEED is a number")?.unwrap_or(1);
    let plan = Plan { rounds: usize::try_from(rounds)?, seed };
    let started = Instant::now();
    let say = |text: &str| println!("{:5} s  {text}", started.elapsed().as_secs());
    say("starting Apache Kafka");
    let cluster = Cluster::start(&Options::default())?;
    let mut scene = Scene::on_own_broker(&cluster.bootstrap(), EXAMPLES)?;
    say(&format!("two agents under load; again with: ./dev chaos {rounds} {seed}"));
    let summary = chaos::run(plan, &mut scene, &mut |text| say(text))?;
    say("verifying");
    let verified = scene.check()?;
    say(&format!("{} records in, {} kills; {summary}", summary.records, summary.kills));
    say(&verified);
    Ok(())
}
