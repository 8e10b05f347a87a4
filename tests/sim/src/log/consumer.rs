//! Reading: what is fetched waits a while, and may be delivered after it is not wanted any more.

use sidestream_core::{
    ports::{ChangelogEvent, ChangelogRecords, Fetched, PortError, SourceEvent, Unreadable},
    record::{Records, TopicPartition},
};

use super::{Fetch, SimLog};
use crate::cluster::Slice;

/// How many fetched batches wait at most.
const FETCHED_MAX: usize = 12;

/// Once in so many reads it is found that a topic was created again, if nobody was told before, and
/// after so many milliseconds in any.
const LOOKS: u64 = 20;
const LOOK_EVERY: u64 = 5_000;

/// Where time leaps, it also does so during restores, in so many times fewer turns than while
/// processes are down.
const SLOW: u64 = 2;

impl SimLog {
    /// Fetches something of some partitions that are not paused; tells of those that can't be read
    /// from where they are.
    pub(super) fn fetch(&mut self, events: &mut Vec<SourceEvent>) {
        let mut state = self.world.lock();
        let faults = state.faults().clone();
        for (&partition, fetch) in &mut self.fetches {
            if fetch.paused
                || fetch.lost
                || self.fetched.len() >= FETCHED_MAX
                || state.prng.one_in(3)
            {
                continue;
            }
            let limit = state.prng.between(1, 10).try_into().expect("small");
            let topic_id = state.topic_id(partition.topic);
            // Its topic is looked at now and then only.
            let since = state.recreated.get(&partition.topic).copied().unwrap_or_default();
            let is_another = self.known.get(&partition.topic).is_some_and(|id| *id != topic_id)
                && (state.now > since + LOOK_EVERY || state.prng.one_in(LOOKS));
            let log = state.cluster.partition(partition);
            let is_there = (log.start..=log.end()).contains(&fetch.offset);
            if is_another || !is_there || state.doubts(partition) {
                (fetch.lost, self.failed_since_assigned) = (true, true);
                let reason = format!("{partition:?} at {}", fetch.offset);
                state.note(self.pod, format_args!("can't read {reason}"));
                events.push(SourceEvent::Unreadable(partition, Unreadable::Lost(reason)));
                continue;
            }
            let log = state.cluster.partition(partition);
            let from = fetch.offset;
            let mut slice = log.read(from, limit);
            if !slice.records.is_empty() && state.prng.one_in(faults.overlap) {
                let log = state.cluster.partition(partition);
                let below = log.read((from - 3).max(log.start), limit + 3);
                slice.records = below.records;
                slice.next = below.next.max(from);
            }
            let at_end = slice.records.is_empty();
            if at_end && fetch.end_told && slice.next == fetch.offset {
                continue;
            }
            fetch.offset = slice.next;
            fetch.end_told = at_end;
            self.fetched.push_back(fetched(partition, fetch, slice));
        }
    }

    /// Delivers some of what was fetched: in order for each partition, also what is stale.
    pub(super) fn give(&mut self, events: &mut Vec<SourceEvent>) {
        let mut state = self.world.lock();
        let count = state.prng.between(0, self.fetched.len() as u64);
        for _ in 0..count {
            let Some(fetched) = self.fetched.pop_front() else { break };
            state.note(self.pod, format_args!("is given {}", told(&fetched)));
            events.push(SourceEvent::Records(fetched));
        }
    }

    /// Delivers some of the changelogs that are read.
    pub(super) fn deliver_changelogs(&mut self, events: &mut Vec<ChangelogEvent>) {
        let crew = self.crew();
        let mut state = self.world.lock();
        for &partition in self.restores.keys() {
            let plan = state.plan.clone();
            let open = &state.pods[self.pod].open;
            let is_open = open.iter().any(|&task| {
                let stores = &plan.topology.subtopology(task).stores;
                task.partition == partition.partition
                    && stores.iter().any(|store| store.changelog == partition.topic)
            });
            if state.checks_workers && !is_open {
                state.violate(format_args!("{partition:?} is restored for a task that is closed"));
            }
        }
        for (&partition, offset) in &mut self.restores {
            if state.prng.one_in(3) {
                continue;
            }
            let limit = state.prng.between(1, 10).try_into().expect("small");
            let slice = state.cluster.partition(partition).read(*offset, limit);
            *offset = slice.next;
            let (next, leader_epoch) = (slice.next, slice.leader_epoch);
            let records = columns(slice);
            let offsets = &records.offsets;
            state.note(
                self.pod,
                format_args!("restores {partition:?} offsets {offsets:?} next {next}"),
            );
            let read = ChangelogRecords { partition, records, next, leader_epoch };
            events.push(ChangelogEvent::Records(read));
        }
        let faults = state.faults().clone();
        let rate = SLOW * faults.leap;
        // Nobody stands still for that long within a call: from its beginning to the end of what it
        // reads, less time goes by than lies between the age of a state and the life of deletes.
        let is_slow = !self.restores.is_empty() && state.prng.one_in(rate);
        if is_slow && !crew.is_held_up() {
            state.leap(self.pod, "restores slowly");
            if faults.years || faults.clocks {
                state.set_back(self.pod);
            }
        }
    }

    /// What was fetched before is forgotten, or by chance not yet.
    pub(super) fn drop_some_fetched(&mut self) {
        let mut state = self.world.lock();
        let rate = state.faults().stale;
        if !state.prng.one_in(rate) {
            drop(state);
            let fetches = &self.fetches;
            self.fetched.retain(|fetched| {
                let fetch = fetches.get(&fetched.partition);
                fetch.is_some_and(|fetch| fetch.epoch == fetched.epoch)
            });
        }
    }

    pub(super) fn set_paused(
        &mut self,
        partitions: &[TopicPartition],
        paused: bool,
    ) -> Result<(), PortError> {
        for &partition in partitions {
            self.assigned(partition);
            self.fetches.get_mut(&partition).expect("checked").paused = paused;
        }
        Ok(())
    }
}

/// A batch for the worker.
fn fetched(partition: TopicPartition, fetch: &Fetch, slice: Slice) -> Fetched {
    let next = slice.next;
    Fetched { partition, epoch: fetch.epoch, records: columns(slice), next }
}

/// What was read, as columns.
pub(crate) fn columns(slice: Slice) -> Records {
    let mut records = Records::default();
    for (offset, record) in slice.records {
        records.offsets.push(offset);
        records.timestamps.push(record.timestamp);
        records.timestamp_types.push(0);
        records.keys.push(record.key.as_deref());
        records.values.push(record.value.as_deref());
        let count = u32::try_from(record.headers.len()).expect("few headers");
        records.headers.counts.push(count);
        for (name, value) in &record.headers {
            records.headers.names.push(Some(name));
            records.headers.values.push(value.as_deref());
        }
    }
    if records.headers.names.is_empty() {
        records.headers.counts.clear();
    }
    records
}

fn told(fetched: &Fetched) -> String {
    let Fetched { partition, epoch, records, next } = fetched;
    format!("{partition:?} epoch {epoch} offsets {:?} next {next}", records.offsets)
}
