//! Records for the cases.

use sidestream_core::{
    column::Column,
    record::{Changes, Outputs, Records, TopicIndex, TopicPartition},
};

/// A record, as the cases write it.
pub(super) type Row<'a> = (Option<&'a str>, Option<&'a str>);

/// Rows for one partition, with timestamps from 1,000 on.
pub(super) fn outputs(partition: TopicPartition, rows: &[Row<'_>]) -> Outputs {
    let mut outputs = Outputs::default();
    for (row, timestamp) in rows.iter().zip(1_000..) {
        push(&mut outputs, partition.topic, partition.partition, timestamp, *row);
    }
    outputs
}

/// Appends a row without headers.
pub(super) fn push(
    outputs: &mut Outputs,
    topic: TopicIndex,
    partition: i32,
    timestamp: i64,
    (key, value): Row<'_>,
) {
    outputs.topics.push(topic);
    outputs.partitions.push(partition);
    outputs.timestamps.push(timestamp);
    outputs.keys.push(key.map(str::as_bytes));
    outputs.values.push(value.map(str::as_bytes));
}

/// Changes of a store.
pub(super) fn changes(rows: &[(&str, Option<&str>)]) -> Changes {
    Changes {
        keys: rows.iter().map(|(key, _)| Some(key.as_bytes())).collect(),
        values: rows.iter().map(|(_, value)| value.map(str::as_bytes)).collect(),
    }
}

/// The rows of a column, readable.
pub(super) fn texts(column: &Column) -> Vec<Option<String>> {
    column.iter().map(|row| row.map(|bytes| String::from_utf8_lossy(bytes).into_owned())).collect()
}

/// The values of records, readable.
pub(super) fn values(records: &Records) -> Vec<String> {
    texts(&records.values).into_iter().map(|value| value.unwrap_or_else(|| "null".into())).collect()
}
