//! A swap as it goes on, told to whoever waits for it.

use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Failure, of_client};
use crate::{
    cli::{
        finding::{About, Finding},
        output::Output,
        progress::Progress,
    },
    control::{
        client::Error,
        proto::{SwapPhase, SwapPlan, SwapUpdate},
        short_digest,
    },
};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Swap,
    Rollback,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
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
pub(super) struct Course {
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
    pub(super) fn new(transform: &str, act: Act, until: Until, output: &Output) -> Self {
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

    /// The module is on its way.
    pub(super) fn sending(&mut self, name: &str, output: &mut Output) {
        self.progress.step(output, "sending", name);
    }

    /// Takes in an update; says whether to wait for more.
    pub(super) fn take(&mut self, update: SwapUpdate, output: &mut Output) -> bool {
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
            | SwapPhase::Unproven
            | SwapPhase::Refused => false,
        }
    }

    /// Says what it came to.
    pub(super) fn end(self, ended: &Result<(), Error>, output: &mut Output) -> Result<(), Failure> {
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
            "outcome": self.phases.last().map(|phase| &phase.phase),
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
        if *phase == SwapPhase::Unproven {
            let text = format!("`{transform}` is unproven: {message}");
            return Some(Finding {
                remedy: "send it records, or lower `swap.probation_records`; `sidestream status` \
                         shows whether it is still on probation"
                    .to_owned(),
                ..Finding::new(About::Unproven, text)
            });
        }
        let (text, remedy) = match (phase, self.act) {
            (SwapPhase::Refused, Act::Swap) => (
                format!("the swap of `{transform}` was refused: {message}"),
                match self.until {
                    Until::Plan => "nothing was replaced, nor would be; correct the module",
                    Until::Probation | Until::End => {
                        "nothing was replaced; correct the module, and try it with `--dry-run`"
                    }
                },
            ),
            (SwapPhase::Refused, Act::Rollback) => (
                format!("the rollback of `{transform}` was refused: {message}"),
                "nothing was replaced; `sidestream status` lists the versions that are kept",
            ),
            (SwapPhase::RolledBack, _) => (
                format!("`{transform}` was rolled back: {message}"),
                "the module before runs again; `sidestream events` tells what happened",
            ),
            (
                SwapPhase::Unspecified
                | SwapPhase::Compiling
                | SwapPhase::Initialising
                | SwapPhase::Planned
                | SwapPhase::Switching
                | SwapPhase::Probation
                | SwapPhase::Unproven
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
        let line = match (phase, &self.plan) {
            (SwapPhase::Planned, Some(plan)) => return of_plan(plan),
            (SwapPhase::Probation, _) => {
                "is on probation; `sidestream status` shows whether it stays".to_owned()
            }
            (_, Some(plan)) => format!("keeps {}: {message}", short_digest(&plan.to_digest)),
            (_, None) => format!("keeps its module: {message}"),
        };
        vec![format!("`{transform}` {line}")]
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
        SwapPhase::Unproven => "unproven",
    }
}

/// What a swap would do, in lines.
fn of_plan(plan: &SwapPlan) -> Vec<String> {
    let mut lines = vec![
        format!(
            "`{}` would run {} in place of {}; nothing was replaced",
            plan.transform,
            short_digest(&plan.to_digest),
            short_digest(&plan.from_digest)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{
        exit::Exit,
        finding::{self, Finding},
        output::OutputFormat,
    };

    fn update(phase: SwapPhase, message: &str) -> SwapUpdate {
        SwapUpdate { phase: phase.into(), message: message.to_owned(), plan: None }
    }

    fn plan(differences: &[&str]) -> SwapUpdate {
        let plan = SwapPlan {
            transform: "count".into(),
            from_digest: "1b".repeat(32),
            to_digest: "3f".repeat(32),
            world: "transform".into(),
            module_bytes: 66_584,
            load_ms: 40,
            tasks: 4,
            tasks_initialised: 4,
            memory_bytes: 4 << 20,
            differences: differences.iter().map(ToString::to_string).collect(),
            probation_records: 1_000,
            probation_ms: 10_000,
        };
        SwapUpdate { plan: Some(plan), ..update(SwapPhase::Planned, "") }
    }

    /// What is left of the updates, and the course after the others.
    fn follow(act: Act, until: Until, updates: &[SwapUpdate]) -> (usize, Course) {
        let mut output = Output::new(OutputFormat::Json);
        let mut course = Course::new("count", act, until, &output);
        let mut left = updates.iter();
        for update in left.by_ref() {
            if !course.take(update.clone(), &mut output) {
                break;
            }
        }
        (left.len(), course)
    }

    /// The exit code and what is told to people: the answer, or what is wrong.
    #[track_caller]
    fn check(act: Act, until: Until, updates: &[SwapUpdate], exit: Exit, expected: &[&str]) {
        let (left, course) = follow(act, until, updates);
        assert_eq!(left, 0, "it is waited for the last of these");
        let findings: Vec<Finding> = course.finding().into_iter().collect();
        assert_eq!(finding::exit(&findings), exit);
        let lines = match findings.first() {
            None => course.lines().join("\n"),
            Some(finding) => finding.to_string(),
        };
        for part in expected {
            assert!(lines.contains(part), "{part} in:\n{lines}");
        }
    }

    #[test]
    fn how_it_ended_is_told_with_what_to_do() {
        use SwapPhase::{Compiling, Kept, Probation, Refused, RolledBack, Switching, Unproven};
        let begun = [update(Compiling, "m.wasm"), plan(&[]), update(Switching, "")];
        let after = |more: &[SwapUpdate]| [&begun, more].concat();
        let probation = update(Probation, "10 of 1000 records");
        let kept = after(&[probation.clone(), update(Kept, "1000 records in 10 s")]);
        let text = "`count` keeps 3f3f3f3f3f3f: 1000 records in 10 s";
        check(Act::Swap, Until::End, &kept, Exit::Ok, &[text]);
        let again = update(Kept, "1b1b runs again");
        check(
            Act::Rollback,
            Until::End,
            &[again],
            Exit::Ok,
            &["`count` keeps its module: 1b1b runs again"],
        );
        let back = after(&[probation.clone(), update(RolledBack, "it trapped")]);
        let text = ["`count` was rolled back: it trapped\n", "sidestream events"];
        check(Act::Swap, Until::End, &back, Exit::Module, &text);
        let unproven = after(&[probation.clone(), update(Unproven, "0 of 1000 records")]);
        let text = ["`count` is unproven: 0 of 1000 records\n", "swap.probation_records"];
        check(Act::Swap, Until::End, &unproven, Exit::Unproven, &text);
        let refused = [update(Compiling, ""), update(Refused, "no world of ours")];
        let text = ["the swap of `count` was refused: no world of ours\n", "--dry-run"];
        check(Act::Swap, Until::End, &refused, Exit::Module, &text);
        check(Act::Swap, Until::Plan, &refused, Exit::Module, &["nor would be"]);
        let text = ["the rollback of `count` was refused", "sidestream status"];
        check(Act::Rollback, Until::End, &refused, Exit::Module, &text);
        let text = ["`count` is on probation", "sidestream status"];
        check(Act::Swap, Until::Probation, &after(&[probation]), Exit::Ok, &text);
        let text = ["not known", "was switching", "told no more", "forgotten by a restart"];
        check(Act::Swap, Until::End, &begun, Exit::Agent, &text);
        let text = ["not known", "was starting"];
        check(Act::Swap, Until::End, &[], Exit::Agent, &text);
    }

    #[test]
    fn a_dry_run_ends_with_its_plan() {
        let updates = [plan(&["imports a clock", "has more memory"])];
        let text = [
            "`count` would run 3f3f3f3f3f3f in place of 1b1b1b1b1b1b; nothing was replaced\n",
            "  tasks        4, of which 4 have a new instance, with 4194304 bytes",
            "  probation    1000 records, and 10 s at least\n",
            "  differences  imports a clock\n               has more memory",
        ];
        check(Act::Swap, Until::Plan, &updates, Exit::Ok, &text);
        check(Act::Swap, Until::Plan, &[plan(&[])], Exit::Ok, &["differences  none but the code"]);
    }

    #[test]
    fn the_document_has_each_phase_once_with_what_was_said_last() {
        let probation = |message| update(SwapPhase::Probation, message);
        let kept = update(SwapPhase::Kept, "well");
        let updates = [plan(&[]), probation("1 of 2"), probation("2 of 2"), kept.clone(), kept];
        let (left, course) = follow(Act::Swap, Until::End, &updates);
        assert_eq!(left, 1, "nothing is waited for after the last phase");
        let told = course.details();
        assert_eq!((&told["transform"], &told["outcome"]), (&json!("count"), &json!("kept")));
        assert_eq!(told["plan"]["tasks"], 4);
        let phases = told["phases"].as_array().unwrap().iter();
        let phases: Vec<_> = phases.map(|phase| (&phase["phase"], &phase["message"])).collect();
        let expected = [("planned", ""), ("probation", "2 of 2"), ("kept", "well")]
            .map(|(phase, message)| (json!(phase), json!(message)));
        assert_eq!(phases, expected.each_ref().map(|(phase, message)| (phase, message)));
        let (_, course) = follow(Act::Swap, Until::End, &[]);
        assert_eq!(course.details()["outcome"], Value::Null);
    }

    #[test]
    fn a_call_that_breaks_off_on_the_way_leaves_it_open_what_became_of_it() {
        let gone = Error::Unreachable { address: "unix:s".into(), reason: "broken pipe".into() };
        let (_, course) = follow(Act::Swap, Until::End, &[update(SwapPhase::Probation, "1 of 2")]);
        let text = course.broken_off(&gone).to_string();
        assert!(text.contains("on probation: no agent answers at unix:s: broken pipe"), "{text}");
        assert!(text.contains("sidestream status"), "{text}");
        let (_, course) = follow(Act::Swap, Until::End, &[]);
        let text = course.broken_off(&gone).to_string();
        assert!(text.contains("sidestream run"), "{text}");
        let busy = Error::Busy("a swap of `count` is under way".into());
        let finding = course.broken_off(&busy);
        assert_eq!(finding.about, About::Run);
        assert!(finding.remedy.contains("sidestream rollback"), "{}", finding.remedy);
    }
}
