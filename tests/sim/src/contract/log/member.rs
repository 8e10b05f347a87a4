//! A member of the group that answers what comes as a worker would.

use std::{collections::BTreeMap, time::Duration};

use sidestream_core::{
    ports::{
        ChangelogEvent, ChangelogRecords, FetchPosition, Fetched, Membership, Ports, Receipt,
        SourceEvent, Transaction, TransactionError,
    },
    record::{Committed, FetchEpoch, Offset, Records, TopicPartition},
    task::SEEN_HEADER,
};

use super::{CHANGELOG, INPUT};

/// The most turns that something may take to happen.
const TURNS_MAX: usize = 4_000;
/// The longest wait of a turn.
const TURN: Duration = Duration::from_millis(10);
/// How long a look-up may take.
pub const TIME_MAX: Duration = Duration::MAX;

/// A member with what it has seen.
pub struct Member {
    /// Its ports.
    pub ports: Ports,
    /// Whether it commits transactions, or offsets after what they stand for.
    pub exactly_once: bool,
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
    pub at_revoke: Option<Result<Receipt, TransactionError>>,
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

impl Member {
    /// A member that owns nothing yet.
    pub fn new(ports: Ports) -> Self {
        Self {
            ports,
            exactly_once: true,
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
    pub fn owner(ports: Ports) -> Self {
        let mut member = Self::new(ports);
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
        let (mut events, mut read) = (Vec::new(), Vec::new());
        self.ports.source.poll(TURN, &mut events).expect("a poll");
        self.ports.changelogs.poll(TURN, &mut read).expect("a poll of changelogs");
        self.ports.sink.serve();
        for event in read {
            match event {
                ChangelogEvent::Records(read) => self.keep(read),
                ChangelogEvent::Unreadable(partition, _) => self.unreadable.push(partition),
            }
        }
        for event in events {
            match event {
                SourceEvent::Assigned(partitions) => self.assign(partitions),
                SourceEvent::Revoked => {
                    if let Some((partition, offset)) = self.before_revoke.take() {
                        self.at_revoke = Some(self.commit_offset(partition, offset));
                    }
                    self.unassign();
                }
                SourceEvent::Lost => self.unassign(),
                SourceEvent::Records(fetched) => self.fetched.push(fetched),
                SourceEvent::Unreadable(partition, _) => self.unreadable.push(partition),
                SourceEvent::Waiting(_) => {
                    assert!(!self.away.0, "told twice that the brokers are away");
                    self.away.0 = true;
                }
                SourceEvent::Recovered => self.away = (false, self.away.1 + 1),
            }
        }
    }

    fn assign(&mut self, partitions: Vec<TopicPartition>) {
        let committed = self.retry(|ports| ports.source.committed(&partitions, TIME_MAX));
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
        self.membership = self.retry(|ports| ports.source.assign(&positions));
        if self.resumes {
            self.retry(|ports| ports.source.resume(&partitions));
        }
        self.owned = partitions;
        self.owned.sort_unstable();
    }

    fn unassign(&mut self) {
        self.retry(|ports| ports.source.unassign());
        self.owned.clear();
    }

    fn keep(&mut self, fetched: ChangelogRecords) {
        let partition = fetched.partition;
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
    pub fn retry<T, E: Into<TransactionError>>(
        &mut self,
        call: impl Fn(&mut Ports) -> Result<T, E>,
    ) -> T {
        for _ in 0..TURNS_MAX {
            match call(&mut self.ports).map_err(Into::into) {
                Ok(value) => return value,
                Err(TransactionError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the brokers stay away");
    }

    /// What it read of an input partition: offsets and values, in order.
    pub fn read(&self, partition: TopicPartition) -> Vec<(Offset, String)> {
        let mut read = Vec::new();
        for fetched in self.fetched.iter().filter(|f| f.partition == partition) {
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
        match self.ports.sink.abort() {
            Ok(()) => {}
            Err(TransactionError::Unknown(_)) => self.retry(|ports| ports.sink.recover()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Commits nothing but an offset.
    pub fn commit_offset(
        &mut self,
        partition: TopicPartition,
        offset: Offset,
    ) -> Result<Receipt, TransactionError> {
        let transaction = self.transaction(partition, offset);
        self.commit(&transaction)
    }

    /// Commits.
    pub fn commit(&mut self, transaction: &Transaction<'_>) -> Result<Receipt, TransactionError> {
        self.ports.commit(transaction, self.exactly_once)
    }

    /// The group's offset of a partition.
    pub fn committed(&mut self, partition: TopicPartition) -> Option<Committed> {
        self.retry(|ports| ports.source.committed(&[partition], TIME_MAX)).remove(0)
    }
}
