//! Compaction: of each key the last record stays.

use std::collections::BTreeMap;

use super::{Batch, Log, records};
use crate::refusal::Refusal;

/// Below this much that is new, compaction is not worth it.
const DIRTY_BYTES_MIN: usize = 1 << 20;

/// How a topic is compacted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compaction {
    /// Deletes that were appended before this go too.
    pub(crate) deletes_until_ms: i64,
    pub(crate) decompressed_bytes_max: usize,
}

impl Log {
    /// Whether half of the log is new since the last compaction, or, if memory is tight, enough
    /// of it to be worth it.
    pub(crate) fn is_dirty(&self, tight: bool) -> bool {
        let least = if tight { DIRTY_BYTES_MIN / 16 } else { DIRTY_BYTES_MIN };
        self.dirty_bytes >= least && (tight || self.dirty_bytes * 2 >= self.bytes)
    }

    /// Leaves of each key the last committed record, of aborted transactions nothing, and of
    /// markers none. The last stable batch stays as it is, so that a reader comes to the end, and
    /// so does everything behind it.
    pub(crate) fn compact(&mut self, how: &Compaction) -> Result<(), Refusal> {
        let stable = self.last_stable();
        let stable = self.batches.partition_point(|batch| batch.last_offset() < stable);
        let count = stable.saturating_sub(1);
        let keep = Keep { last: self.last_offsets(stable, how)?, how: *how };
        let mut kept = Vec::with_capacity(count);
        for batch in self.batches.range(..count) {
            if !batch.is_control() && !self.is_aborted(batch) {
                kept.extend(keep.of(batch)?);
            }
        }
        // Where a transaction reaches into what was kept as it is, its list entry is needed still.
        let untouched = self.batches.get(count).map_or(self.end, Batch::base_offset);
        self.aborted.retain(|aborted| aborted.last_offset >= untouched);
        self.batches.drain(..count);
        for batch in kept.into_iter().rev() {
            self.batches.push_front(batch);
        }
        self.bytes = self.batches.iter().map(|batch| batch.bytes().len()).sum();
        self.dirty_bytes = 0;
        Ok(())
    }

    /// The offset of the last visible record of each key in the first batches.
    fn last_offsets(
        &self,
        count: usize,
        how: &Compaction,
    ) -> Result<BTreeMap<Vec<u8>, i64>, Refusal> {
        let mut last = BTreeMap::new();
        for batch in self.batches.range(..count) {
            if batch.is_control() || self.is_aborted(batch) {
                continue;
            }
            let records = records::decompress(batch, how.decompressed_bytes_max)?;
            for record in records::iter(batch, &records) {
                let record = record?;
                if let Some(key) = record.key {
                    last.insert(key.to_vec(), record.offset);
                }
            }
        }
        Ok(last)
    }

    fn is_aborted(&self, batch: &Batch) -> bool {
        let Some(writer) = batch.writer().filter(|_| batch.is_transactional()) else {
            return false;
        };
        // The first transaction of this producer that ends behind the batch is the batch's own.
        let mut own = self.aborted_from(batch.base_offset());
        own.find(|aborted| aborted.producer_id == writer.producer_id)
            .is_some_and(|aborted| aborted.first_offset <= batch.base_offset())
    }
}

struct Keep {
    last: BTreeMap<Vec<u8>, i64>,
    how: Compaction,
}

impl Keep {
    /// What stays of a batch, if anything does.
    fn of(&self, batch: &Batch) -> Result<Option<Batch>, Refusal> {
        let records = records::decompress(batch, self.how.decompressed_bytes_max)?;
        let (mut kept, mut count) = (Vec::new(), 0);
        for record in records::iter(batch, &records) {
            let record = record?;
            let last = record.key.and_then(|key| self.last.get(key));
            let expired = !record.has_value && batch.appended_ms < self.how.deletes_until_ms;
            if last == Some(&record.offset) && !expired {
                kept.extend_from_slice(record.bytes);
                count += 1;
            }
        }
        Ok(match count {
            0 => None,
            all if all == batch.record_count() => Some(batch.clone()),
            _ => Some(batch.with_records(count, &kept)),
        })
    }
}
