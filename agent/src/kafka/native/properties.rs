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

/// Every property that this version of librdkafka knows, in its order; empty if memory is short.
pub(in crate::kafka) fn property_names() -> Vec<String> {
    let (mut buffer, mut size) = (ptr::null_mut(), 0);
    // SAFETY: closing the stream leaves a buffer that ends in zero, which is freed once.
    let table = unsafe {
        let stream = open_memstream(&raw mut buffer, &raw mut size);
        if stream.is_null() {
            return Vec::new();
        }
        sys::rd_kafka_conf_properties_show(stream.cast());
        fclose(stream);
        let table = text(buffer);
        free(buffer);
        table
    };
    names(&table)
}

/// The first cells of a table's rows; heads and rules are no names.
fn names(table: &str) -> Vec<String> {
    let cells = table.lines().filter_map(|line| Some(line.split_once('|')?.0.trim()));
    cells
        .filter(|cell| !cell.is_empty() && *cell != "Property" && !cell.starts_with('-'))
        .map(str::to_owned)
        .collect()
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
        let refused: Vec<_> = names.iter().filter(|name| !is_property(name)).collect();
        assert!(refused.is_empty(), "{refused:?}");
    }
}
