//! The names of librdkafka's properties.
#![allow(unsafe_code, reason = "librdkafka's list of properties is a C array")]

use std::slice;

use rdkafka::bindings as sys;

use super::failure::text;

/// Second names of properties, which librdkafka takes but does not list.
const ALIASES: &[&str] = &[
    "acks",
    "bootstrap.servers",
    "compression.type",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "fetch.message.max.bytes",
    "linger.ms",
    "max.in.flight",
    "max.partition.fetch.bytes",
    "retries",
    "sasl.mechanism",
    "sasl.oauthbearer.client.credentials.client.id",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.client.secret",
];

/// The names of all properties that a client can be configured with.
pub(in crate::kafka) fn property_names() -> Vec<String> {
    let mut names: Vec<String> = ALIASES.iter().map(|&name| name.to_owned()).collect();
    // SAFETY: each configuration is made, listed and destroyed here.
    unsafe {
        let mut count = 0;
        let conf = sys::rd_kafka_conf_new();
        let list = sys::rd_kafka_conf_dump(conf, &raw mut count);
        take_names(list, count, &mut names);
        sys::rd_kafka_conf_destroy(conf);
        let conf = sys::rd_kafka_topic_conf_new();
        let list = sys::rd_kafka_topic_conf_dump(conf, &raw mut count);
        take_names(list, count, &mut names);
        sys::rd_kafka_topic_conf_destroy(conf);
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// Takes the names out of a list of names and values in turn, and frees it.
///
/// # Safety
///
/// `list` has `count` elements and came from one of librdkafka's dumps.
unsafe fn take_names(list: *mut *const std::ffi::c_char, count: usize, names: &mut Vec<String>) {
    // SAFETY: the caller's promise; names are never null.
    unsafe {
        let elements = slice::from_raw_parts(list, count);
        names.extend(elements.iter().step_by(2).map(|&name| text(name)));
        sys::rd_kafka_conf_dump_free(list, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_of_clients_and_topics_and_second_names_are_known() {
        let names = property_names();
        for name in ["session.timeout.ms", "partitioner", "linger.ms", "sasl.password"] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
        assert!(names.len() > 150, "{}", names.len());
    }

    #[test]
    fn second_names_are_taken_by_librdkafka() {
        for name in ALIASES {
            let mut conf = super::super::Conf::new();
            let refused = conf.set(name, "x").err().unwrap_or_default();
            assert!(!refused.contains("No such configuration property"), "{name}: {refused}");
        }
    }
}
