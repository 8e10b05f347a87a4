//! From where on an input is read: where a pipeline begins that has no offsets, and what an operator
//! leaves out who sets those of the group further on while nobody is in it.

use std::collections::{BTreeMap, BTreeSet};

use sidestream_core::{
    record::{Committed, Offset, Timestamp, TopicPartition},
    topology::{OnOutOfRange, Start},
    worker::Notice,
};

use crate::{plan::Plan, prng::Prng, run::Run, swap::Owner, world::State};

/// In one seed of so many, inputs do not begin with their first records.
const STARTS: u64 = 4;

/// In one seed of so many, if nothing forbids it, an operator leaves records out.
const SKIPS: u64 = 3;

/// What the metadata says beside offsets that an agent has committed.
const MARK: &str = ";of1,";

/// Where the inputs of a seed begin.
pub(crate) fn starts(seed: u64) -> [Start; 2] {
    let mut prng = Prng::new(seed ^ 0x57A2);
    if !prng.one_in(STARTS) {
        return [Start::Earliest; 2];
    }
    [(); 2].map(|()| match prng.below(3) {
        0 => Start::Earliest,
        1 => Start::Latest,
        _ => Start::At(Timestamp::try_from(prng.between(900, 4_000)).expect("small")),
    })
}

impl Plan {
    /// Whether an input of a partition may be read from there: it says so itself, or says it of a place
    /// that is gone.
    pub(crate) fn may_start(&self, partition: TopicPartition, start: Start) -> bool {
        let Some((task, place)) = self.topology.reader(partition) else { return false };
        let input = &self.topology.subtopology(task).inputs[place];
        self.any_start
            || start == input.start
            || match input.on_out_of_range {
                OnOutOfRange::Fail => false,
                OnOutOfRange::Earliest => start == Start::Earliest,
                OnOutOfRange::Latest => start == Start::Latest,
            }
    }
}

/// At which step an operator sets offsets, if one does. Only with transactions does a dropped record
/// leave nothing behind.
pub(crate) fn skip_at(plan: &Plan) -> Option<u64> {
    let mut prng = Prng::new(plan.seed ^ 0x5C1F);
    let is_free = plan.loss.is_none()
        && plan.change.is_none()
        && plan.swaps.is_empty()
        && plan.slow.is_none()
        && plan.config.exactly_once;
    let step = prng.between(plan.steps / 4, plan.steps - 1);
    (is_free && prng.one_in(SKIPS)).then_some(step)
}

/// What an operator did to the group's offset of a partition.
#[derive(Clone, Copy, Debug)]
struct Move {
    before: Offset,
    after: Offset,
    /// If nobody was killed since then, somebody must have told of it.
    told_unless_killed: Option<u64>,
    is_told: bool,
}

/// From where on partitions were read.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Where each worker was told last that a partition begins which has no offset.
    begins: BTreeMap<(Owner, TopicPartition), Offset>,
    /// Partitions whose offset was no agent's when a worker read it last.
    unmarked: BTreeSet<(Owner, TopicPartition)>,
    moves: BTreeMap<TopicPartition, Move>,
}

impl Places {
    /// A worker is told where a partition begins.
    pub(crate) fn begins(&mut self, owner: Owner, partition: TopicPartition, offset: Offset) {
        self.begins.insert((owner, partition), offset);
    }

    /// A worker is told the group's offset of a partition.
    pub(crate) fn found(&mut self, at: (Owner, TopicPartition), found: Option<&Committed>) {
        if let Some(committed) = found {
            self.begins.remove(&at);
            match committed.metadata.contains(MARK) {
                true => self.unmarked.remove(&at),
                false => self.unmarked.insert(at),
            };
        }
    }

    /// A worker says that records are left out.
    fn told(
        &mut self,
        at: (Owner, TopicPartition),
        from: Offset,
        to: Offset,
    ) -> Result<(), String> {
        let is_read = self.unmarked.contains(&at);
        match self.moves.get_mut(&at.1) {
            Some(moved) if is_read && from <= moved.before && to == moved.after => {
                moved.is_told = true;
                Ok(())
            }
            moved => Err(format!("{from}..{to} of {:?} are told to be left out: {moved:?}", at.1)),
        }
    }
}

impl Run {
    /// Everybody dies, and before they come back an operator sets the group's offsets further on, if
    /// that is to be at this step.
    pub(crate) fn skip(&mut self, step: u64) {
        if self.world.lock().plan.skip_at != Some(step) {
            return;
        }
        self.vacate();
        let mut state = self.world.lock();
        state.forget_members();
        state.skip();
    }

    /// Everybody dies, and what was open is settled.
    pub(crate) fn vacate(&mut self) {
        let mut state = self.world.lock();
        (0..state.pods.len()).for_each(|pod| state.kill(pod));
        self.crew.bury(&state);
        self.current.fill(None);
        drop(state);
        self.settle();
    }
}

impl State {
    /// The group forgets members that are gone.
    pub(crate) fn forget_members(&mut self) {
        let session = self.plan.timeouts.session;
        self.pass(session + 2);
        self.pass(1);
    }

    /// Sets the offsets of some input partitions of a sub-topology further on. As
    /// `kafka-consumer-groups.sh` does, nothing is said beside them.
    fn skip(&mut self) {
        let mut prng = Prng::new(self.plan.seed ^ 0x0FF5E7);
        let plan = self.plan.clone();
        let subtopologies = &plan.topology.subtopologies;
        let own = u16::try_from(prng.index(subtopologies.len())).expect("few");
        for task in plan.tasks().into_iter().filter(|task| task.subtopology == own) {
            let inputs = &plan.topology.subtopology(task).inputs;
            for input in inputs {
                if prng.one_in(3) {
                    continue;
                }
                let partition = TopicPartition::new(input.topic, task.partition);
                let known = self.cluster.group.offsets.get(&partition).map(|at| at.offset);
                let before = known.unwrap_or(0);
                let most = self.cluster.partition(partition).stable_end().max(before);
                let after =
                    before + i64::try_from(prng.below(most.abs_diff(before) + 1)).expect("small");
                let must_be_told = known.is_some()
                    && after > before
                    && inputs.len() == 1
                    && plan.faults.compact == 0
                    && self.has_counted(task);
                let told_unless_killed = must_be_told.then_some(self.kills);
                let moved = Move { before, after, told_unless_killed, is_told: false };
                let (now, committed) =
                    (self.now, Committed { offset: after, metadata: String::new() });
                self.trace.line(now, format_args!("an operator sets {partition:?}: {moved:?}"));
                self.cluster.group.offsets.insert(partition, committed);
                self.cluster.group.begun.entry(partition).or_insert(after);
                self.places.moves.insert(partition, moved);
            }
        }
    }

    /// Whether a record is none of the pipeline's: it came before the pipeline began, or was left out.
    pub(crate) fn is_left_out(&self, partition: TopicPartition, offset: Offset) -> bool {
        let begun = self.cluster.group.begun.get(&partition);
        let moved = self.places.moves.get(&partition);
        begun.is_some_and(|&begun| offset < begun)
            || moved.is_some_and(|moved| (moved.before..moved.after).contains(&offset))
    }

    /// The first record whose time a worker knows that is at a partition: what is stored beside an
    /// offset is gone once somebody else sets it.
    pub(crate) fn time_counts_from(&self, owner: Owner, partition: TopicPartition) -> Offset {
        let begun = self.cluster.group.begun.get(&partition);
        let begun = self.places.begins.get(&(owner, partition)).or(begun).copied().unwrap_or(0);
        self.places.moves.get(&partition).map_or(begun, |moved| moved.after.max(begun))
    }

    /// Whether an operator has set offsets of a sub-topology.
    pub(crate) fn was_set(&self, subtopology: u16) -> bool {
        let mut moved = self.places.moves.keys();
        moved.any(|&partition| {
            let reader = self.plan.topology.reader(partition);
            reader.is_some_and(|(task, _)| task.subtopology == subtopology)
        })
    }

    /// A worker says that records are left out: they must have been, by somebody else. With some
    /// losses go all marks, also of others.
    pub(crate) fn told_of_skips(&mut self, owner: Owner, notices: &[Notice]) {
        for notice in notices {
            if let Notice::Skipped { partition, offsets, .. } = notice
                && self.lost.is_empty()
                && let Err(text) = self.places.told((owner, *partition), offsets.start, offsets.end)
            {
                self.violate(format_args!("{owner:?}: {text}"));
            }
        }
    }

    /// An offset that an operator has set and no agent has committed since, though its task could.
    pub(crate) fn still_unmarked(&self) -> Option<TopicPartition> {
        let is_marked = |partition: &TopicPartition| {
            let committed = self.cluster.group.offsets.get(partition);
            committed.is_some_and(|at| at.metadata.contains(MARK))
        };
        let mut moved = self.places.moves.keys();
        moved.find(|partition| !is_marked(partition) && self.goes_on(**partition)).copied()
    }

    fn goes_on(&self, input: TopicPartition) -> bool {
        let reader = self.plan.topology.reader(input);
        reader.is_some_and(|(task, _)| !self.is_poisoned(task))
    }

    /// In the end each move is told.
    pub(crate) fn check_moves(&self) -> Result<(), String> {
        for (&partition, moved) in &self.places.moves {
            let must_be_told = moved.told_unless_killed == Some(self.kills);
            if must_be_told && !moved.is_told && self.goes_on(partition) {
                return Err(format!("nobody tells that {partition:?} was set: {moved:?}"));
            }
        }
        Ok(())
    }
}
