//! What librdkafka's callbacks leave for the thread that owns the client.
#![allow(unsafe_code, reason = "C callbacks get raw pointers")]

use std::{
    collections::VecDeque,
    os::{
        fd::FromRawFd,
        raw::{c_char, c_int, c_void},
    },
    ptr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::bindings as sys;
use sidestream_core::record::Offset;

use super::{
    failure::{Code, text},
    partitions,
};
use crate::lock::Held;

/// The most errors that wait to be looked at; more are dropped, since they say the same.
const ERRORS_MAX: usize = 16;
/// For how long an error of a connection is remembered. librdkafka tells one that comes again and
/// again twice a minute.
const CONNECTION_ERROR_TIME: Duration = Duration::from_secs(60);

/// What librdkafka's log calls a partition that can't be part of a transaction.
const NOT_ADDED: &str = "ADDPARTS";

/// Shared between a client's owner and the callbacks of that client.
#[derive(Default)]
pub(in crate::kafka) struct Context {
    /// How many connections the client has closed or lost so far.
    closed_connections: AtomicU64,
    /// When the last one was.
    closed_at: Mutex<Option<Instant>>,
    errors: Mutex<Vec<(Code, String)>>,
    connection_errors: Mutex<VecDeque<(Instant, Code, String)>>,
    /// Answer rebalances inside the callback: nobody will answer them later.
    closing: AtomicBool,
    rebalance: Mutex<Option<Rebalance>>,
    queue: AtomicPtr<sys::rd_kafka_queue_t>,
    failed_delivery: Mutex<Option<FailedDelivery>>,
    /// Which partition a coordinator refused to a transaction; only librdkafka's log names it.
    not_added: Mutex<Option<String>>,
    changelog_ends: Mutex<Vec<Offset>>,
}

/// A rebalance that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) enum Rebalance {
    /// These partitions are assigned: topic and number.
    Assign(Vec<(String, i32)>),
    /// All partitions are to be given back.
    Revoke,
    /// All partitions are gone already.
    Lost,
}

/// What a record that was handed to the producer is, for its delivery report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kafka) enum Tag {
    /// An output; its row among all of the open transaction.
    Output(usize),
    /// A change: which of the transaction's changelog partitions it is for, and its row there.
    Change(usize, usize),
}

/// How many bits of a tag say which changelog partition.
const SLOT_BITS: u32 = 20;

impl Tag {
    /// As the pointer that librdkafka carries with each message.
    pub(super) fn to_opaque(self) -> *mut c_void {
        let number = match self {
            Self::Output(row) => row << 1,
            Self::Change(slot, row) => (((row << SLOT_BITS) | slot) << 1) | 1,
        };
        ptr::without_provenance_mut(number)
    }

    fn from_opaque(opaque: *mut c_void) -> Self {
        match opaque.addr() {
            number if number & 1 == 1 => {
                let place = number >> 1;
                Self::Change(place & ((1 << SLOT_BITS) - 1), place >> SLOT_BITS)
            }
            number => Self::Output(number >> 1),
        }
    }
}

/// Records of a transaction that could not be delivered for the same reason: the first that is no
/// consequence of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct FailedDelivery {
    /// Why.
    pub(in crate::kafka) code: Code,
    /// Which records: brokers refuse a whole batch for one in it.
    pub(in crate::kafka) tags: Vec<Tag>,
    /// Their topic.
    pub(in crate::kafka) topic: String,
    /// Their partition.
    pub(in crate::kafka) partition: i32,
}

impl FailedDelivery {
    /// Whether it only follows from something else that failed.
    pub(in crate::kafka) const fn is_consequence(&self) -> bool {
        matches!(
            self.code,
            Code::RD_KAFKA_RESP_ERR__PURGE_QUEUE
                | Code::RD_KAFKA_RESP_ERR__PURGE_INFLIGHT
                | Code::RD_KAFKA_RESP_ERR__INVALID_DIFFERENT_RECORD
        )
    }

    /// Takes another one in, if it is the same or comes before this.
    fn merge(&mut self, other: Self) {
        if self.is_consequence() && !other.is_consequence() {
            *self = other;
        } else if self.code == other.code
            && self.partition == other.partition
            && self.topic == other.topic
        {
            self.tags.extend(other.tags);
        }
    }
}

impl Context {
    /// How many connections the client has closed or lost so far.
    pub(in crate::kafka) fn closed_connections(&self) -> u64 {
        self.closed_connections.load(Ordering::Acquire)
    }

    /// How long ago a connection was closed or lost last.
    pub(in crate::kafka) fn last_closed(&self) -> Option<Duration> {
        self.closed_at.held().map(|at| at.elapsed())
    }

    /// Takes the errors that the client reported since the last call.
    pub(in crate::kafka) fn take_errors(&self) -> Vec<(Code, String)> {
        std::mem::take(&mut self.errors.held())
    }

    /// What went wrong with connections in the last minute, the latest last.
    pub(in crate::kafka) fn connection_errors(&self) -> Vec<(Code, String)> {
        let mut errors = self.connection_errors.held();
        errors.retain(|(at, ..)| at.elapsed() < CONNECTION_ERROR_TIME);
        errors.iter().map(|(_, code, why)| (*code, why.clone())).collect()
    }

    fn note_error(&self, code: Code, why: String) {
        if code != Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN {
            let mut errors = self.connection_errors.held();
            if errors.len() >= ERRORS_MAX {
                errors.pop_front();
            }
            errors.push_back((Instant::now(), code, why.clone()));
        }
        let mut errors = self.errors.held();
        if errors.len() < ERRORS_MAX {
            errors.push((code, why));
        }
    }

    /// Takes the rebalance that was reported, if there is one.
    pub(in crate::kafka) fn take_rebalance(&self) -> Option<Rebalance> {
        self.rebalance.held().take()
    }

    /// From now on rebalances are answered inside the callback, by owning nothing.
    pub(in crate::kafka) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// The queue to wake when a rebalance was recorded; null for none.
    pub(super) fn wake(&self, queue: *mut sys::rd_kafka_queue_t) {
        self.queue.store(queue, Ordering::Release);
    }

    /// Forgets the deliveries of the last transaction and makes room for `slots` changelogs.
    pub(in crate::kafka) fn reset_deliveries(&self, slots: usize) {
        let mut ends = self.changelog_ends.held();
        ends.clear();
        ends.resize(slots, -1);
    }

    /// Forgets that deliveries failed: their transaction is gone.
    pub(in crate::kafka) fn take_failed_delivery(&self) -> Option<FailedDelivery> {
        self.failed_delivery.held().take()
    }

    /// The deliveries that failed since they were last taken.
    pub(in crate::kafka) fn failed_delivery(&self) -> Option<FailedDelivery> {
        self.failed_delivery.held().clone()
    }

    /// What was said of a partition that was refused to a transaction since this was asked last.
    pub(in crate::kafka) fn take_not_added(&self) -> Option<String> {
        self.not_added.held().take()
    }

    /// The offset of the last record delivered to each changelog of the transaction, or -1.
    pub(in crate::kafka) fn changelog_ends(&self) -> Vec<Offset> {
        self.changelog_ends.held().clone()
    }

    /// # Safety
    /// `opaque` is the context that its client was made with, and the client is alive.
    unsafe fn of<'a>(opaque: *mut c_void) -> &'a Self {
        // SAFETY: the client keeps its context alive until it is destroyed.
        unsafe { &*opaque.cast::<Self>() }
    }
}

/// Registers the callbacks on a configuration.
///
/// # Safety
/// `conf` is alive, and `context` outlives every client made of it.
pub(super) unsafe fn register(conf: *mut sys::rd_kafka_conf_t, context: *const Context) {
    // SAFETY: as promised by the caller.
    unsafe {
        sys::rd_kafka_conf_set_opaque(conf, context.cast_mut().cast());
        sys::rd_kafka_conf_set_log_cb(conf, Some(on_log));
        sys::rd_kafka_conf_set_error_cb(conf, Some(on_error));
        sys::rd_kafka_conf_set_closesocket_cb(conf, Some(on_close_socket));
    }
}

unsafe extern "C" fn on_log(
    client: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    line: *const c_char,
) {
    let (facility, line) = (text(facility), text(line));
    if facility == NOT_ADDED && !client.is_null() {
        // SAFETY: the client is alive within its callback, and its opaque is its context.
        let context = unsafe { Context::of(sys::rd_kafka_opaque(client)) };
        *context.not_added.held() = Some(line.clone());
    }
    match level {
        0..=3 => tracing::error!(target: "librdkafka", facility, "{line}"),
        4 => tracing::warn!(target: "librdkafka", facility, "{line}"),
        5 | 6 => tracing::info!(target: "librdkafka", facility, "{line}"),
        _ => tracing::debug!(target: "librdkafka", facility, "{line}"),
    }
}

unsafe extern "C" fn on_error(
    _: *mut sys::rd_kafka_t,
    code: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: librdkafka passes the opaque that the client was made with.
    let context = unsafe { Context::of(opaque) };
    let Ok(code) = Code::try_from(code) else { return };
    context.note_error(code, text(reason));
}

unsafe extern "C" fn on_close_socket(socket: c_int, opaque: *mut c_void) -> c_int {
    // SAFETY: librdkafka passes the opaque that the client was made with.
    let context = unsafe { Context::of(opaque) };
    context.closed_connections.fetch_add(1, Ordering::AcqRel);
    *context.closed_at.held() = Some(Instant::now());
    // SAFETY: librdkafka hands the socket over to be closed and does not use it again.
    drop(unsafe { std::os::fd::OwnedFd::from_raw_fd(socket) });
    0
}

/// Records the rebalance and returns without an answer: librdkafka's group then waits for the
/// call of assign, from wherever it comes.
pub(super) unsafe extern "C" fn on_rebalance(
    client: *mut sys::rd_kafka_t,
    code: Code,
    partitions: *mut sys::rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
) {
    // SAFETY: librdkafka passes the opaque that the client was made with.
    let context = unsafe { Context::of(opaque) };
    if context.closing.load(Ordering::Acquire) {
        // SAFETY: the client is alive within its callback; owning nothing answers both kinds.
        unsafe { answer_with_nothing(client, code) };
        return;
    }
    let rebalance = match code {
        Code::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
            // SAFETY: the list is alive within the callback.
            Rebalance::Assign(unsafe { partitions::names(partitions) })
        }
        // SAFETY: the client is alive within its callback.
        _ if unsafe { sys::rd_kafka_assignment_lost(client) } != 0 => Rebalance::Lost,
        _ => Rebalance::Revoke,
    };
    *context.rebalance.held() = Some(rebalance);
    let queue = context.queue.load(Ordering::Acquire);
    if !queue.is_null() {
        // SAFETY: the queue is taken out of the context before it is freed. The flag makes the
        // batch call return once the queue is empty instead of waiting for messages.
        unsafe { sys::rd_kafka_queue_yield(queue) };
    }
}

/// # Safety
/// `client` is a living consumer.
unsafe fn answer_with_nothing(client: *mut sys::rd_kafka_t, code: Code) {
    // SAFETY: as promised by the caller; the list is freed once.
    unsafe {
        if code == Code::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let nothing = sys::rd_kafka_topic_partition_list_new(0);
            sys::rd_kafka_assign(client, nothing);
            sys::rd_kafka_topic_partition_list_destroy(nothing);
        } else {
            sys::rd_kafka_assign(client, ptr::null());
        }
    }
}

pub(super) unsafe extern "C" fn on_delivery(
    _: *mut sys::rd_kafka_t,
    message: *const sys::rd_kafka_message_t,
    opaque: *mut c_void,
) {
    // SAFETY: the message is alive within the callback.
    let message = unsafe { &*message };
    let failed = message.err != Code::RD_KAFKA_RESP_ERR_NO_ERROR;
    let tag = Tag::from_opaque(message._private);
    if !failed && matches!(tag, Tag::Output(_)) {
        return;
    }
    // SAFETY: librdkafka passes the opaque that the client was made with.
    let context = unsafe { Context::of(opaque) };
    if failed {
        // SAFETY: a message has its topic, whose name lives as long.
        let topic = text(unsafe { sys::rd_kafka_topic_name(message.rkt) });
        let (code, tags, partition) = (message.err, vec![tag], message.partition);
        let failed = FailedDelivery { code, tags, topic, partition };
        match &mut *context.failed_delivery.held() {
            Some(first) => first.merge(failed),
            none => *none = Some(failed),
        }
    } else if let Tag::Change(slot, _) = tag
        && let Some(end) = context.changelog_ends.held().get_mut(slot)
    {
        *end = (*end).max(message.offset);
    }
}
