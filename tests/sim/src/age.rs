//! How old the state of a task is, as far as its worker can tell, and when it may be emptied for that.

use std::time::Duration;

use sidestream_core::{
    record::{TaskId, Timestamp, TopicPartition},
    worker::Now,
};

use crate::world::State;

/// What a worker learns of the state of a task when it asks how far its changelogs go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    at: Now,
    /// When the state was written, by a wall clock, if there is any.
    committed_at: Option<Timestamp>,
    /// It reads some changelog since.
    restores: bool,
}

impl Asked {
    /// Whether state may be kept at `now`: its age when it was asked for, or the restore since then.
    /// An age that nobody can mistake for less than what is allowed was renewed when it began.
    fn is_trusted(&self, now: Now, age_max: Duration) -> bool {
        let Some(committed_at) = self.committed_at else { return false };
        let age_max = milliseconds(age_max);
        let age = i128::from(self.at.wall) - i128::from(committed_at);
        if !self.restores {
            return (SLACK - age_max / 2..=age_max - SLACK).contains(&age);
        }
        let was_renewed = age < -age_max / 2 - SLACK || age > age_max + SLACK;
        let age = if was_renewed { 0 } else { age.max(0) };
        let took = milliseconds(now.monotonic.saturating_sub(self.at.monotonic));
        let by_wall_clock = i128::from(now.wall) - i128::from(self.at.wall);
        age + took.max(by_wall_clock) <= age_max - SLACK
    }
}

/// What a worker's look at its clock may lie behind, in milliseconds.
const SLACK: i128 = 1_000;

impl State {
    /// A worker asks how far these partitions go.
    pub(crate) fn asks(&mut self, pod: usize, partitions: &[TopicPartition]) {
        let at = self.clocks(pod);
        for &partition in partitions {
            let Some(task) = self.stores_in(partition) else { continue };
            let files = self.disks[self.pods[pod].disk].tasks.get(&task);
            let committed_at = files.map(|files| files.contents().position.committed_at);
            let asked = Asked { at, committed_at, restores: false };
            self.pods[pod].asked.insert(task, asked);
        }
    }

    /// A worker begins to read a changelog.
    pub(crate) fn restores(&mut self, pod: usize, changelog: TopicPartition) {
        let Some(task) = self.stores_in(changelog) else { return };
        if let Some(asked) = self.pods[pod].asked.get_mut(&task) {
            asked.restores = true;
        }
    }

    /// The task whose changelog this is.
    fn stores_in(&self, changelog: TopicPartition) -> Option<TaskId> {
        let subtopologies = self.plan.topology.subtopologies.iter().zip(0u16..);
        let partition = changelog.partition;
        subtopologies
            .into_iter()
            .find(|(of, _)| of.stores.iter().any(|store| store.changelog == changelog.topic))
            .map(|(_, subtopology)| TaskId { subtopology, partition })
    }

    /// A store is only emptied for a reason.
    pub(crate) fn check_reset(&mut self, pod: usize, task: TaskId, store: usize) {
        if !self.checks_workers {
            return;
        }
        let (now, age_max) = (self.clocks(pod), self.plan.config.position_age_max);
        let asked = self.pods[pod].asked.get(&task);
        let is_trusted = asked.is_some_and(|asked| asked.is_trusted(now, age_max));
        let files = self.files(pod, task);
        let contents = files.contents();
        let empty = contents.stores[store].is_empty() && contents.position.stores[store].is_none();
        if !files.damaged[store] && !empty && is_trusted {
            self.violate(format_args!("store {store} of {task} was wiped without need"));
        }
    }
}

fn milliseconds(time: Duration) -> i128 {
    i128::try_from(time.as_millis()).expect("runs are short")
}
