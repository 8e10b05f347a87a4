//! Safe handles over librdkafka's C interface: the only unsafe code of this room.
//!
//! rust-rdkafka's own clients are not used: their polling makes a commit take 100 ms, and their
//! consumer can't be combined with the batch call (see ARCHITECTURE.md).

mod admin;
mod client;
mod cluster;
mod consumer;
mod context;
mod failure;
mod groups;
mod message;
mod partitions;
mod producer;
mod properties;
mod rights;

pub use self::rights::Right;
pub(super) use self::{
    admin::{Effect, NewTopicSpec, OffsetAt},
    client::{Client, Conf, Kind},
    cluster::Partition,
    consumer::ConsumerClient,
    context::{FailedDelivery, Rebalance, Tag},
    failure::{Code, Failure},
    message::{Message, MessageBuffer},
    partitions::PartitionList,
    producer::{GroupName, ProducerClient, ProducerRecord},
    properties::{is_property, property_names, refusal},
    rights::Granted,
};

/// Milliseconds as librdkafka takes them.
fn millis(duration: std::time::Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
