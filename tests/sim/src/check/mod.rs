//! What must be true when a run has ended: everything is as if nothing had ever failed.

mod dead_letters;
mod outputs;
mod stores;

use std::collections::BTreeMap;

use sidestream_core::{
    record::{Offset, TaskId, TopicIndex, TopicPartition},
    topology::Route,
};

use crate::{
    cluster::LogRecord,
    pipeline::{CHAIN, COUNT, SUM},
    poison,
    world::State,
};

/// A record of an input, by input, partition and offset.
pub(crate) type Stamp = (u32, i32, Offset);

/// Checks everything; the first broken rule is kept in `state`.
pub(crate) fn everything(state: &mut State) {
    let plan = state.plan.clone();
    let result = (0u16..).zip(&plan.topology.subtopologies).try_for_each(|(index, subtopology)| {
        outputs::check(state, index)?;
        (0..subtopology.partitions).try_for_each(|partition| {
            stores::check_task(state, TaskId { subtopology: index, partition })
        })
    });
    let result = result.and_then(|()| dead_letters::check(state));
    let result = result.and_then(|()| state.check_moves());
    if let Err(text) = result.and_then(|()| stores::check_disks(state)) {
        state.violate(format_args!("{text}"));
    }
}

/// Whether each store is what its changelog says, at any moment of a run without transactions:
/// nothing has to be settled first.
pub(crate) fn disks(state: &State) -> Result<(), String> {
    stores::check_disks(state)
}

/// Whether the stores of a task that a process has open are what their changelogs say.
pub(crate) fn task(state: &mut State, pod: usize, task: TaskId) -> Result<(), String> {
    let contents = state.files(pod, task).contents().clone();
    stores::check_contents(state, task, &contents)
}

/// Whether every task that can has committed all of its input.
pub(crate) fn is_finished(state: &State) -> bool {
    first_unfinished(state).is_none()
}

/// What is not finished, for people.
pub(crate) fn unfinished(state: &State) -> String {
    first_unfinished(state).unwrap_or_default()
}

fn first_unfinished(state: &State) -> Option<String> {
    if let Some(partition) = state.still_unmarked() {
        return Some(format!("the offset of {partition:?} is still an operator's"));
    }
    for (task, partition) in inputs(state) {
        let log = state.cluster.partition(partition);
        if log.stable_end() < log.end() {
            return Some(format!("{partition:?} has an open transaction"));
        }
        let last = log.history().last().map_or(0, |(offset, _)| offset + 1);
        let committed = state.cluster.group.offsets.get(&partition).map_or(0, |c| c.offset);
        if committed < last && !state.is_poisoned(task) {
            return Some(format!("{task} has committed {committed} of {last} of {partition:?}"));
        }
        if let Some(text) = stores::behind(state, task) {
            return Some(text);
        }
    }
    None
}

/// Every input partition with its task.
fn inputs(state: &State) -> Vec<(TaskId, TopicPartition)> {
    let mut inputs = Vec::new();
    for (subtopology, index) in state.plan.topology.subtopologies.iter().zip(0u16..) {
        for partition in 0..subtopology.partitions {
            let task = TaskId { subtopology: index, partition };
            let of = |topic: TopicIndex| (task, TopicPartition::new(topic, partition));
            inputs.extend(subtopology.inputs.iter().map(|input| of(input.topic)));
        }
    }
    inputs
}

impl State {
    /// Whether a task has a record that it can't get over.
    pub(crate) fn is_poisoned(&self, task: TaskId) -> bool {
        if self.plan.refusals.may_stop(&self.plan.topology, task) {
            return true;
        }
        if self.plan.poison.is_empty() {
            return false;
        }
        let subtopology = self.plan.topology.subtopology(task);
        subtopology.inputs.iter().any(|input| {
            let partition = TopicPartition::new(input.topic, task.partition);
            let poison = |record: &LogRecord| {
                record.value.as_ref().is_some_and(|value| self.plan.poison.contains(value))
            };
            self.cluster.partition(partition).history().any(|(_, record)| poison(record))
        })
    }

    /// Whether a task may not have come to its end: it has poison, or it follows one that may go
    /// on until it meets it.
    fn is_hindered(&self, task: TaskId) -> bool {
        self.is_poisoned(task)
            || (self.grown.is_some() && !self.plan.config.exactly_once)
            || (task.subtopology > 0
                && (self.plan.refusals.stops() || !self.plan.poison.is_empty()))
    }

    /// The committed records of all inputs of a sub-topology that are the pipeline's.
    fn input_records(&self, subtopology: u16) -> BTreeMap<Stamp, LogRecord> {
        let definition = &self.plan.topology.subtopologies[usize::from(subtopology)];
        let mut records = BTreeMap::new();
        for (input, place) in definition.inputs.iter().zip(0u32..) {
            for partition in 0..definition.partitions {
                let source = TopicPartition::new(input.topic, partition);
                for (offset, record) in self.cluster.partition(source).history() {
                    if !self.is_left_out(source, offset) && !self.is_unread(source, offset) {
                        records.insert((place, partition, offset), record.clone());
                    }
                }
            }
        }
        records
    }

    /// The records of a sub-topology's inputs that a transform of it processes: those that it and
    /// the transform before it don't pass over.
    fn processed(&self, subtopology: u16, transform: &str) -> BTreeMap<Stamp, LogRecord> {
        let mut records = self.input_records(subtopology);
        let first = if subtopology == 0 { COUNT } else { SUM };
        let fails = |name, stamp| poison::way(&self.plan, name, stamp).is_some();
        records.retain(|&stamp, _| {
            !fails(first, stamp)
                && (transform != CHAIN || !fails(CHAIN, stamp))
                && self.had_transform(subtopology, stamp, transform)
        });
        records
    }

    /// The records of a sub-topology's inputs that come as far as a transform of it.
    fn reached(&self, subtopology: u16, transform: &str) -> BTreeMap<Stamp, LogRecord> {
        match transform {
            CHAIN => self.processed(subtopology, COUNT),
            _ => self.input_records(subtopology),
        }
    }

    /// The topic behind an output of a transform, if there is such an output.
    fn output_topic(&self, subtopology: u16, transform: &str, output: &str) -> Option<TopicIndex> {
        let definition = &self.plan.topology.subtopologies[usize::from(subtopology)];
        let transform = definition.transforms.iter().find(|t| t.name == transform)?;
        let output = transform.outputs.iter().find(|o| o.name == output)?;
        match output.route {
            Route::Topic(topic) => Some(topic),
            Route::Transforms(_) => None,
        }
    }

    /// The committed records of a topic, partition after partition.
    fn topic_records(&self, topic: TopicIndex) -> Vec<(TopicPartition, Offset, &LogRecord)> {
        let partitions = self.plan.topology.topic(topic).partitions;
        (0..partitions)
            .map(|partition| TopicPartition::new(topic, partition))
            .flat_map(|partition| {
                let history = self.cluster.partition(partition).history();
                history.map(move |(offset, record)| (partition, offset, record))
            })
            .collect()
    }
}

/// A key as user code sees it.
fn key_of(record: &LogRecord) -> Vec<u8> {
    record.key.clone().unwrap_or_else(|| b"-".to_vec())
}

/// Takes `input/partition/offset` apart, and the count behind it.
pub(crate) fn stamp(value: &[u8]) -> Option<(Stamp, Option<u64>)> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.split('/');
    let stamp =
        (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((stamp, parts.next().and_then(|count| count.parse().ok())))
}

/// Bytes for people.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
