//! What members are told once a rebalance is through.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

/// A request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::dev_broker) struct Ticket(pub(in crate::dev_broker) u64);

/// A member of the generation that a member joined, as its leader is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dev_broker) struct Peer {
    pub(in crate::dev_broker) member_id: String,
    pub(in crate::dev_broker) instance: Option<String>,
    pub(in crate::dev_broker) metadata: Bytes,
}

/// The generation that a member joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dev_broker) struct Joined {
    pub(in crate::dev_broker) member_id: String,
    pub(in crate::dev_broker) generation: i32,
    pub(in crate::dev_broker) protocol_type: Option<String>,
    pub(in crate::dev_broker) protocol: Option<String>,
    pub(in crate::dev_broker) leader: String,
    /// Whether the leader is to leave the assignment as it is.
    pub(in crate::dev_broker) skip_assignment: bool,
    /// All members, for the leader alone.
    pub(in crate::dev_broker) peers: Vec<Peer>,
}

/// A join that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dev_broker) struct JoinRefused {
    pub(in crate::dev_broker) code: ResponseError,
    /// The id to come back with, or the one that it came with.
    pub(in crate::dev_broker) member_id: String,
}

/// What a member has to do in its generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dev_broker) struct Synced {
    pub(in crate::dev_broker) protocol_type: Option<String>,
    pub(in crate::dev_broker) protocol: Option<String>,
    pub(in crate::dev_broker) assignment: Bytes,
}

/// The answer to a request that waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dev_broker) enum Answer {
    Join(Result<Joined, JoinRefused>),
    Sync(Result<Synced, ResponseError>),
}
