//! librdkafka's errors as values.
#![allow(unsafe_code, reason = "reads and frees librdkafka's error objects")]

use std::{ffi::CStr, os::raw::c_char};

use rdkafka::bindings as sys;

/// librdkafka's error codes.
pub(in crate::kafka) type Code = sys::rd_kafka_resp_err_t;

/// What librdkafka said about a call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(in crate::kafka) struct Failure {
    /// Which error.
    pub(in crate::kafka) code: Code,
    /// librdkafka's words.
    pub(in crate::kafka) message: String,
    /// The client can't be used any more.
    pub(in crate::kafka) fatal: bool,
}

impl Failure {
    /// The failure behind a bare error code; `Ok` for none.
    pub(in crate::kafka) fn check(code: Code) -> Result<(), Self> {
        match code {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            code => Err(Self::new(code, describe(code))),
        }
    }

    /// A failure with own words.
    pub(in crate::kafka) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), fatal: false }
    }

    /// Takes librdkafka's error object; `Ok` for null.
    pub(super) fn take(error: *mut sys::rd_kafka_error_t) -> Result<(), Self> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: the object is a live error that the caller owns; it is freed once, at the end.
        unsafe {
            let failure = Self {
                code: sys::rd_kafka_error_code(error),
                message: text(sys::rd_kafka_error_string(error)),
                fatal: sys::rd_kafka_error_is_fatal(error) != 0,
            };
            sys::rd_kafka_error_destroy(error);
            Err(failure)
        }
    }
}

/// librdkafka's words for an error code.
pub(in crate::kafka) fn describe(code: Code) -> String {
    // SAFETY: takes any code and returns a static string.
    text(unsafe { sys::rd_kafka_err2str(code) })
}

/// A copy of a C string that lives at least for this call; empty for null.
pub(super) fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: librdkafka's strings end in zero, and the caller passes one that is alive.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}
