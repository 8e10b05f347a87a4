//! Requests about the state of the cluster: its brokers, who leads partitions, how brokers are set up.
#![allow(unsafe_code, reason = "calls librdkafka's admin interface")]

use std::{collections::BTreeMap, time::Duration};

use rdkafka::bindings as sys;

use super::{
    admin::{Operation, array, c_strings},
    client::Client,
    failure::{Code, Failure, text},
};

/// Who keeps a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct Partition {
    /// Its number.
    pub(in crate::kafka) number: i32,
    /// Whether a broker leads it.
    pub(in crate::kafka) is_led: bool,
    /// The brokers that have a replica.
    pub(in crate::kafka) replicas: Vec<i32>,
    /// Those whose replica is in sync.
    pub(in crate::kafka) in_sync: Vec<i32>,
}

impl Client {
    /// The numbers of the brokers that are there now.
    pub(in crate::kafka) fn brokers(&self, timeout: Duration) -> Result<Vec<i32>, Failure> {
        let operation = Operation::RD_KAFKA_ADMIN_OP_DESCRIBECLUSTER;
        let answer = self.request(operation, timeout, |options, queue| {
            // SAFETY: all are alive during the call.
            unsafe { sys::rd_kafka_DescribeCluster(self.raw(), options, queue) };
            Ok(())
        })?;
        let mut count = 0;
        // SAFETY: the event is of this kind, alive, and owns what is read.
        unsafe {
            let result = sys::rd_kafka_event_DescribeCluster_result(answer.0);
            let nodes = sys::rd_kafka_DescribeCluster_result_nodes(result, &raw mut count);
            Ok(numbers(nodes, count))
        }
    }

    /// Who keeps the partitions of topics; those that are not there, or can't be asked about, are
    /// left out.
    pub(in crate::kafka) fn partitions_of(
        &self,
        topics: &[&str],
        timeout: Duration,
    ) -> Result<BTreeMap<String, Vec<Partition>>, Failure> {
        let answer = self.described(topics, timeout, |_| Ok(()))?;
        let mut found = BTreeMap::new();
        let mut count = 0;
        // SAFETY: the event is of this kind, alive, and owns what is read.
        unsafe {
            let result = sys::rd_kafka_event_DescribeTopics_result(answer.0);
            let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            for &topic in array(topics, count) {
                let error = sys::rd_kafka_TopicDescription_error(topic);
                if sys::rd_kafka_error_code(error) == Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                    found.insert(text(sys::rd_kafka_TopicDescription_name(topic)), parts(topic));
                }
            }
        }
        Ok(found)
    }

    /// How a broker is set up, as far as it tells.
    pub(in crate::kafka) fn broker_configs(
        &self,
        broker: i32,
        timeout: Duration,
    ) -> Result<BTreeMap<String, String>, Failure> {
        let number = broker.to_string();
        let names = c_strings(&[&number])?;
        let operation = Operation::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS;
        let answer = self.request(operation, timeout, |options, queue| {
            // SAFETY: all are alive during the call, which copies the resource; it is freed once.
            unsafe {
                let kind = sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_BROKER;
                let mut resource = sys::rd_kafka_ConfigResource_new(kind, names[0].as_ptr());
                sys::rd_kafka_DescribeConfigs(self.raw(), &raw mut resource, 1, options, queue);
                sys::rd_kafka_ConfigResource_destroy(resource);
            }
            Ok(())
        })?;
        answer.configs()
    }
}

/// # Safety
/// `topic` is alive.
unsafe fn parts(topic: *const sys::rd_kafka_TopicDescription_t) -> Vec<Partition> {
    let (mut count, mut replicas, mut in_sync) = (0, 0, 0);
    // SAFETY: as promised by the caller; the topic owns what is read.
    unsafe {
        let parts = sys::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
        let part = |&part: &*const sys::rd_kafka_TopicPartitionInfo_t| Partition {
            number: sys::rd_kafka_TopicPartitionInfo_partition(part),
            is_led: is_node(sys::rd_kafka_TopicPartitionInfo_leader(part)),
            replicas: {
                let nodes = sys::rd_kafka_TopicPartitionInfo_replicas(part, &raw mut replicas);
                numbers(nodes, replicas)
            },
            in_sync: {
                let nodes = sys::rd_kafka_TopicPartitionInfo_isr(part, &raw mut in_sync);
                numbers(nodes, in_sync)
            },
        };
        array(parts, count).iter().map(part).collect()
    }
}

/// # Safety
/// `node` is null or alive.
unsafe fn is_node(node: *const sys::rd_kafka_Node_t) -> bool {
    // SAFETY: as promised by the caller.
    !node.is_null() && unsafe { sys::rd_kafka_Node_id(node) } >= 0
}

/// # Safety
/// `nodes` is null or points to `count` nodes that are alive.
unsafe fn numbers(nodes: *mut *const sys::rd_kafka_Node_t, count: usize) -> Vec<i32> {
    // SAFETY: as promised by the caller.
    unsafe { array(nodes, count).iter().map(|&node| sys::rd_kafka_Node_id(node)).collect() }
}
