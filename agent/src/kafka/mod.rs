//! Kafka, through librdkafka.
