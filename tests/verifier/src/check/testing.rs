//! Hand-made data.

use crate::record::{Record, Topic};

/// A record of this key and value.
pub(super) fn record(key: &str, value: &str) -> Record {
    Record { key: Some(key.into()), value: Some(value.into()), timestamp: 1, ..Record::default() }
}

/// A topic of these partitions; records get their places.
pub(super) fn topic(name: &str, mut partitions: Vec<Vec<Record>>) -> Topic {
    for (partition, records) in (0..).zip(&mut partitions) {
        for (offset, record) in (0..).zip(records) {
            (record.partition, record.offset) = (partition, offset);
        }
    }
    Topic { name: name.to_owned(), partitions }
}
