//! What a pipeline's settings come to for each room: clients of Kafka, workers, modules, stores.

mod memory;

use std::time::Duration;

use sidestream_core::{
    topology::{Input, Subtopology},
    worker,
};

use self::memory::{Shares, Wanted};
use crate::{
    config::{
        Pipeline,
        pipeline::{self, Guarantee},
    },
    guest::{self, Compile},
    kafka,
    plan::Plan,
    state::{self, StoreSpec, TaskStores},
};

/// This program, whatever has become of its file: it is who compiles (see [`guest::Compile`]).
const THIS_PROGRAM: &str = "/proc/self/exe";

/// The configuration of the Kafka clients for a pipeline.
pub(crate) fn kafka_config(pipeline: &Pipeline, identity: &str) -> kafka::Config {
    let properties = |properties: &pipeline::Properties| properties.0.iter().cloned().collect();
    let limits = &pipeline.limits;
    kafka::Config {
        application: pipeline.application.clone(),
        identity: identity.to_owned(),
        workers: pipeline.general.workers as usize,
        exactly_once: pipeline.general.guarantee == Guarantee::ExactlyOnce,
        properties: properties(&pipeline.kafka.common),
        consumer: properties(&pipeline.kafka.consumer),
        producer: properties(&pipeline.kafka.producer),
        admin: properties(&pipeline.kafka.admin),
        session_timeout: pipeline.kafka.session_timeout,
        transaction_timeout: pipeline.kafka.transaction_timeout,
        revoke_time_max: limits.revoke_time_max,
        message_bytes_max: pipeline.kafka.message_bytes_max,
        queue_bytes_max: shares(pipeline, 1).queues,
        ..kafka::Config::default()
    }
}

/// That of the workers.
pub(crate) fn worker_config(
    pipeline: &Pipeline,
    shares: Shares,
    transaction_timeout: Duration,
) -> worker::Config {
    let limits = &pipeline.limits;
    worker::Config {
        exactly_once: pipeline.general.guarantee == Guarantee::ExactlyOnce,
        commit_interval: pipeline.general.commit_interval,
        transaction_timeout,
        uncommitted_bytes_max: shares.uncommitted,
        batch_records_max: limits.batch_records_max as usize,
        buffered_bytes_max: shares.buffered,
        max_task_idle: pipeline.general.max_task_idle,
        retry_attempts_max: limits.retry_attempts_max,
        retry_backoff: limits.retry_backoff,
        ..worker::Config::default()
    }
}

/// That of the modules, which may take so much memory together.
pub(crate) fn guest_config(pipeline: &Pipeline, memory_total: usize) -> guest::Config {
    let limits = &pipeline.limits;
    let default = guest::Config::default();
    guest::Config {
        module_bytes_max: bytes(limits.module_bytes_max),
        compile: Compile::InProcess(THIS_PROGRAM.into()),
        compile_time_max: limits.compile_time_max,
        compile_memory_bytes_max: limits.compile_memory_max,
        memory_bytes_max: bytes(limits.guest_memory_max),
        memory_total_bytes_max: memory_total,
        calls_at_once_max: pipeline.general.workers as usize,
        table_elements_max: limits.guest_table_elements_max as usize,
        stack_bytes_max: bytes(limits.guest_stack_max),
        batch_time_max: limits.batch_time_max,
        output_bytes_max: bytes(limits.output_bytes_max),
        record_bytes_max: bytes(limits.record_bytes_max),
        // A module may ask for what all records of its batch need at once.
        get_keys_max: default.get_keys_max.max(limits.batch_records_max as usize),
        ..default
    }
}

/// The stores of each sub-topology.
pub(crate) fn task_stores(plan: &Plan) -> Vec<TaskStores> {
    let subtopologies = plan.topology.subtopologies.iter().zip(&plan.stores);
    let of_one = |(subtopology, kinds): (&Subtopology, &Vec<_>)| {
        let stores = subtopology.stores.iter().zip(kinds);
        let topic = |input: &Input| plan.topology.topic(input.topic).name.clone();
        TaskStores {
            stores: stores
                .map(|(store, kind)| StoreSpec {
                    name: store.name.clone(),
                    kind: store_kind(*kind),
                })
                .collect(),
            inputs: subtopology.inputs.iter().map(topic).collect(),
        }
    };
    subtopologies.map(of_one).collect()
}

fn store_kind(kind: pipeline::StoreKind) -> state::StoreKind {
    match kind {
        pipeline::StoreKind::RocksDb => state::StoreKind::RocksDb,
        pipeline::StoreKind::Memory => state::StoreKind::Memory,
    }
}

/// What each user of memory may have, with so many partitions for a worker.
pub(crate) fn shares(pipeline: &Pipeline, partitions: usize) -> Shares {
    let wanted = Wanted {
        budget: bytes(pipeline.general.memory_max),
        workers: pipeline.general.workers as usize,
        partitions,
        uncommitted: bytes(pipeline.limits.uncommitted_bytes_max),
        buffered: bytes(pipeline.limits.buffered_bytes_max),
    };
    wanted.shares()
}

/// A number of bytes, as this machine counts them.
pub(crate) fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read_for_tests;

    /// The rooms below have defaults of their own, for the simulator and for tests.
    #[test]
    fn defaults_elsewhere_are_what_a_pipeline_comes_to_that_says_nothing() {
        let pipeline = read_for_tests(
            "application: a\nkafka: { bootstrap.servers: b }\n\
             transforms: [{ name: t, module: m, inputs: [x] }]\n",
        );
        let timeout = pipeline.kafka.transaction_timeout;
        let worker = worker_config(&pipeline, shares(&pipeline, 1), timeout);
        assert_eq!(worker, worker::Config::default());
        let guests = guest::Config::default();
        let compile = Compile::InProcess(THIS_PROGRAM.into());
        let guest = guest_config(&pipeline, guests.memory_total_bytes_max);
        assert_eq!(guest, guest::Config { compile, ..guests });
        let expected = kafka::Config {
            application: "a".into(),
            properties: [("bootstrap.servers".into(), "b".into())].into(),
            ..kafka::Config::default()
        };
        let kafka = kafka_config(&pipeline, "");
        assert_eq!(kafka.message_bytes_max, expected.message_bytes_max);
        assert!(kafka == expected, "one of the times, or the size of the queues, differs");
    }
}
