//! A guest made of bytes: what it asks its host for, and what it answers.

use sidestream_core::record::{HEADERS_OF_CAUSE, PARTITION_BY_KEY, Records, TIMESTAMP_OF_CAUSE};

use super::check_entries;
use crate::guest::{
    bindings::sidestream::transform::{
        state::{self as wit_state, Host as _},
        telemetry::{self as wit_telemetry, Host as _},
        types::{self as wit, BytesColumnResult, HeadersResult, Writes},
    },
    host::Host,
    telemetry::Stream,
};

/// How many rows a batch, an answer or a list of keys has at most.
const ROWS_MAX: u8 = 12;

/// Bytes that are taken for this and that, one after another; zeros once they have come to an end.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl Input<'_> {
    pub(super) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(&taken);
        array
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }

    /// Mostly a small number, from -2 on.
    fn i64(&mut self) -> i64 {
        match self.byte() {
            255 => i64::from_be_bytes(self.array()),
            254 => i64::MAX,
            253 => TIMESTAMP_OF_CAUSE,
            small => i64::from(small) - 2,
        }
    }

    fn i32(&mut self) -> i32 {
        i32::try_from(self.i64()).unwrap_or(i32::MIN)
    }

    /// Mostly an index of one of two things.
    fn index(&mut self) -> u32 {
        match self.byte() {
            255 => u32::MAX,
            index => u32::from(index / 120),
        }
    }

    /// So many of something, or, seldom, one more or less.
    fn list<T>(&mut self, rows: usize, one: impl Fn(&mut Self) -> T) -> Vec<T> {
        let rows = match self.byte() {
            255 => rows + 1,
            254 => rows.saturating_sub(1),
            _ => rows,
        };
        (0..rows).map(|_| one(self)).collect()
    }

    fn rows(&mut self) -> usize {
        usize::from(self.byte() % ROWS_MAX)
    }

    fn text(&mut self) -> String {
        let bytes = usize::from(self.byte() % 64);
        String::from_utf8_lossy(&self.bytes(bytes)).into_owned()
    }

    fn column(&mut self, rows: usize) -> BytesColumnResult {
        let (mut data, mut lengths) = (Vec::new(), Vec::<i32>::new());
        for _ in 0..rows {
            match self.byte() {
                255 => lengths.push(-1),
                254 => {
                    data.extend([0; 250]);
                    lengths.push(250);
                }
                length => {
                    let row = self.bytes(usize::from(length % 16));
                    lengths.push(row.len() as i32);
                    data.extend(row);
                }
            }
        }
        match self.byte() {
            250 => drop(data.pop()),
            251 => data.push(0),
            252 => drop(lengths.pop()),
            253 => lengths.push(self.i32()),
            254 => lengths.iter_mut().for_each(|length| *length = length.saturating_neg()),
            255 => lengths.extend([i32::MAX, i32::MAX]),
            _ => {}
        }
        BytesColumnResult { data, lengths }
    }

    /// A batch that the host made, so it is sound.
    pub(super) fn records(&mut self) -> Records {
        let mut records = Records::default();
        for row in 0..self.rows() {
            records.offsets.push(row as i64);
            records.timestamps.push(self.i64());
            records.timestamp_types.push(0);
            let (key, value, name) = (self.bytes(2), self.bytes(4), self.bytes(3));
            records.keys.push(Some(&key));
            records.values.push(Some(&value));
            let header = (Some(&name[..]), None);
            records.headers.push(row, (self.byte() % 2 == 1).then_some(header));
        }
        records
    }

    pub(super) fn setup(&mut self) -> wit::Setup {
        let rows = usize::from(self.byte() % 6);
        let schedules = self.list(rows, |input| wit::Schedule {
            clock: match input.byte() % 2 {
                0 => wit::Clock::StreamTime,
                _ => wit::Clock::WallClock,
            },
            interval_ms: input.i64() as u64,
        });
        wit::Setup { headers: self.byte() % 2 == 1, schedules }
    }

    pub(super) fn failure(&mut self) -> wit::Failure {
        let kind = match self.byte() % 2 {
            0 => wit::FailureKind::Retry,
            _ => wit::FailureKind::Reject,
        };
        wit::Failure { kind, row: self.i32(), message: self.text() }
    }

    pub(super) fn effects(&mut self) -> wit::Effects {
        wit::Effects { emits: self.emits(), writes: self.writes() }
    }

    fn emits(&mut self) -> wit::Emits {
        let rows = self.rows();
        wit::Emits {
            causes: self.list(rows, Self::i32),
            outputs: self.list(rows, Self::index),
            keys: self.column(rows),
            values: self.column(rows),
            headers: match self.byte() % 3 {
                0 => Some(self.headers(rows)),
                _ => None,
            },
            timestamps: self.list(rows, Self::i64),
            partitions: self.list(rows, |input| match input.byte() {
                partition @ 0..8 => i32::from(partition),
                255 => i32::MIN,
                _ => PARTITION_BY_KEY,
            }),
        }
    }

    fn headers(&mut self, rows: usize) -> HeadersResult {
        let counts = match self.byte() % 4 {
            0 => Vec::new(),
            _ => self.list(rows, |input| match input.byte() {
                255 => HEADERS_OF_CAUSE,
                254 => HEADERS_OF_CAUSE - 1,
                count => u32::from(count % 4),
            }),
        };
        let own = counts.iter().filter(|count| **count < 4).sum::<u32>();
        HeadersResult {
            counts,
            names: self.column(own as usize),
            values: self.column(own as usize),
        }
    }

    fn writes(&mut self) -> Writes {
        let rows = self.rows();
        let stores = self.list(rows, Self::index);
        Writes { stores, keys: self.column(rows), values: self.column(rows) }
    }

    fn key(&mut self) -> Vec<u8> {
        let bytes = usize::from(self.byte() % 4);
        self.bytes(bytes)
    }

    fn bound(&mut self) -> wit_state::KeyBound {
        match self.byte() % 3 {
            0 => wit_state::KeyBound::Unbounded,
            1 => wit_state::KeyBound::Included(self.key()),
            _ => wit_state::KeyBound::Excluded(self.key()),
        }
    }

    fn range(&mut self) -> wit_state::KeyRange {
        let (lower, upper, reverse) = (self.bound(), self.bound(), self.byte() % 2 == 1);
        wit_state::KeyRange { lower, upper, reverse, limit: self.i32() as u32 }
    }

    /// One thing that a guest can ask its host for.
    pub(super) fn call(&mut self, host: &mut Host) -> wasmtime::Result<()> {
        let call = self.byte() % 10;
        let store = if call < 6 { self.index() } else { 0 };
        match call {
            0 => host.get(store, self.key()).map(drop),
            1 => {
                let rows = self.rows();
                let keys = self.column(rows);
                let asked = keys.lengths.len();
                let values = host.get_many(store, keys)?;
                assert_eq!(values.lengths.len(), asked);
                Ok(())
            }
            2 => {
                let value = (self.byte() >= 64).then(|| self.key());
                host.put(store, self.key(), value)
            }
            3 => host.put_many(self.writes()),
            4 => {
                let range = self.range();
                let reverse = range.reverse;
                host.scan(store, range).map(|entries| check_entries(&entries, &[], reverse))
            }
            5 => {
                let (prefix, range) = (self.key(), self.range());
                let reverse = range.reverse;
                let entries = host.scan_prefix(store, prefix.clone(), range)?;
                check_entries(&entries, &prefix, reverse);
                Ok(())
            }
            6 => host.log(wit_telemetry::Level::Warn, self.text()),
            7 => host.count(self.text(), self.i64() as u64),
            8 => host.observe(self.text(), f64::from_bits(self.i64() as u64)),
            _ => {
                let bytes = self.text().into_bytes();
                host.telemetry.print(Stream::Err, &bytes);
                Ok(())
            }
        }
    }
}
