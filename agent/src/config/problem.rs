//! What is wrong with a pipeline file, where, and what to do about it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// Where something stands in the pipeline file; both count from one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// One thing that is wrong with a pipeline file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, if it is known.
    pub at: Option<Position>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    /// A problem at a place of the file.
    #[must_use]
    pub fn new(at: Position, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { at: Some(at), message: message.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// A pipeline file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read: name another one, or make it readable.
    #[error("{path}: the pipeline file can't be read ({source}); name a file that is there", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file says something that can't be: correct it.
    #[error("{}", list(.path, .problems))]
    Refused {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it, in the order of the file.
        problems: Vec<Problem>,
    },
}

fn list(path: &Path, problems: &[Problem]) -> String {
    let path = path.display();
    let lines = problems.iter().map(|problem| match problem.at {
        Some(at) => format!("{path}:{}:{}: {problem}", at.line, at.column),
        None => format!("{path}: {problem}"),
    });
    lines.collect::<Vec<_>>().join("\n")
}
