//! The swaps of one agent, as its operator would make them: by the command line.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::SyncSender,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    TRANSFORM,
    plan::{INTERVAL, Swap},
};
use crate::{
    agent::{Agent, PATIENCE, binary},
    process::Process,
    versions::Candidate,
};

/// What became of a swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed its probation.
    Kept,
    /// The one before came back, for this reason.
    RolledBack(String),
    /// It never replaced anything, for this reason.
    Refused(String),
    /// Another one was under way.
    Busy,
    /// The agent did not tell the end of it: this is what was said instead.
    Unknown(String),
    /// It was not tried, because the one before took too long.
    Late,
}

impl Outcome {
    /// Whether the version is known to have never run.
    #[must_use]
    pub const fn never_ran(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Busy | Self::Late)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept => f.write_str("kept"),
            Self::RolledBack(reason) => write!(f, "rolled back: {reason}"),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
            Self::Busy => f.write_str("refused: another one is under way"),
            Self::Unknown(text) => write!(f, "unknown: {text}"),
            Self::Late => f.write_str("too late to begin"),
        }
    }
}

/// One swap of one agent, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The agent's number.
    pub agent: usize,
    /// The version.
    pub version: u32,
    /// What it is.
    pub candidate: Candidate,
    /// What became of it.
    pub outcome: Outcome,
    /// The exit code of the command; none if it was not tried.
    pub exit: Option<i32>,
    /// When it began, from the start.
    pub began: Duration,
    /// When it was decided.
    pub ended: Duration,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { agent, version, candidate, outcome, began, ended, .. } = self;
        let took = ended.saturating_sub(*began);
        write!(f, "agent {agent}: version {version}, {candidate:?}: {took:.1?}, {outcome}")
    }
}

/// What a lane tells.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) attempt: Attempt,
    /// How long the record path stood still, for each worker that switched since the last one.
    pub(super) pauses: Vec<Duration>,
}

/// The swaps of one agent.
pub(super) struct Lane {
    agent: usize,
    /// Its state directory, by which its control interface is found.
    state: PathBuf,
    /// A folder for modules and answers.
    folder: PathBuf,
    start: Instant,
    /// The events that were seen: times and numbers, since these count from one in each life.
    seen: BTreeSet<(i64, u64)>,
}

impl Lane {
    pub(super) fn new(
        (number, agent): (usize, &Agent),
        folder: &Path,
        start: Instant,
    ) -> Result<Self> {
        let (state, folder) = (agent.state_directory(), folder.join(agent.name()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self { agent: number, state, folder, start, seen: BTreeSet::new() })
    }

    /// Makes each swap at its moment, until all are made or nobody listens any more.
    pub(super) fn run(&mut self, swaps: &[Swap], tell: &SyncSender<Result<Told>>) {
        for swap in swaps {
            let told = self.take_turn(swap);
            let failed = told.is_err();
            if tell.send(told).is_err() || failed {
                return;
            }
        }
    }

    fn take_turn(&mut self, swap: &Swap) -> Result<Told> {
        let now = self.start.elapsed();
        if now > swap.at + INTERVAL {
            let Swap { version, candidate, .. } = *swap;
            let (agent, outcome) = (self.agent, Outcome::Late);
            let attempt =
                Attempt { agent, version, candidate, outcome, exit: None, began: now, ended: now };
            return Ok(Told { attempt, pauses: Vec::new() });
        }
        thread::sleep(swap.at.saturating_sub(now));
        let attempt = self.swap(swap.version, swap.candidate)?;
        Ok(Told { attempt, pauses: self.pauses()? })
    }

    /// Makes one swap now, and waits until it is decided.
    pub(super) fn swap(&self, version: u32, candidate: Candidate) -> Result<Attempt> {
        let file = self.folder.join(format!("version-{version}.wasm"));
        std::fs::write(&file, candidate.bytes(version)?)?;
        let began = self.start.elapsed();
        let path = file.display().to_string();
        let (exit, text) = self.ask(&["swap", TRANSFORM, &path])?;
        let (ended, outcome) = (self.start.elapsed(), outcome(&text));
        std::fs::remove_file(&file)?;
        Ok(Attempt { agent: self.agent, version, candidate, outcome, exit, began, ended })
    }

    /// The pauses of the switches that were not seen before. An agent that is away, or has been
    /// since, tells none.
    pub(super) fn pauses(&mut self) -> Result<Vec<Duration>> {
        let (_, text) = self.ask(&["events"])?;
        let mut pauses = Vec::new();
        for event in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if let Some((id, pause)) = pause(&event)?
                && self.seen.insert(id)
            {
                pauses.push(pause);
            }
        }
        Ok(pauses)
    }

    /// Runs a verb on the agent: its exit code, unless it was killed, and all that it wrote.
    fn ask(&self, arguments: &[&str]) -> Result<(Option<i32>, String)> {
        let answer = self.folder.join("answer");
        let mut command = Command::new(binary()?);
        command.args(["--output", "json"]).args(arguments).arg("--state").arg(&self.state);
        for variable in ["SIDESTREAM_CONTROL", "SIDESTREAM_STATE", "SIDESTREAM_PIPELINE"] {
            command.env_remove(variable);
        }
        let mut process = Process::spawn("command", &mut command, &answer, None)?;
        let status = process.wait_for_end(PATIENCE)?;
        let text = process.log();
        std::fs::remove_file(&answer)?;
        Ok((status.code(), text))
    }
}

/// What the command line says that became of a swap.
fn outcome(text: &str) -> Outcome {
    let answers = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let Some(answer) = answers.into_iter().next() else {
        return Outcome::Unknown(text.trim().to_owned());
    };
    let problems = answer["problems"].as_array().into_iter().flatten();
    let messages: Vec<_> = problems.filter_map(|problem| problem["message"].as_str()).collect();
    let reason = messages.join("; ");
    match answer["outcome"].as_str() {
        Some("kept") => Outcome::Kept,
        Some("rolled_back") => Outcome::RolledBack(reason),
        Some("refused") => Outcome::Refused(reason),
        _ if reason.contains("is under way") => Outcome::Busy,
        _ if reason.is_empty() => Outcome::Unknown(answer.to_string()),
        _ => Outcome::Unknown(reason),
    }
}

/// The pause that an event tells of, if it does, with what tells this event from others.
fn pause(event: &Value) -> Result<Option<((i64, u64), Duration)>> {
    if event["kind"] != "swap_switched" {
        return Ok(None);
    }
    let what = || format!("the event {event}");
    let message = event["message"].as_str().with_context(what)?;
    let (_, pause) = message.split_once("pause_us=").with_context(what)?;
    let digits = pause.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    let pause = Duration::from_micros(digits.parse().with_context(what)?);
    let time = event["time_ms"].as_i64().with_context(what)?;
    let sequence = event["sequence"].as_u64().with_context(what)?;
    Ok(Some(((time, sequence), pause)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_command_line_are_read() {
        let kept = r#"{"ok":true,"problems":[],"transform":"stamp","outcome":"kept","phases":[]}"#;
        assert_eq!(outcome(&format!("a warning\n{kept}\n")), Outcome::Kept);
        let answer = |outcome: &str, message: &str| {
            format!(
                r#"{{"ok":false,"problems":[{{"about":"module","message":"{message}"}}],"outcome":"{outcome}"}}"#
            )
        };
        let because = || "because".to_owned();
        assert_eq!(outcome(&answer("refused", "because")), Outcome::Refused(because()));
        assert_eq!(outcome(&answer("rolled_back", "because")), Outcome::RolledBack(because()));
        assert_eq!(outcome(&answer("probation", "because")), Outcome::Unknown(because()));
        let busy = answer("unspecified", "a swap of `stamp` is under way");
        assert_eq!(outcome(&busy), Outcome::Busy);
        assert_eq!(outcome("no JSON at all\n"), Outcome::Unknown("no JSON at all".to_owned()));
        assert!(Outcome::Busy.never_ran() && !outcome(&answer("probation", "x")).never_ran());
    }

    #[test]
    fn pauses_are_read_from_events() {
        let event = |kind: &str, message: &str| {
            let event = serde_json::json!({
                "sequence": 7, "time_ms": 1_700, "kind": kind, "worker": 1, "task": "",
                "message": message,
            });
            pause(&event)
        };
        let found = event("swap_switched", "`stamp`: pause_us=1234").unwrap();
        assert_eq!(found, Some(((1_700, 7), Duration::from_micros(1_234))));
        let among = event("swap_switched", "pause_us=9, and more").unwrap();
        assert_eq!(among.map(|(_, pause)| pause), Some(Duration::from_micros(9)));
        assert_eq!(event("swap_kept", "pause_us=5").unwrap(), None);
        event("swap_switched", "without").unwrap_err();
    }
}
