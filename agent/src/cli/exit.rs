//! What the exit code of the process says.

use std::process::ExitCode;

/// Why the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Ok = 0,
    /// It failed while it ran.
    Failed = 1,
    /// The command line makes no sense; clap's own code.
    Usage = 2,
    /// The pipeline file was refused.
    Pipeline = 3,
    /// The brokers or topics were refused.
    Topics = 4,
    /// A module was refused, or did not pass its probation.
    Module = 5,
    /// The state directory can't be used.
    State = 6,
    /// No agent answers, or it refuses who asks.
    Agent = 7,
    /// A swapped module runs, and has seen too few records to say whether it stays.
    Unproven = 8,
    /// A key that was asked for is not in the state that was read.
    Absent = 9,
}

/// The table of exit codes in the help.
pub(super) const HELP: &str = "\
Exit codes:
  0  all is well; `run` drained and stopped
  1  `run` failed while it ran, or an agent could not do what was asked
  2  the command line makes no sense
  3  the pipeline file was refused
  4  the brokers can't be reached, or topics were refused
  5  a module was refused, or did not pass its probation
  6  the state directory can't be used
  7  no agent answers, or it refuses who asks
  8  a swapped module is unproven: it runs, and has seen too few records
  9  `state get`: a key is not there, or not at this agent";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
