//! Two agents of two workers under load that are killed again and again: at random moments, and at
//! each of the points that the agent has names for.

use std::{
    collections::BTreeSet,
    fmt, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sidestream::crash_point::CrashPoint;

use crate::{
    agent::{Agent, PATIENCE},
    random::Random,
    scene::Scene,
};

/// How often a point is passed before the kill, at most.
const PASSES_MAX: u64 = 30;

/// Longer than the session timeout of the agents: others take the dead one's partitions over.
const UNTIL_TAKEOVER: Duration = Duration::from_secs(8);

/// What is to happen.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many kills at random moments; as many again come at named points, each at least once.
    pub rounds: usize,
    /// Decides moments and victims.
    pub seed: u64,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many records went in.
    pub records: u64,
    /// How many processes were killed.
    pub kills: u64,
    /// The points at which an agent died.
    pub points: BTreeSet<&'static str>,
    /// How many kills left a transaction open, of those that looked.
    pub open_transactions: u64,
    /// The longest time from a restart until every partition had gone on.
    pub recovery_max: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let points: Vec<_> = self.points.iter().copied().collect();
        let (open, recovery) = (self.open_transactions, self.recovery_max);
        write!(f, "{open} left a transaction open; died at {}; ", points.join(", "))?;
        write!(f, "all partitions were on again within {recovery:.1?}")
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A kill at a random moment.
    Random,
    /// A kill at a named point.
    At(CrashPoint),
}

/// Plays a scene to its end under kills. Verifying what came out is left to the caller, for whom
/// the scene stands still, with its stores at rest.
pub fn run(plan: Plan, scene: &mut Scene, say: &mut dyn FnMut(&str)) -> Result<Summary> {
    let mut random = Random::new(plan.seed);
    let mut summary = Summary::default();
    scene.start_load(plan.seed)?;
    scene.start_agents(2)?;
    scene.wait_for_progress()?;
    let steps = steps(plan.rounds, &mut random);
    for (number, step) in steps.iter().enumerate() {
        let told = play(*step, scene, &mut random, &mut summary);
        let told = told.with_context(|| format!("in step {number}, {step:?}, of {plan:?}"))?;
        say(&format!("{:3} of {}: {told}", number + 1, steps.len()));
    }
    say("stopping the load, waiting until everything is processed");
    summary.records = scene.settle()?;
    let missing: Vec<_> =
        CrashPoint::ALL.iter().filter(|point| !summary.points.contains(point.name())).collect();
    ensure!(missing.is_empty(), "no agent died at {missing:?}");
    ensure!(summary.open_transactions > 0, "no kill met an open transaction: there was no load");
    Ok(summary)
}

/// All steps, in an order that the seed decides.
fn steps(rounds: usize, random: &mut Random) -> Vec<Step> {
    let points = CrashPoint::ALL.into_iter().cycle().take(rounds.max(CrashPoint::ALL.len()));
    let mut steps: Vec<_> = points.map(Step::At).collect();
    steps.extend(std::iter::repeat_n(Step::Random, rounds));
    for index in (1..steps.len()).rev() {
        let other = random.within(0..index as u64 + 1);
        steps.swap(index, usize::try_from(other).expect("an index"));
    }
    steps
}

fn play(
    step: Step,
    scene: &mut Scene,
    random: &mut Random,
    summary: &mut Summary,
) -> Result<String> {
    let victim = usize::from(random.once_in(2));
    match step {
        Step::Random => {
            let moment = random.duration(Duration::from_secs(2));
            let both = random.once_in(5);
            thread::sleep(moment);
            let agents = scene.agents.iter_mut().enumerate();
            for (_, agent) in agents.filter(|(index, _)| both || *index == victim) {
                agent.kill()?;
                summary.kills += 1;
            }
            let met = if random.once_in(2) { note_open_transaction(scene, summary)? } else { "" };
            let away = time_away(random);
            thread::sleep(away);
            let took = restart(scene, summary)?;
            let who = if both { "both agents" } else { scene.agents[victim].name() };
            Ok(format!("killed {who}{met}, {away:?} away, all partitions on after {took:?}"))
        }
        Step::At(point) => {
            let passes = match point {
                CrashPoint::InRestore => 1,
                _ => random.within(1..PASSES_MAX),
            };
            let agent = &mut scene.agents[victim];
            die_at(agent, point, passes)?;
            let name = agent.name().to_owned();
            summary.kills += 2;
            summary.points.insert(point.name());
            let met = note_open_transaction(scene, summary)?;
            let took = restart(scene, summary)?;
            let point = point.name();
            Ok(format!("{name} died {point}:{passes}{met}, all partitions on after {took:?}"))
        }
    }
}

/// Restarts an agent so that it dies at a point, and waits until it has.
fn die_at(agent: &mut Agent, point: CrashPoint, passes: u64) -> Result<()> {
    agent.kill()?;
    if point == CrashPoint::InRestore {
        // With its state it has next to nothing to restore.
        std::fs::remove_dir_all(agent.state_directory())?;
    }
    agent.start_armed(point, passes)?;
    let status = agent.wait_for_end()?;
    ensure!(
        std::os::unix::process::ExitStatusExt::signal(&status).is_some(),
        "{} ended with {status} and not at {point:?}:\n{}",
        agent.name(),
        agent.log_tail()
    );
    Ok(())
}

/// Mostly at once; sometimes late enough that others have taken over.
fn time_away(random: &mut Random) -> Duration {
    match random.within(0..4) {
        0 => UNTIL_TAKEOVER,
        1 => random.duration(Duration::from_secs(2)),
        _ => Duration::ZERO,
    }
}

fn note_open_transaction(scene: &Scene, summary: &mut Summary) -> Result<&'static str> {
    let met = scene.met_open_transaction()?;
    summary.open_transactions += u64::from(met);
    Ok(if met { " in an open transaction" } else { "" })
}

/// Starts every agent that isn't running, and says how long it took until all partitions went on.
fn restart(scene: &mut Scene, summary: &mut Summary) -> Result<Duration> {
    let start = Instant::now();
    for agent in &mut scene.agents {
        if !agent.is_running()? {
            agent.start()?;
        }
    }
    scene.wait_for_progress()?;
    let took = start.elapsed();
    ensure!(took < PATIENCE, "all partitions went on only after {took:?}");
    summary.recovery_max = summary.recovery_max.max(took);
    Ok(Duration::from_millis(u64::try_from(took.as_millis())?))
}
