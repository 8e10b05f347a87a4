//! The names of librdkafka's properties.
#![allow(unsafe_code, reason = "librdkafka prints its properties to a C stream only")]

use std::{
    ffi::{CString, c_char, c_void},
    ptr,
};

use rdkafka::bindings as sys;

use super::failure::text;

unsafe extern "C" {
    fn open_memstream(buffer: *mut *mut c_char, size: *mut usize) -> *mut c_void;
    fn fclose(stream: *mut c_void) -> i32;
    fn free(pointer: *mut c_char);
}

/// Whether a client can be configured with a property of this name, listed or not.
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

/// What a property should be, if a client can't be configured with this value. Never repeats it.
pub(in crate::kafka) fn refusal(name: &str, value: &str) -> Option<String> {
    super::Conf::new().set(name, value).is_err().then(|| expected(name))
}

/// What the values of a property are, as a remedy.
pub(super) fn expected(name: &str) -> String {
    let table = properties_table();
    let range = rows(&table).find_map(|mut cells| {
        let range = if cells.next()? == name { cells.nth(1)? } else { "" };
        (!range.is_empty()).then_some(range)
    });
    match range {
        Some(range) if range.contains(" .. ") => format!("write a number: {range}"),
        Some(range) => format!("write one of: {range}"),
        None => "see what librdkafka says of this property".to_owned(),
    }
}

/// Every property that this version of librdkafka knows, in its order; empty if memory is short.
pub(in crate::kafka) fn property_names() -> Vec<String> {
    names(&properties_table())
}

/// The properties as librdkafka shows them; empty if memory is short.
fn properties_table() -> String {
    let (mut buffer, mut size) = (ptr::null_mut(), 0);
    // SAFETY: closing the stream leaves a buffer that ends in zero, which is freed once.
    unsafe {
        let stream = open_memstream(&raw mut buffer, &raw mut size);
        if stream.is_null() {
            return String::new();
        }
        sys::rd_kafka_conf_properties_show(stream.cast());
        fclose(stream);
        let table = text(buffer);
        free(buffer);
        table
    }
}

/// The rows of a table that are no heads and no rules.
fn rows(table: &str) -> impl Iterator<Item = impl Iterator<Item = &str>> {
    let is_row = |line: &&str| {
        let first = line.split_once('|').map_or("", |(first, _)| first.trim());
        !first.is_empty() && first != "Property" && !first.starts_with('-')
    };
    table.lines().filter(is_row).map(|line| line.split('|').map(str::trim))
}

/// The first cells of a table's rows.
fn names(table: &str) -> Vec<String> {
    rows(table).filter_map(|mut cells| cells.next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_of_every_kind_are_known() {
        let names = property_names();
        for name in ["bootstrap.servers", "sasl.password", "linger.ms", "group.instance.id"] {
            assert!(names.iter().any(|known| known == name), "{name} is not in {names:?}");
        }
        assert!(names.iter().all(|name| !name.contains(' ')), "{names:?}");
        for name in ["linger", "bootstrap.server", "", "a\0b"] {
            assert!(!is_property(name), "{name}");
        }
        for (name, wrong, range) in [
            ("security.protocol", "hunter2", "plaintext, ssl, sasl_plaintext, sasl_ssl"),
            ("enable.ssl.certificate.verification", "yes", "true, false"),
            ("linger.ms", "hunter2", "0 .. 900000"),
            ("delivery.timeout.ms", "-5", "0 .. 2147483647"),
        ] {
            let refusal = refusal(name, wrong).unwrap();
            assert!(refusal.contains(range) && !refusal.contains(wrong), "{refusal}");
        }
        assert_eq!(refusal("security.protocol", "SASL_SSL"), None);
        let refused: Vec<_> = names.iter().filter(|name| !is_property(name)).collect();
        assert!(refused.is_empty(), "{refused:?}");
    }
}
