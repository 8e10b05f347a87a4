//! The contract of the log through librdkafka, on Apache Kafka and on the embedded broker.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod log_contract {
    pub(crate) mod harness;
}

mod apache {
    use super::log_contract::harness::{Apache, KafkaHarness};

    sidestream_sim::log_contract!(KafkaHarness<Apache>);
}

mod embedded {
    use super::log_contract::harness::{Embedded, KafkaHarness};

    sidestream_sim::log_contract!(KafkaHarness<Embedded>);
}
