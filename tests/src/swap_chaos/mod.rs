//! Two agents under load whose module is swapped every two seconds, for good ones and bad ones,
//! while agents are killed, brokers restarted and partitions moved.

mod lane;
mod plan;
mod summary;

use std::{
    collections::BTreeSet,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sidestream::guest::Digest;
use sidestream_verifier::{check::Stamps, verdict::Verdict};

use self::lane::{Lane, Told};
pub use self::{
    lane::{Attempt, Outcome},
    plan::{INTERVAL, Plan, Swap, Trouble},
    summary::{Disturbance, Summary},
};
use crate::{
    agent::PATIENCE,
    broker::{Cluster, Options},
    examples, operate,
    scene::{Play, Scene},
    versions::{self, Behaviour, Candidate},
};

/// The transform that is swapped.
const TRANSFORM: &str = "stamp";

/// How many agents there are.
const AGENTS: usize = 2;

/// How many swaps can be told before somebody listens.
const TOLD_MAX: usize = 1_000;

/// A module with versions. Each of its instances has a quarter of the load: it comes to its
/// thousandth record within a probation.
pub const SWAPS: Play = Play {
    pipeline: "\
{head}
swap: { probation_records: 2200, probation_time: 1s, probation_time_max: 60s, output_ratio_max: 3 }
transforms:
  - name: stamp
    module: {modules}/versions.wasm
    inputs: ['{topic:in}']
    stores: [stamps]
    outputs: { stamped: '{topic:stamped}', copies: '{topic:copies}' }
",
    inputs: &[("in", examples::event, 3_000)],
    outputs: &["stamped", "copies"],
    repartitions: &[],
    stores: &["stamps"],
    check: |scene| check(scene, &BTreeSet::new()),
};

/// Brokers of which one may die: see the end of ARCHITECTURE.md.
#[must_use]
pub fn brokers() -> Options {
    Options { nodes: 3, ..Options::default() }
}

/// Checks that each record came out once, by one version, and by none that was `never` to run,
/// and that all versions together counted as one.
pub fn check(scene: &Scene, never: &BTreeSet<u32>) -> Result<Vec<Verdict>> {
    let pipeline = scene.pipeline();
    let inputs = [scene.topic("in")];
    let outputs = [scene.topic("stamped"), scene.topic("copies")];
    let stamps = Stamps { outputs_per_record: 2, same_value: false };
    Ok(vec![
        pipeline.versions(&inputs, &outputs, stamps, never)?,
        pipeline.count(&inputs, &outputs[0], "stamps")?,
    ])
}

/// Plays a scene of [`SWAPS`] to its end. The scene stands still then, with its stores at rest;
/// [`verify`] is to be asked what came of it.
pub fn run(
    plan: &Plan,
    (scene, cluster): (&mut Scene, &mut Cluster),
    say: &mut dyn FnMut(&str),
) -> Result<Summary> {
    scene.start_load(plan.seed)?;
    scene.start_agents(AGENTS)?;
    scene.wait_for_progress()?;
    let folder = tempfile::Builder::new().prefix("sidestream-swaps-").tempdir()?;
    let start = Instant::now();
    let agents = scene.agents.iter().enumerate();
    let lanes = agents.map(|agent| Lane::new(agent, folder.path(), start));
    let mut lanes = lanes.collect::<Result<Vec<_>>>()?;
    let mut summary = Summary::default();
    thread::scope(|scope| {
        let (tell, told) = mpsc::sync_channel(TOLD_MAX);
        for lane in &mut lanes {
            let tell = tell.clone();
            scope.spawn(move || lane.run(&plan.swaps, &tell));
        }
        drop(tell);
        let stage = Stage { scene: &mut *scene, cluster, start, told };
        // An error drops the receiver, at which the lanes end.
        stage.play(plan, &mut summary, say)
    })?;
    let mut version = plan.next_version();
    if plan.shows_each() {
        version = swap_missing(&mut lanes[0], version, &mut summary, say)?;
    }
    say("the last swap: a good module for both agents");
    for (lane, agent) in lanes.iter_mut().zip(0..) {
        swap_for_good(lane, version, &mut summary)?;
        check_runs(scene, agent, version)?;
    }
    say("stopping the load, waiting until everything is processed");
    summary.records = scene.settle()?;
    Ok(summary)
}

/// What came out, and whether all swaps came to the end that is theirs; for people.
pub fn verify(scene: &Scene, summary: &Summary) -> Result<String> {
    let never = summary.never();
    let verdicts = check(scene, &never)?;
    for verdict in &verdicts {
        ensure!(verdict.is_good(), "{verdict}\n{}", scene.told());
    }
    let complaints = summary.complaints();
    ensure!(complaints.is_empty(), "swaps came to a wrong end:\n{}", complaints.join("\n"));
    ensure!(!summary.pauses.is_empty(), "no switch told its pause");
    let changes = verdicts[0].compared.get("changes of version").copied().unwrap_or(0);
    ensure!(changes > 0, "no partition ever saw another version");
    Ok(format!("{} refused versions left no trace; {}", never.len(), verdicts[0]))
}

/// Where troubles happen.
struct Stage<'a> {
    scene: &'a mut Scene,
    cluster: &'a mut Cluster,
    start: Instant,
    told: Receiver<Result<Told>>,
}

impl Stage<'_> {
    /// Makes every trouble at its moment, and listens to what is told of swaps until the last one.
    fn play(mut self, plan: &Plan, summary: &mut Summary, say: &mut dyn FnMut(&str)) -> Result<()> {
        for (at, trouble) in &plan.troubles {
            self.listen(Some(self.start + *at), summary, say)?;
            let began = self.start.elapsed();
            let made = self.make(*trouble, summary);
            let done = made.and_then(|()| self.scene.wait_for_progress());
            done.with_context(|| format!("{trouble:?} of seed {}; {}", plan.seed, self.state()))?;
            let ended = self.start.elapsed();
            summary.disturbances.push(Disturbance { began, ended });
            let took = ended.saturating_sub(began);
            say(&format!("{trouble:?}: all partitions on again after {took:.1?}"));
        }
        self.listen(None, summary, say)
    }

    /// What the agents say of themselves, for messages.
    fn state(&self) -> String {
        let state = |agent| match operate::ask(agent, &["status"]) {
            Ok(status) => format!("{} says: {}\n", agent.name(), status["workers"]),
            Err(error) => format!("{} says nothing: {error:#}\n", agent.name()),
        };
        self.scene.agents.iter().map(state).collect()
    }

    /// Listens until this moment, or until all swaps are told.
    fn listen(
        &self,
        until: Option<Instant>,
        summary: &mut Summary,
        say: &mut dyn FnMut(&str),
    ) -> Result<()> {
        loop {
            let wait =
                until.map_or(2 * PATIENCE, |until| until.saturating_duration_since(Instant::now()));
            match (self.told.recv_timeout(wait), until) {
                (Ok(told), _) => note(told?, summary, say),
                (Err(RecvTimeoutError::Disconnected), None) => return Ok(()),
                (Err(RecvTimeoutError::Disconnected), Some(until)) => {
                    thread::sleep(until.saturating_duration_since(Instant::now()));
                    return Ok(());
                }
                (Err(RecvTimeoutError::Timeout), Some(_)) => return Ok(()),
                (Err(RecvTimeoutError::Timeout), None) => {
                    anyhow::bail!("nothing was told of a swap for {wait:?}\n{}", self.scene.told())
                }
            }
        }
    }

    fn make(&mut self, trouble: Trouble, summary: &mut Summary) -> Result<()> {
        match trouble {
            Trouble::Kill { agent, away } => {
                self.scene.agents[agent].kill()?;
                summary.kills += 1;
                thread::sleep(away);
                self.scene.agents[agent].start()
            }
            Trouble::KillBoth => {
                for agent in &mut self.scene.agents {
                    agent.kill()?;
                    summary.kills += 1;
                }
                self.scene.agents.iter_mut().try_for_each(|agent| agent.start())
            }
            Trouble::RestartBroker { node } => {
                self.cluster.kill(node)?;
                self.scene.wait_for_progress()?;
                summary.broker_restarts += 1;
                self.cluster.restart(node)
            }
            Trouble::Leave { agent } => {
                summary.leaves += 1;
                operate::ask(&self.scene.agents[agent], &["drain", "--leave"])?;
                let ended = self.scene.agents[agent].wait_for_end()?;
                ensure!(ended.success(), "the agent that left ended with {ended}");
                // The other one has everything now.
                self.scene.wait_for_progress()?;
                self.scene.agents[agent].start()
            }
        }
    }
}

fn note(told: Told, summary: &mut Summary, say: &mut dyn FnMut(&str)) {
    say(&told.attempt.to_string());
    take(told.attempt, told.pauses, summary);
}

fn take(attempt: Attempt, pauses: Vec<Duration>, summary: &mut Summary) {
    let number = summary.attempts.len();
    summary.attempts.push(attempt);
    summary.pauses.extend(pauses.into_iter().map(|pause| (number, pause)));
}

/// Swaps in the bad candidates that have not come to their end among the troubles, for which a slow
/// machine may have left no time. Says the version after the last one.
fn swap_missing(
    lane: &mut Lane,
    mut version: u32,
    summary: &mut Summary,
    say: &mut dyn FnMut(&str),
) -> Result<u32> {
    for candidate in summary.missing() {
        say(&format!("{candidate:?} was never judged: now, without troubles"));
        let begun = Instant::now();
        while summary.missing().contains(&candidate) && begun.elapsed() < PATIENCE {
            let attempt = lane.swap(version, candidate)?;
            say(&attempt.to_string());
            take(attempt, lane.pauses()?, summary);
            version += 1;
            thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(version)
}

/// Swaps in a good version, again if it has to be, until it is kept.
fn swap_for_good(lane: &mut Lane, version: u32, summary: &mut Summary) -> Result<()> {
    let begun = Instant::now();
    loop {
        let attempt = lane.swap(version, Candidate::GOOD)?;
        if attempt.outcome == Outcome::Kept {
            take(attempt, lane.pauses()?, summary);
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "the last swap comes to no good end: {attempt}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// Checks that an agent says that it runs this good version.
fn check_runs(scene: &Scene, agent: usize, version: u32) -> Result<()> {
    let digest = Digest::of(&versions::module(version, Behaviour::Good)?).to_string();
    let status = operate::ask(&scene.agents[agent], &["status"])?;
    let running = &status["transforms"][0]["digest"];
    ensure!(*running == digest, "agent {agent} runs {running} and not {digest}");
    Ok(())
}
