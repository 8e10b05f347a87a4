//! `chaos ROUNDS [SEED]`: real agents under real kills, then the verifier. `chaos swaps SECONDS
//! [SEED]`: the same with a swap every two seconds. See `./dev chaos`.

#![allow(clippy::print_stdout, reason = "a program for people")]

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use sidestream_tests::{
    broker::{Cluster, Options},
    chaos::{self, Plan},
    examples::EXAMPLES,
    scene::Scene,
    swap_chaos::{self, SWAPS},
};

const USAGE: &str = "usage: chaos ROUNDS [SEED], or chaos swaps SECONDS [SEED]";

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
    match arguments {
        [kind, rest @ ..] if kind == "swaps" => {
            let (seconds, seed) = numbers(rest)?;
            play_swaps(Duration::from_secs(seconds), seed)
        }
        _ => {
            let (rounds, seed) = numbers(arguments)?;
            play_kills(Plan { rounds: usize::try_from(rounds)?, seed })
        }
    }
}

/// How much, and the seed; 1 unless given.
fn numbers(arguments: &[String]) -> Result<(u64, u64)> {
    let number = |text: &String| text.parse::<u64>().context(USAGE);
    match arguments {
        [amount] => Ok((number(amount)?, 1)),
        [amount, seed] => Ok((number(amount)?, number(seed)?)),
        _ => bail!(USAGE),
    }
}

/// Says something with the time that has passed.
fn teller() -> impl FnMut(&str) {
    let started = Instant::now();
    move |text| println!("{:5} s  {text}", started.elapsed().as_secs())
}

fn play_kills(plan: Plan) -> Result<()> {
    let mut say = teller();
    say("starting Apache Kafka");
    let cluster = Cluster::start(&Options::default())?;
    let mut scene = Scene::on_own_broker(&cluster.bootstrap(), EXAMPLES)?;
    let Plan { rounds, seed } = plan;
    say(&format!("two agents under load; again with: ./dev chaos {rounds} {seed}"));
    let summary = chaos::run(plan, &mut scene, &mut say)?;
    say("verifying");
    let verified = scene.check()?;
    say(&format!("{} records in, {} kills; {summary}", summary.records, summary.kills));
    say(&verified);
    Ok(())
}

fn play_swaps(duration: Duration, seed: u64) -> Result<()> {
    let mut say = teller();
    say("starting Apache Kafka: three brokers");
    let mut cluster = Cluster::start(&swap_chaos::brokers())?;
    let mut scene = Scene::on_own_broker(&cluster.bootstrap(), SWAPS)?;
    let seconds = duration.as_secs();
    say(&format!("two agents under load; again with: ./dev chaos swaps {seconds} {seed}"));
    let plan = swap_chaos::Plan::new(duration, seed);
    let summary = swap_chaos::run(&plan, (&mut scene, &mut cluster), &mut say)?;
    say("verifying");
    say(&summary.to_string());
    say(&swap_chaos::verify(&scene, &summary)?);
    let missing = summary.missing();
    ensure!(!plan.shows_each() || missing.is_empty(), "never found to be bad: {missing:?}");
    Ok(())
}
