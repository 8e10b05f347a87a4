//! What happened in a run: a hash of all of it, and its last lines for people.

use std::{collections::VecDeque, fmt::Arguments};

/// How many of the last lines are kept.
const TAIL_LINES_MAX: usize = 10_000;

/// The trace of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    lines: u64,
    tail: VecDeque<String>,
}

impl Trace {
    /// Adds a line.
    pub(crate) fn line(&mut self, now: u64, text: Arguments<'_>) {
        let line = format!("{now:>7} ms  {text}");
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        self.lines += 1;
        if self.tail.len() == TAIL_LINES_MAX {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// A number that two runs share only if they were the same.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// How many lines there were.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }
}
