//! What each producer sent last to a partition: by this a repeated batch is known, a missing one
//! is missed, and a producer of an old epoch is kept out.

use std::collections::{BTreeMap, VecDeque};

use kafka_protocol::error::ResponseError;

use super::{
    super::refusal::Refusal,
    batch::{Batch, Writer},
};

/// How many batches of a producer are remembered, as in Kafka: a client has no more in flight.
const BATCHES_MAX: usize = 5;

/// How many producers a partition remembers; beyond it the one that is idle longest goes.
const PRODUCERS_MAX: usize = 10_000;

/// The numbers of a batch, and where it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sequence {
    first: i32,
    last: i32,
    offset: i64,
}

impl Sequence {
    /// Of a batch that is to be appended at an offset.
    pub(super) fn of(batch: &Batch, offset: i64) -> Self {
        let first = batch.base_sequence();
        Self { first, last: plus(first, batch.last_offset_delta()), offset }
    }
}

/// Sequence numbers go on with 0 behind the largest.
fn plus(sequence: i32, steps: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(steps);
    i32::try_from(sum.rem_euclid(1 << 31)).unwrap_or(0)
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    sent: VecDeque<Sequence>,
    last_ms: i64,
}

/// The producers of a partition.
#[derive(Debug, Default)]
pub(super) struct Producers(BTreeMap<i64, Producer>);

impl Producers {
    /// Whether a batch may be appended; the offset where it is already, if it is a repetition.
    pub(super) fn check(&self, writer: Writer, batch: &Sequence) -> Result<Option<i64>, Refusal> {
        // One that isn't known may begin anywhere: its records may be gone.
        let Some(known) = self.0.get(&writer.producer_id) else { return Ok(None) };
        if writer.epoch < known.epoch {
            let (now, own) = (known.epoch, writer.epoch);
            let why = format!("the producer's epoch is {now} here, and the batch has {own}");
            return Err(Refusal::new(ResponseError::InvalidProducerEpoch, why));
        }
        let out_of_order = |expected: i32| {
            let why = format!("sequence number {} came, {expected} was expected", batch.first);
            Err(Refusal::new(ResponseError::OutOfOrderSequenceNumber, why))
        };
        if writer.epoch > known.epoch {
            return if batch.first == 0 { Ok(None) } else { out_of_order(0) };
        }
        let same = |sent: &&Sequence| (sent.first, sent.last) == (batch.first, batch.last);
        if let Some(sent) = known.sent.iter().find(same) {
            return Ok(Some(sent.offset));
        }
        match known.sent.back().map(|last| plus(last.last, 1)) {
            Some(expected) if batch.first != expected => out_of_order(expected),
            // Fenced and not heard of since.
            None if batch.first != 0 => out_of_order(0),
            Some(_) | None => Ok(None),
        }
    }

    /// Remembers what was appended.
    pub(super) fn add(&mut self, writer: Writer, batch: Sequence, now_ms: i64) {
        let producer = self.entry(writer, now_ms);
        producer.sent.push_back(batch);
        if producer.sent.len() > BATCHES_MAX {
            producer.sent.pop_front();
        }
    }

    /// Keeps out older epochs of a producer.
    pub(super) fn fence(&mut self, writer: Writer, now_ms: i64) {
        self.entry(writer, now_ms);
    }

    fn entry(&mut self, writer: Writer, now_ms: i64) -> &mut Producer {
        if self.0.len() >= PRODUCERS_MAX && !self.0.contains_key(&writer.producer_id) {
            let idle = self.0.iter().min_by_key(|(_, producer)| producer.last_ms);
            if let Some(id) = idle.map(|(id, _)| *id) {
                self.0.remove(&id);
            }
        }
        let new = || Producer { epoch: writer.epoch, sent: VecDeque::new(), last_ms: now_ms };
        let producer = self.0.entry(writer.producer_id).or_insert_with(new);
        if writer.epoch > producer.epoch {
            *producer = new();
        }
        producer.last_ms = now_ms;
        producer
    }

    /// Forgets who was idle since then, but not those with an open transaction.
    pub(super) fn forget(&mut self, idle_since_ms: i64, open: &BTreeMap<i64, i64>) {
        self.0.retain(|id, producer| producer.last_ms >= idle_since_ms || open.contains_key(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        sent: &[(i16, i32, i32)],
        next: (i16, i32, i32),
        expected: Result<Option<i64>, ResponseError>,
    ) {
        let mut producers = Producers::default();
        let writer = |epoch| Writer { producer_id: 7, epoch };
        for (offset, &(epoch, first, last)) in (0..).step_by(10).zip(sent) {
            producers.add(writer(epoch), Sequence { first, last, offset }, 0);
        }
        let (epoch, first, last) = next;
        let found = producers.check(writer(epoch), &Sequence { first, last, offset: -1 });
        assert_eq!(found.map_err(|refusal| refusal.code), expected);
    }

    #[test]
    fn batches_come_in_their_order_and_once() {
        let out_of_order = Err(ResponseError::OutOfOrderSequenceNumber);
        check(&[], (0, 5, 6), Ok(None));
        check(&[(0, 0, 4)], (0, 5, 6), Ok(None));
        check(&[(0, 0, 4)], (0, 6, 6), out_of_order);
        check(&[(0, 0, 4), (0, 5, 5)], (0, 0, 4), Ok(Some(0)));
        check(&[(0, 0, 4), (0, 5, 5)], (0, 5, 5), Ok(Some(10)));
        check(&[(0, 0, 4)], (0, 0, 3), out_of_order);
        check(&[(0, i32::MAX - 1, i32::MAX)], (0, 0, 3), Ok(None));
        check(&[(0, i32::MAX, 0)], (0, 1, 3), Ok(None));
        let many: Vec<_> = (0..6).map(|n| (0, n, n)).collect();
        check(&many, (0, 0, 0), out_of_order);
        check(&many, (0, 1, 1), Ok(Some(10)));
    }

    #[test]
    fn a_new_epoch_begins_anew_and_shuts_the_old_one_out() {
        check(&[(3, 0, 4)], (4, 0, 0), Ok(None));
        check(&[(3, 0, 4)], (4, 5, 5), Err(ResponseError::OutOfOrderSequenceNumber));
        check(&[(3, 0, 4)], (2, 5, 5), Err(ResponseError::InvalidProducerEpoch));
        check(&[(3, 0, 4), (4, 0, 1)], (3, 5, 5), Err(ResponseError::InvalidProducerEpoch));
    }

    #[test]
    fn who_is_idle_longest_goes_first() {
        let mut producers = Producers::default();
        for id in 0..=PRODUCERS_MAX {
            let id = i64::try_from(id).unwrap();
            producers.fence(Writer { producer_id: id, epoch: 0 }, id);
        }
        assert_eq!(producers.0.len(), PRODUCERS_MAX);
        assert!(!producers.0.contains_key(&0) && producers.0.contains_key(&1));
    }
}
