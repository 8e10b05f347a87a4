//! The verbs that speak with a running agent.

mod course;
mod events;
mod retry;
mod state;
mod status;
mod swap;
mod target;
mod top;

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::{
    events::Follow,
    state::Read,
    swap::{ToRollBack, ToSwap},
    target::{At, Which},
    top::Refresh,
};
use crate::{
    cli::{
        Exit,
        finding::{self, About, Finding},
        output::Output,
    },
    control::{
        client::{Client, Error},
        proto::{Status, Worker},
    },
};

/// How long a drain may take before it is no longer waited for.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(120);
/// How often to look whether the agent has gone.
const DRAIN_INTERVAL: Duration = Duration::from_millis(100);

/// What to do with a running agent.
#[derive(Clone, Debug, Subcommand)]
pub enum Control {
    /// Show what a running agent does: tasks, lag, restores, modules.
    Status {
        #[command(flatten)]
        which: Which,
    },
    /// Show what a running agent does, again and again; one that goes away is waited for.
    Top {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        refresh: Refresh,
    },
    /// Make a running agent commit what it has and begin no further batch.
    Pause {
        #[command(flatten)]
        which: Which,
    },
    /// Let a paused agent go on. Stopped tasks stay stopped: see `retry`.
    Resume {
        #[command(flatten)]
        which: Which,
    },
    /// Try stopped tasks again, once what stopped them is put right; waits for what comes of it.
    Retry {
        /// The tasks, as `status` calls them; all that are stopped unless set.
        tasks: Vec<String>,
        #[command(flatten)]
        at: At,
    },
    /// Make a running agent commit what it has and end; waits until it has.
    Drain {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        drain: HowToDrain,
    },
    /// Replace the module of a transform while records flow.
    ///
    /// The new module is compiled, checked, compared with the running one, and initialised for every
    /// task, beside the work. Then each worker commits what it has and goes on with it. On probation
    /// it is rolled back by itself if it fails at what the one before does, or takes much more. The
    /// command waits for the outcome; the swap goes on without it.
    Swap {
        #[command(flatten)]
        swap: ToSwap,
        #[command(flatten)]
        at: At,
    },
    /// Take a transform back to a module that it ran before.
    ///
    /// Goes the same way as a swap, without a probation. While a new module is on probation, that is
    /// over at once, and the one before runs again.
    Rollback {
        #[command(flatten)]
        to: ToRollBack,
        #[command(flatten)]
        at: At,
    },
    /// Read the committed state of a store.
    #[command(subcommand)]
    State(Read),
    /// Show what happens in a running agent.
    Events {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        follow: Follow,
    },
}

/// How to drain.
#[derive(Clone, Copy, Debug, Args)]
pub struct HowToDrain {
    /// Leave the group, so that others take over at once: for an agent that does not come back.
    /// Without this and `--stay`, as `shutdown.leave_on_stop` of its pipeline file says: `false` unless
    /// set, but `true` if the file names no state directory.
    #[arg(long, conflicts_with = "stay")]
    pub leave: bool,
    /// Keep the membership for a restart: the agent's partitions rest until it is back, or others take
    /// them over after `session.timeout.ms` (10 s unless set).
    #[arg(long)]
    pub stay: bool,
    /// Do not wait for the end.
    #[arg(long)]
    pub no_wait: bool,
}

/// What went wrong, and what else is known of it.
struct Failure {
    findings: Vec<Finding>,
    details: Value,
}

impl From<Vec<Finding>> for Failure {
    fn from(findings: Vec<Finding>) -> Self {
        Self { findings, details: json!({}) }
    }
}

/// Does what is asked for.
pub(super) fn run(verb: &Control, output: &mut Output) -> Exit {
    match act(verb, output) {
        Ok(()) => Exit::Ok,
        Err(Failure { findings, details }) => {
            output.findings(&findings, &details);
            finding::exit(&findings)
        }
    }
}

fn act(verb: &Control, output: &mut Output) -> Result<(), Failure> {
    let told = |error| vec![of_client(&error)];
    match verb {
        Control::Status { which } => {
            let status = connect(&which.at())?.status().map_err(told)?;
            output.answer(&status::lines(&status), &to_json(&status));
        }
        Control::Top { which, refresh } => {
            top::run(&mut connect(&which.at())?, refresh, output).map_err(told)?;
        }
        Control::Pause { which } => {
            let committed = connect(&which.at())?.pause().map_err(told)?;
            if !committed {
                return Err(Failure::from(vec![Finding::new(
                    About::Run,
                    "the agent was told to pause, but has not committed what it had yet; \
                     `sidestream status` shows what it waits for",
                )]));
            }
            let line = "paused: everything processed is committed".to_owned();
            output.answer(&[line], &json!({ "paused": true }));
        }
        Control::Resume { which } => {
            let stopped = retry::resume(&mut connect(&which.at())?).map_err(told)?;
            let mut lines = vec!["resumed".to_owned()];
            lines.extend(stopped.iter().map(|task| {
                format!("task {task} stays stopped; `sidestream retry {task}` tries it again")
            }));
            output.answer(&lines, &json!({ "paused": false, "stopped": stopped }));
        }
        Control::Retry { tasks, at } => retry::run(&mut connect(at)?, tasks, output)?,
        Control::Drain { which, drain } => drain_agent(&mut connect(&which.at())?, *drain, output)?,
        Control::Swap { swap, at } => swap::swap(at, swap, output)?,
        Control::Rollback { to, at } => swap::roll_back(at, to, output)?,
        Control::State(read) => state::run(read, output)?,
        Control::Events { which, follow } => {
            events::run(&mut connect(&which.at())?, follow, output).map_err(told)?;
        }
    }
    Ok(())
}

fn drain_agent(
    client: &mut Client,
    how: HowToDrain,
    output: &mut Output,
) -> Result<(), Vec<Finding>> {
    let leave = (how.leave || how.stay).then_some(how.leave);
    client.drain(leave).map_err(|error| vec![of_client(&error)])?;
    if how.no_wait {
        output.answer(&["draining".to_owned()], &json!({ "drained": false }));
        return Ok(());
    }
    let deadline = Instant::now() + DRAIN_TIME_MAX;
    // It answers until it ends.
    while let Ok(status) = client.status() {
        if Instant::now() >= deadline {
            return Err(vec![still_draining(&status)]);
        }
        std::thread::park_timeout(DRAIN_INTERVAL);
    }
    output.answer(&["drained".to_owned()], &json!({ "drained": true }));
    Ok(())
}

/// That an agent drains still, and what its workers are at.
fn still_draining(status: &Status) -> Finding {
    let seconds = DRAIN_TIME_MAX.as_secs();
    let at = |worker: &Worker| {
        let told = [&worker.waiting_for, &worker.doing].map(String::as_str);
        let told = told.into_iter().find(|told| !told.is_empty())?;
        Some(format!("worker {}: {told}", worker.number))
    };
    let at: Vec<String> = status.workers.iter().filter_map(at).collect();
    let at = if at.is_empty() { String::new() } else { format!(" ({})", at.join("; ")) };
    let remedy =
        "look at its log; it gives up after `shutdown.deadline` of its pipeline file, and \
                  nothing is lost if it is killed"
            .to_owned();
    let message = format!("the agent was told to drain, and runs still after {seconds} s{at}");
    Finding { remedy, ..Finding::new(About::Run, message) }
}

fn connect(at: &At) -> Result<Client, Vec<Finding>> {
    let target = at.target()?;
    Client::connect(&target).map_err(|error| vec![of_client(&error)])
}

fn of_client(error: &Error) -> Finding {
    let (about, remedy) = match error {
        Error::Unreachable { .. } => (
            About::Agent,
            "start it with `sidestream run`, or name another one with `--control`, `--state` or \
             `--pipeline`",
        ),
        Error::Unauthenticated(_) => (About::Agent, "name the token's file with `--token-file`"),
        Error::File { .. } => (About::Agent, ""),
        Error::Refused(_) => (About::Run, ""),
        Error::Busy(_) => (
            About::Run,
            "`sidestream events` tells when it has ended; `sidestream rollback` ends its probation",
        ),
    };
    Finding { remedy: remedy.to_owned(), ..Finding::new(about, error.to_string()) }
}

fn to_json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("messages have string keys alone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_that_takes_long_is_told_with_what_it_is_at_and_what_ends_it() {
        let worker = |number, waiting_for: &str, doing: &str| Worker {
            number,
            waiting_for: waiting_for.to_owned(),
            doing: doing.to_owned(),
            ..Worker::default()
        };
        let workers =
            vec![worker(0, "", ""), worker(1, "a marker", ""), worker(2, "", "in a commit")];
        let finding = still_draining(&Status { workers, ..Status::default() });
        let at = "after 120 s (worker 1: a marker; worker 2: in a commit)";
        assert!(finding.message.ends_with(at), "{}", finding.message);
        for part in ["its log", "`shutdown.deadline`", "nothing is lost"] {
            assert!(finding.remedy.contains(part), "no `{part}` in: {}", finding.remedy);
        }
        let bare = still_draining(&Status::default()).message;
        assert!(bare.ends_with("after 120 s"), "{bare}");
    }
}
