//! Something is lost: a changelog, the group's offsets, an input or a part of one. Tasks whose state
//! or place needs it must stop, and must not go on over the gap; others go on.

use std::collections::BTreeSet;

use sidestream_core::{
    record::{Committed, Offset, TaskId, TopicIndex, TopicPartition},
    topology::{Input, OnOutOfRange, TopicKind},
    worker::TaskState,
};

use crate::{
    change,
    cluster::{LogRecord, PartitionLog},
    disk::Disk,
    plan::index_of,
    run::Run,
    world::State,
};

/// What is lost at the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// A changelog is deleted, created again, and filled with what others wrote.
    Recreated,
    /// Its last records are lost, by the election of a leader that lacked them.
    Truncated,
    /// Its first records are deleted, though it should only be compacted.
    Expired,
    /// It is deleted and created again, and so are the disks.
    Vanished,
    /// The group's offsets of an input are reset to its beginning, or have expired.
    Offsets,
    /// An input is deleted and created again.
    InputRecreated,
    /// Records of an input are deleted before they are read.
    InputExpired,
    /// The last records of an input are lost.
    InputCut,
    /// An input gets more partitions.
    InputGrown,
}

/// Where a loss happens: what is lost of changelogs, while nobody looks; what is lost of inputs and
/// offsets, in other seeds.
const LOST: [Loss; 3] = [Loss::Recreated, Loss::Truncated, Loss::Expired];
const LOST_ELSE: [Loss; 5] =
    [Loss::Vanished, Loss::Offsets, Loss::InputRecreated, Loss::InputExpired, Loss::InputCut];

/// What is lost in a seed, if something is.
pub(crate) fn draw(seed: u64) -> Option<Loss> {
    if change::is_drawn(seed) {
        return None;
    }
    match seed % LOSSES {
        0 => Some(LOST[index_of(seed / LOSSES, LOST.len())]),
        3 => Some(Loss::InputGrown),
        7 | 13 | 19 => Some(LOST_ELSE[index_of(seed / 6, LOST_ELSE.len())]),
        _ => None,
    }
}

/// Of so many seeds, one ends with the loss of a changelog, and three with other losses.
const LOSSES: u64 = 25;

/// How many turns the workers have to find out.
const TURNS: u64 = 900;

impl Run {
    /// Everybody dies (or not, where that makes a difference), something is lost, and everybody
    /// comes back. Each step of a store is held against what is left (`State::check_apply`).
    pub(crate) fn lose(&mut self, loss: Loss) {
        if loss == Loss::InputGrown {
            return self.grow();
        }
        let are_there = matches!(loss, Loss::InputRecreated | Loss::InputExpired)
            && self.world.lock().prng.coin();
        if !are_there {
            let mut state = self.world.lock();
            (0..state.pods.len()).for_each(|pod| state.kill(pod));
            drop(state);
            self.settle();
        }
        let mut state = self.world.lock();
        let now = state.now;
        state.trace.line(now, format_args!("{loss:?}, with processes: {are_there}"));
        state.cluster.group.may_go_back = true;
        match loss {
            Loss::Recreated | Loss::Truncated | Loss::Expired => state.lose_changelog(loss),
            Loss::Vanished => state.lose_changelog(loss),
            Loss::Offsets => state.reset_offsets(),
            Loss::InputRecreated | Loss::InputExpired | Loss::InputCut => state.lose_input(loss),
            Loss::InputGrown => {}
        }
        let has_new_disks = loss == Loss::Vanished || state.prng.coin();
        if loss == Loss::Recreated && !has_new_disks && self.disks.len() == 1 {
            state.forget_marks();
        }
        if !are_there && has_new_disks {
            for disk in &mut self.disks {
                *disk = state.disks.len();
                state.disks.push(Disk::default());
            }
        }
        drop(state);
        if !are_there {
            self.crew.bury(&self.world.lock());
            for identity in 0..self.current.len() {
                self.start(identity);
            }
        }
        for turn in 0..2 * TURNS {
            // One may be tried again just then, since an operator wishes so.
            if turn >= TURNS && self.world.lock().not_stopped().is_none() {
                break;
            }
            self.keep_up();
            self.crew.turn_some(&self.world);
            if self.world.lock().violation.is_some() {
                return;
            }
        }
        let mut state = self.world.lock();
        if let Some(task) = state.not_stopped() {
            let text = format!("{task} is not stopped after {loss:?}");
            state.violate(format_args!("{text}"));
        }
    }
}

impl State {
    /// A task that must be stopped, and is not.
    fn not_stopped(&self) -> Option<TaskId> {
        let is_stopped = |task: &&TaskId| {
            let mut told = self.told.iter();
            told.any(|((_, of), told)| of == *task && matches!(told, TaskState::Failed(_)))
        };
        self.must_stop.iter().find(|task| !is_stopped(task)).copied()
    }

    fn lose_changelog(&mut self, loss: Loss) {
        let plan = self.plan.clone();
        let topics: Vec<_> = plan.topology.topics.iter().zip(0..).collect();
        let changelogs: Vec<_> =
            topics.into_iter().filter(|(topic, _)| topic.kind == TopicKind::Changelog).collect();
        let (topic, index) = changelogs[self.prng.index(changelogs.len())];
        let index = TopicIndex(index);
        self.lost.insert(index);
        if loss == Loss::Vanished {
            // What was committed with another changelog says so, whatever is on disks.
            for task in self.tasks() {
                let stores = &plan.topology.subtopology(task).stores;
                if stores.iter().any(|store| store.changelog == index) && self.has_offset(task) {
                    self.must_stop.insert(task);
                }
            }
        }
        for partition in 0..topic.partitions {
            let log = self.cluster.partition_mut(TopicPartition::new(index, partition));
            match loss {
                Loss::Recreated => fill(log, log.entries.len() + 5),
                Loss::Vanished => *log = PartitionLog::default(),
                Loss::Truncated => log.entries.truncate(log.entries.len() / 2),
                _ => log.start = log.end(),
            }
        }
        if matches!(loss, Loss::Recreated | Loss::Vanished) {
            self.recreated.insert(index, self.now);
        }
    }

    /// The group's offsets are set to what they are, by an operator or an agent of before: nothing
    /// is said beside them of topics any more, so that only who has the state can tell.
    fn forget_marks(&mut self) {
        for committed in self.cluster.group.offsets.values_mut() {
            let mark = committed.metadata.find(";of1,");
            committed.metadata.truncate(mark.unwrap_or(committed.metadata.len()));
        }
    }

    /// Offsets of all inputs of a sub-topology go back to the beginning, or away.
    fn reset_offsets(&mut self) {
        let plan = self.plan.clone();
        let subtopology = self.prng.index(plan.topology.subtopologies.len());
        let (expired, own) = (self.prng.coin(), u16::try_from(subtopology).expect("few"));
        let tasks: Vec<TaskId> =
            self.tasks().into_iter().filter(|task| task.subtopology == own).collect();
        for &task in &tasks {
            let is_told = !expired || self.is_told_of_expiry(task);
            if plan.config.exactly_once
                && is_told
                && self.has_offset(task)
                && self.has_counted(task)
            {
                self.must_stop.insert(task);
            }
        }
        for input in &plan.topology.subtopologies[subtopology].inputs {
            self.lost.insert(input.topic);
            for partition in 0..plan.topology.topic(input.topic).partitions {
                let partition = TopicPartition::new(input.topic, partition);
                let offset = self.cluster.partition(partition).start;
                match expired {
                    true => drop(self.cluster.group.offsets.remove(&partition)),
                    false => {
                        let committed = Committed { offset, metadata: String::new() };
                        self.cluster.group.offsets.insert(partition, committed);
                    }
                }
                if offset > 0 {
                    // It was purged up to what was committed: there is nothing to read again.
                    self.must_stop.retain(|task| task.subtopology != own);
                }
            }
        }
    }

    /// Whether a task with state must find out that its offsets are gone: its inputs would begin
    /// with what it has seen, or, as far as is known, beyond it.
    fn is_told_of_expiry(&self, task: TaskId) -> bool {
        let inputs = &self.plan.topology.subtopology(task).inputs;
        let begin = |input: &Input| {
            let partition = TopicPartition::new(input.topic, task.partition);
            let committed = self.cluster.group.offsets.get(&partition).map_or(0, |at| at.offset);
            (self.cluster.partition(partition).start_of(input.start), committed)
        };
        let begins: Vec<(Offset, Offset)> = inputs.iter().map(begin).collect();
        let is_beyond = matches!(begins.as_slice(), [(begin, committed)] if begin > committed);
        is_beyond || begins.iter().all(|(begin, _)| *begin == 0)
    }

    /// An external input is created again, or loses records: all partitions of it.
    fn lose_input(&mut self, loss: Loss) {
        let plan = self.plan.clone();
        let inputs = &plan.topology.subtopologies[0].inputs;
        let input = &inputs[self.prng.index(inputs.len())];
        self.lost.insert(input.topic);
        let (keeps_offsets, is_longer) = (self.prng.coin(), self.prng.coin());
        for task in self.tasks().into_iter().filter(|task| task.subtopology == 0) {
            let partition = TopicPartition::new(input.topic, task.partition);
            let committed = self.cluster.group.offsets.get(&partition).map(|at| at.offset);
            let has_counted = self.has_counted(task);
            let log = self.cluster.partition_mut(partition);
            let must_stop = match loss {
                Loss::InputRecreated => {
                    *log = PartitionLog::default();
                    fill(log, if is_longer { committed.map_or(3, length) + 5 } else { 3 });
                    if !keeps_offsets {
                        self.cluster.group.offsets.remove(&partition);
                    }
                    let is_told = plan.config.exactly_once && inputs.len() == 1 && has_counted;
                    committed.is_some_and(|offset| keeps_offsets || (offset > 0 && is_told))
                }
                Loss::InputExpired => {
                    let unread = log.entries.len();
                    (0..8).for_each(|_| log.append(0, others_record()));
                    log.start = Offset::try_from(unread + 4).expect("a simulated log is small");
                    committed.is_some()
                }
                _ => {
                    let left = log.entries.len() / 2;
                    log.cut(left);
                    committed.is_some_and(|offset| length(offset) > left)
                }
            };
            if must_stop && input.on_out_of_range == OnOutOfRange::Fail {
                self.must_stop.insert(task);
            }
        }
        if loss == Loss::InputRecreated {
            self.recreated.insert(input.topic, self.now);
        }
    }

    /// Every task.
    fn tasks(&self) -> BTreeSet<TaskId> {
        let subtopologies = self.plan.topology.subtopologies.iter().zip(0u16..);
        subtopologies
            .flat_map(|(definition, subtopology)| {
                (0..definition.partitions).map(move |partition| TaskId { subtopology, partition })
            })
            .collect()
    }

    /// Whether the group has an offset that a task committed.
    fn has_offset(&self, task: TaskId) -> bool {
        self.plan.topology.subtopology(task).inputs.iter().any(|input| {
            let partition = TopicPartition::new(input.topic, task.partition);
            self.cluster.group.offsets.contains_key(&partition)
        })
    }

    /// Whether a task's state stands for a record of its inputs.
    pub(crate) fn has_counted(&self, task: TaskId) -> bool {
        let counts = &self.plan.topology.subtopology(task).stores[0];
        let log = self.cluster.partition(TopicPartition::new(counts.changelog, task.partition));
        let of_user = |key: &[u8]| !key.starts_with(b"#");
        log.history().any(|(_, record)| record.key.as_deref().is_some_and(of_user))
    }
}

/// A log that others have filled.
fn fill(log: &mut PartitionLog, length: usize) {
    log.entries.clear();
    (0..length).for_each(|_| log.append(0, others_record()));
}

fn length(offset: Offset) -> usize {
    usize::try_from(offset).expect("offsets of the simulated log are not negative")
}

fn others_record() -> LogRecord {
    let (key, value) = (b"other".to_vec(), b"1".to_vec());
    LogRecord { timestamp: 0, key: Some(key), value: Some(value), headers: Vec::new() }
}
