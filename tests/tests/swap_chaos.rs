//! The short form of `./dev chaos swaps`: every kind of good and bad module once, with troubles.

#![allow(clippy::print_stdout, reason = "what happened, for the case that it fails")]

use std::time::Duration;

use anyhow::Result;
use sidestream_tests::{
    broker::Cluster,
    scene::Scene,
    swap_chaos::{self, Plan, SWAPS},
};

#[test]
fn each_record_is_processed_by_one_version_whatever_is_swapped_in() -> Result<()> {
    let mut cluster = Cluster::start(&swap_chaos::brokers())?;
    let mut scene = Scene::on_own_broker(&cluster.bootstrap(), SWAPS)?;
    let plan = Plan::new(Duration::from_secs(40), 3);
    let told = &mut |told: &str| println!("{told}");
    let summary = swap_chaos::run(&plan, (&mut scene, &mut cluster), told)?;
    println!("{summary}; {}", swap_chaos::verify(&scene, &summary)?);
    Ok(())
}
