//! The transaction coordinator: a commit is acknowledged first, its markers follow one by one.
//!
//! This is the protocol of before KIP-890, which librdkafka speaks: a producer keeps its epoch
//! from one transaction to the next.

use std::collections::{BTreeMap, BTreeSet};

use sidestream_core::{ports::Membership, record::TopicPartition};

use super::{Cluster, group::OffsetEntry, partition::LogRecord};

/// Why a request of a producer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A newer epoch exists.
    Fenced,
    /// Markers of the transaction before are still being written: ask again.
    Concurrent,
    /// The transaction is not in a state for it.
    Invalid,
    /// The group knows this member no more, or not in this generation.
    NotMember,
}

/// What a transactional id is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Empty,
    Ongoing,
    /// Decided; markers are being written.
    Prepared {
        commit: bool,
    },
}

/// A place that gets a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Partition(TopicPartition),
    Group,
}

#[derive(Clone, Debug, Default)]
struct TransactionalId {
    producer: u64,
    epoch: i16,
    phase: Phase,
    targets: BTreeSet<Target>,
    started: u64,
    last: Option<bool>,
}

/// A request to end a transaction that is still on its way.
#[derive(Clone, Debug)]
pub(crate) struct Delayed {
    pub(crate) due: u64,
    pub(crate) id: String,
    pub(crate) epoch: i16,
    pub(crate) commit: bool,
}

/// All transactional ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coordinator {
    ids: BTreeMap<String, TransactionalId>,
    delayed: Vec<Delayed>,
}

impl Coordinator {
    fn current(&mut self, id: &str, epoch: i16) -> Result<&mut TransactionalId, Refusal> {
        let entry = self.ids.get_mut(id).ok_or(Refusal::Invalid)?;
        if entry.epoch == epoch { Ok(entry) } else { Err(Refusal::Fenced) }
    }

    /// Sends the end of a transaction on a slow way.
    pub(crate) fn delay(&mut self, delayed: Delayed) {
        self.delayed.push(delayed);
    }

    /// For how long a transaction of this epoch is open; for ever if another epoch is known.
    pub(crate) fn age(&self, id: &str, epoch: i16, now: u64) -> Option<u64> {
        let entry = self.ids.get(id)?;
        match entry.phase {
            _ if entry.epoch != epoch => Some(u64::MAX),
            Phase::Ongoing => Some(now - entry.started),
            Phase::Empty | Phase::Prepared { .. } => None,
        }
    }

    /// Whether markers are still to be written, or ends to arrive.
    pub(crate) fn is_busy(&self) -> bool {
        !self.delayed.is_empty() || self.ids.values().any(|id| id.phase != Phase::Empty)
    }

    /// Whether the fate of `producer`'s open transaction is to be committed.
    pub(crate) fn will_commit(&self, producer: u64) -> bool {
        self.ids
            .values()
            .any(|id| id.producer == producer && id.phase == Phase::Prepared { commit: true })
    }

    fn take_due(&mut self, now: u64) -> Option<Delayed> {
        let place = self.delayed.iter().position(|delayed| delayed.due <= now)?;
        Some(self.delayed.swap_remove(place))
    }

    /// Aborts what has been open for too long; its producer is fenced by a new epoch.
    fn time_out(&mut self, now: u64, timeout: u64) {
        for id in self.ids.values_mut() {
            if id.phase == Phase::Ongoing && now > id.started + timeout {
                id.epoch += 1;
                id.phase = Phase::Prepared { commit: false };
            }
        }
    }
}

impl Cluster {
    /// A new epoch for a transactional id, once what it had open is settled.
    pub(crate) fn init_producer(&mut self, id: &str) -> Result<i16, Refusal> {
        let producer = 1 + self.coordinator.ids.len() as u64;
        let entry = self.coordinator.ids.entry(id.to_owned()).or_default();
        if entry.producer == 0 {
            entry.producer = producer;
        }
        match entry.phase {
            Phase::Empty => {
                entry.epoch += 1;
                entry.last = None;
                Ok(entry.epoch)
            }
            Phase::Ongoing => {
                entry.epoch += 1;
                entry.phase = Phase::Prepared { commit: false };
                Err(Refusal::Concurrent)
            }
            Phase::Prepared { .. } => Err(Refusal::Concurrent),
        }
    }

    fn begin(&mut self, id: &str, epoch: i16, target: Target) -> Result<u64, Refusal> {
        let now = self.now;
        let entry = self.coordinator.current(id, epoch)?;
        match entry.phase {
            Phase::Prepared { .. } => return Err(Refusal::Concurrent),
            Phase::Ongoing => {}
            Phase::Empty => {
                entry.phase = Phase::Ongoing;
                entry.started = now;
                entry.last = None;
            }
        }
        entry.targets.insert(target);
        Ok(entry.producer)
    }

    /// Appends a record in the open transaction of `id`; opens one if there is none. Returns the
    /// record's offset.
    pub(crate) fn produce(
        &mut self,
        id: &str,
        epoch: i16,
        partition: TopicPartition,
        record: LogRecord,
    ) -> Result<i64, Refusal> {
        let producer = self.begin(id, epoch, Target::Partition(partition))?;
        let log = self.partition_mut(partition);
        let at = log.end();
        log.append(producer, record);
        Ok(at)
    }

    /// Makes offsets pending in the open transaction of `id`, if the group knows the member.
    pub(crate) fn produce_offsets(
        &mut self,
        id: &str,
        epoch: i16,
        (membership, instance): (&Membership, Option<&str>),
        offsets: &[OffsetEntry],
    ) -> Result<(), Refusal> {
        let producer = self.begin(id, epoch, Target::Group)?;
        if !self.group.accepts(membership, instance) {
            return Err(Refusal::NotMember);
        }
        self.group.add_pending(producer, &membership.member, offsets);
        Ok(())
    }

    /// Decides the open transaction of `id`.
    pub(crate) fn end(&mut self, id: &str, epoch: i16, commit: bool) -> Result<(), Refusal> {
        let entry = self.coordinator.current(id, epoch)?;
        match entry.phase {
            Phase::Ongoing => {
                entry.phase = Phase::Prepared { commit };
                Ok(())
            }
            Phase::Prepared { commit: decided } if decided == commit => Ok(()),
            Phase::Empty if entry.last == Some(commit) => Ok(()),
            Phase::Prepared { .. } | Phase::Empty => Err(Refusal::Invalid),
        }
    }

    /// Writes one marker of the transactional id at `place`, if it has one to write; the target
    /// is chosen by `choice`.
    fn write_marker(&mut self, id: &str, choice: u64) {
        let Some(entry) = self.coordinator.ids.get_mut(id) else { return };
        let Phase::Prepared { commit } = entry.phase else { return };
        let producer = entry.producer;
        let count = entry.targets.len().max(1) as u64;
        let place = usize::try_from(choice % count).expect("below a length");
        let target = entry.targets.iter().nth(place).copied();
        if let Some(target) = target {
            entry.targets.remove(&target);
        }
        if entry.targets.is_empty() {
            entry.phase = Phase::Empty;
            entry.last = Some(commit);
        }
        match target {
            Some(Target::Partition(partition)) => {
                self.partition_mut(partition).mark(producer, commit);
            }
            Some(Target::Group) => self.group.settle(producer, commit),
            None => {}
        }
    }

    /// Writes one marker of some decided transaction.
    pub(crate) fn write_some_marker(&mut self, choice: u64) {
        let decided: Vec<&String> = self
            .coordinator
            .ids
            .iter()
            .filter(|(_, entry)| matches!(entry.phase, Phase::Prepared { .. }))
            .map(|(id, _)| id)
            .collect();
        if decided.is_empty() {
            return;
        }
        let place = usize::try_from(choice % decided.len() as u64).expect("below a length");
        let id = decided[place].clone();
        self.write_marker(&id, choice >> 8);
    }

    /// Delivers the ends that were delayed until now and times old transactions out.
    pub(crate) fn advance_transactions(&mut self) {
        while let Some(delayed) = self.coordinator.take_due(self.now) {
            // Whatever the answer, nobody waits for it any more.
            self.end(&delayed.id, delayed.epoch, delayed.commit).ok();
        }
        self.coordinator.time_out(self.now, self.transaction_timeout);
    }
}
