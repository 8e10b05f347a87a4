//! What the process says to whoever started it. The one place that prints.

#![expect(clippy::print_stderr, reason = "this is the command line")]

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::cli::{Finding, text};

/// In which form to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object.
    Json,
}

/// Answers in the form that was asked for: results on standard output, problems for people on
/// standard error.
#[derive(Debug)]
pub(super) struct Output {
    format: OutputFormat,
}

impl Output {
    pub(super) const fn new(format: OutputFormat) -> Self {
        Self { format }
    }

    /// Prints a text that has one form only. A reader that is gone is none of our business.
    pub(super) fn text(&mut self, text: &str) {
        if let Err(error) = writeln!(std::io::stdout(), "{}", text.trim_end()) {
            tracing::debug!(%error, "nobody reads the output");
        }
    }

    fn json(&mut self, json: &Value) {
        self.text(&text::json(&json.to_string()));
    }

    /// Writes bytes as they are, and nothing else.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let mut stdout = std::io::stdout();
        if let Err(error) = stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            tracing::debug!(%error, "nobody reads the output");
        }
    }

    /// Prints problems; as JSON together with what else is known.
    pub(super) fn findings(&mut self, findings: &[Finding], details: &Value) {
        match self.format {
            OutputFormat::Human => {
                for finding in findings {
                    eprintln!("{finding}");
                }
            }
            OutputFormat::Json => {
                let mut answer = json!({ "ok": findings.is_empty(), "problems": findings });
                if let (Value::Object(answer), Value::Object(details)) = (&mut answer, details) {
                    answer.extend(details.clone());
                }
                self.json(&answer);
            }
        }
    }

    /// Answers what was asked for.
    pub(super) fn answer(&mut self, lines: &[String], details: &Value) {
        match self.format {
            OutputFormat::Human => self.text(&joined(lines)),
            OutputFormat::Json => self.findings(&[], details),
        }
    }

    /// Shows one of many lines, each of which is whole by itself.
    pub(super) fn line(&mut self, line: &str, json: &Value) {
        match self.format {
            OutputFormat::Human => self.text(&text::line(line)),
            OutputFormat::Json => self.json(json),
        }
    }

    /// Shows one of many views, in place of the one before on a terminal.
    pub(super) fn view(&mut self, lines: &[String], json: &Value) {
        const CLEAR: &str = "\x1b[H\x1b[2J";
        let clear = if std::io::stdout().is_terminal() { CLEAR } else { "" };
        match self.format {
            OutputFormat::Human => self.text(&format!("{clear}{}", joined(lines))),
            OutputFormat::Json => self.json(json),
        }
    }

    /// Whether people read the answer.
    pub(super) fn is_for_people(&self) -> bool {
        self.format == OutputFormat::Human
    }

    /// Tells people what is going on, beside the answer.
    pub(super) fn note(&mut self, line: &str) {
        if self.is_for_people() {
            eprintln!("{}", text::line(line));
        }
    }

    /// Prints lines for people only.
    pub(super) fn human(&mut self, lines: &[String]) {
        if self.is_for_people() {
            for line in lines {
                self.text(&text::line(line));
            }
        }
    }
}

/// Lines that others may have written parts of, as one text.
fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| text::line(line)).collect::<Vec<_>>().join("\n")
}
