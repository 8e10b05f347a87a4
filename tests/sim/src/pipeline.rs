//! The pipelines that runs work with: one or two co-partitioned inputs, one or two stages joined
//! by a repartition topic, maybe a second transform in the same task.

use sidestream_core::{
    record::TopicIndex,
    topology::{
        ErrorPolicy, Input, OnOutOfRange, Output, Reader, Route, Start, Store, Subtopology, Topic,
        TopicKind, Topology, Transform,
    },
};

use crate::{poison::Policies, prng::Prng};

/// What a pipeline looks like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) inputs: usize,
    pub(crate) partitions: i32,
    /// Partitions of the repartition topic, if there is one.
    pub(crate) second_stage: Option<i32>,
    /// Whether the first transform hands records over to another one.
    pub(crate) chained: bool,
    /// Whether a transform that only looks on is there: before the others, or after them.
    pub(crate) spare: Option<bool>,
    pub(crate) stream_punctuation: Option<u64>,
    pub(crate) wall_punctuation: Option<u64>,
    /// What transforms do about records that fail for good.
    pub(crate) policies: Policies,
    /// Where the inputs begin.
    pub(crate) starts: [Start; 2],
    /// What becomes of an input that can't be read on.
    pub(crate) on_out_of_range: OnOutOfRange,
}

impl Shape {
    /// Draws one.
    pub(crate) fn draw(prng: &mut Prng) -> Self {
        let some = |prng: &mut Prng, low, high| prng.coin().then(|| prng.between(low, high));
        Self {
            inputs: prng.between(1, 2).try_into().expect("small"),
            partitions: prng.between(1, 3).try_into().expect("small"),
            second_stage: some(prng, 1, 3).map(|n| n.try_into().expect("small")),
            chained: prng.one_in(3),
            spare: None,
            stream_punctuation: some(prng, 5, 300),
            wall_punctuation: some(prng, 20, 800),
            policies: Policies::default(),
            starts: [Start::Earliest; 2],
            on_out_of_range: OnOutOfRange::Fail,
        }
    }
}

impl Shape {
    /// Takes punctuations away.
    pub(crate) const fn does_not_punctuate(&mut self) {
        (self.stream_punctuation, self.wall_punctuation) = (None, None);
    }
}

/// What a transform does; its name says it.
pub(crate) const COUNT: &str = "count";
/// Reads what [`COUNT`] reads, and is punctuated; nothing comes of it.
pub(crate) const SPARE: &str = "spare";
/// Counts what [`COUNT`] hands over.
pub(crate) const CHAIN: &str = "chain";
/// Counts what [`COUNT`] sends through the repartition topic.
pub(crate) const SUM: &str = "sum";

/// Output: each record, stamped.
pub(crate) const OUT: &str = "out";
/// Output: the last count of each key and transaction.
pub(crate) const LATEST: &str = "latest";
/// Output: punctuations.
pub(crate) const TICKS: &str = "ticks";
/// Output: to the next stage.
pub(crate) const NEXT: &str = "next";
/// Output: to the chained transform.
pub(crate) const HANDED: &str = "handed";

/// The topic of dead letters.
pub(crate) const DEAD_LETTERS: &str = "dead-letters";

/// Store of counts, in every transform.
pub(crate) const COUNTS: usize = 0;
/// Store of the last values, in the first stage.
pub(crate) const TABLE: usize = 1;
/// Store of the chained transform, in the first stage.
pub(crate) const CHAINED: usize = 2;

struct Builder<'a> {
    topics: Vec<Topic>,
    policies: &'a Policies,
    dead_letters: TopicIndex,
}

impl Builder<'_> {
    fn topic(&mut self, name: &str, partitions: i32, kind: TopicKind) -> TopicIndex {
        if let Some(place) = self.topics.iter().position(|topic| topic.name == name) {
            return TopicIndex(place.try_into().expect("few topics"));
        }
        let index = TopicIndex(self.topics.len().try_into().expect("few topics"));
        self.topics.push(Topic { name: name.to_owned(), partitions, kind });
        index
    }

    fn policy(&self, transform: &str) -> ErrorPolicy {
        self.policies.of(transform, self.dead_letters)
    }

    fn store(&mut self, name: &str, partitions: i32) -> Store {
        let changelog = format!("sim-{name}-changelog");
        let changelog = self.topic(&changelog, partitions, TopicKind::Changelog);
        Store { name: name.to_owned(), changelog }
    }

    fn output(&mut self, stage: &str, name: &str) -> Output {
        let topic = self.topic(&format!("{stage}-{name}"), 2, TopicKind::External);
        let latest_per_key = name == LATEST;
        Output { name: name.to_owned(), route: Route::Topic(topic), latest_per_key }
    }
}

/// The pipeline of a shape.
pub(crate) fn topology(shape: &Shape) -> Topology {
    topology_over(Vec::new(), shape)
}

/// The pipeline of a shape, over `topics` that are there.
pub(crate) fn topology_over(topics: Vec<Topic>, shape: &Shape) -> Topology {
    let (policies, dead_letters) = (&shape.policies, TopicIndex(0));
    let mut builder = Builder { topics, policies, dead_letters };
    if policies.rate > 0 {
        builder.dead_letters = builder.topic(DEAD_LETTERS, 2, TopicKind::External);
    }
    let next = shape.second_stage.map(|partitions| {
        (builder.topic("sim-next-repartition", partitions, TopicKind::Repartition), partitions)
    });
    let mut subtopologies = vec![first_stage(&mut builder, shape, next.map(|next| next.0))];
    if let Some((topic, partitions)) = next {
        subtopologies.push(second_stage(&mut builder, topic, partitions));
    }
    Topology { topics: builder.topics, subtopologies }
}

fn first_stage(builder: &mut Builder<'_>, shape: &Shape, next: Option<TopicIndex>) -> Subtopology {
    let first = usize::from(shape.spare == Some(true));
    let last = 1 + usize::from(shape.chained);
    let spare = shape.spare.map(|in_front| if in_front { 0 } else { last });
    let readers = |input| {
        let places = std::iter::once(first).chain(spare);
        places.map(|transform| Reader { transform, input }).collect()
    };
    let inputs: Vec<Input> = (0..shape.inputs)
        .zip(0u32..)
        .map(|(place, input)| Input {
            topic: builder.topic(&format!("in{place}"), shape.partitions, TopicKind::External),
            start: shape.starts[place],
            on_out_of_range: shape.on_out_of_range,
            readers: readers(input),
        })
        .collect();
    let mut outputs = vec![
        builder.output(COUNT, OUT),
        builder.output(COUNT, LATEST),
        builder.output(COUNT, TICKS),
    ];
    if let Some(topic) = next {
        let route = Route::Topic(topic);
        outputs.push(Output { name: NEXT.to_owned(), route, latest_per_key: false });
    }
    let mut stores =
        vec![builder.store("counts", shape.partitions), builder.store("table", shape.partitions)];
    let mut transforms = Vec::new();
    if shape.chained {
        let route = Route::Transforms(vec![Reader { transform: first + 1, input: 0 }]);
        outputs.push(Output { name: HANDED.to_owned(), route, latest_per_key: false });
        stores.push(builder.store("chained", shape.partitions));
        transforms.push(Transform {
            name: CHAIN.to_owned(),
            inputs: vec![COUNT.to_owned()],
            outputs: vec![builder.output(CHAIN, OUT)],
            stores: vec![CHAINED],
            on_error: builder.policy(CHAIN),
        });
    }
    let names: Vec<String> = (0..shape.inputs).map(|place| format!("in{place}")).collect();
    let on_looker = Transform {
        name: SPARE.to_owned(),
        inputs: names.clone(),
        outputs: Vec::new(),
        stores: Vec::new(),
        on_error: ErrorPolicy::default(),
    };
    let count = Transform {
        name: COUNT.to_owned(),
        inputs: names,
        outputs,
        stores: vec![COUNTS, TABLE],
        on_error: builder.policy(COUNT),
    };
    transforms.insert(0, count);
    if let Some(place) = spare {
        transforms.insert(place, on_looker);
    }
    Subtopology { partitions: shape.partitions, inputs, transforms, stores }
}

fn second_stage(builder: &mut Builder<'_>, topic: TopicIndex, partitions: i32) -> Subtopology {
    let readers = vec![Reader { transform: 0, input: 0 }];
    Subtopology {
        partitions,
        inputs: vec![Input {
            topic,
            start: Start::Earliest,
            on_out_of_range: OnOutOfRange::Fail,
            readers,
        }],
        transforms: vec![Transform {
            name: SUM.to_owned(),
            inputs: vec!["next".to_owned()],
            outputs: vec![
                builder.output(SUM, OUT),
                builder.output(SUM, LATEST),
                builder.output(SUM, TICKS),
            ],
            stores: vec![COUNTS],
            on_error: builder.policy(SUM),
        }],
        stores: vec![builder.store("sums", partitions)],
    }
}
