//! A member of a group.

use bytes::Bytes;

use super::Ticket;

/// What a member brings: the assignors that it can be assigned by, with its subscription for each.
pub(crate) type Protocols = Vec<(String, Bytes)>;

/// A member of a group.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Its `group.instance.id`, if it is a static member.
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(super) session_timeout_ms: i32,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) protocols: Protocols,
    pub(crate) assignment: Bytes,
    pub(super) joining: Option<Ticket>,
    pub(super) syncing: Option<Ticket>,
    /// Whether it asked for its assignment since the last generation began.
    pub(super) synced: bool,
    pub(super) heard_ms: i64,
}

impl Member {
    /// What it brought for an assignor.
    pub(crate) fn metadata(&self, protocol: &str) -> Bytes {
        let mut found = self.protocols.iter().filter(|(name, _)| name == protocol);
        found.next().map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    pub(super) fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// Whether nothing was heard of it for too long. One that waits for an answer is alive.
    pub(super) fn is_expired(&self, now_ms: i64) -> bool {
        let waits = self.joining.is_some() || self.syncing.is_some();
        !waits && self.heard_ms + i64::from(self.session_timeout_ms) < now_ms
    }
}
