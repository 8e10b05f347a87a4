//! Requests that begin an application anew: who is in its group, and the end of group and topics.
#![allow(unsafe_code, reason = "calls librdkafka's admin interface")]

use std::{collections::BTreeMap, time::Duration};

use rdkafka::bindings as sys;

use super::{
    admin::{Answer, array, c_string, c_strings, topic_outcomes},
    client::Client,
    failure::{Code, Failure, text},
};

type Operation = sys::rd_kafka_admin_op_t;

/// A member of a consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct GroupMember {
    /// Its `group.instance.id`; its `client.id` if it has none.
    pub(in crate::kafka) name: String,
    /// Where it connects from.
    pub(in crate::kafka) host: String,
}

impl Client {
    /// The members of a group; none of a group that is not there.
    pub(in crate::kafka) fn group_members(
        &self,
        group: &str,
        timeout: Duration,
    ) -> Result<Vec<GroupMember>, Failure> {
        let group = c_string(group)?;
        let mut pointer = group.as_ptr();
        let operation = Operation::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
        let answer = self.request(operation, timeout, |options, queue| {
            // SAFETY: all are alive during the call, which copies the name.
            unsafe {
                sys::rd_kafka_DescribeConsumerGroups(
                    self.raw(),
                    &raw mut pointer,
                    1,
                    options,
                    queue,
                );
            }
            Ok(())
        })?;
        answer.members()
    }

    /// Deletes a group that has no members, with all its offsets.
    pub(in crate::kafka) fn delete_group(
        &self,
        group: &str,
        timeout: Duration,
    ) -> Result<(), Failure> {
        let group = c_string(group)?;
        let operation = Operation::RD_KAFKA_ADMIN_OP_DELETEGROUPS;
        let answer = self.request(operation, timeout, |options, queue| {
            // SAFETY: all are alive during the call, which copies the request; it is freed once.
            unsafe {
                let mut request = sys::rd_kafka_DeleteGroup_new(group.as_ptr());
                sys::rd_kafka_DeleteGroups(self.raw(), &raw mut request, 1, options, queue);
                sys::rd_kafka_DeleteGroup_destroy(request);
            }
            Ok(())
        })?;
        answer.groups_deleted()
    }

    /// Deletes topics; for each, what became of it.
    pub(in crate::kafka) fn delete_topics(
        &self,
        topics: &[&str],
        timeout: Duration,
    ) -> Result<BTreeMap<String, Result<(), Failure>>, Failure> {
        let names = c_strings(topics)?;
        let operation = Operation::RD_KAFKA_ADMIN_OP_DELETETOPICS;
        let answer = self.request(operation, timeout, |options, queue| {
            // SAFETY: all are alive during the call, which copies the requests; each is freed once.
            unsafe {
                let new = |name: &std::ffi::CString| sys::rd_kafka_DeleteTopic_new(name.as_ptr());
                let mut requests: Vec<_> = names.iter().map(new).collect();
                sys::rd_kafka_DeleteTopics(
                    self.raw(),
                    requests.as_mut_ptr(),
                    requests.len(),
                    options,
                    queue,
                );
                sys::rd_kafka_DeleteTopic_destroy_array(requests.as_mut_ptr(), requests.len());
            }
            Ok(())
        })?;
        Ok(answer.topics_deleted())
    }
}

impl Answer {
    fn members(&self) -> Result<Vec<GroupMember>, Failure> {
        let (mut count, mut members) = (0, Vec::new());
        // SAFETY: the event is of this kind, alive, and owns what is read.
        unsafe {
            let result = sys::rd_kafka_event_DescribeConsumerGroups_result(self.0);
            let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
            for &group in array(groups, count) {
                let error = sys::rd_kafka_ConsumerGroupDescription_error(group);
                match sys::rd_kafka_error_code(error) {
                    Code::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                    Code::RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND => continue,
                    code => {
                        return Err(Failure::new(code, text(sys::rd_kafka_error_string(error))));
                    }
                }
                let all = sys::rd_kafka_ConsumerGroupDescription_member_count(group);
                members.extend((0..all).map(|index| {
                    member(sys::rd_kafka_ConsumerGroupDescription_member(group, index))
                }));
            }
        }
        Ok(members)
    }

    fn groups_deleted(&self) -> Result<(), Failure> {
        let mut count = 0;
        // SAFETY: the event is of this kind, alive, and owns what is read.
        unsafe {
            let result = sys::rd_kafka_event_DeleteGroups_result(self.0);
            let groups = sys::rd_kafka_DeleteGroups_result_groups(result, &raw mut count);
            for &group in array(groups, count) {
                let error = sys::rd_kafka_group_result_error(group);
                match sys::rd_kafka_error_code(error) {
                    Code::RD_KAFKA_RESP_ERR_NO_ERROR
                    | Code::RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND => {}
                    code => {
                        return Err(Failure::new(code, text(sys::rd_kafka_error_string(error))));
                    }
                }
            }
        }
        Ok(())
    }

    fn topics_deleted(&self) -> BTreeMap<String, Result<(), Failure>> {
        let mut count = 0;
        // SAFETY: the event is of this kind, alive, and owns what is read.
        unsafe {
            let result = sys::rd_kafka_event_DeleteTopics_result(self.0);
            let topics = sys::rd_kafka_DeleteTopics_result_topics(result, &raw mut count);
            topic_outcomes(array(topics, count))
        }
    }
}

/// # Safety
/// `member` is alive.
unsafe fn member(member: *const sys::rd_kafka_MemberDescription_t) -> GroupMember {
    // SAFETY: as promised by the caller; a dynamic member has no instance id.
    unsafe {
        let instance = sys::rd_kafka_MemberDescription_group_instance_id(member);
        let name = match instance.is_null() {
            true => sys::rd_kafka_MemberDescription_client_id(member),
            false => instance,
        };
        let host = text(sys::rd_kafka_MemberDescription_host(member));
        GroupMember { name: text(name), host: host.trim_start_matches('/').to_owned() }
    }
}
