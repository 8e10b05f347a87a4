//! A record that can't be processed.

use std::fmt;

use crate::codec::CodecError;

/// What processing a record comes to.
pub type Outcome = Result<(), Failure>;

/// Says that a record, or a punctuation, can't be processed. The agent knows which one; nothing
/// that the call did counts.
///
/// `?` makes one of a [`CodecError`]: a record that can't be read is rejected. For other errors
/// say which it is: `.map_err(Failure::reject)?` or `.map_err(Failure::retry)?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    kind: FailureKind,
    message: String,
}

/// What is to become of a record that can't be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// It may succeed another time.
    Retry,
    /// It never will.
    Reject,
}

impl Failure {
    /// The record may succeed another time. `message` says why, for people.
    pub fn retry(message: impl fmt::Display) -> Self {
        Self { kind: FailureKind::Retry, message: message.to_string() }
    }

    /// The record never will succeed. `message` says why, for people.
    pub fn reject(message: impl fmt::Display) -> Self {
        Self { kind: FailureKind::Reject, message: message.to_string() }
    }

    /// What is to become of the record.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// Why, for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<CodecError> for Failure {
    fn from(error: CodecError) -> Self {
        Self::reject(error)
    }
}
