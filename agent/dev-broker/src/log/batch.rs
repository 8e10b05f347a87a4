//! Record batches of format 2, kept encoded as they came: the header read in place, the offset
//! written into it, markers made.
//!
//! The format: <https://kafka.apache.org/documentation/#recordbatch>.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;

use super::{
    super::refusal::Refusal,
    records::{self, Limits, Summary},
};

/// Bytes before the first record.
pub(super) const HEADER_BYTES: usize = 61;

/// Where the fields of the header are. What stands before `ATTRIBUTES` is not covered by the
/// checksum, so that a broker can write it.
mod field {
    pub(super) const BASE_OFFSET: usize = 0;
    pub(super) const LENGTH: usize = 8;
    pub(super) const LEADER_EPOCH: usize = 12;
    pub(super) const MAGIC: usize = 16;
    pub(super) const CRC: usize = 17;
    pub(super) const ATTRIBUTES: usize = 21;
    pub(super) const LAST_OFFSET_DELTA: usize = 23;
    pub(super) const BASE_TIMESTAMP: usize = 27;
    pub(super) const MAX_TIMESTAMP: usize = 35;
    pub(super) const PRODUCER_ID: usize = 43;
    pub(super) const PRODUCER_EPOCH: usize = 51;
    pub(super) const BASE_SEQUENCE: usize = 53;
    pub(super) const RECORD_COUNT: usize = 57;
}

mod attribute {
    pub(super) const COMPRESSION: i16 = 0b111;
    pub(super) const LOG_APPEND_TIME: i16 = 1 << 3;
    pub(super) const TRANSACTIONAL: i16 = 1 << 4;
    pub(super) const CONTROL: i16 = 1 << 5;
}

/// Who wrote a batch, when it is idempotent or transactional.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Writer {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Committed,
    Aborted,
}

/// A batch of a log, or on its way there.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    bytes: Bytes,
    /// When it was appended.
    pub(crate) appended_ms: i64,
}

impl Batch {
    /// Takes what a client sent: one whole batch that keeps what its header says.
    pub(crate) fn read(bytes: &[u8], limits: &Limits, now_ms: i64) -> Result<Self, Refusal> {
        let corrupt = |why: &str| Refusal::new(ResponseError::CorruptMessage, why);
        if bytes.len() < HEADER_BYTES {
            return Err(corrupt("a record batch is shorter than its header"));
        }
        let batch = Self { bytes: Bytes::copy_from_slice(bytes), appended_ms: now_ms };
        if batch.bytes[field::MAGIC] != 2 {
            let why = "only record batches of format 2 are taken";
            return Err(Refusal::new(ResponseError::UnsupportedForMessageFormat, why));
        }
        let length = usize::try_from(batch.int(field::LENGTH)).unwrap_or(0) + field::LEADER_EPOCH;
        if length < bytes.len() {
            let why = "a produce request carries exactly one record batch for a partition";
            return Err(Refusal::new(ResponseError::InvalidRecord, why));
        }
        if length > bytes.len() {
            return Err(corrupt("a record batch is shorter than it says"));
        }
        let sum = crc32c::crc32c(&bytes[field::ATTRIBUTES..]).to_be_bytes();
        if sum != bytes[field::CRC..field::ATTRIBUTES] {
            return Err(corrupt("a record batch has another checksum than it says"));
        }
        if bytes.len() > limits.batch_bytes_max {
            let (bytes, max) = (bytes.len(), limits.batch_bytes_max);
            let why = format!("a record batch of {bytes} bytes is above max.message.bytes={max}");
            return Err(Refusal::new(ResponseError::MessageTooLarge, why));
        }
        if batch.is_control() {
            let why = "a client can't write markers";
            return Err(Refusal::new(ResponseError::InvalidRecord, why));
        }
        batch.check_records(limits, now_ms)?;
        Ok(batch)
    }

    fn check_records(&self, limits: &Limits, now_ms: i64) -> Result<(), Refusal> {
        let summary = self.summary(limits)?;
        let invalid = |why: String| Refusal::new(ResponseError::InvalidRecord, why);
        let said = i64::from(self.last_offset_delta()) + 1;
        if summary.count == 0 || i64::from(summary.count) != said {
            return Err(invalid(format!("a batch of {} records says {said}", summary.count)));
        }
        if limits.keys_needed && summary.without_key > 0 {
            return Err(invalid("a compacted topic takes no record without a key".to_owned()));
        }
        if self.writer().is_some() && self.base_sequence() < 0 {
            return Err(invalid("an idempotent batch carries no sequence number".to_owned()));
        }
        if summary.max_timestamp > now_ms.saturating_add(limits.timestamp_after_ms_max) {
            let why = format!(
                "timestamp {} is more than message.timestamp.after.max.ms={} ahead of the broker",
                summary.max_timestamp, limits.timestamp_after_ms_max
            );
            return Err(Refusal::new(ResponseError::InvalidTimestamp, why));
        }
        Ok(())
    }

    fn summary(&self, limits: &Limits) -> Result<Summary, Refusal> {
        let records = records::decompress(self, limits.decompressed_bytes_max)?;
        records::summary(self, &records)
    }

    /// The marker that ends a transaction: a record of its own, with an offset of its own.
    pub(crate) fn marker(writer: Writer, outcome: Outcome, now_ms: i64) -> Self {
        // Length, attributes, deltas of time and offset, then key and value with their lengths,
        // and no headers. All numbers but those in key and value are zigzag varints of one byte.
        let kind = u8::from(outcome == Outcome::Committed);
        let record = [32, 0, 0, 0, 8, 0, 0, 0, kind, 12, 0, 0, 0, 0, 0, 0, 0];
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + record.len());
        bytes.put_i64(0);
        bytes
            .put_i32(i32::try_from(HEADER_BYTES + record.len() - field::LEADER_EPOCH).unwrap_or(0));
        bytes.put_i32(0);
        bytes.put_u8(2);
        bytes.put_u32(0);
        bytes.put_i16(attribute::TRANSACTIONAL | attribute::CONTROL);
        bytes.put_i32(0);
        bytes.put_i64(now_ms);
        bytes.put_i64(now_ms);
        bytes.put_i64(writer.producer_id);
        bytes.put_i16(writer.epoch);
        bytes.put_i32(-1);
        bytes.put_i32(1);
        bytes.put_slice(&record);
        write_checksum(&mut bytes);
        Self { bytes: bytes.freeze(), appended_ms: now_ms }
    }

    /// The same batch at this offset, and with the broker's time in place of the producer's if
    /// one is given.
    pub(super) fn placed(self, offset: i64, append_time_ms: Option<i64>) -> Self {
        let mut bytes = BytesMut::from(self.bytes);
        bytes[field::BASE_OFFSET..field::LENGTH].copy_from_slice(&offset.to_be_bytes());
        bytes[field::LEADER_EPOCH..field::MAGIC].copy_from_slice(&0_i32.to_be_bytes());
        if let Some(time) = append_time_ms {
            let attributes = attributes_of(&bytes) | attribute::LOG_APPEND_TIME;
            bytes[field::ATTRIBUTES..field::LAST_OFFSET_DELTA]
                .copy_from_slice(&attributes.to_be_bytes());
            bytes[field::MAX_TIMESTAMP..field::PRODUCER_ID].copy_from_slice(&time.to_be_bytes());
            write_checksum(&mut bytes);
        }
        Self { bytes: bytes.freeze(), appended_ms: self.appended_ms }
    }

    /// The same batch with only these of its records, which are not compressed any more. It
    /// spans the same offsets.
    pub(super) fn with_records(&self, count: i32, records: &[u8]) -> Self {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + records.len());
        bytes.put_slice(&self.bytes[..HEADER_BYTES]);
        bytes.put_slice(records);
        let length = i32::try_from(bytes.len() - field::LEADER_EPOCH).unwrap_or(i32::MAX);
        bytes[field::LENGTH..field::LEADER_EPOCH].copy_from_slice(&length.to_be_bytes());
        let attributes = attributes_of(&bytes) & !attribute::COMPRESSION;
        bytes[field::ATTRIBUTES..field::LAST_OFFSET_DELTA]
            .copy_from_slice(&attributes.to_be_bytes());
        bytes[field::RECORD_COUNT..HEADER_BYTES].copy_from_slice(&count.to_be_bytes());
        write_checksum(&mut bytes);
        Self { bytes: bytes.freeze(), appended_ms: self.appended_ms }
    }

    /// As it goes over the wire.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn base_offset(&self) -> i64 {
        self.long(field::BASE_OFFSET)
    }

    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset() + i64::from(self.last_offset_delta())
    }

    pub(super) fn last_offset_delta(&self) -> i32 {
        self.int(field::LAST_OFFSET_DELTA)
    }

    pub(super) fn base_timestamp(&self) -> i64 {
        self.long(field::BASE_TIMESTAMP)
    }

    pub(super) fn max_timestamp(&self) -> i64 {
        self.long(field::MAX_TIMESTAMP)
    }

    pub(super) fn record_count(&self) -> i32 {
        self.int(field::RECORD_COUNT)
    }

    pub(super) fn base_sequence(&self) -> i32 {
        self.int(field::BASE_SEQUENCE)
    }

    /// The producer, if it counts its batches.
    pub(crate) fn writer(&self) -> Option<Writer> {
        let producer_id = self.long(field::PRODUCER_ID);
        let epoch = self.short(field::PRODUCER_EPOCH);
        (producer_id >= 0).then_some(Writer { producer_id, epoch })
    }

    /// Which codec its records are compressed with; 0 for none.
    pub(super) fn compression(&self) -> i16 {
        self.attributes() & attribute::COMPRESSION
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes() & attribute::TRANSACTIONAL != 0
    }

    pub(super) fn is_control(&self) -> bool {
        self.attributes() & attribute::CONTROL != 0
    }

    /// Whether all its records have the time of its append.
    pub(super) fn has_append_time(&self) -> bool {
        self.attributes() & attribute::LOG_APPEND_TIME != 0
    }

    fn attributes(&self) -> i16 {
        attributes_of(&self.bytes)
    }

    fn short(&self, at: usize) -> i16 {
        i16::from_be_bytes(array(&self.bytes, at))
    }

    fn int(&self, at: usize) -> i32 {
        i32::from_be_bytes(array(&self.bytes, at))
    }

    fn long(&self, at: usize) -> i64 {
        i64::from_be_bytes(array(&self.bytes, at))
    }
}

fn attributes_of(bytes: &[u8]) -> i16 {
    i16::from_be_bytes(array(bytes, field::ATTRIBUTES))
}

fn write_checksum(bytes: &mut BytesMut) {
    let sum = crc32c::crc32c(&bytes[field::ATTRIBUTES..]).to_be_bytes();
    bytes[field::CRC..field::ATTRIBUTES].copy_from_slice(&sum);
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}
