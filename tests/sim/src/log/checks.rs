//! What a worker must not do to its log, and what is told of it.

use std::{sync::Arc, time::Duration};

use sidestream_core::{
    ports::{SourceEvent, TransactionError},
    record::TopicPartition,
};

use super::{LOOK_UP_MAX, SimLog};

/// How many times in a row a worker may poll without waiting when nothing happens.
const SPINS_MAX: u32 = 8;

impl SimLog {
    /// What an error says of the open transaction.
    pub(super) fn note_failure(&mut self, error: Option<&TransactionError>) {
        self.failed_since_assigned |= error.is_some();
        match error {
            Some(TransactionError::Aborted(_) | TransactionError::Unknown(_)) => {
                self.note_dropped();
            }
            Some(TransactionError::Refused { .. }) => {
                self.world.lock().swaps.ledger(self.owner).something_failed();
            }
            Some(TransactionError::Unavailable(_) | TransactionError::Fatal(_)) | None => {}
        }
    }

    /// Tasks whose offsets are looked up start, whatever was told of them.
    pub(super) fn note_starting(&self, partitions: &[TopicPartition]) {
        let mut state = self.world.lock();
        let (now, plan) = (state.now, Arc::clone(&state.plan));
        let readers = partitions.iter().filter_map(|&at| plan.topology.reader(at));
        readers.for_each(|(task, _)| state.time_sheet(self.owner).runs(task, now, false));
    }

    /// Says which tasks have records now. One that reads several inputs may have to wait.
    pub(super) fn note_delivered(&self, events: &[SourceEvent]) {
        let mut state = self.world.lock();
        let plan = Arc::clone(&state.plan);
        for event in events {
            let SourceEvent::Records(fetched) = event else { continue };
            let partition = fetched.partition;
            let current = self.fetches.get(&partition).is_some_and(|f| f.epoch == fetched.epoch);
            let reader = plan.topology.reader(partition).map(|(task, _)| task);
            let Some(task) = reader.filter(|_| current && !fetched.records.is_empty()) else {
                continue;
            };
            if plan.topology.subtopology(task).inputs.len() == 1 {
                state.time_sheet(self.owner).delivered(task);
            }
        }
    }

    /// The commit came to its end.
    pub(super) fn note_commit(&mut self, error: Option<&TransactionError>) {
        if error.is_none() {
            let mut state = self.world.lock();
            state.swaps.ledger(self.owner).committed();
            state.time_sheet(self.owner).harm.committed();
        }
        self.note_failure(error);
    }

    /// How long a look-up may take, in milliseconds. While tasks read, nobody may keep them waiting.
    pub(super) fn look_up_max(&self, point: &str, time_max: Duration) -> u64 {
        let most = u64::try_from(time_max.as_millis()).unwrap_or(u64::MAX).min(LOOK_UP_MAX);
        let mut state = self.world.lock();
        let timeout = state.plan.timeouts.transaction;
        // A task that was dropped starts anew, and nobody paused its inputs.
        let is_sure = !self.failed_since_assigned && state.plan.faults.corrupt == 0;
        let others_wait = is_sure && self.fetches.values().any(|fetch| !fetch.paused);
        if state.checks_workers && others_wait && most > timeout / 4 {
            let pod = self.pod;
            state.violate(format_args!("p{pod} may take {most} ms in {point} while tasks run"));
        }
        most
    }

    /// A commit begins: the open transaction must have time left for it.
    pub(super) fn check_age(&self) {
        let mut state = self.world.lock();
        let timeout = state.plan.timeouts.transaction;
        let age = self.producer.age(&state);
        if state.plan.is_timed()
            && !state.plan.hangs()
            && age.is_some_and(|age| age > timeout * 3 / 4)
        {
            let pod = self.pod;
            state.violate(format_args!("p{pod} commits after {age:?} of {timeout} ms"));
        }
    }

    pub(super) fn note_dropped(&self) {
        let mut state = self.world.lock();
        let sheet = state.time_sheet(self.owner);
        sheet.forget_waiting();
        sheet.harm.dropped();
        drop(state);
        let dropped = self.world.lock().swaps.ledger(self.owner).dropped();
        if let Err(text) = dropped {
            self.world.violate(format_args!("p{}: {text}", self.pod));
        }
    }

    /// A worker with nothing to do waits.
    pub(super) fn check_wait(&mut self, wait: Duration) {
        let lines = self.world.lock().trace.lines();
        let (times, before) = self.spins;
        let spins = wait.is_zero() && before == lines;
        self.spins = (if spins { times + 1 } else { 0 }, lines);
        if times > SPINS_MAX {
            self.world.violate(format_args!("p{} spins", self.pod));
        }
    }
}
