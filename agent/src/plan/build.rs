//! Names to indices.

use std::collections::BTreeMap;

use sidestream_core::{
    record::TopicIndex,
    topology::{
        ErrorPolicy, Input, OnError, OnOutOfRange, Output, Reader, Retry, Route, Start, Store,
        Subtopology, Topic, TopicKind, Topology, Transform,
    },
};

use crate::{
    config::{
        self, Pipeline,
        pipeline::{self, GivesUp, Source, Target},
    },
    plan::{InternalTopic, Plan, changelog_name, counts::Counts, dead_letters, repartition_name},
};

/// Builds the plan of a pipeline that is known to be sound and whose topics are there.
pub(super) fn build(
    pipeline: &Pipeline,
    groups: &[Vec<usize>],
    counts: &Counts<'_>,
    partitions: &dyn Fn(&str) -> Option<i32>,
) -> Plan {
    let mut builder = Builder {
        pipeline,
        groups,
        counts,
        partitions,
        topics: Vec::new(),
        indices: BTreeMap::new(),
    };
    let subtopologies: Vec<_> = groups
        .iter()
        .zip(&counts.groups)
        .map(|(group, count)| builder.subtopology(group, *count))
        .collect();
    let internal: Vec<_> = builder
        .topics
        .iter()
        .filter(|topic| topic.kind != TopicKind::External)
        .map(|Topic { name, partitions, kind }| InternalTopic {
            name: name.clone(),
            partitions: *partitions,
            kind: *kind,
        })
        .collect();
    let dead_letters = builder.missing_dead_letters();
    let create = internal.iter().chain(&dead_letters);
    let create = create.filter(|topic| partitions(&topic.name).is_none()).cloned();
    let kinds = |group: &Vec<usize>| {
        let stores = group.iter().flat_map(|&index| &pipeline.transforms[index].stores);
        stores.map(|store| store.kind).collect()
    };
    Plan {
        transforms: groups.to_vec(),
        stores: groups.iter().map(kinds).collect(),
        create: create.collect(),
        internal,
        topology: Topology { topics: builder.topics, subtopologies },
    }
}

struct Builder<'a> {
    pipeline: &'a Pipeline,
    groups: &'a [Vec<usize>],
    counts: &'a Counts<'a>,
    partitions: &'a dyn Fn(&str) -> Option<i32>,
    topics: Vec<Topic>,
    indices: BTreeMap<String, TopicIndex>,
}

impl Builder<'_> {
    fn subtopology(&mut self, group: &[usize], partitions: i32) -> Subtopology {
        let inputs = self.inputs(group);
        let mut stores = Vec::new();
        let transforms = group
            .iter()
            .map(|&index| {
                let transform = &self.pipeline.transforms[index];
                let first = stores.len();
                for store in &transform.stores {
                    let name = changelog_name(&self.pipeline.application, &store.name);
                    let changelog = self.topic(name, partitions, TopicKind::Changelog);
                    stores.push(Store { name: store.name.clone(), changelog });
                }
                Transform {
                    name: transform.name.clone(),
                    inputs: input_names(transform),
                    outputs: transform
                        .outputs
                        .iter()
                        .map(|output| self.output(group, transform, output))
                        .collect(),
                    stores: (first..stores.len()).collect(),
                    on_error: self.policy(transform),
                }
            })
            .collect();
        Subtopology { partitions, inputs, transforms, stores }
    }

    /// The topics of a group, each once, with all that read it.
    fn inputs(&mut self, group: &[usize]) -> Vec<Input> {
        let mut inputs: Vec<Input> = Vec::new();
        for (transform, &index) in group.iter().enumerate() {
            for (input, number) in self.pipeline.transforms[index].inputs.iter().zip(0u32..) {
                let (topic, start, on_out_of_range) = match &input.source {
                    Source::Topic { name, start, on_out_of_range } => {
                        (self.external(name), start_of(*start), policy_of(*on_out_of_range))
                    }
                    Source::Repartition { name } => {
                        (self.repartition(name), Start::Earliest, OnOutOfRange::Fail)
                    }
                    Source::Transform { .. } => continue,
                };
                let reader = Reader { transform, input: number };
                match inputs.iter_mut().find(|input| input.topic == topic) {
                    Some(input) => input.readers.push(reader),
                    None => {
                        let readers = vec![reader];
                        inputs.push(Input { topic, start, on_out_of_range, readers });
                    }
                }
            }
        }
        inputs
    }

    fn output(
        &mut self,
        group: &[usize],
        transform: &pipeline::Transform,
        output: &pipeline::Output,
    ) -> Output {
        let (route, latest_per_key) = match &output.target {
            Target::Topic { name, latest_per_key } => {
                (Route::Topic(self.external(name)), *latest_per_key)
            }
            Target::Repartition { name, .. } => (Route::Topic(self.repartition(name)), false),
            Target::Transforms => {
                (Route::Transforms(self.readers(group, &transform.name, &output.name)), false)
            }
        };
        Output { name: output.name.clone(), route, latest_per_key }
    }

    /// Which inputs take an output inside the process.
    fn readers(&self, group: &[usize], from: &str, name: &str) -> Vec<Reader> {
        let mut readers = Vec::new();
        for (transform, &index) in group.iter().enumerate() {
            for (input, number) in self.pipeline.transforms[index].inputs.iter().zip(0u32..) {
                if matches!(&input.source, Source::Transform { transform, output }
                    if transform == from && output == name)
                {
                    readers.push(Reader { transform, input: number });
                }
            }
        }
        readers
    }

    /// What becomes of records that a transform fails at.
    fn policy(&mut self, transform: &pipeline::Transform) -> ErrorPolicy {
        let limits = &self.pipeline.limits;
        let retry = transform.retry.map(|retry| Retry {
            attempts_max: retry.attempts.unwrap_or(limits.retry_attempts_max),
            backoff: retry.backoff.unwrap_or(limits.retry_backoff),
        });
        let then = match &transform.on_error {
            pipeline::OnError::GiveUp(GivesUp::Fail) => OnError::Fail,
            pipeline::OnError::GiveUp(GivesUp::Skip) => OnError::Skip,
            pipeline::OnError::DeadLetter { topic, .. } => {
                let partitions = self.dead_letter_partitions(topic);
                OnError::DeadLetter(self.topic(topic.clone(), partitions, TopicKind::External))
            }
        };
        ErrorPolicy { retry, then }
    }

    /// How many partitions a topic with dead letters has, or is to have: as many as the widest
    /// sub-topology that writes to it.
    fn dead_letter_partitions(&self, name: &str) -> i32 {
        let writes = |group: &[usize]| {
            let mut policies = group.iter().map(|&index| &self.pipeline.transforms[index].on_error);
            policies.any(|on_error| dead_letters(on_error) == Some(name))
        };
        let groups = self.groups.iter().zip(&self.counts.groups);
        let widest = groups.filter(|(group, _)| writes(group)).map(|(_, count)| *count).max();
        (self.partitions)(name).or(widest).expect("it is the topic of some transform")
    }

    fn missing_dead_letters(&self) -> Vec<InternalTopic> {
        let transforms = self.pipeline.transforms.iter();
        let mut names: Vec<&str> =
            transforms.filter_map(|transform| dead_letters(&transform.on_error)).collect();
        names.sort_unstable();
        names.dedup();
        let missing = names.into_iter().filter(|name| (self.partitions)(name).is_none());
        let topic = |name: &str| InternalTopic {
            name: name.to_owned(),
            partitions: self.dead_letter_partitions(name),
            kind: TopicKind::External,
        };
        missing.map(topic).collect()
    }

    fn external(&mut self, name: &str) -> TopicIndex {
        let partitions = (self.partitions)(name).expect("a topic that is missing was refused");
        self.topic(name.into(), partitions, TopicKind::External)
    }

    fn repartition(&mut self, name: &str) -> TopicIndex {
        let partitions = self.counts.repartitions[name];
        let name = repartition_name(&self.pipeline.application, name);
        self.topic(name, partitions, TopicKind::Repartition)
    }

    fn topic(&mut self, name: String, partitions: i32, kind: TopicKind) -> TopicIndex {
        *self.indices.entry(name).or_insert_with_key(|name| {
            let index = u16::try_from(self.topics.len()).expect("pipelines have fewer parts");
            self.topics.push(Topic { name: name.clone(), partitions, kind });
            TopicIndex(index)
        })
    }
}

/// What a module knows its inputs by: the name of the topic, of the repartition, or of the
/// transform; `transform.output` if it takes several outputs of that transform.
fn input_names(transform: &pipeline::Transform) -> Vec<String> {
    let taken = |from: &str| {
        let same = |input: &&pipeline::Input| matches!(&input.source, Source::Transform { transform, .. } if transform == from);
        transform.inputs.iter().filter(same).count()
    };
    let name = |input: &pipeline::Input| match &input.source {
        Source::Topic { name, .. } | Source::Repartition { name } => name.clone(),
        Source::Transform { transform, output } if taken(transform) > 1 => {
            format!("{transform}.{output}")
        }
        Source::Transform { transform, .. } => transform.clone(),
    };
    transform.inputs.iter().map(name).collect()
}

fn start_of(start: config::Start) -> Start {
    match start {
        config::Start::Earliest => Start::Earliest,
        config::Start::Latest => Start::Latest,
        config::Start::At(time) => Start::At(time),
    }
}

fn policy_of(policy: config::OnOutOfRange) -> OnOutOfRange {
    match policy {
        config::OnOutOfRange::Fail => OnOutOfRange::Fail,
        config::OnOutOfRange::Earliest => OnOutOfRange::Earliest,
        config::OnOutOfRange::Latest => OnOutOfRange::Latest,
    }
}
