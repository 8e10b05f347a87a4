//! A pipeline that changes between two lives of its processes: transforms come, go and move, with
//! their stores and punctuations, inputs come, workers are more or fewer, the guarantee is another.

use std::{collections::BTreeMap, sync::Arc};

use sidestream_core::{
    record::{Offset, TaskId, TopicPartition},
    topology::{Route, Topology},
};

use crate::{
    check::Stamp,
    disk::Disk,
    pipeline::{self, Shape},
    plan::Plan,
    prng::Prng,
    run::Run,
    world::State,
};

/// One seed in so many has such a change.
const CHANGES: u64 = 9;

/// Whether the pipeline of a seed changes.
pub(crate) const fn is_drawn(seed: u64) -> bool {
    seed % CHANGES == 4
}

/// What a pipeline becomes.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// When.
    step: u64,
    shape: Shape,
    topology: Arc<Topology>,
    workers: usize,
    exactly_once: bool,
}

/// What a pipeline was before it changed.
#[derive(Clone, Debug)]
pub(crate) struct Before {
    topology: Arc<Topology>,
    /// What of each input partition was processed by it: up to this offset.
    offsets: BTreeMap<TopicPartition, Offset>,
    /// Whether punctuations stayed as they are.
    pub(crate) same_schedules: bool,
}

/// Draws what a pipeline of this shape is before and after, over the same topics.
pub(crate) fn draw(seed: u64, plan: &mut Plan) {
    let mut prng = Prng::new(seed ^ 0xC4A6E);
    let (mut before, mut after) = (plan.shape.clone(), plan.shape.clone());
    for shape in [&mut before, &mut after] {
        shape.chained = prng.coin();
        shape.spare = [None, Some(true), Some(false)][prng.index(3)];
        if prng.one_in(3) {
            shape.second_stage = None;
        }
    }
    if prng.coin() {
        after.wall_punctuation = prng.coin().then(|| prng.between(20, 800));
        after.stream_punctuation = prng.coin().then(|| prng.between(5, 300));
    }
    if after.inputs == 2 && prng.coin() {
        before.inputs = 1;
    }
    let whole = Shape { inputs: 2, chained: true, ..plan.shape.clone() };
    let topics = pipeline::topology(&whole).topics;
    let topology = |shape: &Shape| Arc::new(pipeline::topology_over(topics.clone(), shape));
    plan.change = Some(Change {
        step: prng.between(20, plan.steps.max(40) - 10),
        topology: topology(&after),
        shape: after,
        workers: if plan.slow.is_some() {
            1
        } else {
            prng.between(1, 2).try_into().expect("small")
        },
        exactly_once: plan.config.exactly_once,
    });
    plan.topology = topology(&before);
    plan.shape = before;
    // What was without transactions can't be held to what comes of it with them.
    plan.config.exactly_once |= prng.coin();
}

impl Run {
    /// Everybody dies, and another pipeline begins, if that is to be at this step.
    pub(crate) fn change(&mut self, step: u64) {
        let change = self.world.lock().plan.change.clone();
        let Some(change) = change.filter(|change| change.step == step) else { return };
        self.vacate();
        let mut state = self.world.lock();
        let old = Arc::clone(&state.plan);
        let mut plan = old.as_ref().clone();
        (plan.shape, plan.topology) = (change.shape, change.topology);
        (plan.workers, plan.config.exactly_once) = (change.workers, change.exactly_once);
        let new = Arc::clone(&plan.topology);
        let now = state.now;
        let what = (&plan.shape, plan.workers, plan.config.exactly_once);
        state.trace.line(now, format_args!("the pipeline changes: {what:?}"));
        let schedules = |plan: &Plan| {
            let Shape { stream_punctuation, spare, .. } = plan.shape;
            (stream_punctuation, spare == Some(true))
        };
        let same_schedules = schedules(&plan) == schedules(&old);
        let offsets = &state.cluster.group.offsets;
        let offsets = offsets.iter().map(|(&partition, at)| (partition, at.offset)).collect();
        state.before =
            Some(Before { topology: Arc::clone(&old.topology), offsets, same_schedules });
        // The group forgets them: one that knew them would give each what it had before.
        state.forget_members();
        state.plan = Arc::new(plan);
        state.cluster.subscribe(&new);
        let disks = state.disks.iter_mut().chain(self.snapshot.as_mut());
        disks.for_each(|disk| reopen(disk, &old.topology, &new));
    }
}

/// Names are followed: a store is what it was wherever it stands now, one that is new is empty,
/// and the offsets of inputs count only if those are the same.
fn reopen(disk: &mut Disk, old: &Topology, new: &Topology) {
    let tasks = std::mem::take(&mut disk.tasks);
    for (id, mut files) in tasks {
        let stores = |topology: &Topology| {
            let of = topology.subtopologies.get(usize::from(id.subtopology))?;
            Some(of.stores.iter().map(|store| store.changelog).collect::<Vec<_>>())
        };
        let (Some(before), Some(after)) = (stores(old), stores(new)) else { continue };
        let places: Vec<Option<usize>> =
            after.iter().map(|store| before.iter().position(|other| other == store)).collect();
        let inputs = |topology: &Topology| {
            let inputs = topology.subtopology(id).inputs.iter();
            inputs.map(|input| input.topic).collect::<Vec<_>>()
        };
        files.rearrange(&places, inputs(old) == inputs(new));
        disk.tasks.insert(id, files);
    }
}

impl State {
    /// Whether a record was, or is to be, processed by a pipeline in which something `is_there`.
    fn is_of_pipeline(
        &self,
        (subtopology, (input, partition, offset)): (u16, Stamp),
        is_there: impl Fn(&Topology) -> bool,
    ) -> bool {
        let task = TaskId { subtopology, partition };
        let input = usize::try_from(input).expect("few inputs");
        let topic = self.plan.topology.subtopology(task).inputs[input].topic;
        let source = TopicPartition::new(topic, partition);
        match &self.before {
            Some(before) if before.offsets.get(&source).is_some_and(|&end| offset < end) => {
                is_there(&before.topology)
            }
            _ => is_there(&self.plan.topology),
        }
    }

    /// Whether a transform was there when a record was processed.
    pub(crate) fn had_transform(&self, subtopology: u16, stamp: Stamp, name: &str) -> bool {
        self.is_of_pipeline((subtopology, stamp), |topology| {
            let transforms = &topology.subtopologies[usize::from(subtopology)].transforms;
            transforms.iter().any(|transform| transform.name == name)
        })
    }

    /// Whether a transform had an output when a record was processed.
    pub(crate) fn had_output(
        &self,
        subtopology: u16,
        stamp: Stamp,
        (name, output): (&str, &str),
    ) -> bool {
        self.is_of_pipeline((subtopology, stamp), |topology| {
            let transforms = &topology.subtopologies[usize::from(subtopology)].transforms;
            let mut transforms = transforms.iter().filter(|transform| transform.name == name);
            transforms.any(|transform| {
                let mut outputs = transform.outputs.iter();
                outputs.any(|o| o.name == output && matches!(o.route, Route::Topic(_)))
            })
        })
    }
}
