//! A consumer: a member of a group, or a reader that is told what to read.
#![allow(unsafe_code, reason = "calls librdkafka's consumer")]

use std::{
    ffi::CStr,
    ptr::{self, NonNull},
    time::Duration,
};

use rdkafka::bindings as sys;
use sidestream_core::ports::Membership;

use super::{
    client::Client,
    failure::{Code, Failure, text},
    message::MessageBuffer,
    millis,
    partitions::PartitionList,
};

/// A consumer with its queue.
pub(in crate::kafka) struct ConsumerClient {
    queue: NonNull<sys::rd_kafka_queue_t>,
    client: Client,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for ConsumerClient {}

impl ConsumerClient {
    /// Takes a client that was made as a consumer or reader with a group id.
    pub(in crate::kafka) fn new(client: Client) -> Result<Self, Failure> {
        // SAFETY: the client is alive; the queue is freed before it.
        unsafe {
            Failure::check(sys::rd_kafka_poll_set_consumer(client.raw()))?;
            let queue =
                NonNull::new(sys::rd_kafka_queue_get_consumer(client.raw())).ok_or_else(|| {
                    Failure::new(Code::RD_KAFKA_RESP_ERR__UNKNOWN_GROUP, "no group id")
                })?;
            client.context().wake(queue.as_ptr());
            Ok(Self { queue, client })
        }
    }

    /// The client underneath.
    pub(in crate::kafka) fn client(&self) -> &Client {
        &self.client
    }

    /// Appends messages to `buffer` while there are any, then returns; waits up to `wait` for the
    /// first. A rebalance ends the wait.
    pub(in crate::kafka) fn fetch(&self, buffer: &mut MessageBuffer, wait: Duration) {
        // The batch call waits its whole time for a full batch, so it waits for one message only.
        let wait = millis(wait);
        if wait > 0 && self.fetch_some(buffer, 0, usize::MAX) == 0 {
            self.fetch_some(buffer, wait, 1);
        }
        self.fetch_some(buffer, 0, usize::MAX);
    }

    fn fetch_some(&self, buffer: &mut MessageBuffer, wait: i32, limit: usize) -> usize {
        buffer.fill(limit, |free, room| match room {
            0 => 0,
            // SAFETY: the queue is alive and `free` has room for `room` messages.
            _ => unsafe {
                sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), wait, free, room)
            },
        })
    }

    /// Joins the group for these topics.
    pub(in crate::kafka) fn subscribe(&self, topics: &PartitionList) -> Result<(), Failure> {
        // SAFETY: both are alive; the list is copied.
        Failure::check(unsafe { sys::rd_kafka_subscribe(self.client.raw(), topics.raw()) })
    }

    /// Gives the subscription up; the revocation follows, then the leave.
    pub(in crate::kafka) fn unsubscribe(&self) -> Result<(), Failure> {
        // SAFETY: the client is alive.
        Failure::check(unsafe { sys::rd_kafka_unsubscribe(self.client.raw()) })
    }

    /// Reads these partitions and no others; also the answer to an assignment.
    pub(in crate::kafka) fn assign(&self, partitions: &PartitionList) -> Result<(), Failure> {
        // SAFETY: both are alive; the list is copied.
        Failure::check(unsafe { sys::rd_kafka_assign(self.client.raw(), partitions.raw()) })
    }

    /// Reads nothing; the answer to a revocation.
    pub(in crate::kafka) fn unassign(&self) -> Result<(), Failure> {
        // SAFETY: the client is alive; null stands for no assignment.
        Failure::check(unsafe { sys::rd_kafka_assign(self.client.raw(), ptr::null()) })
    }

    /// Reads these partitions, too.
    pub(in crate::kafka) fn add(&self, partitions: &PartitionList) -> Result<(), Failure> {
        // SAFETY: both are alive; the list is copied and the error owned.
        Failure::take(unsafe {
            sys::rd_kafka_incremental_assign(self.client.raw(), partitions.raw())
        })
    }

    /// Reads these partitions no longer.
    pub(in crate::kafka) fn remove(&self, partitions: &PartitionList) -> Result<(), Failure> {
        // SAFETY: both are alive; the list is copied and the error owned.
        Failure::take(unsafe {
            sys::rd_kafka_incremental_unassign(self.client.raw(), partitions.raw())
        })
    }

    /// Stops fetching and drops what is fetched and not yet returned.
    pub(in crate::kafka) fn pause(&self, partitions: &PartitionList) -> Result<(), Failure> {
        // SAFETY: both are alive.
        let code = unsafe { sys::rd_kafka_pause_partitions(self.client.raw(), partitions.raw()) };
        Failure::check(code).and_then(|()| each(partitions))
    }

    /// Goes on after the last message that was returned.
    pub(in crate::kafka) fn resume(&self, partitions: &PartitionList) -> Result<(), Failure> {
        // SAFETY: both are alive.
        let code = unsafe { sys::rd_kafka_resume_partitions(self.client.raw(), partitions.raw()) };
        Failure::check(code).and_then(|()| each(partitions))
    }

    /// Goes on at the offsets of the list, and drops what is fetched.
    pub(in crate::kafka) fn seek(
        &self,
        partitions: &PartitionList,
        timeout: Duration,
    ) -> Result<(), Failure> {
        // SAFETY: both are alive, and the error is owned.
        Failure::take(unsafe {
            sys::rd_kafka_seek_partitions(self.client.raw(), partitions.raw(), millis(timeout))
        })
        .and_then(|()| each(partitions))
    }

    /// Fills in the group's committed offsets; for a read-committed consumer, stable ones.
    pub(in crate::kafka) fn committed(
        &self,
        partitions: &PartitionList,
        timeout: Duration,
    ) -> Result<(), Failure> {
        // SAFETY: both are alive.
        let code = unsafe {
            sys::rd_kafka_committed(self.client.raw(), partitions.raw(), millis(timeout))
        };
        Failure::check(code).and_then(|()| each(partitions))
    }

    /// Commits offsets as this member, outside of any transaction.
    pub(in crate::kafka) fn commit(
        &self,
        offsets: &PartitionList,
        timeout: Duration,
    ) -> Result<(), Failure> {
        // SAFETY: the client, the list and the queue are alive; queue and event are freed once.
        unsafe {
            let queue = sys::rd_kafka_queue_new(self.client.raw());
            let code = sys::rd_kafka_commit_queue(
                self.client.raw(),
                offsets.raw(),
                queue,
                None,
                ptr::null_mut(),
            );
            let mut result = Failure::check(code);
            if result.is_ok() {
                let event = sys::rd_kafka_queue_poll(queue, millis(timeout));
                result = match event.is_null() {
                    true => Failure::check(Code::RD_KAFKA_RESP_ERR__TIMED_OUT),
                    false => Failure::check(sys::rd_kafka_event_error(event)),
                };
                sys::rd_kafka_event_destroy(event);
            }
            sys::rd_kafka_queue_destroy(queue);
            result
        }
    }

    /// Who this member is now; the default value if it is nobody.
    pub(in crate::kafka) fn membership(&self) -> Membership {
        // SAFETY: the client is alive; the metadata is freed once, after it was copied.
        unsafe {
            let metadata = sys::rd_kafka_consumer_group_metadata(self.client.raw());
            if metadata.is_null() {
                return Membership { generation: -1, member: String::new() };
            }
            let membership = Membership {
                generation: sys::rd_kafka_consumer_group_metadata_generation_id(metadata),
                member: text(sys::rd_kafka_consumer_group_metadata_member_id(metadata)),
            };
            sys::rd_kafka_consumer_group_metadata_destroy(metadata);
            membership
        }
    }

    /// Whether the assignment is lost: others may own it already.
    pub(in crate::kafka) fn assignment_lost(&self) -> bool {
        // SAFETY: the client is alive.
        unsafe { sys::rd_kafka_assignment_lost(self.client.raw()) != 0 }
    }

    /// Ends the membership's background work, and waits for a leave that is under way.
    pub(in crate::kafka) fn close(&self) {
        self.client.context().close();
        // SAFETY: the client is alive; rebalances are answered inside their callback from here.
        unsafe { sys::rd_kafka_consumer_close(self.client.raw()) };
    }
}

impl Drop for ConsumerClient {
    fn drop(&mut self) {
        self.client.context().wake(ptr::null_mut());
        // SAFETY: owned, freed once, and before the client.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// The first error of a list's partitions.
fn each(partitions: &PartitionList) -> Result<(), Failure> {
    partitions.iter().try_for_each(|entry| {
        Failure::check(entry.code).map_err(|failure| Failure {
            message: format!(
                "{} [{}]: {}",
                CStr::to_string_lossy(entry.topic),
                entry.partition,
                failure.message
            ),
            ..failure
        })
    })
}
