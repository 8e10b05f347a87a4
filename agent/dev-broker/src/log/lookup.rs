//! Offsets by time.

use kafka_protocol::error::ResponseError;

use super::{Batch, Isolation, Log, records};
use crate::refusal::Refusal;

/// Which offset of a partition is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    Earliest,
    Latest,
    /// The record with the largest time.
    MaxTimestamp,
    /// The first record of this time or later.
    Time(i64),
}

impl Lookup {
    /// As a request says it.
    pub(crate) fn from_timestamp(timestamp: i64) -> Result<Self, ResponseError> {
        match timestamp {
            // -4 asks for the first offset that is not in remote storage, of which there is none.
            -2 | -4 => Ok(Self::Earliest),
            -1 => Ok(Self::Latest),
            -3 => Ok(Self::MaxTimestamp),
            0.. => Ok(Self::Time(timestamp)),
            _ => Err(ResponseError::UnsupportedVersion),
        }
    }
}

/// An offset, and the time of its record; both -1 if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
}

const NOTHING: Found = Found { offset: -1, timestamp: -1 };

impl Log {
    /// Finds an offset. `decompressed_bytes_max` as when the batches were taken.
    pub(crate) fn find(
        &self,
        lookup: Lookup,
        isolation: Isolation,
        decompressed_bytes_max: usize,
    ) -> Result<Found, Refusal> {
        let end = self.end_for(isolation);
        let record = match lookup {
            Lookup::Earliest => return Ok(Found { offset: self.start(), timestamp: -1 }),
            Lookup::Latest => return Ok(Found { offset: end, timestamp: -1 }),
            Lookup::MaxTimestamp => {
                let largest = self.batches.iter().map(Batch::max_timestamp).max();
                let Some(largest) = largest else { return Ok(NOTHING) };
                self.first_at(largest, decompressed_bytes_max)?
            }
            Lookup::Time(time) => self.first_at(time, decompressed_bytes_max)?,
        };
        Ok(record.filter(|found| found.offset < end).unwrap_or(NOTHING))
    }

    fn first_at(&self, time: i64, decompressed_bytes_max: usize) -> Result<Option<Found>, Refusal> {
        for batch in self.batches.iter().filter(|batch| batch.max_timestamp() >= time) {
            let records = records::decompress(batch, decompressed_bytes_max)?;
            for record in records::iter(batch, &records) {
                let record = record?;
                if record.timestamp >= time && record.offset >= self.start() {
                    let (offset, timestamp) = (record.offset, record.timestamp);
                    return Ok(Some(Found { offset, timestamp }));
                }
            }
        }
        Ok(None)
    }
}
