//! One problem as the command line tells it.

use std::{fmt, path::Path};

use serde::Serialize;

use crate::{
    app,
    cli::{Exit, text},
    config::{self, Problem},
};

/// A problem: what it is about, where it is, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What it is about.
    pub(super) about: About,
    /// The file, for a problem of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    /// The line, from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<u64>,
    /// The column, from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) column: Option<u64>,
    /// What is wrong.
    pub(super) message: String,
    /// What to do; empty if the message says it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) remedy: String,
}

/// What a problem is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum About {
    /// The pipeline file.
    Pipeline,
    /// Brokers and topics.
    Topics,
    /// A module.
    Module,
    /// The state directory.
    State,
    /// A running agent that was to be asked.
    Agent,
    /// The run of the agent.
    Run,
    /// A swap that is not decided.
    Unproven,
    /// A key of a store.
    Key,
}

impl About {
    /// The exit code for it.
    #[must_use]
    pub(super) const fn exit(self) -> Exit {
        match self {
            Self::Pipeline => Exit::Pipeline,
            Self::Topics => Exit::Topics,
            Self::Module => Exit::Module,
            Self::State => Exit::State,
            Self::Agent => Exit::Agent,
            Self::Run => Exit::Failed,
            Self::Unproven => Exit::Unproven,
            Self::Key => Exit::Absent,
        }
    }
}

impl Finding {
    /// A problem of no file, whose message says what to do.
    #[must_use]
    pub(super) fn new(about: About, message: impl Into<String>) -> Self {
        Self {
            about,
            file: None,
            line: None,
            column: None,
            message: message.into(),
            remedy: String::new(),
        }
    }

    /// A problem at a place of the pipeline file, if it has one.
    #[must_use]
    pub(super) fn of_problem(about: About, file: &Path, problem: Problem) -> Self {
        let Problem { at, message, remedy } = problem;
        Self {
            file: at.map(|_| file.display().to_string()),
            line: at.map(|at| at.line),
            column: at.map(|at| at.column),
            remedy,
            ..Self::new(about, message)
        }
    }
}

/// The problems of a pipeline file.
pub(super) fn of_pipeline(file: &Path, error: config::Error) -> Vec<Finding> {
    match error {
        config::Error::Unreadable { .. } => {
            vec![Finding::new(About::Pipeline, error.to_string())]
        }
        config::Error::Refused { problems, .. } => problems
            .into_iter()
            .map(|problem| Finding {
                file: Some(file.display().to_string()),
                ..Finding::of_problem(About::Pipeline, file, problem)
            })
            .collect(),
    }
}

/// The problems of an agent that did not start, or could not go on.
pub(super) fn of_agent(file: &Path, error: app::Error) -> Vec<Finding> {
    use app::Error;
    let about = match &error {
        _ if error.is_of_pipeline() => About::Pipeline,
        Error::Topics(_) | Error::Kafka(_) => About::Topics,
        Error::Module(app::ModuleError::Versions(_)) | Error::State(_) => About::State,
        Error::Module(_) => About::Module,
        Error::Control(_) => About::Pipeline,
        Error::Thread(_) | Error::Worker(_) | Error::Deadline(_) => About::Run,
    };
    match error {
        Error::Topics(problems) => {
            problems.into_iter().map(|problem| Finding::of_problem(about, file, problem)).collect()
        }
        error => {
            let (at, remedy) = (error.at(), error.remedy().to_owned());
            let problem = Problem { at, message: error.to_string(), remedy };
            vec![Finding::of_problem(about, file, problem)]
        }
    }
}

/// The exit code for all of these: that of the first thing to put right.
pub(super) fn exit(findings: &[Finding]) -> Exit {
    findings
        .iter()
        .map(|finding| finding.about.exit())
        .filter(|exit| *exit != Exit::Failed)
        .min()
        .unwrap_or(if findings.is_empty() { Exit::Ok } else { Exit::Failed })
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
            if let (Some(line), Some(column)) = (self.line, self.column) {
                write!(f, "{line}:{column}:")?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&text::message(&self.message))?;
        if !self.remedy.is_empty() {
            write!(f, "\n    {}", text::message(&self.remedy))?;
        }
        Ok(())
    }
}
