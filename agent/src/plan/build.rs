//! Names to indices.

use std::collections::BTreeMap;

use sidestream_core::{
    record::TopicIndex,
    topology::{
        ErrorPolicy, Input, Output, Reader, Route, Start, Store, Subtopology, Topic, TopicKind,
        Topology, Transform,
    },
};

use crate::{
    config::{
        self, Pipeline,
        pipeline::{self, Source, Target},
    },
    plan::{InternalTopic, Plan, changelog_name, counts::Counts, repartition_name},
};

/// Builds the plan of a pipeline that is known to be sound and whose topics are there.
pub(super) fn build(
    pipeline: &Pipeline,
    groups: &[Vec<usize>],
    counts: &Counts<'_>,
    partitions: &dyn Fn(&str) -> Option<i32>,
) -> Plan {
    let mut builder =
        Builder { pipeline, counts, partitions, topics: Vec::new(), indices: BTreeMap::new() };
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
    let create = internal.iter().filter(|topic| partitions(&topic.name).is_none()).cloned();
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
                    on_error: ErrorPolicy::default(),
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
                let (topic, start) = match &input.source {
                    Source::Topic { name, start } => (self.external(name), start_of(*start)),
                    Source::Repartition { name } => (self.repartition(name), Start::Earliest),
                    Source::Transform { .. } => continue,
                };
                let reader = Reader { transform, input: number };
                match inputs.iter_mut().find(|input| input.topic == topic) {
                    Some(input) => input.readers.push(reader),
                    None => inputs.push(Input { topic, start, readers: vec![reader] }),
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
