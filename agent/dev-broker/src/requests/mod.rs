//! Each request of the protocol as a change of the cluster's state, and its answer.

#![allow(clippy::needless_pass_by_value, reason = "handlers own their requests, all in one shape")]

pub(super) mod admin;
pub(super) mod configs;
pub(super) mod fetch;
pub(super) mod groups;
pub(super) mod membership;
pub(super) mod metadata;
pub(super) mod offsets;
pub(super) mod produce;
pub(super) mod transactions;

use kafka_protocol::{
    messages::{BrokerId, TopicName},
    protocol::StrBytes,
};

use super::cluster::NODE_ID;

/// Who asks, how and when.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) version: i16,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) now_ms: i64,
}

/// The one leader, replica and controller there is.
const LEADER: BrokerId = BrokerId(NODE_ID);

/// The one epoch that leaders have here.
const LEADER_EPOCH: i32 = 0;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// An id that the protocol leaves empty where there is none.
fn filled(text: &Option<StrBytes>) -> Option<&str> {
    text.as_deref()
}
