//! What went wrong, in terms of what to do about it.

use sidestream_core::ports::{PortError, TransactionError, Unreadable};

use super::native::{Code, Failure};

/// Kafka could not be set up or asked. The variants say what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Change the configuration.
    #[error("kafka property {name}: {message}")]
    Property {
        /// The property.
        name: String,
        /// What is wrong with it, and what to do.
        message: String,
    },
    /// Try again after a while.
    #[error("the brokers don't serve: {0}")]
    Unavailable(String),
    /// Somebody has to do something; says what.
    #[error("{0}")]
    Fatal(String),
}

impl Error {
    pub(super) fn property(name: &str, message: impl Into<String>) -> Self {
        Self::Property { name: name.to_owned(), message: message.into() }
    }
}

impl From<PortError> for Error {
    fn from(error: PortError) -> Self {
        match error {
            PortError::Unavailable(why) => Self::Unavailable(why),
            PortError::Fatal(why) => Self::Fatal(why),
        }
    }
}

impl From<Error> for PortError {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(why) => Self::Unavailable(why),
            Error::Property { .. } | Error::Fatal(_) => Self::Fatal(error.to_string()),
        }
    }
}

impl From<Error> for TransactionError {
    fn from(error: Error) -> Self {
        PortError::from(error).into()
    }
}

/// The error for a call that changes nothing when it fails.
pub(super) fn call_failed(doing: &str, failure: &Failure) -> PortError {
    if failure.fatal || failure.code == Code::RD_KAFKA_RESP_ERR__FATAL {
        return fatal_client(failure);
    }
    match remedy(failure.code) {
        Some(remedy) => PortError::Fatal(format!("{doing}: {failure}; {remedy}")),
        None => PortError::Unavailable(format!("{doing}: {failure}")),
    }
}

/// Why one partition can't be read, from what a broker or the client says of it.
pub(super) fn unreadable(place: &str, failure: &Failure) -> Unreadable {
    match failure.code {
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
        | Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID
        | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
        | Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION => Unreadable::ForNow(format!(
            "{place} is not there; it is waited for until it is created, which the agent does with \
             its own topics when it starts"
        )),
        Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => {
            Unreadable::Refused(format!("{place}: {failure}; let the agent's user read it"))
        }
        _ => Unreadable::ForNow(format!("{place} can't be read for now: {failure}")),
    }
}

/// The error for a consumer that can't be used any more.
pub(super) fn fatal_client(failure: &Failure) -> PortError {
    PortError::Fatal(match failure.code {
        Code::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID => format!(
            "another process runs with this agent's identity ({failure}); stop one of the two, \
             or give each its own state directory or identity"
        ),
        _ => format!("the kafka client failed for good: {failure}; start the agent again"),
    })
}

/// What a person can do about errors that no waiting ends.
pub(super) fn remedy(code: Code) -> Option<&'static str> {
    match code {
        Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED => {
            Some("let the agent's user read the consumer group")
        }
        Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => {
            Some("let the agent's user read and write the pipeline's topics")
        }
        Code::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED => {
            Some("let the agent's user do idempotent writes and create topics")
        }
        Code::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED => Some(
            "let the agent's user write with transactional ids that begin with the application id",
        ),
        Code::RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION
        | Code::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE => {
            Some("use a broker of version 2.5 or later")
        }
        Code::RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT => Some(
            "lower `commit_interval` (or `transaction.timeout.ms` of the producer, where it is \
                 given), or raise the broker's transaction.max.timeout.ms",
        ),
        _ => None,
    }
}
