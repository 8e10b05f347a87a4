//! The coordinator of transactions: who a transactional id belongs to, and what its transaction
//! has written to.
//!
//! ```text
//!            add partitions, add offsets          end, timeout, a new producer
//!   Empty ─────────────────────────────▶ Ongoing ─────────────────────────────▶ Committed, Aborted
//!                                           ▲                                         │
//!                                           └─────── add partitions, add offsets ─────┘
//! ```
//!
//! Kafka's states in between, in which markers are on their way, are not seen here: all markers of
//! a transaction are written in one step.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::ResponseError;

use super::{
    log::{Outcome, Writer},
    topics::TopicPartition,
};

/// `transaction.max.timeout.ms`.
const TIMEOUT_MS_MAX: i32 = 900_000;

/// How many transactional ids are remembered; beyond it the one that is idle longest goes.
const IDS_MAX: usize = 10_000;

/// Where a transactional id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Empty,
    Ongoing,
    Ended(Outcome),
}

impl State {
    /// Its name, as Kafka's tools show it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::Ended(Outcome::Committed) => "CompleteCommit",
            Self::Ended(Outcome::Aborted) => "CompleteAbort",
        }
    }
}

/// What a transactional id stands for.
#[derive(Clone, Debug)]
pub(super) struct Transaction {
    pub(super) writer: Writer,
    /// The epoch before, by which a producer that repeats its request is known.
    last_epoch: Option<i16>,
    pub(super) state: State,
    pub(super) timeout_ms: i32,
    pub(super) started_ms: i64,
    used_ms: i64,
    pub(super) partitions: BTreeSet<TopicPartition>,
    groups: BTreeSet<String>,
}

/// A transaction that ended: its markers are to be written, its offsets made good or dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) writer: Writer,
    pub(super) outcome: Outcome,
    pub(super) partitions: BTreeSet<TopicPartition>,
    pub(super) groups: BTreeSet<String>,
}

/// A producer that wants to begin.
#[derive(Clone, Debug)]
pub(super) struct Init<'a> {
    pub(super) id: &'a str,
    pub(super) timeout_ms: i32,
    /// What it was given before, if it goes on after an error.
    pub(super) current: Option<Writer>,
}

/// All transactional ids.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    by_id: BTreeMap<String, Transaction>,
    last_producer_id: i64,
}

impl Transactions {
    /// A producer id that nobody had before.
    pub(super) fn new_producer(&mut self) -> Writer {
        self.last_producer_id += 1;
        Writer { producer_id: self.last_producer_id, epoch: 0 }
    }

    /// Gives a transactional id to a producer. The one that had it is shut out by its epoch, and
    /// its open transaction aborted.
    pub(super) fn init(
        &mut self,
        init: &Init<'_>,
        now_ms: i64,
    ) -> (Result<Writer, ResponseError>, Option<Ended>) {
        if init.id.is_empty() {
            return (Err(ResponseError::InvalidRequest), None);
        }
        if !(1..=TIMEOUT_MS_MAX).contains(&init.timeout_ms) {
            return (Err(ResponseError::InvalidTransactionTimeout), None);
        }
        let Some(known) = self.by_id.get_mut(init.id) else {
            return (Ok(self.add(init, now_ms)), None);
        };
        if let Some(current) = init.current
            && !known.accepts(current)
        {
            return (Err(ResponseError::ProducerFenced), None);
        }
        known.used_ms = now_ms;
        let mut ended = None;
        if known.state == State::Ongoing {
            ended = Some(known.fence());
            if init.current.is_some() {
                return (Err(ResponseError::ProducerFenced), ended);
            }
        }
        known.timeout_ms = init.timeout_ms;
        let repeated = init.current.is_some_and(|current| known.last_epoch == Some(current.epoch));
        if !repeated {
            self.renew(init);
        }
        (Ok(self.by_id[init.id].writer), ended)
    }

    fn add(&mut self, init: &Init<'_>, now_ms: i64) -> Writer {
        if self.by_id.len() >= IDS_MAX {
            let idle = self.by_id.iter().filter(|(_, known)| known.state != State::Ongoing);
            let idle = idle.min_by_key(|(_, known)| known.used_ms).map(|(id, _)| id.clone());
            if let Some(id) = idle {
                self.by_id.remove(&id);
            }
        }
        let writer = self.new_producer();
        let new = Transaction {
            writer,
            last_epoch: None,
            state: State::Empty,
            timeout_ms: init.timeout_ms,
            started_ms: -1,
            used_ms: now_ms,
            partitions: BTreeSet::new(),
            groups: BTreeSet::new(),
        };
        self.by_id.insert(init.id.to_owned(), new);
        writer
    }

    /// The next epoch, or a new producer id when there is none left.
    fn renew(&mut self, init: &Init<'_>) {
        let fresh = self.new_producer();
        let Some(known) = self.by_id.get_mut(init.id) else { return };
        known.last_epoch = init.current.map(|current| current.epoch);
        known.state = State::Empty;
        if known.writer.epoch >= i16::MAX - 1 {
            (known.writer, known.last_epoch) = (fresh, None);
        } else {
            known.writer.epoch += 1;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Transaction)> {
        self.by_id.iter().map(|(id, transaction)| (id.as_str(), transaction))
    }

    pub(super) fn get(&self, id: &str) -> Option<&Transaction> {
        self.by_id.get(id)
    }

    fn owned(&mut self, id: &str, writer: Writer) -> Result<&mut Transaction, ResponseError> {
        let known = self.by_id.get_mut(id).ok_or(ResponseError::InvalidProducerIdMapping)?;
        known.check(writer)?;
        Ok(known)
    }

    /// Adds partitions to a transaction, and begins it if none is open.
    pub(super) fn add_partitions(
        &mut self,
        id: &str,
        writer: Writer,
        partitions: impl IntoIterator<Item = TopicPartition>,
        now_ms: i64,
    ) -> Result<(), ResponseError> {
        let transaction = self.owned(id, writer)?;
        transaction.begin(now_ms);
        transaction.partitions.extend(partitions);
        Ok(())
    }

    /// Adds the offsets of a group to a transaction, and begins it if none is open.
    pub(super) fn add_offsets(
        &mut self,
        id: &str,
        writer: Writer,
        group: &str,
        now_ms: i64,
    ) -> Result<(), ResponseError> {
        let transaction = self.owned(id, writer)?;
        transaction.begin(now_ms);
        transaction.groups.insert(group.to_owned());
        Ok(())
    }

    /// Whether this producer may write to a partition in its open transaction.
    pub(super) fn check_partition(
        &self,
        id: &str,
        writer: Writer,
        partition: &TopicPartition,
    ) -> Result<(), ResponseError> {
        self.check_part(id, writer, |open| open.partitions.contains(partition))
    }

    /// Whether this producer may send offsets of a group in its open transaction.
    pub(super) fn check_group(
        &self,
        id: &str,
        writer: Writer,
        group: &str,
    ) -> Result<(), ResponseError> {
        self.check_part(id, writer, |open| open.groups.contains(group))
    }

    fn check_part(
        &self,
        id: &str,
        writer: Writer,
        is_part: impl FnOnce(&Transaction) -> bool,
    ) -> Result<(), ResponseError> {
        let known = self.by_id.get(id).ok_or(ResponseError::InvalidProducerIdMapping)?;
        match known.check(writer) {
            // A log knows old epochs by another code than the coordinator.
            Err(ResponseError::ProducerFenced) => Err(ResponseError::InvalidProducerEpoch),
            Err(other) => Err(other),
            Ok(()) if known.state == State::Ongoing && is_part(known) => Ok(()),
            Ok(()) => Err(ResponseError::InvalidTxnState),
        }
    }

    /// Ends a transaction. The same end again is answered as the first was.
    pub(super) fn end(
        &mut self,
        id: &str,
        writer: Writer,
        outcome: Outcome,
        now_ms: i64,
    ) -> Result<Option<Ended>, ResponseError> {
        let transaction = self.owned(id, writer)?;
        transaction.used_ms = now_ms;
        match transaction.state {
            State::Ongoing => Ok(Some(transaction.end(outcome))),
            State::Ended(before) if before == outcome => Ok(None),
            State::Ended(_) | State::Empty => Err(ResponseError::InvalidTxnState),
        }
    }

    /// Aborts what has been open for longer than its producer wanted, and shuts the producer out.
    pub(super) fn expire(&mut self, now_ms: i64) -> Vec<Ended> {
        let open = self.by_id.values_mut().filter(|known| known.state == State::Ongoing);
        open.filter(|known| known.started_ms + i64::from(known.timeout_ms) < now_ms)
            .map(Transaction::fence)
            .collect()
    }
}

impl Transaction {
    /// Whether a producer with this id and epoch may be given the next one.
    fn accepts(&self, current: Writer) -> bool {
        let same = current.producer_id == self.writer.producer_id;
        same && (current.epoch == self.writer.epoch || Some(current.epoch) == self.last_epoch)
    }

    fn check(&self, writer: Writer) -> Result<(), ResponseError> {
        if writer.producer_id != self.writer.producer_id {
            return Err(ResponseError::InvalidProducerIdMapping);
        }
        if writer.epoch != self.writer.epoch {
            return Err(ResponseError::ProducerFenced);
        }
        Ok(())
    }

    fn begin(&mut self, now_ms: i64) {
        self.used_ms = now_ms;
        if self.state != State::Ongoing {
            (self.state, self.started_ms) = (State::Ongoing, now_ms);
        }
    }

    fn end(&mut self, outcome: Outcome) -> Ended {
        (self.state, self.started_ms) = (State::Ended(outcome), -1);
        Ended {
            writer: self.writer,
            outcome,
            partitions: std::mem::take(&mut self.partitions),
            groups: std::mem::take(&mut self.groups),
        }
    }

    /// Aborts with an epoch above the producer's, so that its own requests come too late.
    fn fence(&mut self) -> Ended {
        self.last_epoch = None;
        self.writer.epoch = self.writer.epoch.saturating_add(1);
        self.end(Outcome::Aborted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench(Transactions);

    impl Bench {
        fn new() -> Self {
            Self(Transactions::default())
        }

        fn init(
            &mut self,
            current: Option<Writer>,
        ) -> (Result<Writer, ResponseError>, Option<Ended>) {
            self.0.init(&Init { id: "t", timeout_ms: 1_000, current }, 0)
        }

        fn begin(&mut self, writer: Writer) -> Result<(), ResponseError> {
            self.0.add_partitions("t", writer, [TopicPartition::new("a", 0)], 100)
        }

        fn end(&mut self, writer: Writer, outcome: Outcome) -> Result<bool, ResponseError> {
            Ok(self.0.end("t", writer, outcome, 200)?.is_some())
        }
    }

    #[test]
    fn an_end_counts_once_and_is_answered_again() {
        let mut bench = Bench::new();
        let writer = bench.init(None).0.unwrap();
        assert_eq!(bench.end(writer, Outcome::Committed), Err(ResponseError::InvalidTxnState));
        bench.begin(writer).unwrap();
        assert_eq!(bench.end(writer, Outcome::Committed), Ok(true));
        assert_eq!(bench.end(writer, Outcome::Committed), Ok(false));
        assert_eq!(bench.end(writer, Outcome::Aborted), Err(ResponseError::InvalidTxnState));
    }

    #[test]
    fn a_new_producer_shuts_the_old_one_out_and_aborts_its_transaction() {
        let mut bench = Bench::new();
        let old = bench.init(None).0.unwrap();
        bench.begin(old).unwrap();
        let (new, ended) = bench.init(None);
        let (new, ended) = (new.unwrap(), ended.unwrap());
        assert_eq!((ended.outcome, ended.partitions.len()), (Outcome::Aborted, 1));
        assert!(new.epoch > ended.writer.epoch && ended.writer.epoch > old.epoch);
        assert_eq!(bench.begin(old), Err(ResponseError::ProducerFenced));
        assert_eq!(bench.end(old, Outcome::Committed), Err(ResponseError::ProducerFenced));
        let partition = TopicPartition::new("a", 0);
        let check = bench.0.check_partition("t", old, &partition);
        assert_eq!(check, Err(ResponseError::InvalidProducerEpoch));
        bench.begin(new).unwrap();
    }

    #[test]
    fn a_producer_that_goes_on_must_have_the_last_epoch() {
        let mut bench = Bench::new();
        let first = bench.init(None).0.unwrap();
        let second = bench.init(Some(first)).0.unwrap();
        assert_eq!(second.epoch, first.epoch + 1);
        // Its answer may be lost.
        assert_eq!(bench.init(Some(first)).0, Ok(second));
        bench.init(Some(second)).0.unwrap();
        assert_eq!(bench.init(Some(first)).0, Err(ResponseError::ProducerFenced));
    }

    #[test]
    fn what_is_open_too_long_is_aborted() {
        let mut bench = Bench::new();
        let writer = bench.init(None).0.unwrap();
        bench.begin(writer).unwrap();
        assert_eq!(bench.0.expire(1_100), []);
        assert_eq!(bench.0.expire(1_101).len(), 1);
        assert_eq!(bench.end(writer, Outcome::Committed), Err(ResponseError::ProducerFenced));
    }

    #[test]
    fn epochs_that_run_out_give_a_new_producer_id() {
        let mut bench = Bench::new();
        let mut writer = bench.init(None).0.unwrap();
        for _ in 0..i32::from(i16::MAX) {
            writer = bench.init(None).0.unwrap();
        }
        assert!(writer.producer_id > 1 && writer.epoch < i16::MAX, "{writer:?}");
    }

    #[test]
    fn requests_that_make_no_sense_are_refused() {
        let mut bench = Bench::new();
        let mut init = |id, timeout_ms| bench.0.init(&Init { id, timeout_ms, current: None }, 0).0;
        assert_eq!(init("", 1_000), Err(ResponseError::InvalidRequest));
        assert_eq!(init("t", 0), Err(ResponseError::InvalidTransactionTimeout));
        assert_eq!(init("t", 900_001), Err(ResponseError::InvalidTransactionTimeout));
        let writer = Writer { producer_id: 1, epoch: 0 };
        assert_eq!(bench.begin(writer), Err(ResponseError::InvalidProducerIdMapping));
    }
}
