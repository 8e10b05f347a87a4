//! Lists of partitions, as most of librdkafka's calls take them.
#![allow(unsafe_code, reason = "owns a C list")]

use std::{ffi::CStr, ptr::NonNull, slice};

use rdkafka::bindings as sys;
use sidestream_core::record::Offset;

use super::failure::{Code, text};

/// A list of partitions, with an offset and more for each.
pub(in crate::kafka) struct PartitionList(NonNull<sys::rd_kafka_topic_partition_list_t>);

// SAFETY: the list is plain memory that only its owner touches.
unsafe impl Send for PartitionList {}

/// An element of a list, read.
#[derive(Clone, Copy, Debug)]
pub(in crate::kafka) struct Entry<'a> {
    /// The topic.
    pub(in crate::kafka) topic: &'a CStr,
    /// The partition.
    pub(in crate::kafka) partition: i32,
    /// An offset; its meaning depends on the call.
    pub(in crate::kafka) offset: Offset,
    /// What is stored beside a committed offset.
    pub(in crate::kafka) metadata: &'a [u8],
    /// What a call said about this partition.
    pub(in crate::kafka) code: Code,
}

impl PartitionList {
    /// An empty list.
    pub(in crate::kafka) fn new() -> Self {
        // SAFETY: allocates; librdkafka aborts when out of memory, so never null.
        let list = unsafe { sys::rd_kafka_topic_partition_list_new(8) };
        Self(NonNull::new(list).expect("librdkafka never returns a null list"))
    }

    /// Appends a partition with an offset.
    pub(in crate::kafka) fn add(&mut self, topic: &CStr, partition: i32, offset: Offset) {
        // SAFETY: the list is alive and copies the name; the element lives until the next add.
        unsafe {
            (*sys::rd_kafka_topic_partition_list_add(self.raw(), topic.as_ptr(), partition))
                .offset = offset;
        }
    }

    /// Appends a partition with an offset and the leader epoch of the record before it.
    pub(in crate::kafka) fn add_epoch(
        &mut self,
        topic: &CStr,
        partition: i32,
        offset: Offset,
        leader_epoch: i32,
    ) {
        // SAFETY: as in `add`.
        unsafe {
            let element =
                sys::rd_kafka_topic_partition_list_add(self.raw(), topic.as_ptr(), partition);
            (*element).offset = offset;
            sys::rd_kafka_topic_partition_set_leader_epoch(element, leader_epoch);
        }
    }

    /// Appends a partition with an offset to commit and what to store beside it.
    pub(in crate::kafka) fn add_metadata(
        &mut self,
        topic: &CStr,
        partition: i32,
        offset: Offset,
        metadata: &[u8],
    ) {
        // SAFETY: as in `add`; the list frees the metadata, which comes from its allocator and
        // has room for its bytes.
        unsafe {
            let element =
                sys::rd_kafka_topic_partition_list_add(self.raw(), topic.as_ptr(), partition);
            (*element).offset = offset;
            if !metadata.is_empty() {
                let copy = sys::rd_kafka_mem_malloc(std::ptr::null_mut(), metadata.len());
                std::ptr::copy_nonoverlapping(metadata.as_ptr(), copy.cast(), metadata.len());
                (*element).metadata = copy;
                (*element).metadata_size = metadata.len();
            }
        }
    }

    /// Gives every element the same offset.
    pub(super) fn set_offsets(&mut self, offset: Offset) {
        for index in 0..self.len() {
            // SAFETY: the index is below the count of a living list.
            unsafe { (*(*self.raw()).elems.add(index)).offset = offset };
        }
    }

    /// How many elements there are.
    pub(in crate::kafka) fn len(&self) -> usize {
        self.elements().len()
    }

    /// Reads the elements.
    pub(in crate::kafka) fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        self.elements().iter().map(|element| {
            // SAFETY: the element is alive as long as the list, and so are its name and metadata.
            unsafe { read(element) }
        })
    }

    fn elements(&self) -> &[sys::rd_kafka_topic_partition_t] {
        // SAFETY: the list is alive; its pointer and count describe initialised elements.
        unsafe { elements(self.0.as_ptr()) }
    }

    pub(super) fn raw(&self) -> *mut sys::rd_kafka_topic_partition_list_t {
        self.0.as_ptr()
    }
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // SAFETY: owned, and freed once.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.raw()) }
    }
}

/// # Safety
/// `list` is null or alive for `'a`.
unsafe fn elements<'a>(
    list: *const sys::rd_kafka_topic_partition_list_t,
) -> &'a [sys::rd_kafka_topic_partition_t] {
    // SAFETY: as promised by the caller; an empty list may have a null pointer.
    unsafe {
        match list.as_ref() {
            Some(list) if !list.elems.is_null() => {
                slice::from_raw_parts(list.elems, usize::try_from(list.cnt).unwrap_or(0))
            }
            _ => &[],
        }
    }
}

/// # Safety
/// `element` belongs to a living list.
pub(super) unsafe fn read(element: &sys::rd_kafka_topic_partition_t) -> Entry<'_> {
    // SAFETY: a name ends in zero; metadata has its size.
    unsafe {
        Entry {
            topic: CStr::from_ptr(element.topic),
            partition: element.partition,
            offset: element.offset,
            metadata: match element.metadata.is_null() {
                true => &[],
                false => slice::from_raw_parts(element.metadata.cast(), element.metadata_size),
            },
            code: element.err,
        }
    }
}

/// The topics and numbers in a list that librdkafka owns.
///
/// # Safety
/// `list` is null or alive during the call.
pub(super) unsafe fn names(
    list: *const sys::rd_kafka_topic_partition_list_t,
) -> Vec<(String, i32)> {
    // SAFETY: as promised by the caller.
    let elements = unsafe { elements(list) };
    elements.iter().map(|element| (text(element.topic), element.partition)).collect()
}
