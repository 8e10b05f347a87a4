//! A partition of the simulated log: records and markers, open transactions, compaction.

use std::collections::BTreeMap;

use sidestream_core::{
    record::{Offset, Timestamp},
    topology::Start,
};

/// A record as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogRecord {
    pub(crate) timestamp: Timestamp,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<LogHeader>,
}

/// A header: its name and value.
pub(crate) type LogHeader = (Vec<u8>, Option<Vec<u8>>);

/// What has become of an entry's transaction, as far as its markers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Open,
    Committed,
    Aborted,
}

/// An entry; its offset is its place.
#[derive(Clone, Debug)]
pub(crate) struct LogEntry {
    /// The producer id; 0 for one without transactions.
    pub(crate) producer: u64,
    pub(crate) fate: Fate,
    pub(crate) leader_epoch: i32,
    /// The record; `None` for a marker.
    pub(crate) record: Option<LogRecord>,
    /// Compaction took it away; kept here for the checks.
    pub(crate) compacted: bool,
    /// When compaction may take a delete away; set when it meets it for the first time.
    delete_horizon: Option<u64>,
}

/// A partition. Nothing is ever really deleted, so that the checks can see all of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct PartitionLog {
    pub(crate) entries: Vec<LogEntry>,
    /// The first offset that can be read.
    pub(crate) start: Offset,
    pub(crate) leader_epoch: i32,
    /// For each producer with an open transaction, its first offset.
    open: BTreeMap<u64, Offset>,
}

/// What a reader gets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slice {
    pub(crate) records: Vec<(Offset, LogRecord)>,
    pub(crate) next: Offset,
    pub(crate) leader_epoch: i32,
}

pub(crate) fn index(offset: Offset) -> usize {
    usize::try_from(offset).expect("offsets of the simulated log are not negative")
}

impl PartitionLog {
    /// The offset after the last entry.
    pub(crate) fn end(&self) -> Offset {
        Offset::try_from(self.entries.len()).expect("a simulated log is small")
    }

    /// The last stable offset: readers of committed records see nothing from here on.
    pub(crate) fn stable_end(&self) -> Offset {
        self.open.values().copied().min().unwrap_or_else(|| self.end())
    }

    /// What a start means now.
    pub(crate) fn start_of(&self, start: Start) -> Offset {
        match start {
            Start::Earliest => self.start,
            Start::Latest => self.stable_end(),
            Start::At(time) => {
                let mut history = self.history();
                let found = history.find(|(_, record)| record.timestamp >= time);
                found.map_or_else(|| self.stable_end(), |(offset, _)| offset)
            }
        }
    }

    /// Appends a record; `producer` is 0 outside of transactions.
    pub(crate) fn append(&mut self, producer: u64, record: LogRecord) {
        let fate = if producer == 0 {
            Fate::Committed
        } else {
            let end = self.end();
            self.open.entry(producer).or_insert(end);
            Fate::Open
        };
        self.push(producer, fate, Some(record));
    }

    /// Appends the marker that ends `producer`'s transaction here.
    pub(crate) fn mark(&mut self, producer: u64, commit: bool) {
        let fate = if commit { Fate::Committed } else { Fate::Aborted };
        if let Some(first) = self.open.remove(&producer) {
            for entry in &mut self.entries[index(first)..] {
                if entry.producer == producer && entry.fate == Fate::Open {
                    entry.fate = fate;
                }
            }
        }
        self.push(producer, fate, None);
    }

    fn push(&mut self, producer: u64, fate: Fate, record: Option<LogRecord>) {
        let leader_epoch = self.leader_epoch;
        let (compacted, delete_horizon) = (false, None);
        let entry = LogEntry { producer, fate, leader_epoch, record, compacted, delete_horizon };
        self.entries.push(entry);
    }

    /// Loses everything from an entry on.
    pub(crate) fn cut(&mut self, left: usize) {
        self.entries.truncate(left);
        let end = self.end();
        self.open.retain(|_, first| *first < end);
        self.start = self.start.min(end);
    }

    /// Reads committed records from `from` on, at most `limit`.
    pub(crate) fn read(&self, from: Offset, limit: usize) -> Slice {
        let from = from.max(self.start).min(self.end());
        let end = self.stable_end().max(from);
        let mut slice = Slice { records: Vec::new(), next: end, leader_epoch: -1 };
        for (entry, offset) in self.entries[index(from)..index(end)].iter().zip(from..) {
            let Some(record) = &entry.record else { continue };
            if entry.compacted || entry.fate != Fate::Committed {
                continue;
            }
            if slice.records.len() == limit {
                slice.next = slice.records.last().map_or(offset, |(last, _)| last + 1);
                break;
            }
            slice.records.push((offset, record.clone()));
            slice.leader_epoch = entry.leader_epoch;
        }
        slice
    }

    /// All records ever committed, with their offsets, whatever compaction and purges did.
    pub(crate) fn history(&self) -> impl Iterator<Item = (Offset, &LogRecord)> {
        self.entries
            .iter()
            .zip(0..)
            .filter(|(entry, _)| entry.fate == Fate::Committed)
            .filter_map(|(entry, offset)| Some((offset, entry.record.as_ref()?)))
    }

    /// Keeps only the last record of each key below the last stable offset, and no aborted ones.
    /// A delete goes once `retention` has passed since the compaction that took away what it
    /// deletes, as in Kafka since version 3.1 (KIP-534): who has read the value before can still
    /// read the delete for so long.
    pub(crate) fn compact(&mut self, now: u64, retention: u64) {
        let end = index(self.stable_end());
        let mut last: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for (place, entry) in self.entries[..end].iter().enumerate() {
            if let (Some(record), Fate::Committed) = (&entry.record, entry.fate) {
                last.insert(record.key.clone().unwrap_or_default(), place);
            }
        }
        for (place, entry) in self.entries[..end].iter_mut().enumerate() {
            let Some(record) = &entry.record else { continue };
            let newest = entry.fate == Fate::Committed
                && last.get(record.key.as_deref().unwrap_or_default()) == Some(&place);
            let delete = record.value.is_none();
            let expired = delete && entry.delete_horizon.is_some_and(|horizon| now > horizon);
            if delete {
                entry.delete_horizon.get_or_insert(now + retention);
            }
            entry.compacted |= !newest || expired;
        }
    }
}
