//! The workers at run time: their threads, what each makes its tasks of, and what they tell: a board
//! that others read, log lines, where the inputs end.

pub(crate) mod board;
mod ends;
pub(crate) mod environment;
pub(crate) mod lag;
mod notices;
mod said;
pub(crate) mod thread;
mod watch;
