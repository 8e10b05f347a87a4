//! `sidestream swap` and `sidestream rollback`.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::Instant,
};

use clap::{Args, ValueHint};
use serde::Serialize;
use serde_json::{Value, json};

use super::{At, Failure, connect, of_client, short};
use crate::{
    cli::{
        finding::{About, Finding},
        output::Output,
        progress::Progress,
    },
    control::{
        client::Error,
        proto::{RollbackRequest, SwapPhase, SwapPlan, SwapRequest, SwapUpdate},
    },
};

/// How large a file is read; what the agent takes is `limits.module_bytes_max`.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// What to swap.
#[derive(Clone, Debug, Args)]
pub struct ToSwap {
    /// The transform.
    pub transform: String,
    /// The file of its new module.
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Compile, compare and initialise the module, show what a swap would do, and replace nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Return once the new module runs everywhere; its probation goes on.
    #[arg(long, conflicts_with = "dry_run")]
    pub no_wait: bool,
}

/// What to go back to.
#[derive(Clone, Debug, Args)]
pub struct ToRollBack {
    /// The transform.
    pub transform: String,
    /// The version: its digest, or the first digits of it, as `status` lists them. The one before
    /// the running one unless set.
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    pub to: Option<String>,
}

/// Swaps a module, and waits until it is decided whether it stays.
pub(super) fn swap(at: &At, swap: &ToSwap, output: &mut Output) -> Result<(), Failure> {
    let module = read(&swap.file).map_err(|finding| vec![finding])?;
    let mut client = connect(at)?;
    let name = swap.file.file_name().unwrap_or(swap.file.as_os_str());
    let request = SwapRequest {
        transform: swap.transform.clone(),
        module,
        name: name.to_string_lossy().into_owned(),
        dry_run: swap.dry_run,
    };
    let until = match (swap.dry_run, swap.no_wait) {
        (true, _) => Until::Plan,
        (false, true) => Until::Probation,
        (false, false) => Until::End,
    };
    let mut course = Course::new(&swap.transform, Act::Swap, until, output);
    let ended = client.swap(request, |update| course.take(update, output));
    course.end(&ended, output)
}

/// Goes back to a version that ran before, and waits until it is decided whether it stays.
pub(super) fn roll_back(at: &At, to: &ToRollBack, output: &mut Output) -> Result<(), Failure> {
    let mut client = connect(at)?;
    let digest = to.to.clone().unwrap_or_default();
    let request = RollbackRequest { transform: to.transform.clone(), digest };
    let mut course = Course::new(&to.transform, Act::Rollback, Until::End, output);
    let ended = client.rollback(request, |update| course.take(update, output));
    course.end(&ended, output)
}

/// Reads a version as it can be named.
fn digest(text: &str) -> Result<String, String> {
    match text.len() {
        1..=64 if text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(text.to_ascii_lowercase())
        }
        _ => Err("write hexadecimal digits, 64 at most".to_owned()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Finding> {
    let wrong = |message: String| Finding {
        file: Some(path.display().to_string()),
        ..Finding::new(About::Module, message)
    };
    let mut module = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut module))
        .map_err(|error| wrong(format!("the module can't be read: {error}")))?;
    match module.len() as u64 {
        0 => Err(wrong("the file is empty".to_owned())),
        1..=FILE_BYTES_MAX => Ok(module),
        _ => Err(wrong(format!("the file has more than {FILE_BYTES_MAX} bytes: no module"))),
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Swap,
    Rollback,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Plan,
    Probation,
    End,
}

/// One phase, and what was said of it last.
#[derive(Serialize)]
struct Phase {
    phase: String,
    message: String,
    /// When it began, in milliseconds since the start.
    after_ms: u64,
}

/// A swap as it goes on.
struct Course {
    transform: String,
    act: Act,
    until: Until,
    started: Instant,
    progress: Progress,
    /// The phase that it is in, and what was said of it.
    now: (SwapPhase, String),
    phases: Vec<Phase>,
    plan: Option<SwapPlan>,
}

impl Course {
    fn new(transform: &str, act: Act, until: Until, output: &Output) -> Self {
        Self {
            transform: transform.to_owned(),
            act,
            until,
            started: Instant::now(),
            progress: Progress::new(output),
            now: (SwapPhase::Unspecified, String::new()),
            phases: Vec::new(),
            plan: None,
        }
    }

    /// Takes in an update; says whether to wait for more.
    fn take(&mut self, update: SwapUpdate, output: &mut Output) -> bool {
        let phase = update.phase();
        if let Some(plan) = update.plan {
            if self.until != Until::Plan {
                for difference in &plan.differences {
                    self.progress.note(output, &format!("differs: {difference}"));
                }
            }
            self.plan = Some(plan);
        }
        match self.phases.last_mut() {
            Some(last) if self.now.0 == phase => last.message.clone_from(&update.message),
            _ => {
                let after_ms = u64::try_from(self.started.elapsed().as_millis());
                self.phases.push(Phase {
                    phase: phase.name(),
                    message: update.message.clone(),
                    after_ms: after_ms.unwrap_or(u64::MAX),
                });
            }
        }
        let last = phase.is_last(self.until == Until::Plan);
        if !last {
            self.progress.step(output, title(phase), &update.message);
        }
        self.now = (phase, update.message);
        !last && !self.is_reached()
    }

    /// Whether what is waited for has come.
    fn is_reached(&self) -> bool {
        match self.now.0 {
            SwapPhase::Kept => true,
            SwapPhase::Planned => self.until == Until::Plan,
            SwapPhase::Probation => self.until == Until::Probation,
            SwapPhase::Unspecified
            | SwapPhase::Compiling
            | SwapPhase::Initialising
            | SwapPhase::Switching
            | SwapPhase::RolledBack
            | SwapPhase::Refused => false,
        }
    }

    /// Says what it came to.
    fn end(self, ended: &Result<(), Error>, output: &mut Output) -> Result<(), Failure> {
        let findings = match ended {
            Err(error) => vec![self.broken_off(error)],
            Ok(()) => self.finding().into_iter().collect(),
        };
        let details = self.details();
        if findings.is_empty() {
            let lines = self.lines();
            self.progress.end();
            output.answer(&lines, &details);
            return Ok(());
        }
        self.progress.fail();
        Err(Failure { findings, details })
    }

    /// The whole course, as JSON.
    fn details(&self) -> Value {
        json!({
            "transform": self.transform,
            "outcome": self.now.0.name(),
            "phases": self.phases,
            "plan": self.plan,
        })
    }

    /// What is wrong with how it ended, if anything.
    fn finding(&self) -> Option<Finding> {
        if self.is_reached() {
            return None;
        }
        let (transform, (phase, message)) = (&self.transform, &self.now);
        let (text, remedy) = match (phase, self.act) {
            (SwapPhase::Refused, Act::Swap) => (
                format!("the swap of `{transform}` was refused: {message}"),
                "nothing was replaced; correct the module, and try it with `--dry-run`",
            ),
            (SwapPhase::Refused, Act::Rollback) => (
                format!("the rollback of `{transform}` was refused: {message}"),
                "nothing was replaced; `sidestream status` lists the versions that are kept",
            ),
            (SwapPhase::RolledBack, _) => (
                format!("`{transform}` was rolled back: {message}"),
                "the module before runs again; `sidestream events` tells what happened, and the \
                 bounds are those of `swap` in the pipeline file",
            ),
            (
                SwapPhase::Unspecified
                | SwapPhase::Compiling
                | SwapPhase::Initialising
                | SwapPhase::Planned
                | SwapPhase::Switching
                | SwapPhase::Probation
                | SwapPhase::Kept,
                _,
            ) => return Some(self.cut_short("the agent told no more of it")),
        };
        Some(Finding { remedy: remedy.to_owned(), ..Finding::new(About::Module, text) })
    }

    /// A call that failed: at once, or on the way.
    fn broken_off(&self, error: &Error) -> Finding {
        match (self.phases.is_empty(), error) {
            (false, Error::Unreachable { .. } | Error::Refused(_) | Error::Busy(_)) => {
                self.cut_short(&error.to_string())
            }
            (true, _) | (_, Error::Unauthenticated(_) | Error::File { .. }) => of_client(error),
        }
    }

    fn cut_short(&self, reason: &str) -> Finding {
        let text = format!(
            "it is not known what became of `{}`, which was {}: {reason}",
            self.transform,
            title(self.now.0)
        );
        Finding {
            remedy: "`sidestream status` shows which version runs; one that was not kept is \
                     forgotten by a restart"
                .to_owned(),
            ..Finding::new(About::Agent, text)
        }
    }

    /// What it came to, for people.
    fn lines(&self) -> Vec<String> {
        let (transform, (phase, message)) = (&self.transform, &self.now);
        let to =
            self.plan.as_ref().map_or(String::new(), |plan| format!(" {}", short(&plan.to_digest)));
        match (phase, &self.plan) {
            (SwapPhase::Planned, Some(plan)) => of_plan(plan),
            (SwapPhase::Probation, _) => vec![format!(
                "`{transform}` runs{to} on probation; `sidestream status` shows whether it stays"
            )],
            _ if message.is_empty() => vec![format!("`{transform}` runs{to}, and keeps it")],
            _ => vec![format!("`{transform}` runs{to}, and keeps it: {message}")],
        }
    }
}

/// What goes on in a phase.
const fn title(phase: SwapPhase) -> &'static str {
    match phase {
        SwapPhase::Unspecified => "starting",
        SwapPhase::Compiling => "compiling",
        SwapPhase::Initialising => "initialising",
        SwapPhase::Planned => "planned",
        SwapPhase::Switching => "switching",
        SwapPhase::Probation => "on probation",
        SwapPhase::Kept => "kept",
        SwapPhase::RolledBack => "rolled back",
        SwapPhase::Refused => "refused",
    }
}

/// What a swap would do, in lines.
fn of_plan(plan: &SwapPlan) -> Vec<String> {
    let mut lines = vec![
        format!(
            "`{}` would run {} in place of {}; nothing was replaced",
            plan.transform,
            short(&plan.to_digest),
            short(&plan.from_digest)
        ),
        format!("  world        {}", plan.world),
        format!("  module       {} bytes, loaded in {} ms", plan.module_bytes, plan.load_ms),
        format!(
            "  tasks        {}, of which {} have a new instance, with {} bytes of memory in all",
            plan.tasks, plan.tasks_initialised, plan.memory_bytes
        ),
        format!(
            "  probation    {} records, and {} s at least",
            plan.probation_records,
            plan.probation_ms as f64 / 1_000.0
        ),
    ];
    let none = ["none but the code".to_owned()];
    let differences = if plan.differences.is_empty() { &none } else { &plan.differences[..] };
    for (index, difference) in differences.iter().enumerate() {
        let key = if index == 0 { "differences" } else { "" };
        lines.push(format!("  {key:<12} {difference}"));
    }
    lines
}
