//! What is inside a batch: records, read only as far as the broker must know them.

use std::{borrow::Cow, io::Read};

use kafka_protocol::error::ResponseError;

use super::{
    super::refusal::Refusal,
    batch::{Batch, HEADER_BYTES},
};

/// What a topic takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// `max.message.bytes`.
    pub(crate) batch_bytes_max: usize,
    /// What a batch may come to when it is not compressed any more.
    pub(crate) decompressed_bytes_max: usize,
    /// Whether every record needs a key, as in a compacted topic.
    pub(crate) keys_needed: bool,
    /// `message.timestamp.after.max.ms`.
    pub(crate) timestamp_after_ms_max: i64,
}

/// A record inside the decompressed bytes of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) offset: i64,
    pub(super) timestamp: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) has_value: bool,
    /// As encoded, its length included.
    pub(super) bytes: &'a [u8],
}

/// A batch at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) count: i32,
    pub(super) without_key: usize,
    pub(super) max_timestamp: i64,
}

/// Reads all records once.
pub(super) fn summary(batch: &Batch, records: &[u8]) -> Result<Summary, Refusal> {
    let mut summary = Summary { count: 0, without_key: 0, max_timestamp: -1 };
    for record in iter(batch, records) {
        let record = record?;
        let expected = batch.base_offset().checked_add(i64::from(summary.count));
        if Some(record.offset) != expected {
            return Err(corrupt("records of a batch are not numbered one by one"));
        }
        summary.count += 1;
        summary.without_key += usize::from(record.key.is_none());
        summary.max_timestamp = summary.max_timestamp.max(record.timestamp);
    }
    if summary.count != batch.record_count() {
        return Err(corrupt("a batch has another number of records than it says"));
    }
    Ok(summary)
}

/// The records of a batch, as encoded, decompressed if they were compressed. More than
/// `bytes_max` are refused, so that a small request can't fill the memory.
pub(super) fn decompress(batch: &Batch, bytes_max: usize) -> Result<Cow<'_, [u8]>, Refusal> {
    let compressed = &batch.bytes()[HEADER_BYTES..];
    let failed =
        |error: std::io::Error| corrupt(&format!("records can't be decompressed: {error}"));
    match batch.compression() {
        0 => Ok(Cow::Borrowed(compressed)),
        1 => read(flate2::read::GzDecoder::new(compressed), bytes_max),
        2 => snappy(compressed, bytes_max),
        3 => read(lz4::Decoder::new(compressed).map_err(failed)?, bytes_max),
        4 => read(zstd::stream::read::Decoder::new(compressed).map_err(failed)?, bytes_max),
        other => {
            let why = format!("there is no compression {other}");
            Err(Refusal::new(ResponseError::UnsupportedCompressionType, why))
        }
    }
}

fn read<'a>(from: impl Read, bytes_max: usize) -> Result<Cow<'a, [u8]>, Refusal> {
    let mut to = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    from.take(limit)
        .read_to_end(&mut to)
        .map_err(|error| corrupt(&format!("records can't be decompressed: {error}")))?;
    if to.len() > bytes_max { Err(too_large(bytes_max)) } else { Ok(Cow::Owned(to)) }
}

/// What the Java client's snappy puts before its blocks: a magic number and two versions.
const SNAPPY_MAGIC: &[u8] = b"\x82SNAPPY\0";
const SNAPPY_HEADER_BYTES: usize = 16;

/// Either one plain block, as librdkafka sends it, or the Java client's blocks with their lengths.
fn snappy<'a>(compressed: &[u8], bytes_max: usize) -> Result<Cow<'a, [u8]>, Refusal> {
    let mut to = Vec::new();
    let Some(mut blocks) = compressed
        .starts_with(SNAPPY_MAGIC)
        .then(|| compressed.get(SNAPPY_HEADER_BYTES..))
        .flatten()
    else {
        snappy_block(compressed, bytes_max, &mut to)?;
        return Ok(Cow::Owned(to));
    };
    while let Some((length, rest)) = blocks.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let block = rest.get(..length).ok_or_else(|| corrupt("a block of snappy is cut off"))?;
        snappy_block(block, bytes_max, &mut to)?;
        blocks = &rest[length..];
    }
    Ok(Cow::Owned(to))
}

fn snappy_block(block: &[u8], bytes_max: usize, to: &mut Vec<u8>) -> Result<(), Refusal> {
    let failed = |error: snap::Error| corrupt(&format!("records can't be decompressed: {error}"));
    let length = snap::raw::decompress_len(block).map_err(failed)?;
    if to.len() + length > bytes_max {
        return Err(too_large(bytes_max));
    }
    to.extend(snap::raw::Decoder::new().decompress_vec(block).map_err(failed)?);
    Ok(())
}

/// Reads records one after another; what can't be read ends it with an error.
pub(super) fn iter<'a>(
    batch: &Batch,
    records: &'a [u8],
) -> impl Iterator<Item = Result<Record<'a>, Refusal>> + use<'a> {
    let base = Base {
        offset: batch.base_offset(),
        timestamp: batch.base_timestamp(),
        append_time: batch.has_append_time().then(|| batch.max_timestamp()),
    };
    let mut rest = records;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let read = base.read(&mut rest);
        if read.is_none() {
            rest = &[];
        }
        Some(read.ok_or_else(|| corrupt("a record can't be read")))
    })
}

struct Base {
    offset: i64,
    timestamp: i64,
    append_time: Option<i64>,
}

impl Base {
    fn read<'a>(&self, rest: &mut &'a [u8]) -> Option<Record<'a>> {
        let whole = *rest;
        let length = usize::try_from(varint(rest)?).ok()?;
        let mut body = rest.get(..length)?;
        *rest = &rest[length..];
        let bytes = &whole[..whole.len() - rest.len()];
        body = body.get(1..)?;
        let timestamp = self.timestamp.checked_add(varint(&mut body)?)?;
        let offset = self.offset.checked_add(varint(&mut body)?)?;
        let key = sized(&mut body)?;
        let has_value = sized(&mut body)?.is_some();
        let headers = usize::try_from(varint(&mut body)?).ok()?;
        for _ in 0..headers {
            sized(&mut body)??;
            sized(&mut body)?;
        }
        let timestamp = self.append_time.unwrap_or(timestamp);
        body.is_empty().then_some(Record { offset, timestamp, key, has_value, bytes })
    }
}

/// Bytes behind their length; a length of -1 stands for none.
fn sized<'a>(from: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint(from)?;
    if length == -1 {
        return Some(None);
    }
    let (bytes, rest) = from.split_at_checked(usize::try_from(length).ok()?)?;
    *from = rest;
    Some(Some(bytes))
}

/// A number in zigzag encoding, seven bits to the byte.
fn varint(from: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

fn corrupt(why: &str) -> Refusal {
    Refusal::new(ResponseError::CorruptMessage, why)
}

fn too_large(bytes_max: usize) -> Refusal {
    let why = format!("a record batch comes to more than {bytes_max} bytes when decompressed");
    Refusal::new(ResponseError::MessageTooLarge, why)
}
