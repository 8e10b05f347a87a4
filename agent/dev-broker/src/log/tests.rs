use super::*;

const LIMITS: Limits = Limits {
    batch_bytes_max: 10_000,
    decompressed_bytes_max: 100_000,
    keys_needed: false,
    timestamp_after_ms_max: 1_000,
};

/// A record to be: its key, whether it has a value, and its time.
#[derive(Clone, Copy)]
struct Row {
    key: Option<u8>,
    value: bool,
    timestamp: i8,
}

const fn row(key: u8, timestamp: i8) -> Row {
    Row { key: Some(key), value: true, timestamp }
}

/// Who writes, in a transaction or not, and the number of the first record.
#[derive(Clone, Copy)]
struct By {
    producer_id: i64,
    epoch: i16,
    sequence: i32,
    transactional: bool,
}

const NOBODY: By = By { producer_id: -1, epoch: -1, sequence: -1, transactional: false };

fn in_transaction(producer_id: i64, sequence: i32) -> By {
    By { producer_id, epoch: 0, sequence, transactional: true }
}

/// Encodes a batch from the format's description: all varints here fit in one byte.
fn encode(rows: &[Row], by: By) -> Vec<u8> {
    let zigzag = |number: i8| (number << 1 ^ number >> 7).cast_unsigned();
    let mut records = Vec::new();
    for (offset, row) in (0..).zip(rows) {
        let mut body = vec![0, zigzag(row.timestamp), zigzag(offset)];
        body.extend(row.key.map_or(vec![1], |key| vec![2, key]));
        body.extend(if row.value { vec![2, b'v'] } else { vec![1] });
        body.push(0);
        records.push(zigzag(i8::try_from(body.len()).unwrap()));
        records.extend(body);
    }
    let count = i32::try_from(rows.len()).unwrap();
    let attributes = if by.transactional { 1_i16 << 4 } else { 0 };
    let largest = rows.iter().map(|row| i64::from(row.timestamp)).max().unwrap_or(-1);
    let mut covered = Vec::new();
    covered.extend(attributes.to_be_bytes());
    covered.extend((count - 1).to_be_bytes());
    covered.extend(0_i64.to_be_bytes());
    covered.extend(largest.to_be_bytes());
    covered.extend(by.producer_id.to_be_bytes());
    covered.extend(by.epoch.to_be_bytes());
    covered.extend(by.sequence.to_be_bytes());
    covered.extend(count.to_be_bytes());
    covered.extend(records);
    let mut batch = 0_i64.to_be_bytes().to_vec();
    batch.extend(u32::try_from(covered.len() + 9).unwrap().to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.push(2);
    batch.extend(crc32c::crc32c(&covered).to_be_bytes());
    batch.extend(covered);
    batch
}

fn append(log: &mut Log, rows: &[Row], by: By) -> i64 {
    let batch = Batch::read(&encode(rows, by), &LIMITS, 0).unwrap();
    log.append(batch, None).unwrap().base_offset
}

fn end(log: &mut Log, producer_id: i64, outcome: Outcome) {
    log.end_transaction(Writer { producer_id, epoch: 0 }, outcome, 0);
}

fn all(from: i64, isolation: Isolation) -> Range {
    Range { from, isolation, bytes_max: usize::MAX, at_least_one: true }
}

/// The offsets and keys of the records that a reader of committed ones keeps.
fn committed(log: &Log) -> Vec<(i64, u8)> {
    let slice = log.read(&all(log.start(), Isolation::Committed));
    let mut seen = Vec::new();
    for batch in &log.batches {
        if batch.base_offset() >= log.last_stable() || batch.is_control() {
            continue;
        }
        let aborted = batch.is_transactional()
            && slice.aborted.iter().any(|aborted| {
                let own = batch.writer().is_some_and(|w| w.producer_id == aborted.producer_id);
                own && (aborted.first_offset..aborted.last_offset).contains(&batch.base_offset())
            });
        if !aborted {
            let records = records::decompress(batch, usize::MAX).unwrap();
            let records = records::iter(batch, &records).map(Result::unwrap);
            seen.extend(records.map(|record| (record.offset, record.key.unwrap()[0])));
        }
    }
    seen
}

#[test]
fn what_a_batch_says_of_itself_is_checked() {
    let check = |change: &dyn Fn(&mut Vec<u8>), limits: Limits, expected: ResponseError| {
        let mut bytes = encode(&[row(1, 5), row(2, 6)], NOBODY);
        change(&mut bytes);
        let refusal = Batch::read(&bytes, &limits, 0).unwrap_err();
        assert_eq!(refusal.code, expected, "{refusal:?}");
    };
    let seal = |bytes: &mut Vec<u8>| {
        let sum = crc32c::crc32c(&bytes[21..]).to_be_bytes();
        bytes[17..21].copy_from_slice(&sum);
    };
    check(&|bytes| bytes.truncate(40), LIMITS, ResponseError::CorruptMessage);
    check(&|bytes| bytes.truncate(70), LIMITS, ResponseError::CorruptMessage);
    check(&|bytes| bytes.extend([0; 4]), LIMITS, ResponseError::InvalidRecord);
    check(&|bytes| bytes[16] = 1, LIMITS, ResponseError::UnsupportedForMessageFormat);
    check(&|bytes| bytes[65] ^= 1, LIMITS, ResponseError::CorruptMessage);
    let small = Limits { batch_bytes_max: 70, ..LIMITS };
    check(&|_| {}, small, ResponseError::MessageTooLarge);
    let strict = Limits { timestamp_after_ms_max: 5, ..LIMITS };
    check(&|_| {}, strict, ResponseError::InvalidTimestamp);
    let resealed = |at: usize, byte: u8| {
        move |bytes: &mut Vec<u8>| {
            bytes[at] = byte;
            seal(bytes);
        }
    };
    // Markers; a count that is not so; an offset twice; a codec that there isn't; not a gzip.
    check(&resealed(22, 1 << 5), LIMITS, ResponseError::InvalidRecord);
    check(&resealed(60, 3), LIMITS, ResponseError::CorruptMessage);
    check(&resealed(26, 4), LIMITS, ResponseError::InvalidRecord);
    check(&resealed(73, 0), LIMITS, ResponseError::CorruptMessage);
    check(&resealed(22, 7), LIMITS, ResponseError::UnsupportedCompressionType);
    check(&resealed(22, 1), LIMITS, ResponseError::CorruptMessage);
    let keyed = Limits { keys_needed: true, ..LIMITS };
    let without = encode(&[Row { key: None, ..row(0, 0) }], NOBODY);
    let refusal = Batch::read(&without, &keyed, 0).unwrap_err();
    assert_eq!(refusal.code, ResponseError::InvalidRecord);
}

#[test]
fn what_grows_too_much_when_decompressed_is_refused() {
    let plain = encode(&[row(1, 5); 60], NOBODY);
    let batch = Batch::read(&plain, &LIMITS, 0).unwrap();
    assert!(records::decompress(&batch, 10_000).is_ok());
    let squeezed = zstd::stream::encode_all(&plain[batch::HEADER_BYTES..], 3).unwrap();
    let mut bytes = plain[..batch::HEADER_BYTES].to_vec();
    bytes.extend(squeezed);
    let length = u32::try_from(bytes.len() - 12).unwrap().to_be_bytes();
    bytes[8..12].copy_from_slice(&length);
    bytes[22] = 4;
    let sum = crc32c::crc32c(&bytes[21..]).to_be_bytes();
    bytes[17..21].copy_from_slice(&sum);
    Batch::read(&bytes, &LIMITS, 0).unwrap();
    let tight = Limits { decompressed_bytes_max: 200, ..LIMITS };
    let refusal = Batch::read(&bytes, &tight, 0).unwrap_err();
    assert_eq!(refusal.code, ResponseError::MessageTooLarge);
}

#[test]
fn a_batch_keeps_its_bytes_and_gets_its_offset() {
    let mut log = Log::default();
    assert_eq!(append(&mut log, &[row(1, 5), row(2, 6)], NOBODY), 0);
    assert_eq!(append(&mut log, &[row(3, 7)], NOBODY), 2);
    let second = log.read(&all(2, Isolation::All)).records;
    let sent = encode(&[row(3, 7)], NOBODY);
    assert_eq!((&second[..8], &second[16..]), (&2_i64.to_be_bytes()[..], &sent[16..]));
    // Asked for the middle of a batch, all of it comes.
    assert_eq!(log.read(&all(1, Isolation::All)).records.len(), log.bytes());
    assert_eq!((log.start(), log.end(), log.last_stable()), (0, 3, 3));
}

#[test]
fn the_first_open_transaction_holds_the_stable_end_back() {
    let mut log = Log::default();
    append(&mut log, &[row(1, 0)], NOBODY);
    append(&mut log, &[row(2, 0)], in_transaction(7, 0));
    append(&mut log, &[row(3, 0)], in_transaction(8, 0));
    append(&mut log, &[row(4, 0)], NOBODY);
    assert_eq!((log.last_stable(), log.end()), (1, 4));
    assert_eq!(committed(&log), [(0, 1)]);
    end(&mut log, 8, Outcome::Committed);
    assert_eq!((log.last_stable(), log.end()), (1, 5));
    end(&mut log, 7, Outcome::Aborted);
    assert_eq!((log.last_stable(), log.end()), (6, 6));
    assert_eq!(committed(&log), [(0, 1), (2, 3), (3, 4)]);
    let aborted = |from| log.read(&all(from, Isolation::Committed)).aborted.len();
    assert_eq!((aborted(0), aborted(5), aborted(6)), (1, 1, 0));
    assert!(log.read(&all(0, Isolation::All)).aborted.is_empty());
}

#[test]
fn reads_keep_to_their_bytes() {
    let mut log = Log::default();
    for _ in 0..3 {
        append(&mut log, &[row(1, 0)], NOBODY);
    }
    let size = log.bytes() / 3;
    let count = |bytes_max, at_least_one| {
        let range = Range { bytes_max, at_least_one, ..all(0, Isolation::All) };
        assert_eq!(log.available(&range), log.read(&range).records.len());
        log.read(&range).records.len() / size
    };
    assert_eq!((count(1, true), count(1, false), count(size * 2, false)), (1, 0, 2));
}

#[test]
fn offsets_are_found_by_time() {
    let mut log = Log::default();
    append(&mut log, &[row(1, 10), row(2, 30), row(3, 20)], NOBODY);
    append(&mut log, &[row(4, 40)], in_transaction(7, 0));
    let find = |log: &Log, lookup, isolation| {
        let found = log.find(lookup, isolation, 1_000).unwrap();
        (found.offset, found.timestamp)
    };
    let open = |lookup| find(&log, lookup, Isolation::All);
    assert_eq!(open(Lookup::Time(11)), (1, 30));
    assert_eq!(open(Lookup::Time(31)), (3, 40));
    assert_eq!(open(Lookup::Time(41)), (-1, -1));
    assert_eq!(open(Lookup::MaxTimestamp), (3, 40));
    assert_eq!(open(Lookup::Latest), (4, -1));
    assert_eq!(find(&log, Lookup::Time(31), Isolation::Committed), (-1, -1));
    assert_eq!(find(&log, Lookup::Latest, Isolation::Committed), (3, -1));
    log.delete_below(1).unwrap();
    assert_eq!(find(&log, Lookup::Time(0), Isolation::All), (1, 30));
    assert_eq!(find(&log, Lookup::Earliest, Isolation::All), (1, -1));
}

#[test]
fn what_is_deleted_is_out_of_range() {
    let mut log = Log::default();
    append(&mut log, &[row(1, 0), row(2, 0)], NOBODY);
    append(&mut log, &[row(3, 0)], NOBODY);
    assert_eq!(log.delete_below(1), Ok(1));
    assert_eq!(log.delete_below(0), Ok(1));
    assert_eq!(log.check(0), Err(ResponseError::OffsetOutOfRange));
    assert_eq!(log.batches.len(), 2);
    assert_eq!(log.delete_below(4), Err(ResponseError::OffsetOutOfRange));
    assert_eq!(log.delete_below(-1), Ok(3));
    assert_eq!((log.bytes(), log.check(3)), (0, Ok(())));
}

#[test]
fn only_what_is_stable_makes_room() {
    let mut log = Log::default();
    append(&mut log, &[row(1, 0)], NOBODY);
    append(&mut log, &[row(2, 0)], in_transaction(7, 0));
    append(&mut log, &[row(3, 0)], NOBODY);
    assert!(log.drop_oldest() && !log.drop_oldest());
    assert_eq!(log.start(), 1);
    end(&mut log, 7, Outcome::Aborted);
    log.retain(Some(1), None);
    assert_eq!((log.start(), log.bytes()), (4, 0));
    assert!(log.aborted.is_empty());
    for _ in 0..4 {
        append(&mut log, &[row(1, 60)], NOBODY);
    }
    let size = log.bytes() / 4;
    log.retain(Some(50), Some(size * 2));
    assert_eq!((log.start(), log.bytes()), (6, size * 2));
}

#[test]
fn compaction_leaves_the_last_of_each_key() {
    let mut log = Log::default();
    let delete = |key| Row { value: false, ..row(key, 0) };
    append(&mut log, &[row(1, 0), row(2, 0), row(3, 0)], NOBODY);
    append(&mut log, &[row(4, 0)], in_transaction(7, 0));
    append(&mut log, &[delete(2)], NOBODY);
    append(&mut log, &[row(1, 0)], in_transaction(8, 0));
    end(&mut log, 7, Outcome::Aborted);
    end(&mut log, 8, Outcome::Committed);
    append(&mut log, &[row(3, 0)], NOBODY);
    append(&mut log, &[row(5, 0)], in_transaction(9, 0));
    let (before, stable) = (committed(&log), log.last_stable());
    assert_eq!(before, [(0, 1), (1, 2), (2, 3), (4, 2), (5, 1), (8, 3)]);
    let how = Compaction { deletes_until_ms: 0, decompressed_bytes_max: 1_000 };
    log.compact(&how).unwrap();
    assert_eq!(committed(&log), [(4, 2), (5, 1), (8, 3)]);
    assert_eq!((log.start(), log.last_stable(), log.end()), (0, stable, 10));
    assert!(log.aborted.is_empty());
    let held: usize = log.batches.iter().map(|batch| batch.bytes().len()).sum();
    assert_eq!(log.bytes(), held);
    // Deletes go too when they are old enough; the last stable batch always stays.
    end(&mut log, 9, Outcome::Committed);
    log.compact(&Compaction { deletes_until_ms: 1, ..how }).unwrap();
    assert_eq!(committed(&log), [(5, 1), (8, 3), (9, 5)]);
    log.compact(&how).unwrap();
    assert_eq!(log.batches.back().map(Batch::last_offset), Some(10));
}

#[test]
fn a_compacted_batch_is_still_a_batch() {
    let mut log = Log::default();
    append(&mut log, &[row(1, 1), row(2, 2), row(1, 3)], NOBODY);
    append(&mut log, &[row(9, 0)], NOBODY);
    let how = Compaction { deletes_until_ms: 0, decompressed_bytes_max: 1_000 };
    log.compact(&how).unwrap();
    let bytes = log.batches[0].bytes();
    assert_eq!(crc32c::crc32c(&bytes[21..]).to_be_bytes(), bytes[17..21]);
    assert_eq!((log.batches[0].base_offset(), log.batches[0].last_offset()), (0, 2));
    assert_eq!(log.batches[0].record_count(), 2);
    assert_eq!(committed(&log), [(1, 2), (2, 1), (3, 9)]);
}
