//! The short form of `./dev chaos`: each named point once and four random kills, under load.

#![allow(clippy::print_stdout, reason = "what happened, for the case that it fails")]

use anyhow::Result;
use sidestream_tests::{
    broker::{Cluster, Options},
    chaos::{self, Plan},
    examples::EXAMPLES,
    scene::Scene,
};

#[test]
fn counts_stay_exact_under_kills() -> Result<()> {
    let cluster = Cluster::start(&Options::default())?;
    let mut scene = Scene::on_own_broker(&cluster.bootstrap(), EXAMPLES)?;
    let plan = Plan { rounds: 4, seed: 7 };
    let summary = chaos::run(plan, &mut scene, &mut |told| println!("{told}"))?;
    println!("{}; {summary}", scene.check()?);
    Ok(())
}
