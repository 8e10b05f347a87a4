//! Requests about what the user may do.
#![allow(unsafe_code, reason = "calls librdkafka's admin interface")]

use std::{collections::BTreeMap, time::Duration};

use rdkafka::bindings as sys;

use super::{
    admin::{Answer, Operation, array, c_string},
    client::Client,
    failure::{Code, Failure, text},
};

/// Something that may be done with a topic or a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Its records are read, or the group is joined.
    Read,
    /// Records are written.
    Write,
    /// Records are deleted.
    Delete,
}

/// What brokers tell of the user's rights to something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) enum Granted {
    /// It is not there.
    Absent,
    /// These, and maybe others.
    Some(Vec<Right>),
    /// None that would let the user know of it.
    Nothing,
    /// They do not tell.
    Unknown,
}

impl Client {
    /// What the user may do with topics.
    pub(in crate::kafka) fn rights_to_topics(
        &self,
        topics: &[&str],
        timeout: Duration,
    ) -> Result<BTreeMap<String, Granted>, Failure> {
        // SAFETY: the options are alive when they are set.
        let set = |options| unsafe { with_rights(options) };
        let answer = self.described(topics, timeout, set)?;
        Ok(answer.rights_to_topics())
    }

    /// What the user may do with a consumer group, which needs not be there.
    pub(in crate::kafka) fn rights_to_group(
        &self,
        group: &str,
        timeout: Duration,
    ) -> Result<Granted, Failure> {
        let group = c_string(group)?;
        let mut pointer = group.as_ptr();
        let operation = Operation::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
        let answer = self.request(operation, timeout, |options, queue| {
            // SAFETY: all are alive during the call, which copies the name.
            unsafe {
                with_rights(options)?;
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
        Ok(answer.rights_to_group())
    }
}

/// Asks brokers to tell rights as well.
///
/// # Safety
/// `options` are alive.
unsafe fn with_rights(options: *mut sys::rd_kafka_AdminOptions_t) -> Result<(), Failure> {
    // SAFETY: as promised by the caller; the error is owned.
    unsafe {
        Failure::take(sys::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1))
    }
}

impl Answer {
    fn rights_to_topics(&self) -> BTreeMap<String, Granted> {
        let (mut count, mut operations) = (0, 0);
        let mut found = BTreeMap::new();
        // SAFETY: the event is of this kind, alive, and owns what is read.
        unsafe {
            let result = sys::rd_kafka_event_DescribeTopics_result(self.0);
            let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            for &topic in array(topics, count) {
                let error = sys::rd_kafka_TopicDescription_error(topic);
                let all = sys::rd_kafka_TopicDescription_authorized_operations(
                    topic,
                    &raw mut operations,
                );
                let granted = granted(sys::rd_kafka_error_code(error), (all, operations));
                found.insert(text(sys::rd_kafka_TopicDescription_name(topic)), granted);
            }
        }
        found
    }

    fn rights_to_group(&self) -> Granted {
        let (mut count, mut operations) = (0, 0);
        // SAFETY: the event is of this kind, alive, and owns what is read.
        unsafe {
            let result = sys::rd_kafka_event_DescribeConsumerGroups_result(self.0);
            let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
            let Some(&group) = array(groups, count).first() else { return Granted::Unknown };
            let error = sys::rd_kafka_ConsumerGroupDescription_error(group);
            let all = sys::rd_kafka_ConsumerGroupDescription_authorized_operations(
                group,
                &raw mut operations,
            );
            granted(sys::rd_kafka_error_code(error), (all, operations))
        }
    }
}

/// # Safety
/// The operations are null or so many, and alive.
unsafe fn granted(
    code: Code,
    (operations, count): (*const sys::rd_kafka_AclOperation_t, usize),
) -> Granted {
    use sys::rd_kafka_AclOperation_t as Acl;
    let right = |operation: &Acl| match operation {
        Acl::RD_KAFKA_ACL_OPERATION_READ => Some(Right::Read),
        Acl::RD_KAFKA_ACL_OPERATION_WRITE => Some(Right::Write),
        Acl::RD_KAFKA_ACL_OPERATION_DELETE => Some(Right::Delete),
        _ => None,
    };
    match code {
        Code::RD_KAFKA_RESP_ERR_NO_ERROR if operations.is_null() => Granted::Unknown,
        // SAFETY: as promised by the caller.
        Code::RD_KAFKA_RESP_ERR_NO_ERROR => unsafe {
            let all = array(operations.cast_mut(), count);
            Granted::Some(all.iter().filter_map(right).collect())
        },
        Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
        | Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED => Granted::Nothing,
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC => {
            Granted::Absent
        }
        _ => Granted::Unknown,
    }
}
