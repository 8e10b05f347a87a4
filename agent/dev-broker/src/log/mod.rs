//! The log of a partition: batches kept encoded as they came, and what follows from them: the last
//! stable offset, the aborted transactions, what producers sent last.
//!
//! Everything here is pure: the time comes in.

mod batch;
mod compact;
mod lookup;
mod producers;
mod records;

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;

use self::producers::{Producers, Sequence};
pub(crate) use self::{
    batch::{Batch, Outcome, Writer},
    compact::Compaction,
    lookup::{Found, Lookup},
    records::Limits,
};
use super::refusal::Refusal;

/// Which records a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    All,
    Committed,
}

impl From<i8> for Isolation {
    fn from(level: i8) -> Self {
        if level == 1 { Self::Committed } else { Self::All }
    }
}

/// A transaction whose records are to be left out by readers of committed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
    /// Of its marker.
    last_offset: i64,
}

/// Where an append went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: i64,
    /// Whether it was there already, and nothing was appended.
    pub(crate) duplicate: bool,
}

/// What a fetch found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    /// Whole batches; the first may begin below the offset asked for.
    pub(crate) records: Bytes,
    pub(crate) aborted: Vec<Aborted>,
}

/// How much of a log to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) from: i64,
    pub(crate) isolation: Isolation,
    pub(crate) bytes_max: usize,
    /// Whether the first batch is read even if it alone is above the maximum.
    pub(crate) at_least_one: bool,
}

/// The log of one partition.
#[derive(Debug, Default)]
pub(crate) struct Log {
    batches: VecDeque<Batch>,
    start: i64,
    end: i64,
    bytes: usize,
    /// Of these, what came since the last compaction.
    dirty_bytes: usize,
    producers: Producers,
    /// The first offset of each open transaction, by its producer.
    open: BTreeMap<i64, i64>,
    /// In the order of their markers.
    aborted: Vec<Aborted>,
}

impl Log {
    /// The first offset that can be read.
    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    /// The offset of the next append.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// Where the first open transaction begins, or else the end.
    pub(crate) fn last_stable(&self) -> i64 {
        self.open.values().min().copied().unwrap_or(self.end)
    }

    /// The end as this reader sees it.
    pub(crate) fn end_for(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::All => self.end,
            Isolation::Committed => self.last_stable(),
        }
    }

    /// How much is held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest batch was appended, if it may go.
    pub(crate) fn oldest_deletable(&self) -> Option<i64> {
        let oldest = self.batches.front()?;
        (oldest.last_offset() < self.last_stable()).then_some(oldest.appended_ms)
    }

    /// Appends what a producer sent. A batch that repeats one of its last five is answered as
    /// that one was; one out of its sequence or with an old epoch is refused.
    pub(crate) fn append(
        &mut self,
        batch: Batch,
        append_time_ms: Option<i64>,
    ) -> Result<Appended, Refusal> {
        if let Some(writer) = batch.writer() {
            let sequence = Sequence::of(&batch, self.end);
            if let Some(base_offset) = self.producers.check(writer, &sequence)? {
                return Ok(Appended { base_offset, duplicate: true });
            }
            self.producers.add(writer, sequence, batch.appended_ms);
            if batch.is_transactional() {
                self.open.entry(writer.producer_id).or_insert(self.end);
            }
        }
        Ok(Appended { base_offset: self.push(batch, append_time_ms), duplicate: false })
    }

    /// Ends a producer's transaction with a marker, which takes an offset.
    pub(crate) fn end_transaction(&mut self, writer: Writer, outcome: Outcome, now_ms: i64) {
        let first_offset = self.open.remove(&writer.producer_id);
        self.producers.fence(writer, now_ms);
        let last_offset = self.push(Batch::marker(writer, outcome, now_ms), None);
        if let (Some(first_offset), Outcome::Aborted) = (first_offset, outcome) {
            let producer_id = writer.producer_id;
            self.aborted.push(Aborted { producer_id, first_offset, last_offset });
        }
    }

    fn push(&mut self, batch: Batch, append_time_ms: Option<i64>) -> i64 {
        let base_offset = self.end;
        let batch = batch.placed(base_offset, append_time_ms);
        self.end = batch.last_offset() + 1;
        self.bytes += batch.bytes().len();
        self.dirty_bytes += batch.bytes().len();
        self.batches.push_back(batch);
        base_offset
    }

    /// Whether an offset can be read from.
    pub(crate) fn check(&self, offset: i64) -> Result<(), ResponseError> {
        let inside = (self.start..=self.end).contains(&offset);
        if inside { Ok(()) } else { Err(ResponseError::OffsetOutOfRange) }
    }

    /// How much a read would bring, without doing it.
    pub(crate) fn available(&self, range: &Range) -> usize {
        self.select(range).map(|batch| batch.bytes().len()).sum()
    }

    /// Reads whole batches.
    pub(crate) fn read(&self, range: &Range) -> Slice {
        let mut records = BytesMut::with_capacity(self.available(range));
        let mut end = range.from;
        for batch in self.select(range) {
            records.extend_from_slice(batch.bytes());
            end = batch.last_offset() + 1;
        }
        let begins_before = |aborted: &&Aborted| aborted.first_offset < end;
        let aborted = match range.isolation {
            Isolation::All => Vec::new(),
            Isolation::Committed => {
                self.aborted_from(range.from).filter(begins_before).copied().collect()
            }
        };
        Slice { records: records.freeze(), aborted }
    }

    /// The aborted transactions that end at this offset or behind it.
    fn aborted_from(&self, offset: i64) -> impl Iterator<Item = &Aborted> {
        let first = self.aborted.partition_point(|aborted| aborted.last_offset < offset);
        self.aborted[first..].iter()
    }

    fn select<'a>(&'a self, range: &Range) -> impl Iterator<Item = &'a Batch> + use<'a> {
        let Range { from, bytes_max, at_least_one, .. } = *range;
        let end = self.end_for(range.isolation);
        let mut bytes = 0;
        self.batches.range(self.position(from)..).take_while(move |batch| {
            bytes += batch.bytes().len();
            let first = at_least_one && bytes == batch.bytes().len();
            batch.base_offset() < end && (bytes <= bytes_max || first)
        })
    }

    /// The index of the first batch that ends at this offset or behind it.
    fn position(&self, offset: i64) -> usize {
        self.batches.partition_point(|batch| batch.last_offset() < offset)
    }

    /// Makes everything below an offset unreadable. -1 stands for the end.
    pub(crate) fn delete_below(&mut self, offset: i64) -> Result<i64, ResponseError> {
        let offset = if offset == -1 { self.end } else { offset };
        if offset < 0 || offset > self.end {
            return Err(ResponseError::OffsetOutOfRange);
        }
        self.start = self.start.max(offset);
        while self.batches.front().is_some_and(|batch| batch.last_offset() < self.start) {
            self.drop_front();
        }
        self.forget_below_start();
        Ok(self.start)
    }

    /// Drops the oldest batch, if no open transaction begins in or before it.
    pub(crate) fn drop_oldest(&mut self) -> bool {
        if self.oldest_deletable().is_none() {
            return false;
        }
        self.drop_front();
        let next = self.batches.front().map_or(self.end, Batch::base_offset);
        self.start = self.start.max(next);
        self.forget_below_start();
        true
    }

    /// Drops batches that are older than this, by the times of their records, and from the front
    /// while more than `bytes_max` are held.
    pub(crate) fn retain(&mut self, oldest_ms: Option<i64>, bytes_max: Option<usize>) {
        loop {
            let Some(front) = self.batches.front() else { return };
            let old = oldest_ms.is_some_and(|oldest| front.max_timestamp() < oldest);
            let large = bytes_max.is_some_and(|max| self.bytes - front.bytes().len() >= max);
            if !(old || large) || !self.drop_oldest() {
                return;
            }
        }
    }

    /// Forgets producers that sent nothing since then.
    pub(crate) fn forget_producers(&mut self, idle_since_ms: i64) {
        self.producers.forget(idle_since_ms, &self.open);
    }

    fn drop_front(&mut self) {
        if let Some(batch) = self.batches.pop_front() {
            self.bytes -= batch.bytes().len();
            self.dirty_bytes = self.dirty_bytes.min(self.bytes);
        }
    }

    fn forget_below_start(&mut self) {
        let start = self.start;
        self.aborted.retain(|aborted| aborted.last_offset >= start);
    }
}

#[cfg(test)]
mod tests;
