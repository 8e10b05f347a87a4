//! Real agents on a real broker when things go wrong, short of the kills of the chaos run: frozen
//! processes that wake too late, a broker that dies, an end of a transaction that comes late,
//! damaged files, and members that come and go. Whatever happens, each result is there once and in
//! order.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use sidestream_tests::{
    agent::PATIENCE,
    at_least_once::AT_LEAST_ONCE,
    broker::{self, Cluster, Options},
    follow::Follower,
    load::Record,
    members,
    proxy::{Api, Proxy},
    random::Random,
    scene::{Play, Scene},
    ticks::{self, TICKS},
    wait,
    word_count::WORD_COUNT,
};

/// One at a time: each has several processes and its own deadlines.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until the group's members are agents of these names alone, and all of those.
fn wait_for_members(scene: &Scene, agents: &[&str]) -> Result<()> {
    let as_said = || {
        let members = members::assignments(scene.bootstrap(), scene.application())?;
        let working = members.iter().filter(|(_, partitions)| !partitions.is_empty());
        let working: Vec<_> = working.map(|(member, _)| member).collect();
        let known = working.iter().all(|member| agents.iter().any(|a| member.starts_with(a)));
        let all = agents.iter().all(|agent| working.iter().any(|m| m.starts_with(agent)));
        Ok(known && all)
    };
    let what = format!("group of {agents:?} alone");
    wait::until_true(&what, PATIENCE, as_said).with_context(|| scene.told())
}

#[test]
fn a_zombie_that_wakes_after_a_takeover_changes_nothing() -> Result<()> {
    let _alone = alone();
    let mut scene = Scene::new(&broker::shared().bootstrap(), WORD_COUNT)?;
    scene.start_load(11)?;
    scene.start_agents(2)?;
    wait_for_members(&scene, &["agent-a", "agent-b"])?;
    scene.wait_for_progress()?;
    scene.agents[0].stop()?;
    wait_for_members(&scene, &["agent-b"])?;
    scene.wait_for_progress()?;
    scene.agents[0].resume()?;
    wait_for_members(&scene, &["agent-a", "agent-b"])?;
    scene.wait_for_progress()?;
    scene.settle()?;
    scene.check().map(drop)
}

/// Waits until every task has ticked more often than it has in `counts`.
fn wait_for_ticks(scene: &Scene, counts: &BTreeMap<String, u64>) -> Result<BTreeMap<String, u64>> {
    let mut follower = Follower::new(scene.bootstrap(), &scene.topic("ticks"))?;
    let mut records = Vec::new();
    let further = || {
        records.extend(follower.read_to_end(PATIENCE)?);
        let now = ticks::check(&records)?;
        let all = now.len() == 4 && now.iter().all(|(task, n)| Some(n) > counts.get(task));
        Ok(all.then_some(now))
    };
    wait::until("tick of every task", PATIENCE, further).with_context(|| scene.told())
}

#[test]
fn a_zombie_that_only_punctuates_changes_nothing() -> Result<()> {
    let _alone = alone();
    let mut scene = Scene::new(&broker::shared().bootstrap(), TICKS)?;
    scene.start_agents(2)?;
    wait_for_members(&scene, &["agent-a", "agent-b"])?;
    let counts = wait_for_ticks(&scene, &BTreeMap::new())?;
    scene.agents[0].stop()?;
    wait_for_members(&scene, &["agent-b"])?;
    let counts = wait_for_ticks(&scene, &counts)?;
    // Its punctuations are due at once, and it does not know yet that it is out.
    scene.agents[0].resume()?;
    let counts = wait_for_ticks(&scene, &counts)?;
    wait_for_members(&scene, &["agent-a", "agent-b"])?;
    wait_for_ticks(&scene, &counts)?;
    for agent in &mut scene.agents {
        ensure!(agent.terminate()?.success(), "{}", agent.log_tail());
    }
    scene.check().map(drop)
}

#[test]
fn at_least_once_loses_nothing_over_kills() -> Result<()> {
    let _alone = alone();
    let mut scene = Scene::new(&broker::shared().bootstrap(), AT_LEAST_ONCE)?;
    scene.start_load(16)?;
    scene.start_agents(2)?;
    scene.wait_for_progress()?;
    scene.kill_in_turn(4)?;
    scene.settle()?;
    scene.check().map(drop)
}

#[test]
fn brokers_that_die_and_come_back_are_waited_for() -> Result<()> {
    let _alone = alone();
    // Of three, since one alone forgets markers: see the end of ARCHITECTURE.md.
    let mut cluster = Cluster::start(&Options { nodes: 3, ..Options::default() })?;
    let mut scene = Scene::new(&cluster.bootstrap(), WORD_COUNT)?;
    scene.start_load(12)?;
    scene.start_agents(2)?;
    scene.wait_for_progress()?;
    for node in 0..2 {
        cluster.kill(node)?;
        scene.wait_for_progress()?;
        cluster.restart(node)?;
        scene.wait_for_progress()?;
    }
    scene.settle()?;
    scene.check().map(drop)
}

#[test]
fn an_end_of_a_transaction_that_comes_late_changes_nothing() -> Result<()> {
    /// Longer than any timeout of an agent's commit: the next transaction is open when it comes.
    const DELAY: Duration = Duration::from_secs(8);
    let _alone = alone();
    let proxy = Proxy::start()?;
    let _cluster = Cluster::start(&Options::behind(&proxy))?;
    let mut scene = Scene::new(&proxy.bootstrap(), WORD_COUNT)?;
    scene.start_load(13)?;
    scene.start_agents(2)?;
    scene.wait_for_progress()?;
    for round in 1..=2 {
        proxy.hold(Api::EndTxn, 2, DELAY);
        let delivered = || Ok(proxy.delivered_late() == 2 * round);
        wait::until_true("late ends", PATIENCE, delivered).with_context(|| scene.told())?;
        scene.wait_for_progress()?;
    }
    scene.settle()?;
    scene.check().map(drop)
}

/// The files below a folder whose names begin and end so, but for those of stores that were set
/// aside.
fn files(folder: &Path, prefix: &str, suffix: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.contains(".corrupt-") {
                found.extend(files(&path, prefix, suffix)?);
            }
        } else if name.starts_with(prefix) && name.ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Turns bytes of a file over, in place.
fn damage(path: &Path) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let bytes = fs::read(path)?;
    let file = fs::File::options().write(true).open(path)?;
    // All over the file, so that something that is read is among them.
    for offset in (bytes.len() / 3..bytes.len()).step_by(64) {
        file.write_all_at(&[!bytes[offset]], offset as u64)?;
    }
    Ok(())
}

/// How often the agent said that it rebuilds a store, since its last start.
fn rebuilds(scene: &Scene) -> usize {
    scene.agents[0].log().matches("rebuilt").count()
}

/// Word count with little memory for much state, so that there are tables soon.
const LARGE_WORDS: Play = Play { inputs: &[("lines", large_words, 600)], ..WORD_COUNT };

fn large_words(_: u64, random: &mut Random) -> Record {
    let word = |random: &mut Random| format!("{:0>600}", random.skewed(3_000));
    let line = [word(random), word(random), word(random)].join(" ");
    Record { value: Some(line.into_bytes()), ..Record::default() }
}

/// Waits for files of such a name in the state of the agent. A store that was just rebuilt has no
/// tables for a while.
fn wait_for_files(scene: &Scene, prefix: &str, suffix: &str) -> Result<Vec<PathBuf>> {
    let state = scene.agents[0].state_directory();
    let found = || Ok(Some(files(&state, prefix, suffix)?).filter(|found| !found.is_empty()));
    wait::until(&format!("file {prefix}*{suffix}"), PATIENCE, found).with_context(|| scene.told())
}

/// Kills the agent, damages the first file of such a name, and starts the agent again, until it has
/// noticed: a table that was being written when it was killed belongs to nothing, and goes unread.
fn restart_damaged(scene: &mut Scene, prefix: &str, suffix: &str) -> Result<()> {
    for _ in 0..5 {
        wait_for_files(scene, prefix, suffix)?;
        scene.agents[0].kill()?;
        let found = files(&scene.agents[0].state_directory(), prefix, suffix)?;
        // What was there may have been merged into others at the moment of the kill.
        let Some(first) = found.first() else {
            scene.agents[0].start()?;
            continue;
        };
        damage(first)?;
        scene.agents[0].start()?;
        let noticed = || {
            let gone = !first.exists();
            let log = scene.agents[0].log();
            let unread = gone && log.contains("state=\"running\"");
            Ok(if log.contains("rebuilt") { Some(true) } else { unread.then_some(false) })
        };
        let noticed = wait::until("sign of damage", PATIENCE, noticed)
            .with_context(|| format!("{}\n{}", first.display(), scene.told()))?;
        scene.wait_for_progress().with_context(|| format!("with {} damaged", first.display()))?;
        if noticed {
            return Ok(());
        }
    }
    bail!("no {prefix}*{suffix} of five was in use")
}

/// Damages each new table of one task of a running agent until it has noticed: it does not read
/// again what it has in its cache.
fn damage_running(scene: &Scene) -> Result<()> {
    let tables = wait_for_files(scene, "", ".sst")?;
    let table = tables.first().context("there is a table")?;
    // Of one task alone: tables of others might be damaged and never be read again.
    let task = table.parent().context("a table is in a folder")?;
    let (before, mut damaged) = (rebuilds(scene), BTreeSet::new());
    let noticed = || {
        if rebuilds(scene) > before {
            return Ok(true);
        }
        for table in files(task, "", ".sst")? {
            // One that was merged with others meanwhile is gone.
            if !damaged.contains(&table) && damage(&table).is_ok() {
                damaged.insert(table);
            }
        }
        Ok(false)
    };
    wait::until_true("sign of damaged tables", PATIENCE, noticed).with_context(|| scene.told())
}

#[test]
fn damaged_files_are_noticed_and_the_store_is_rebuilt() -> Result<()> {
    let _alone = alone();
    let mut scene = Scene::new(&broker::shared().bootstrap(), LARGE_WORDS)?;
    scene.start_load(14)?;
    scene.start_agents(1)?;
    scene.wait_for_progress()?;
    restart_damaged(&mut scene, "CURRENT", "")?;
    restart_damaged(&mut scene, "MANIFEST-", "")?;
    restart_damaged(&mut scene, "", ".sst")?;
    damage_running(&scene)?;
    scene.wait_for_progress()?;
    scene.settle()?;
    scene.check().map(drop)
}

#[test]
fn members_come_and_go() -> Result<()> {
    let _alone = alone();
    let mut scene = Scene::new(&broker::shared().bootstrap(), WORD_COUNT)?;
    scene.start_load(15)?;
    // The guest's name is the first, so that it is given partitions when it comes: there are four,
    // for six workers.
    let guest = scene.add_agent()?;
    scene.start_agents(2)?;
    scene.wait_for_progress()?;
    for round in 0..4 {
        scene.agents[guest].start()?;
        wait_for_members(&scene, &["agent-a", "agent-b"])?;
        match round % 2 {
            0 => drop(scene.agents[guest].terminate()?),
            _ => scene.agents[guest].kill()?,
        }
        scene.wait_for_progress()?;
    }
    scene.settle()?;
    scene.check().map(drop)
}
