//! What brokers refuse for other reasons than a record's size, for a while or for good.

use sidestream_core::{
    record::{TaskId, TopicIndex, TopicPartition},
    task::Fault,
    topology::{Route, Topology},
};

use crate::{
    cluster::LogRecord,
    pipeline::{DEAD_LETTERS, Shape, TICKS},
    plan::AT_LEAST_ONCE,
    prng::Prng,
    slow::Slow,
};

/// What a seed decides about refusals.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals {
    /// It is never told what is refused.
    pub(crate) nameless: bool,
    /// An output topic or a changelog, one partition of which refuses everything for good.
    lasting: Option<TopicPartition>,
    /// A task whose punctuations emit what is too large.
    bad_ticks: Option<TaskId>,
    /// Topics that are not there for a while: from when on, until when.
    absent: Vec<(TopicIndex, u64, u64)>,
    /// What dead letters must not have.
    letters: Letters,
}

/// What is refused of a dead letter.
#[derive(Clone, Copy, Debug, Default)]
struct Letters {
    time: bool,
    value: bool,
    key: bool,
}

impl Refusals {
    /// Draws those of a seed, by themselves, so that what else it decides does not depend on them.
    pub(crate) fn draw(seed: u64, nameless: bool, shape: &Shape, topology: &Topology) -> Self {
        let mut prng = Prng::new(seed ^ 0x004E_F05E);
        let outputs = outputs(topology);
        let mut refusals = Self { nameless, ..Self::default() };
        if prng.one_in(8) {
            let changelogs = topology.subtopologies.iter().flat_map(|of| &of.stores);
            let mut topics: Vec<TopicIndex> = changelogs.map(|store| store.changelog).collect();
            topics.extend(&outputs);
            let topic = topics[prng.index(topics.len())];
            let partitions = u64::try_from(topology.topic(topic).partitions).expect("some");
            let partition = i32::try_from(prng.below(partitions)).expect("few");
            refusals.lasting = Some(TopicPartition::new(topic, partition));
        } else if prng.one_in(12) && shape.stream_punctuation.or(shape.wall_punctuation).is_some() {
            let partitions = u64::try_from(shape.partitions).expect("some");
            let partition = i32::try_from(prng.below(partitions)).expect("few");
            refusals.bad_ticks = Some(TaskId { subtopology: 0, partition });
        }
        for _ in 0..if prng.one_in(4) { prng.between(1, 4) } else { 0 } {
            let (from, long) = (prng.between(0, 4_000), prng.between(20, 1_500));
            refusals.absent.push((outputs[prng.index(outputs.len())], from, from + long));
        }
        // Where each try costs a restart, or many tries, they would not come to an end.
        let restarts = seed % AT_LEAST_ONCE == AT_LEAST_ONCE - 1;
        let is_slow = nameless || restarts || Slow::is_drawn(seed);
        if prng.one_in(4) && !is_slow {
            refusals.letters =
                Letters { time: prng.coin(), value: prng.coin(), key: prng.one_in(3) };
        }
        refusals
    }

    /// Whether something stops tasks for good.
    pub(crate) const fn stops(&self) -> bool {
        self.lasting.is_some() || self.bad_ticks.is_some()
    }

    /// Whether a task may come upon something that stops it.
    pub(crate) fn may_stop(&self, topology: &Topology, task: TaskId) -> bool {
        let writes = |partition: &TopicPartition| {
            let subtopology = topology.subtopology(task);
            let topic = partition.topic;
            let stores = subtopology.stores.iter();
            let is_own = stores.clone().any(|store| store.changelog == topic);
            let mut outputs = subtopology.transforms.iter().flat_map(|of| &of.outputs);
            let is_output = outputs.any(|output| output.route == Route::Topic(topic));
            is_output || (is_own && partition.partition == task.partition)
        };
        self.bad_ticks == Some(task) || self.lasting.as_ref().is_some_and(writes)
    }

    /// Whether a task's punctuations emit what is too large.
    pub(crate) fn has_bad_ticks(&self, task: TaskId) -> bool {
        self.bad_ticks == Some(task)
    }

    /// Why a partition takes nothing at a moment, if that is so.
    pub(crate) fn of_partition(
        &self,
        partition: TopicPartition,
        (now, faulty): (u64, bool),
    ) -> Option<(Fault, &'static str)> {
        if self.lasting == Some(partition) {
            return Some((Fault::Lasting, "nobody may write there"));
        }
        let is_absent = |(topic, from, until): &(TopicIndex, u64, u64)| {
            *topic == partition.topic && (*from..*until).contains(&now)
        };
        let absent = faulty && self.absent.iter().any(is_absent);
        absent.then_some((Fault::Passing, "there is no such topic"))
    }

    /// Why a dead letter is refused, if it is.
    pub(crate) fn of_letter(
        &self,
        topic: &str,
        letter: &LogRecord,
    ) -> Option<(Fault, &'static str)> {
        let has = |name: &str| letter.headers.iter().any(|(is, _)| *is == name.as_bytes());
        let Letters { time, value, key } = self.letters;
        match topic == DEAD_LETTERS {
            true if time && !has("__sidestream.timestamp.replaced") => {
                Some((Fault::Time, "its time is wrong"))
            }
            true if value && letter.value.is_some() => Some((Fault::Size, "it is too large")),
            true if key && !has("__sidestream.key.omitted") => {
                Some((Fault::Record, "its key is wrong"))
            }
            _ => None,
        }
    }

    /// Whether dead letters lose their values, and their keys.
    pub(crate) const fn cuts(&self) -> (bool, bool) {
        let Letters { value, key, .. } = self.letters;
        (value, key)
    }
}

/// The topics that outputs go to, but those that only punctuations write.
fn outputs(topology: &Topology) -> Vec<TopicIndex> {
    let transforms = topology.subtopologies.iter().flat_map(|of| &of.transforms);
    let outputs = transforms.flat_map(|of| &of.outputs).filter(|output| output.name != TICKS);
    let topics = outputs.filter_map(|output| match output.route {
        Route::Topic(topic) => Some(topic),
        Route::Transforms(_) => None,
    });
    topics.collect()
}
