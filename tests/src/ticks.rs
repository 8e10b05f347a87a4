//! A pipeline that works without any input: what its tasks emit, punctuations alone cause.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use sidestream_verifier::verdict::Verdict;

use crate::{
    follow::Record,
    scene::{PARTITIONS, Play, Scene},
};

/// The play; its input stays empty.
pub const TICKS: Play = Play {
    pipeline: "\
{head}
transforms:
  - name: tick
    module: {modules}/tick.wasm
    inputs: ['{topic:nothing}']
    stores: [ticks]
    outputs:
      ticks: '{topic:ticks}'
",
    inputs: &[("nothing", |_, _| unreachable!("nobody sends anything"), 0)],
    outputs: &["ticks"],
    repartitions: &[],
    stores: &["ticks"],
    check: check_scene,
};

fn check_scene(scene: &Scene) -> Result<Vec<Verdict>> {
    let records = scene.read(&scene.topic("ticks"))?;
    let counts = check(&records)?;
    ensure!(counts.len() == usize::try_from(PARTITIONS)?, "only {counts:?} ticked");
    let mut verdict = Verdict::default();
    verdict.compared("ticks", records.len());
    Ok(vec![verdict])
}

/// Checks that each partition's task counted up from one, without a gap or a repetition, and gives
/// how far.
pub fn check(ticks: &[Record]) -> Result<BTreeMap<String, u64>> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for tick in ticks {
        let last = counts.entry(tick.key_text()).or_default();
        let (task, value) = (tick.key_text(), tick.value_text());
        ensure!(value == (*last + 1).to_string(), "task {task} ticked {value} after {last}");
        *last += 1;
    }
    Ok(counts)
}
