//! A member of the group that answers its log as a worker would.

use std::{collections::BTreeMap, time::Duration};

use sidestream_core::{
    record::{Committed, FetchEpoch, Offset, Records, TopicPartition},
    task::SEEN_HEADER,
    worker::{Event, FetchPosition, Fetched, Log, LogError, Membership, Receipt, Transaction},
};

use super::{CHANGELOG, INPUT};

/// The most turns that something may take to happen.
const TURNS_MAX: usize = 4_000;
/// The longest wait of a turn.
const TURN: Duration = Duration::from_millis(10);

/// A member with what it has seen.
pub struct Member<L> {
    /// Its log.
    pub log: L,
    /// Who it is.
    pub membership: Membership,
    /// The partitions that it owns.
    pub owned: Vec<TopicPartition>,
    /// What it read of each input partition since the last [`forget`](Self::forget).
    pub fetched: Vec<Fetched>,
    /// What it read of changelogs, and how far.
    pub restored: BTreeMap<TopicPartition, (Records, Offset)>,
    /// Commit this when partitions are revoked.
    pub before_revoke: Option<(TopicPartition, Offset)>,
    /// What that commit returned.
    pub at_revoke: Option<Result<Receipt, LogError>>,
    /// The epoch of its last assignment or seek.
    pub epoch: FetchEpoch,
    /// Whether new partitions are resumed at once.
    pub resumes: bool,
    /// What it read in changelogs of the inputs.
    pub told: Vec<String>,
    /// Which partitions it can't read on.
    pub unreadable: Vec<TopicPartition>,
    /// Whether the brokers are away, and how often they came back.
    pub away: (bool, usize),
}

/// A partition of the input.
#[must_use]
pub const fn input(partition: i32) -> TopicPartition {
    TopicPartition::new(INPUT, partition)
}

/// A partition of the changelog.
#[must_use]
pub const fn changelog(partition: i32) -> TopicPartition {
    TopicPartition::new(CHANGELOG, partition)
}

impl<L: Log> Member<L> {
    /// A member that owns nothing yet.
    pub fn new(log: L) -> Self {
        Self {
            log,
            membership: Membership::default(),
            owned: Vec::new(),
            fetched: Vec::new(),
            restored: BTreeMap::new(),
            before_revoke: None,
            at_revoke: None,
            epoch: 0,
            resumes: true,
            told: Vec::new(),
            unreadable: Vec::new(),
            away: (false, 0),
        }
    }

    /// A member that owns both partitions of the input.
    pub fn owner(log: L) -> Self {
        let mut member = Self::new(log);
        member.wait_for("both partitions", |member| member.owned.len() == 2);
        member
    }

    /// Takes turns until it is so.
    pub fn wait_for(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..TURNS_MAX {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("waited in vain for {what}; owned: {:?}; fetched: {:?}", self.owned, self.fetched);
    }

    /// Takes turns of two members until it is so.
    pub fn wait_for_both(
        &mut self,
        other: &mut Self,
        what: &str,
        done: impl Fn(&Self, &Self) -> bool,
    ) {
        for _ in 0..TURNS_MAX {
            if done(self, other) {
                return;
            }
            self.turn();
            other.turn();
        }
        panic!("waited in vain for {what}; owned: {:?} and {:?}", self.owned, other.owned);
    }

    /// Polls once and answers.
    pub fn turn(&mut self) {
        let mut events = Vec::new();
        self.log.poll(TURN, &mut events).expect("a poll");
        for event in events {
            match event {
                Event::Assigned(partitions) => self.assign(partitions),
                Event::Revoked => {
                    if let Some((partition, offset)) = self.before_revoke.take() {
                        self.at_revoke = Some(self.commit_offset(partition, offset));
                    }
                    self.unassign();
                }
                Event::Lost => self.unassign(),
                Event::Records(fetched) => self.fetched.push(fetched),
                Event::Changelog(fetched) => self.keep(fetched),
                Event::Unreadable(partition, _) => self.unreadable.push(partition),
                Event::Waiting(_) => {
                    assert!(!self.away.0, "told twice that the brokers are away");
                    self.away.0 = true;
                }
                Event::Recovered => self.away = (false, self.away.1 + 1),
            }
        }
    }

    fn assign(&mut self, partitions: Vec<TopicPartition>) {
        let committed = self.retry(|log| log.committed(&partitions));
        self.epoch += 1;
        let epoch = self.epoch;
        let positions: Vec<_> = partitions
            .iter()
            .zip(committed)
            .map(|(&partition, committed)| FetchPosition {
                partition,
                offset: committed.map_or(0, |committed| committed.offset),
                epoch,
            })
            .collect();
        self.membership = self.retry(|log| log.assign(&positions));
        if self.resumes {
            self.retry(|log| log.resume(&partitions));
        }
        self.owned = partitions;
        self.owned.sort_unstable();
    }

    fn unassign(&mut self) {
        self.retry(L::unassign);
        self.owned.clear();
    }

    fn keep(&mut self, fetched: Fetched) {
        let partition = fetched.partition.expect("a partition");
        let headers = &fetched.records.headers;
        let told = headers.names.iter().zip(&headers.values);
        let told = told.filter(|(name, _)| *name == Some(SEEN_HEADER.as_bytes()));
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        self.told.extend(told.filter_map(|(_, value)| value.map(text)));
        let (records, next) = self.restored.entry(partition).or_default();
        records.offsets.extend(fetched.records.offsets);
        records.keys.append(&fetched.records.keys);
        records.values.append(&fetched.records.values);
        assert!(fetched.next >= *next, "a restore went back from {next} to {}", fetched.next);
        *next = fetched.next;
    }

    /// Calls until the brokers are there.
    pub fn retry<T>(&mut self, call: impl Fn(&mut L) -> Result<T, LogError>) -> T {
        for _ in 0..TURNS_MAX {
            match call(&mut self.log) {
                Ok(value) => return value,
                Err(LogError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the brokers stay away");
    }

    /// What it read of an input partition: offsets and values, in order.
    pub fn read(&self, partition: TopicPartition) -> Vec<(Offset, String)> {
        let mut read = Vec::new();
        for fetched in self.fetched.iter().filter(|f| f.partition == Some(partition)) {
            let values = super::records::values(&fetched.records);
            read.extend(fetched.records.offsets.iter().copied().zip(values));
        }
        read
    }

    /// Forgets what it read.
    pub fn forget(&mut self) {
        self.fetched.clear();
    }

    /// A transaction that commits `offset` of `partition` with a note beside it.
    pub fn transaction(&self, partition: TopicPartition, offset: Offset) -> Transaction<'static> {
        let committed = Committed { offset, metadata: format!("note {offset}") };
        Transaction {
            offsets: vec![(partition, committed)],
            membership: self.membership.clone(),
            ..Transaction::default()
        }
    }

    /// Drops the open transaction. A coordinator that has not heard of it yet refuses its end; a
    /// new producer settles that.
    pub fn abort(&mut self) {
        match self.log.abort() {
            Ok(()) => {}
            Err(LogError::Unknown(_)) => self.retry(L::recover),
            Err(error) => panic!("{error}"),
        }
    }

    /// Commits nothing but an offset.
    pub fn commit_offset(
        &mut self,
        partition: TopicPartition,
        offset: Offset,
    ) -> Result<Receipt, LogError> {
        let transaction = self.transaction(partition, offset);
        self.log.commit(&transaction)
    }

    /// The group's offset of a partition.
    pub fn committed(&mut self, partition: TopicPartition) -> Option<Committed> {
        self.retry(|log| log.committed(&[partition])).remove(0)
    }
}
