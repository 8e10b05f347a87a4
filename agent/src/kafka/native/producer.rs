//! A producer, transactional or only idempotent.
#![allow(unsafe_code, reason = "calls librdkafka's producer")]

use std::{
    ffi::{CStr, CString, c_void},
    mem,
    ptr::{self, NonNull},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use rdkafka::bindings as sys;
use sidestream_core::{ports::Membership, record::Timestamp};

use super::{
    client::Client,
    context::Tag,
    failure::{Code, Failure},
    millis,
    partitions::PartitionList,
};

/// For how long after its time a call that has one may still be under way.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// How long a producer whose queue is full waits before it looks again.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(10);

/// A producer with the topics it writes to.
pub(in crate::kafka) struct ProducerClient {
    topics: Vec<Option<NonNull<sys::rd_kafka_topic_t>>>,
    client: Arc<Client>,
}

// SAFETY: librdkafka's topic handles may be used from any thread.
unsafe impl Send for ProducerClient {}

/// A record to produce; what it borrows is copied.
#[derive(Clone, Copy)]
pub(in crate::kafka) struct ProducerRecord<'a> {
    /// Its topic's number.
    pub(in crate::kafka) topic: usize,
    /// Its partition, or -1 for the one its key decides.
    pub(in crate::kafka) partition: i32,
    /// Its time; 0 stands for now.
    pub(in crate::kafka) timestamp: Timestamp,
    /// Its key.
    pub(in crate::kafka) key: Option<&'a [u8]>,
    /// Its value.
    pub(in crate::kafka) value: Option<&'a [u8]>,
    /// Its headers: names and values.
    pub(in crate::kafka) headers: &'a [(&'a [u8], Option<&'a [u8]>)],
    /// What it is, for its delivery report.
    pub(in crate::kafka) tag: Tag,
}

impl ProducerClient {
    /// Takes a client that was made as a producer.
    pub(in crate::kafka) fn new(client: Client) -> Self {
        Self { topics: Vec::new(), client: Arc::new(client) }
    }

    /// The client underneath.
    pub(in crate::kafka) fn client(&self) -> &Client {
        &self.client
    }

    /// Takes over the transactional id: settles what its last owner had open, and fences it.
    pub(in crate::kafka) fn init_transactions(&self, timeout: Duration) -> Result<(), Failure> {
        // SAFETY: the client is alive, and the error is owned.
        Failure::take(unsafe {
            sys::rd_kafka_init_transactions(self.client.raw(), millis(timeout))
        })
    }

    /// Begins a transaction.
    pub(in crate::kafka) fn begin_transaction(&self) -> Result<(), Failure> {
        // SAFETY: as above.
        Failure::take(unsafe { sys::rd_kafka_begin_transaction(self.client.raw()) })
    }

    /// Why the open transaction can only be aborted, if that is so. Must not be asked but while one is
    /// open.
    pub(in crate::kafka) fn transaction_error(&self) -> Option<Failure> {
        // A second one is never begun: it is answered with why the first has failed, or that it is
        // open.
        let failure = self.begin_transaction().err()?;
        (failure.code != Code::RD_KAFKA_RESP_ERR__STATE).then_some(failure)
    }

    /// Makes offsets part of the open transaction, as committed by this very member.
    ///
    /// librdkafka waits for some answers without a bound: it holds on to a group's coordinator that has
    /// gone from the cluster. So a thread of its own makes the call. If that does not come back, the
    /// failure's code is `_IN_PROGRESS`, and the client is good for nothing but to be dropped; the
    /// thread keeps it alive for as long as the call lasts.
    pub(in crate::kafka) fn send_offsets(
        &self,
        offsets: PartitionList,
        group: &GroupName,
        membership: &Membership,
        timeout: Duration,
    ) -> Result<(), Failure> {
        let member = CString::new(membership.member.as_str()).map_err(|_| {
            Failure::new(Code::RD_KAFKA_RESP_ERR__INVALID_ARG, "a zero byte in the member id")
        })?;
        let (client, group) = (Arc::clone(&self.client), group.clone());
        let generation = membership.generation;
        let (done, end) = mpsc::channel();
        let call = move || {
            let sent = send_offsets(&client, &offsets, (&group, generation, &member), timeout);
            if done.send(sent).is_err() {
                tracing::debug!("a call that sends offsets came back after it was given up");
            }
        };
        let started = thread::Builder::new().name("offsets".to_owned()).spawn(call);
        started.map_err(|error| {
            let message = format!("no thread to send offsets ({error}): look at `ulimit -u`");
            Failure::new(Code::RD_KAFKA_RESP_ERR__FAIL, message)
        })?;
        end.recv_timeout(timeout + STUCK_AFTER).unwrap_or_else(|_| {
            let message =
                "the client does not come back from sending offsets: their coordinator may be gone";
            Err(Failure::new(Code::RD_KAFKA_RESP_ERR__IN_PROGRESS, message))
        })
    }

    /// Delivers what is queued without lingering, and waits for it.
    pub(in crate::kafka) fn flush(&self, timeout: Duration) -> Result<(), Failure> {
        // SAFETY: the client is alive.
        Failure::check(unsafe { sys::rd_kafka_flush(self.client.raw(), millis(timeout)) })
    }

    /// Ends the transaction.
    pub(in crate::kafka) fn commit_transaction(&self, timeout: Duration) -> Result<(), Failure> {
        // SAFETY: the client is alive, and the error is owned.
        Failure::take(unsafe {
            sys::rd_kafka_commit_transaction(self.client.raw(), millis(timeout))
        })
    }

    /// Drops the transaction and what is queued.
    pub(in crate::kafka) fn abort_transaction(&self, timeout: Duration) -> Result<(), Failure> {
        // SAFETY: as above.
        Failure::take(unsafe {
            sys::rd_kafka_abort_transaction(self.client.raw(), millis(timeout))
        })
    }

    /// Drops what is queued or on its way.
    pub(in crate::kafka) fn purge(&self) {
        // SAFETY: the client is alive.
        unsafe {
            sys::rd_kafka_purge(
                self.client.raw(),
                sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT,
            )
        };
    }

    /// Makes topic number `topic` known under its name, once.
    pub(in crate::kafka) fn open_topic(&mut self, topic: usize, name: &CStr) {
        if self.topics.len() <= topic {
            self.topics.resize(topic + 1, None);
        }
        self.topics[topic].get_or_insert_with(|| {
            // SAFETY: the client is alive and copies the name; without a configuration of its own
            // a topic can't be refused.
            let handle = unsafe {
                sys::rd_kafka_topic_new(self.client.raw(), name.as_ptr(), ptr::null_mut())
            };
            NonNull::new(handle).expect("a valid topic name makes a topic")
        });
    }

    /// Hands a record to the producer's queue; while that is full, waits for deliveries, for so long
    /// at most. The topic was opened.
    pub(in crate::kafka) fn produce(
        &self,
        record: ProducerRecord<'_>,
        timeout: Duration,
    ) -> Result<(), Failure> {
        let mut since = None;
        loop {
            match self.try_produce(record) {
                Err(failure)
                    if failure.code == Code::RD_KAFKA_RESP_ERR__QUEUE_FULL
                        && since.get_or_insert_with(Instant::now).elapsed() < timeout =>
                {
                    self.client.poll(QUEUE_FULL_WAIT);
                }
                result => return result,
            }
        }
    }

    fn try_produce(&self, record: ProducerRecord<'_>) -> Result<(), Failure> {
        let topic = self.topics[record.topic].expect("the topic was opened");
        let headers = headers(record.headers);
        let arguments = [
            argument(VTYPE::RD_KAFKA_VTYPE_RKT, Value { rkt: topic.as_ptr() }),
            argument(VTYPE::RD_KAFKA_VTYPE_PARTITION, Value { i32_: record.partition }),
            argument(VTYPE::RD_KAFKA_VTYPE_MSGFLAGS, Value { i: sys::RD_KAFKA_MSG_F_COPY }),
            argument(VTYPE::RD_KAFKA_VTYPE_TIMESTAMP, Value { i64_: record.timestamp }),
            argument(VTYPE::RD_KAFKA_VTYPE_KEY, memory(record.key)),
            argument(VTYPE::RD_KAFKA_VTYPE_VALUE, memory(record.value)),
            argument(VTYPE::RD_KAFKA_VTYPE_OPAQUE, Value { ptr: record.tag.to_opaque() }),
            argument(VTYPE::RD_KAFKA_VTYPE_HEADERS, Value { headers }),
        ];
        let count = arguments.len() - usize::from(headers.is_null());
        // SAFETY: each argument has its type's value; key and value are copied in the call; the
        // producer owns the headers if it succeeds, else they are freed here.
        unsafe {
            let error = sys::rd_kafka_produceva(self.client.raw(), arguments.as_ptr(), count);
            if !error.is_null() && !headers.is_null() {
                sys::rd_kafka_headers_destroy(headers);
            }
            Failure::take(error)
        }
    }
}

impl Drop for ProducerClient {
    fn drop(&mut self) {
        self.purge();
        for topic in self.topics.drain(..).flatten() {
            // SAFETY: owned, freed once, and before the client.
            unsafe { sys::rd_kafka_topic_destroy(topic.as_ptr()) };
        }
    }
}

fn send_offsets(
    client: &Client,
    offsets: &PartitionList,
    (group, generation, member): (&GroupName, i32, &CStr),
    timeout: Duration,
) -> Result<(), Failure> {
    // SAFETY: all are alive during the call; the metadata is freed once, the error owned.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata_new_with_genid(
            group.group.as_ptr(),
            generation,
            member.as_ptr(),
            group.instance.as_ptr(),
        );
        let error = sys::rd_kafka_send_offsets_to_transaction(
            client.raw(),
            offsets.raw(),
            metadata,
            millis(timeout),
        );
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        Failure::take(error)
    }
}

/// The group and the static member whose offsets a producer sends.
#[derive(Clone)]
pub(in crate::kafka) struct GroupName {
    /// The group's id.
    pub(in crate::kafka) group: CString,
    /// The member's `group.instance.id`.
    pub(in crate::kafka) instance: CString,
}

use sys::{rd_kafka_vtype_t as VTYPE, rd_kafka_vu_s__bindgen_ty_1 as Value};

fn argument(vtype: VTYPE, value: Value) -> sys::rd_kafka_vu_t {
    sys::rd_kafka_vu_t { vtype, u: value }
}

/// Null stays null, and empty stays empty, since a slice's pointer is never null.
fn memory(bytes: Option<&[u8]>) -> Value {
    let (pointer, size) = match bytes {
        Some(bytes) => (bytes.as_ptr().cast_mut().cast::<c_void>(), bytes.len()),
        None => (ptr::null_mut(), 0),
    };
    // SAFETY: all-zero bytes are a valid value of the C union.
    let mut value: Value = unsafe { mem::zeroed() };
    value.mem = sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr: pointer, size };
    value
}

/// Null for no headers.
fn headers(headers: &[(&[u8], Option<&[u8]>)]) -> *mut sys::rd_kafka_headers_t {
    if headers.is_empty() {
        return ptr::null_mut();
    }
    // SAFETY: name and value are copied with their sizes.
    unsafe {
        let list = sys::rd_kafka_headers_new(headers.len());
        for (name, value) in headers {
            sys::rd_kafka_header_add(
                list,
                name.as_ptr().cast(),
                name.len().cast_signed(),
                value.map_or(ptr::null(), |value| value.as_ptr().cast()),
                value.map_or(0, |value| value.len().cast_signed()),
            );
        }
        list
    }
}
