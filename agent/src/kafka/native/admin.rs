//! Requests to the cluster: topics, configurations, offsets.
#![allow(unsafe_code, reason = "calls librdkafka's admin interface")]

use std::{collections::BTreeMap, ffi::CString, ptr, slice, time::Duration};

use rdkafka::bindings as sys;
use sidestream_core::record::{Offset, Timestamp, TopicId};

use super::{
    client::Client,
    failure::{Code, Failure, text},
    millis,
    partitions::{self, Entry, PartitionList},
};

pub(super) type Operation = sys::rd_kafka_admin_op_t;

/// Which offset of a partition to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kafka) enum OffsetAt {
    /// The first that is there.
    Earliest,
    /// The one after the last that is visible.
    Latest,
    /// The first of this time or later; -1 if there is none.
    Time(Timestamp),
}

/// A topic of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct TopicDescription {
    /// How many partitions it has.
    pub(in crate::kafka) partitions: i32,
    /// Its id.
    pub(in crate::kafka) id: TopicId,
}

/// What comes of a request to create something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kafka) enum Effect {
    /// It is there.
    Lasting,
    /// Nothing but the answer whether it could be.
    CheckOnly,
}

/// A topic to create.
pub(in crate::kafka) struct NewTopicSpec<'a> {
    /// Its name.
    pub(in crate::kafka) name: &'a str,
    /// How many partitions.
    pub(in crate::kafka) partitions: i32,
    /// How many replicas; -1 for the broker's default.
    pub(in crate::kafka) replication: i32,
    /// Its configuration.
    pub(in crate::kafka) configs: &'a BTreeMap<String, String>,
}

impl Client {
    /// Looks offsets up. Uncommitted records count only if `committed_only` is false.
    pub(in crate::kafka) fn list_offsets(
        &self,
        mut request: PartitionList,
        at: OffsetAt,
        committed_only: bool,
        timeout: Duration,
    ) -> Result<Vec<Result<Offset, Failure>>, Failure> {
        request.set_offsets(match at {
            OffsetAt::Earliest => -2,
            OffsetAt::Latest => -1,
            OffsetAt::Time(time) => time,
        });
        let level = match committed_only {
            true => sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
            false => sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
        };
        let answer =
            self.request(Operation::RD_KAFKA_ADMIN_OP_LISTOFFSETS, timeout, |options, queue| {
                // SAFETY: all are alive during the call; the list is copied, the error owned.
                unsafe {
                    let error = sys::rd_kafka_AdminOptions_set_isolation_level(options, level);
                    let result = Failure::take(error);
                    sys::rd_kafka_ListOffsets(self.raw(), request.raw(), options, queue);
                    result
                }
            })?;
        let found = answer.offsets();
        Ok(request
            .iter()
            .map(|asked| {
                found
                    .iter()
                    .find(|entry| entry.topic == asked.topic && entry.partition == asked.partition)
                    .map_or_else(
                        || {
                            Err(Failure::new(
                                Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION,
                                "no answer",
                            ))
                        },
                        |entry| found_offset(entry.code, entry.offset),
                    )
            })
            .collect())
    }

    /// What brokers answer to who asks about topics, with what `set` makes of the request.
    pub(super) fn described(
        &self,
        topics: &[&str],
        timeout: Duration,
        set: impl FnOnce(*mut sys::rd_kafka_AdminOptions_t) -> Result<(), Failure>,
    ) -> Result<Answer, Failure> {
        let names = c_strings(topics)?;
        let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let operation = Operation::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        self.request(operation, timeout, |options, queue| {
            set(options)?;
            // SAFETY: the names live during the call and are copied; the collection is freed.
            unsafe {
                let collection = sys::rd_kafka_TopicCollection_of_topic_names(
                    pointers.as_mut_ptr(),
                    pointers.len(),
                );
                sys::rd_kafka_DescribeTopics(self.raw(), collection, options, queue);
                sys::rd_kafka_TopicCollection_destroy(collection);
            }
            Ok(())
        })
    }

    /// Describes topics, in order; `None` for one that is not there. Each may fail for itself.
    pub(in crate::kafka) fn describe_topics(
        &self,
        topics: &[&str],
        timeout: Duration,
    ) -> Result<Vec<Result<Option<TopicDescription>, Failure>>, Failure> {
        let mut described = self.described(topics, timeout, |_| Ok(()))?.topics();
        Ok(topics.iter().map(|&topic| described.remove(topic).transpose()).collect())
    }

    /// Creates topics; for each, in order, what became of it.
    pub(in crate::kafka) fn create_topics(
        &self,
        topics: &[NewTopicSpec<'_>],
        effect: Effect,
        timeout: Duration,
    ) -> Result<BTreeMap<String, Result<(), Failure>>, Failure> {
        let mut specs = NewTopics(Vec::with_capacity(topics.len()));
        for topic in topics {
            specs.push(topic)?;
        }
        let operation = Operation::RD_KAFKA_ADMIN_OP_CREATETOPICS;
        let answer = self.request(operation, timeout, |options, queue| {
            let checks_only = (effect == Effect::CheckOnly).into();
            // SAFETY: all are alive during the calls, which copy the topics. No text is asked for, so
            // its buffer may be null.
            unsafe {
                Failure::check(sys::rd_kafka_AdminOptions_set_validate_only(
                    options,
                    checks_only,
                    ptr::null_mut(),
                    0,
                ))?;
                sys::rd_kafka_CreateTopics(
                    self.raw(),
                    specs.0.as_mut_ptr(),
                    specs.0.len(),
                    options,
                    queue,
                );
            }
            Ok(())
        })?;
        Ok(answer.created())
    }

    /// Reads a topic's configuration, defaults included.
    pub(in crate::kafka) fn topic_configs(
        &self,
        topic: &str,
        timeout: Duration,
    ) -> Result<BTreeMap<String, String>, Failure> {
        let names = c_strings(&[topic])?;
        let operation = Operation::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS;
        let answer = self.request(operation, timeout, |options, queue| {
            // SAFETY: all are alive during the call, which copies the resource; it is freed once.
            unsafe {
                let kind = sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
                let mut resource = sys::rd_kafka_ConfigResource_new(kind, names[0].as_ptr());
                sys::rd_kafka_DescribeConfigs(self.raw(), &raw mut resource, 1, options, queue);
                sys::rd_kafka_ConfigResource_destroy(resource);
            }
            Ok(())
        })?;
        answer.configs()
    }

    /// Deletes the records below the offsets of the list.
    pub(in crate::kafka) fn delete_records(
        &self,
        below: &PartitionList,
        timeout: Duration,
    ) -> Result<(), Failure> {
        let operation = Operation::RD_KAFKA_ADMIN_OP_DELETERECORDS;
        self.request(operation, timeout, |options, queue| {
            // SAFETY: all are alive during the call, which copies the request; it is freed once.
            unsafe {
                let mut request = sys::rd_kafka_DeleteRecords_new(below.raw());
                sys::rd_kafka_DeleteRecords(self.raw(), &raw mut request, 1, options, queue);
                sys::rd_kafka_DeleteRecords_destroy(request);
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Sends a request on a queue of its own and waits for the answer.
    ///
    /// librdkafka sends some to the controller, of which it learns with other metadata alone: one that
    /// is gone is waited for in vain. So after a time-out it asks who it is, for the next request.
    pub(super) fn request(
        &self,
        operation: Operation,
        timeout: Duration,
        send: impl FnOnce(
            *mut sys::rd_kafka_AdminOptions_t,
            *mut sys::rd_kafka_queue_t,
        ) -> Result<(), Failure>,
    ) -> Result<Answer, Failure> {
        // SAFETY: options and queue are alive during the call and freed once. No text is asked for, so
        // its buffer may be null.
        let event = unsafe {
            let options = sys::rd_kafka_AdminOptions_new(self.raw(), operation);
            let queue = sys::rd_kafka_queue_new(self.raw());
            sys::rd_kafka_AdminOptions_set_request_timeout(
                options,
                millis(timeout),
                ptr::null_mut(),
                0,
            );
            let sent = send(options, queue);
            let event = match sent {
                Ok(()) => sys::rd_kafka_queue_poll(queue, millis(timeout + TIMEOUT_SLACK)),
                Err(_) => ptr::null_mut(),
            };
            sys::rd_kafka_AdminOptions_destroy(options);
            sys::rd_kafka_queue_destroy(queue);
            sent?;
            event
        };
        let answered = Answer::of(event);
        if answered.as_ref().is_err_and(|of| of.code == Code::RD_KAFKA_RESP_ERR__TIMED_OUT) {
            self.refresh_topics(TIMEOUT_SLACK);
        }
        answered
    }
}

/// librdkafka answers by itself when a request times out; this is for its thread to get to it.
const TIMEOUT_SLACK: Duration = Duration::from_millis(500);

/// The event that answers a request.
pub(super) struct Answer(pub(super) *mut sys::rd_kafka_event_t);

impl Answer {
    /// Takes an event, null if there was none in time.
    fn of(event: *mut sys::rd_kafka_event_t) -> Result<Self, Failure> {
        if event.is_null() {
            return Err(Failure::new(
                Code::RD_KAFKA_RESP_ERR__TIMED_OUT,
                "a request was not answered in time",
            ));
        }
        let answer = Self(event);
        // SAFETY: the event is alive, owned by the answer from here on, and owns the text.
        let (code, message) = unsafe {
            (sys::rd_kafka_event_error(event), text(sys::rd_kafka_event_error_string(event)))
        };
        match code {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(answer),
            code => Err(Failure::new(code, message)),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: owned, and freed once.
        unsafe { sys::rd_kafka_event_destroy(self.0) }
    }
}

impl Answer {
    fn offsets(&self) -> Vec<Entry<'_>> {
        let mut count = 0;
        // SAFETY: the event is of this kind, alive, and owns what is read.
        unsafe {
            let result = sys::rd_kafka_event_ListOffsets_result(self.0);
            let infos = sys::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
            array(infos, count)
                .iter()
                .map(|&info| {
                    partitions::read(&*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(info))
                })
                .collect()
        }
    }

    fn topics(&self) -> BTreeMap<String, Result<TopicDescription, Failure>> {
        let mut topics = BTreeMap::new();
        let mut count = 0;
        // SAFETY: the event is of this kind, alive, and owns what is read.
        unsafe {
            let result = sys::rd_kafka_event_DescribeTopics_result(self.0);
            let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            for &topic in array(descriptions, count) {
                let name = text(sys::rd_kafka_TopicDescription_name(topic));
                let error = sys::rd_kafka_TopicDescription_error(topic);
                match sys::rd_kafka_error_code(error) {
                    Code::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                    Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
                    | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC => continue,
                    code => {
                        let why = text(sys::rd_kafka_error_string(error));
                        let failure = Failure::new(code, format!("topic {name}: {why}"));
                        topics.insert(name, Err(failure));
                        continue;
                    }
                }
                let mut partitions = 0;
                sys::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
                let id = topic_id(sys::rd_kafka_TopicDescription_topic_id(topic));
                let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
                topics.insert(name, Ok(TopicDescription { partitions, id }));
            }
        }
        topics
    }

    fn created(&self) -> BTreeMap<String, Result<(), Failure>> {
        let mut count = 0;
        // SAFETY: the event is of this kind, alive, and owns what is read.
        unsafe {
            let result = sys::rd_kafka_event_CreateTopics_result(self.0);
            let topics = sys::rd_kafka_CreateTopics_result_topics(result, &raw mut count);
            topic_outcomes(array(topics, count))
        }
    }

    pub(super) fn configs(&self) -> Result<BTreeMap<String, String>, Failure> {
        let mut configs = BTreeMap::new();
        let (mut resources, mut entries) = (0, 0);
        // SAFETY: the event is of this kind, alive, and owns what is read.
        unsafe {
            let result = sys::rd_kafka_event_DescribeConfigs_result(self.0);
            let found = sys::rd_kafka_DescribeConfigs_result_resources(result, &raw mut resources);
            for &resource in array(found, resources) {
                Failure::check(sys::rd_kafka_ConfigResource_error(resource))?;
                let found = sys::rd_kafka_ConfigResource_configs(resource, &raw mut entries);
                for &entry in array(found, entries) {
                    configs.insert(
                        text(sys::rd_kafka_ConfigEntry_name(entry)),
                        text(sys::rd_kafka_ConfigEntry_value(entry)),
                    );
                }
            }
        }
        Ok(configs)
    }
}

/// What became of each topic.
///
/// # Safety
/// All point to living results.
pub(super) unsafe fn topic_outcomes(
    topics: &[*const sys::rd_kafka_topic_result_t],
) -> BTreeMap<String, Result<(), Failure>> {
    let outcome = |&topic: &*const sys::rd_kafka_topic_result_t| {
        // SAFETY: as promised by the caller.
        unsafe {
            let outcome = match sys::rd_kafka_topic_result_error(topic) {
                Code::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
                code => {
                    Err(Failure::new(code, text(sys::rd_kafka_topic_result_error_string(topic))))
                }
            };
            (text(sys::rd_kafka_topic_result_name(topic)), outcome)
        }
    };
    topics.iter().map(outcome).collect()
}

/// # Safety
/// `pointer` is null or points to `count` elements that live for `'a`.
pub(super) unsafe fn array<'a, T>(pointer: *mut T, count: usize) -> &'a [T] {
    match pointer.is_null() {
        true => &[],
        // SAFETY: as promised by the caller.
        false => unsafe { slice::from_raw_parts(pointer, count) },
    }
}

/// # Safety
/// `uuid` is alive.
unsafe fn topic_id(uuid: *const sys::rd_kafka_Uuid_t) -> TopicId {
    // SAFETY: as promised by the caller.
    let (most, least) = unsafe {
        (
            sys::rd_kafka_Uuid_most_significant_bits(uuid),
            sys::rd_kafka_Uuid_least_significant_bits(uuid),
        )
    };
    let mut id = [0; 16];
    id[..8].copy_from_slice(&most.to_be_bytes());
    id[8..].copy_from_slice(&least.to_be_bytes());
    TopicId(id)
}

pub(super) fn c_strings(strings: &[&str]) -> Result<Vec<CString>, Failure> {
    strings.iter().map(|&string| c_string(string)).collect()
}

pub(super) fn c_string(string: &str) -> Result<CString, Failure> {
    CString::new(string).map_err(|_| {
        Failure::new(
            Code::RD_KAFKA_RESP_ERR__INVALID_ARG,
            format!("the name {string:?} contains a zero byte"),
        )
    })
}

/// Topics to create, as librdkafka takes them.
struct NewTopics(Vec<*mut sys::rd_kafka_NewTopic_t>);

impl NewTopics {
    fn push(&mut self, topic: &NewTopicSpec<'_>) -> Result<(), Failure> {
        let name = c_string(topic.name)?;
        let mut error = [0; 256];
        // SAFETY: the strings live during the calls and are copied; the size is the buffer's.
        unsafe {
            let new = sys::rd_kafka_NewTopic_new(
                name.as_ptr(),
                topic.partitions,
                topic.replication,
                error.as_mut_ptr(),
                error.len(),
            );
            if new.is_null() {
                let code = Code::RD_KAFKA_RESP_ERR__INVALID_ARG;
                return Err(Failure::new(code, text(error.as_ptr())));
            }
            self.0.push(new);
            for (key, value) in topic.configs {
                let (key, value) = (c_string(key)?, c_string(value)?);
                Failure::check(sys::rd_kafka_NewTopic_set_config(
                    new,
                    key.as_ptr(),
                    value.as_ptr(),
                ))?;
            }
        }
        Ok(())
    }
}

impl Drop for NewTopics {
    fn drop(&mut self) {
        for &topic in &self.0 {
            // SAFETY: owned, and freed once.
            unsafe { sys::rd_kafka_NewTopic_destroy(topic) };
        }
    }
}

/// An offset as answered. Of a partition whose leader just died, librdkafka says neither an error
/// nor an offset.
fn found_offset(code: Code, offset: Offset) -> Result<Offset, Failure> {
    Failure::check(code)?;
    match offset {
        -1.. => Ok(offset),
        _ => Err(Failure::new(
            Code::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
            "the partition's leader did not answer",
        )),
    }
}
