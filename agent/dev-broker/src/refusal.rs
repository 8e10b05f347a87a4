//! A request that was refused: Kafka's code for it, and a sentence for whoever reads it.

use kafka_protocol::{error::ResponseError, protocol::StrBytes};

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ResponseError,
    /// Sent along where the protocol has a field for it.
    pub(super) message: Option<String>,
}

impl Refusal {
    pub(super) fn new(code: ResponseError, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()) }
    }
}

impl From<ResponseError> for Refusal {
    fn from(code: ResponseError) -> Self {
        Self { code, message: None }
    }
}

/// The code of an outcome as it goes over the wire: 0 if all is well.
pub(super) fn code<T>(outcome: &Result<T, Refusal>) -> i16 {
    outcome.as_ref().err().map_or(0, |refusal| refusal.code.code())
}

/// The same for a bare code.
pub(super) fn bare_code<T>(outcome: Result<T, ResponseError>) -> i16 {
    outcome.err().map_or(0, |code| code.code())
}

/// The sentence of an outcome as it goes over the wire.
pub(super) fn message<T>(outcome: &Result<T, Refusal>) -> Option<StrBytes> {
    let message = outcome.as_ref().err()?.message.clone()?;
    Some(StrBytes::from_string(message))
}
