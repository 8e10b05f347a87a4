//! The contract of the log, on a real broker through librdkafka.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod log_contract {
    pub(crate) mod harness;
}

use log_contract::harness::KafkaHarness;

sidestream_sim::log_contract!(KafkaHarness);
