//! What can keep the broker from starting, and what ends a connection.

use std::{io, net::SocketAddr};

/// Why the broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or may not be listened on.
    #[error("can't listen on {address}: {source}; choose another port, or 0 for a free one")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused a thread or an event loop.
    #[error("can't start the development broker: {0}")]
    Start(#[source] io::Error),
}

/// Why a connection is ended. Kafka does the same: a client that can't be understood can't be
/// answered either.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("a request of {0} bytes is outside of what is read")]
    RequestSize(i32),
    #[error("request {key} of version {version} is not offered")]
    NotOffered { key: i16, version: i16 },
    #[error("request {key} of version {version} can't be read: {why}")]
    Unreadable { key: i16, version: i16, why: String },
    #[error("the answer to request {key} of version {version} can't be written: {why}")]
    Unwritable { key: i16, version: i16, why: String },
}
