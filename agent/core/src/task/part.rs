//! What a task did since its last commit, and how it becomes committed.

use crate::{
    record::{Changes, Committed, Offset, Timestamp, TopicId, TopicIndex, TopicPartition},
    task::{
        Doer, PassedOver, Position, Processor, StateStore, StoreError, StorePosition, Telemetry,
        routing::{self, Latest},
        run::Task,
        turn::Produced,
    },
};

/// What a task did since the last commit, besides its changes of state.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) any: bool,
    pub(super) records: u64,
    pub(super) punctuated: bool,
    /// For each call of a processor, whose work its changes of state are.
    pub(super) writers: Vec<Doer>,
    pub(super) latest: Latest,
    pub(super) telemetry: Vec<(usize, Telemetry)>,
    /// What the telemetry holds in memory.
    pub(super) telemetry_bytes: usize,
    pub(super) passed_over: Vec<PassedOver>,
}

/// What is published of a task's work once it is committed.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// By transform.
    pub telemetry: Vec<(usize, Telemetry)>,
    pub passed_over: Vec<PassedOver>,
}

/// A task's part of a transaction.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// For each store of the task.
    pub changes: Vec<Changes>,
    /// For each input of the task.
    pub offsets: Vec<(TopicPartition, Committed)>,
    /// What changelogs are told of the inputs.
    pub seen: String,
    /// Records processed.
    pub records: u64,
}

impl<P: Processor> Task<P> {
    /// Whether all that was done since the last commit is one input record's work.
    pub(crate) const fn is_of_one_record(&self) -> bool {
        self.work.records == 1 && !self.work.punctuated
    }

    /// Whether nothing was done since the last commit but punctuations.
    pub(crate) const fn is_of_no_record(&self) -> bool {
        self.work.records == 0
    }

    /// Whose work was done first since the last commit.
    pub(crate) fn first_origin(&self) -> Option<Doer> {
        self.work.writers.first().copied()
    }

    /// Whose work the changes of state are.
    pub(crate) fn writers(&self) -> impl Iterator<Item = Doer> {
        self.state.writers().filter_map(|writer| self.caller(writer))
    }

    fn caller(&self, writer: u32) -> Option<Doer> {
        self.work.writers.get(usize::try_from(writer).ok()?).copied()
    }

    /// Whose work a change of state is, by its changelog and its row in
    /// [`Part::changes`]; `None` if there is no such change.
    pub(crate) fn writer(&self, changelog: TopicIndex, row: usize) -> Option<Doer> {
        let stores = &self.subtopology().stores;
        let store = stores.iter().position(|store| store.changelog == changelog)?;
        self.caller(self.state.writer(store, row)?)
    }

    /// How many bytes of work are held until the commit.
    pub(crate) fn bytes(&self) -> usize {
        let latest = &self.work.latest;
        self.state.bytes()
            + self.work.telemetry_bytes
            + latest.iter().map(|((_, _, key), row)| key.len() + row.bytes()).sum::<usize>()
    }

    /// Whether there is work to commit.
    pub(crate) fn has_work(&self) -> bool {
        self.work.any
    }

    /// The task's part of the transaction; records held back for their keys go to `produced`.
    pub(crate) fn part(&self, produced: &mut Produced) -> Part {
        routing::append_latest(&self.work.latest, produced);
        let subtopology = self.subtopology();
        let inputs = subtopology.inputs.iter().zip(&self.open.offsets).enumerate();
        let offsets = inputs.map(|(index, (input, &offset))| {
            let mut metadata = self.open.time.encode(index);
            metadata.push_str(&self.origins().mark(subtopology, index));
            (TopicPartition::new(input.topic, self.id.partition), Committed { offset, metadata })
        });
        Part {
            changes: self.state.changes(),
            offsets: offsets.collect(),
            seen: match subtopology.stores.is_empty() {
                true => String::new(), // There is no changelog to tell.
                false => self.origins().seen(&self.topology, self.id, &self.open.offsets),
            },
            records: self.work.records,
        }
    }

    /// The transaction is committed for certain: makes its changes part of the committed state.
    /// `ends` says where the last changelog record of each store stands, if it has any. Returns
    /// what is to be told of the work.
    pub(crate) fn complete(
        &mut self,
        part: &Part,
        ends: impl Fn(TopicIndex) -> Option<Offset>,
        now: Timestamp,
    ) -> Result<Said, StoreError> {
        self.committed = self.open.clone();
        self.is_new = false;
        let Work { telemetry, passed_over, .. } = std::mem::take(&mut self.work);
        let said = Said { telemetry, passed_over };
        if self.state.stores() == 0 {
            return Ok(said);
        }
        let mut position = self.state.committed().position()?;
        for (store, before) in
            self.topology.subtopology(self.id).stores.iter().zip(&mut position.stores)
        {
            if let (Some(end), Some(before)) = (ends(store.changelog), before.as_mut()) {
                before.offset = end;
                before.leader_epoch = -1; // Answers to what was produced carry none.
            }
        }
        position.inputs = self.origins().positions(&self.committed.offsets);
        position.committed_at = now;
        self.state.apply(&part.changes, &position)?;
        Ok(said)
    }
}

/// Reads the position of a task's stores, one element for each, whatever was stored.
pub(crate) fn store_positions(
    store: &dyn StateStore,
    stores: usize,
) -> Result<Position, StoreError> {
    let mut position = store.position()?;
    position.stores.resize(stores, None);
    Ok(position)
}

/// The position of a store that holds nothing yet.
pub(crate) const fn empty_position(topic_id: TopicId) -> StorePosition {
    StorePosition { offset: 0, topic_id, leader_epoch: -1 }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        record::{Batch, TaskId},
        task::{
            Cost, Effects, Failure, Origins, Punctuation, Setup, State, Stateless,
            testing::topology,
        },
    };

    /// A module of which there is no instance.
    enum Never {}

    impl Processor for Never {
        fn setup(&self) -> &Setup {
            match *self {}
        }

        fn process(&mut self, _: &Batch, _: &mut State) -> Result<Effects, Failure> {
            match *self {}
        }

        fn punctuate(&mut self, _: &Punctuation, _: &mut State) -> Result<Effects, Failure> {
            match *self {}
        }

        fn cost(&self) -> Cost {
            match *self {}
        }
    }

    #[test]
    fn where_a_task_begins_is_committed_whatever_becomes_of_its_first_work() {
        let id = TaskId { subtopology: 0, partition: 0 };
        let committed = [Committed { offset: 7, metadata: String::new() }];
        let parts = (committed.as_slice(), Origins::default());
        let mut task: Task<Never> =
            Task::new(id, Arc::new(topology(Vec::new())), parts, Box::new(Stateless));
        assert!(!task.has_work(), "nothing is new");
        task.touch();
        task.drop_work();
        assert!(task.has_work(), "where it begins is not committed yet");
        let part = task.part(&mut Produced::default());
        assert_eq!(part.offsets[0].1.offset, 7);
        task.complete(&part, |_| None, 0).unwrap();
        assert!(!task.has_work(), "now it is");
        task.drop_work();
        assert!(!task.has_work());
    }
}
