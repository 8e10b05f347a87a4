//! The names of librdkafka's properties.
#![allow(unsafe_code, reason = "librdkafka's list of properties is a C array")]

use std::{
    ffi::{CString, c_char},
    ptr, slice,
};

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

/// Whether a client can be configured with a property of this name.
pub(in crate::kafka) fn is_property(name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // An empty value may be wrong, but the name is looked up first. (To read it says "unknown" too
    // where there is no value.)
    // SAFETY: the configuration is made and destroyed here; the strings live during the call;
    // there is no room for an error's text.
    let result = unsafe {
        let conf = sys::rd_kafka_conf_new();
        let (name, value) = (name.as_ptr(), c"".as_ptr());
        let result = sys::rd_kafka_conf_set(conf, name, value, ptr::null_mut(), 0);
        sys::rd_kafka_conf_destroy(conf);
        result
    };
    result != sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_UNKNOWN
}

/// The names of most properties that a client can be configured with, to suggest one: librdkafka
/// does not list those that have no default.
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
unsafe fn take_names(list: *mut *const c_char, count: usize, names: &mut Vec<String>) {
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
        assert!(names.len() > 100, "{}", names.len());
        let listed = names.iter().map(String::as_str);
        for name in listed.chain(["sasl.password", "ssl.key.password", "partitioner"]) {
            assert!(is_property(name), "{name}");
        }
        for name in ["linger", "bootstrap.server", "", "a\0b"] {
            assert!(!is_property(name), "{name}");
        }
    }
}
