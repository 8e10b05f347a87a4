//! Consumed messages, many at a time.
#![allow(unsafe_code, reason = "reads messages that librdkafka owns")]

use std::{
    ffi::CStr,
    os::raw::{c_char, c_void},
    ptr, slice,
};

use rdkafka::bindings as sys;
use sidestream_core::record::{Headers, NO_TIMESTAMP, Offset, Records, Timestamp, TimestampType};

use super::failure::{Code, text};

/// The messages of one batch call; reused from call to call.
pub(in crate::kafka) struct MessageBuffer {
    messages: Vec<*mut sys::rd_kafka_message_t>,
}

// SAFETY: the messages belong to the buffer alone and may be read and freed on any thread.
unsafe impl Send for MessageBuffer {}

impl MessageBuffer {
    /// A buffer for up to `capacity` messages.
    pub(in crate::kafka) fn new(capacity: usize) -> Self {
        Self { messages: Vec::with_capacity(capacity) }
    }

    /// Lets `fetch` write messages to the free room (pointer, how many) and say how many it wrote.
    pub(super) fn fill(
        &mut self,
        limit: usize,
        fetch: impl FnOnce(*mut *mut sys::rd_kafka_message_t, usize) -> isize,
    ) -> usize {
        let room = (self.messages.capacity() - self.messages.len()).min(limit);
        // SAFETY: the pointer stays within the allocation, and `fetch` wrote as many messages as
        // it says, which is at most `room`.
        unsafe {
            let free = self.messages.as_mut_ptr().add(self.messages.len());
            let fetched = usize::try_from(fetch(free, room)).unwrap_or(0).min(room);
            self.messages.set_len(self.messages.len() + fetched);
            fetched
        }
    }

    /// Reads the messages.
    pub(in crate::kafka) fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        // SAFETY: each is alive until it is freed by `clear`.
        self.messages.iter().map(|&message| unsafe { Message(&*message) })
    }

    /// Frees the messages.
    pub(in crate::kafka) fn clear(&mut self) {
        for message in self.messages.drain(..) {
            // SAFETY: owned, and freed once since it is drained.
            unsafe { sys::rd_kafka_message_destroy(message) };
        }
    }
}

impl Drop for MessageBuffer {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A consumed message, or an error or event in a message's clothes.
#[derive(Clone, Copy)]
pub(in crate::kafka) struct Message<'a>(&'a sys::rd_kafka_message_t);

impl Message<'_> {
    /// What it is instead of a record.
    pub(in crate::kafka) fn code(&self) -> Code {
        self.0.err
    }

    /// librdkafka's words about an error.
    pub(in crate::kafka) fn error(&self) -> String {
        // SAFETY: the message is alive; the text lives as long.
        text(unsafe { sys::rd_kafka_message_errstr(self.0) })
    }

    /// A number that tells partitions apart within one batch.
    pub(in crate::kafka) fn partition_key(&self) -> (usize, i32) {
        (self.0.rkt.addr(), self.0.partition)
    }

    /// Its topic; empty for an error that has none.
    pub(in crate::kafka) fn topic(&self) -> &CStr {
        match self.0.rkt.is_null() {
            true => c"",
            // SAFETY: a message keeps its topic alive.
            false => unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.0.rkt)) },
        }
    }

    /// Its partition.
    pub(in crate::kafka) fn partition(&self) -> i32 {
        self.0.partition
    }

    /// Its offset.
    pub(in crate::kafka) fn offset(&self) -> Offset {
        self.0.offset
    }

    /// The leader epoch it was written in, or -1.
    pub(in crate::kafka) fn leader_epoch(&self) -> i32 {
        // SAFETY: the message is alive.
        unsafe { sys::rd_kafka_message_leader_epoch(self.0) }
    }

    /// Appends the record to columns.
    pub(in crate::kafka) fn append_to(&self, records: &mut Records, headers: bool) {
        if headers {
            self.append_headers(records.len(), &mut records.headers);
        }
        let (timestamp, timestamp_type) = self.timestamp();
        records.offsets.push(self.0.offset);
        records.timestamps.push(timestamp);
        records.timestamp_types.push(timestamp_type as u8);
        // SAFETY: key and value live as long as the message, with these lengths.
        unsafe {
            records.keys.push(bytes(self.0.key, self.0.key_len));
            records.values.push(bytes(self.0.payload, self.0.len));
        }
    }

    fn timestamp(&self) -> (Timestamp, TimestampType) {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive and the kind is written.
        let timestamp = unsafe { sys::rd_kafka_message_timestamp(self.0, &raw mut kind) };
        match kind {
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => {
                (timestamp, TimestampType::CreateTime)
            }
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => {
                (timestamp, TimestampType::LogAppendTime)
            }
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => {
                (NO_TIMESTAMP, TimestampType::None)
            }
        }
    }

    /// Counts stay empty until the first record that has headers.
    fn append_headers(&self, row: usize, headers: &mut Headers) {
        let mut list = ptr::null_mut();
        // SAFETY: the message is alive; the list is written on success and lives as long.
        let code = unsafe { sys::rd_kafka_message_headers(self.0, &raw mut list) };
        let mut count = 0;
        if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            // SAFETY: the list is alive.
            while unsafe { append_header(list, count as usize, headers) } {
                count += 1;
            }
        }
        if count > 0 || !headers.counts.is_empty() {
            headers.counts.resize(row, 0);
            headers.counts.push(count);
        }
    }
}

/// Appends the header at `index`; says whether there is one.
///
/// # Safety
/// `list` is alive.
unsafe fn append_header(
    list: *const sys::rd_kafka_headers_t,
    index: usize,
    headers: &mut Headers,
) -> bool {
    let (mut name, mut value, mut size): (*const c_char, *const c_void, usize) =
        (ptr::null(), ptr::null(), 0);
    // SAFETY: as promised by the caller; what is written lives as long as the list.
    unsafe {
        let code =
            sys::rd_kafka_header_get_all(list, index, &raw mut name, &raw mut value, &raw mut size);
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return false;
        }
        headers.names.push(Some(CStr::from_ptr(name).to_bytes()));
        headers.values.push(bytes(value, size));
        true
    }
}

/// # Safety
/// `pointer` is null or points to `length` bytes that live for `'a`.
unsafe fn bytes<'a>(pointer: *const c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: as promised by the caller.
    (!pointer.is_null()).then(|| unsafe { slice::from_raw_parts(pointer.cast(), length) })
}
