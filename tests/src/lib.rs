//! What the tests of the whole share: real Kafka brokers, real agents, load, and a proxy.
//!
//! - [`process`]: child processes that never outlive the test.
//! - [`broker`]: Apache Kafka on loopback, killed and restarted as a test likes.
//! - [`topics`]: topics, and what is in them.
//! - [`wait`]: waiting for a condition, with a deadline.

pub mod broker;
pub mod process;
pub mod topics;
pub mod wait;
