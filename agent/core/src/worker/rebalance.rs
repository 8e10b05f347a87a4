//! What the group gives and takes. The protocol is eager: a rebalance revokes everything, then
//! assigns anew. Tasks that come back are neither reopened nor restored.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use super::{Drain, Environment, Notice, Slot, Starting, TaskState, Worker, WorkerError};
use crate::{
    ports::FetchPosition,
    record::{TaskId, TopicPartition},
};

impl<E: Environment> Worker<E> {
    /// The input partitions of a task, in the order of its inputs.
    pub(super) fn partitions_of(&self, id: TaskId) -> Vec<TopicPartition> {
        let inputs = self.topology.subtopology(id).inputs.iter();
        inputs.map(|input| TopicPartition::new(input.topic, id.partition)).collect()
    }

    pub(super) fn on_assigned(
        &mut self,
        partitions: Vec<TopicPartition>,
    ) -> Result<(), WorkerError> {
        if self.assigned {
            self.abort("partitions were assigned without a revocation")?;
            self.assigned = false;
        }
        self.check_partitions(&partitions)?;
        self.take_tasks(&partitions);
        self.assigning = Some(partitions);
        self.assign()
    }

    /// Hands the assignment to the source, again in each turn until it is taken or revoked.
    pub(super) fn assign(&mut self) -> Result<(), WorkerError> {
        let Some(partitions) = self.assigning.take() else { return Ok(()) };
        let positions = self.positions(&partitions);
        let membership = match self.ports.source.assign(&positions) {
            Ok(membership) => membership,
            Err(error) => {
                self.assigning = Some(partitions);
                return self.postpone(error);
            }
        };
        let before = std::mem::replace(&mut self.membership, membership);
        self.assigned = true;
        self.seeks.clear();
        // Only if no generation was missed can nobody else have worked on a task meanwhile.
        let missed = before.generation < 0
            || !(before.generation..=before.generation + 1).contains(&self.membership.generation);
        for id in self.running() {
            match missed {
                true => self.restart_task(id)?,
                false => self.resume_task(id, &positions)?,
            }
        }
        Ok(())
    }

    /// A topic that got more partitions than the pipeline was planned with places keys otherwise
    /// than before: nobody can say which task a key's state belongs to.
    fn check_partitions(&self, partitions: &[TopicPartition]) -> Result<(), WorkerError> {
        let grown = partitions.iter().find(|partition| {
            let planned = self.topology.topic(partition.topic).partitions;
            partition.partition >= planned
        });
        let Some(grown) = grown else { return Ok(()) };
        let topic = self.topology.topic(grown.topic);
        Err(WorkerError(format!(
            "topic `{}` had {} partitions when the pipeline started and has more now: keys are \
             placed otherwise than their state; run a pipeline without stores again as it is, \
             and one with stores under a new application id",
            topic.name, topic.partitions
        )))
    }

    /// Keeps and creates the tasks whose inputs are all among `partitions`, closes the others.
    fn take_tasks(&mut self, partitions: &[TopicPartition]) {
        let mut owned: BTreeMap<TaskId, usize> = BTreeMap::new();
        for &partition in partitions {
            if let Some((id, _)) = self.topology.reader(partition) {
                *owned.entry(id).or_default() += 1;
            }
        }
        let (whole, parts): (Vec<_>, Vec<_>) = owned
            .into_iter()
            .partition(|(id, inputs)| *inputs == self.topology.subtopology(*id).inputs.len());
        for (id, _) in parts {
            let partition = id.partition;
            let reason = format!("task {id} lacks partition {partition} of some of its inputs");
            self.notice(Notice::Waiting(reason));
        }
        let whole: BTreeSet<TaskId> = whole.into_iter().map(|(id, _)| id).collect();
        let gone: Vec<TaskId> =
            self.tasks.keys().filter(|id| !whole.contains(id)).copied().collect();
        gone.into_iter().for_each(|id| self.close_task(id));
        self.sources.clear();
        for id in whole {
            let inputs = self.partitions_of(id).into_iter().enumerate();
            self.sources.extend(inputs.map(|(input, partition)| (partition, (id, input))));
            if let Entry::Vacant(slot) = self.tasks.entry(id) {
                slot.insert(Slot::Starting(Box::new(Starting::new())));
                self.task_state(id, TaskState::Created);
            }
        }
    }

    /// Where to read from: what running tasks have committed. Partitions of tasks that start are
    /// given their position later; they stay paused until then.
    fn positions(&mut self, partitions: &[TopicPartition]) -> Vec<FetchPosition> {
        let epoch = self.next_epoch();
        let position = |&partition: &TopicPartition| {
            let (id, input) = self.sources.get(&partition)?;
            match self.tasks.get(id)? {
                Slot::Running(task) => Some(task.committed_offsets()[*input]),
                Slot::Starting(_) | Slot::Failed(_) => None,
            }
        };
        partitions
            .iter()
            .map(|partition| FetchPosition {
                partition: *partition,
                offset: position(partition).unwrap_or(0),
                epoch,
            })
            .collect()
    }

    pub(super) fn running(&self) -> Vec<TaskId> {
        let tasks = self.tasks.iter().filter(|(_, slot)| matches!(slot, Slot::Running(_)));
        tasks.map(|(&id, _)| id).collect()
    }

    /// Goes on with a task that came back as it was.
    fn resume_task(&mut self, id: TaskId, positions: &[FetchPosition]) -> Result<(), WorkerError> {
        let partitions = self.partitions_of(id);
        let Some(Slot::Running(task)) = self.tasks.get_mut(&id) else { return Ok(()) };
        for (queue, partition) in task.queues().iter_mut().zip(&partitions) {
            if let Some(at) = positions.iter().find(|at| at.partition == *partition) {
                queue.reset(at.offset, at.epoch);
            }
        }
        self.task_state(id, TaskState::Running);
        self.ports.source.resume(&partitions).or_else(|error| self.postpone(error))
    }

    /// Commits what is processed, or drops it; suspends every task until the next assignment.
    pub(super) fn on_revoked(&mut self) -> Result<(), WorkerError> {
        if self.recover_at.is_none() {
            self.commit()?;
        }
        if self.drain == Some(Drain::Leaving) {
            self.drain = Some(Drain::Done);
            self.close_tasks();
        }
        self.suspend()
    }

    /// Drops everything: others may already work on the tasks.
    pub(super) fn on_lost(&mut self) -> Result<(), WorkerError> {
        self.abort("the member lost its partitions")?;
        self.close_tasks();
        if self.drain == Some(Drain::Leaving) {
            self.drain = Some(Drain::Done);
        }
        self.suspend()
    }

    fn suspend(&mut self) -> Result<(), WorkerError> {
        let tasks: Vec<TaskId> = self.tasks.keys().copied().collect();
        for id in tasks {
            match self.tasks.get(&id) {
                Some(Slot::Starting(_)) => self.restart_task(id)?,
                // What was told of it holds until it is closed.
                Some(Slot::Failed(_)) => continue,
                Some(Slot::Running(_)) | None => {}
            }
            self.task_state(id, TaskState::Suspended);
        }
        self.assigned = false;
        self.assigning = None;
        self.seeks.clear();
        self.ports.source.unassign().or_else(|error| self.postpone(error))
    }
}
