//! What is going on, for people who wait for it: a spinner on a terminal, else lines.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{output::Output, text};

/// How often the spinner turns.
const TURN_INTERVAL: Duration = Duration::from_millis(100);
/// How often a line tells how the same step goes on.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows step after step on standard error; nothing if the answer is JSON.
pub(super) struct Progress {
    view: View,
    /// The step under way, since when it is, and what was said of it last.
    step: Option<Step>,
}

enum View {
    None,
    Lines,
    Spinner(ProgressBar),
}

struct Step {
    name: &'static str,
    since: Instant,
    told: Instant,
    text: String,
}

impl Progress {
    /// Shows nothing before the first step.
    pub(super) fn new(output: &Output) -> Self {
        let view = match (output.is_for_people(), std::io::stderr().is_terminal()) {
            (false, _) => View::None,
            (true, false) => View::Lines,
            (true, true) => View::Spinner(ProgressBar::new_spinner().with_style(style())),
        };
        Self { view, step: None }
    }

    /// Tells of a step, or how the same one goes on. A step of another name ends the one before.
    pub(super) fn step(&mut self, output: &mut Output, name: &'static str, message: &str) {
        let told = match message {
            "" => name.to_owned(),
            message => text::clean(&format!("{name}: {message}"), text::MESSAGE_CHARS_MAX),
        };
        let now = Instant::now();
        let same = self.step.as_ref().is_some_and(|step| step.name == name);
        if !same {
            self.end_step();
            self.step = Some(Step { name, since: now, told: now, text: String::new() });
        }
        let Some(step) = &mut self.step else { return };
        match &self.view {
            View::None => {}
            View::Lines => {
                let due = !same || now - step.told >= LINE_INTERVAL;
                if due && step.text != told {
                    output.note(&told);
                    step.told = now;
                }
            }
            View::Spinner(bar) => {
                bar.enable_steady_tick(TURN_INTERVAL);
                bar.set_message(told.clone());
            }
        }
        step.text = told;
    }

    /// The step under way is done: its line stays.
    fn end_step(&mut self) {
        if let (View::Spinner(bar), Some(step)) = (&self.view, self.step.take()) {
            let seconds = step.since.elapsed().as_secs_f64();
            bar.println(format!("✓ {} ({seconds:.1} s)", step.text));
        }
    }

    /// A line that stays, beside the step under way.
    pub(super) fn note(&self, output: &mut Output, line: &str) {
        match &self.view {
            View::None => {}
            View::Lines => output.note(line),
            View::Spinner(bar) => bar.println(text::line(line)),
        }
    }

    /// There is nothing more to wait for.
    pub(super) fn end(mut self) {
        self.end_step();
        if let View::Spinner(bar) = &self.view {
            bar.finish_and_clear();
        }
    }

    /// It ended in a way that the answer tells of.
    pub(super) fn fail(self) {
        if let View::Spinner(bar) = &self.view {
            bar.finish_and_clear();
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}")
        .expect("the template is a constant")
}
