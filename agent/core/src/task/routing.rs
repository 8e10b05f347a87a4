//! Where emitted records go: to topics, or to other transforms of the same task.

use indexmap::IndexMap;

use crate::{
    record::{
        Batch, Emits, HEADERS_OF_CAUSE, Header, Headers, NO_CAUSE, Outputs, PARTITION_BY_KEY,
        Records, TIMESTAMP_OF_CAUSE, Timestamp, TimestampType, TopicIndex,
    },
    task::{Failure, FailureKind},
    topology::{Reader, Route, Subtopology, Topology, Transform},
};

/// The records that one transform is to process in one call.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) batch: Batch,
    /// For each record, the row of the task's batch that it stems from, or [`NO_CAUSE`].
    pub(super) roots: Vec<i32>,
}

impl Inbox {
    fn push(&mut self, input: u32, root: i32, record: &Row<'_>) {
        let records = &mut self.batch.records;
        self.batch.inputs.push(input);
        self.roots.push(root);
        records.headers.push(records.offsets.len(), record.headers.iter().copied());
        records.offsets.push(record.offset);
        records.timestamps.push(record.timestamp);
        records.timestamp_types.push(record.timestamp_type);
        records.keys.push(record.key);
        records.values.push(record.value);
    }

    /// Puts the records in the order of the rows they stem from, so that what one input record
    /// causes is processed before what the next one causes.
    pub(super) fn sort(&mut self) {
        if self.roots.is_sorted() {
            return;
        }
        let mut order: Vec<usize> = (0..self.roots.len()).collect();
        order.sort_by_key(|&row| self.roots[row]);
        let mut sorted = Self::default();
        let rows = Rows::of(&self.batch.records);
        for row in order {
            sorted.push(self.batch.inputs[row], self.roots[row], &rows.at(row));
        }
        sorted.batch.partition = self.batch.partition;
        sorted.batch.stream_time = self.batch.stream_time;
        sorted.batch.wall_clock = self.batch.wall_clock;
        *self = sorted;
    }
}

/// Gives the records of a task's batch to the transforms that read them.
pub(super) fn distribute(subtopology: &Subtopology, batch: Batch, inboxes: &mut [Inbox]) {
    if let Some(transform) = only_reader(subtopology) {
        let rows = i32::try_from(batch.inputs.len()).expect("a batch is bounded");
        inboxes[transform] = Inbox { batch, roots: (0..rows).collect() };
        return;
    }
    let rows = Rows::of(&batch.records);
    for (row, (root, &input)) in (0i32..).zip(&batch.inputs).enumerate() {
        let input = usize::try_from(input).expect("an index fits");
        for reader in &subtopology.inputs[input].readers {
            inboxes[reader.transform].push(reader.input, root, &rows.at(row));
        }
    }
}

/// The transform that reads every input in the order of the sub-topology, and is alone in that.
fn only_reader(subtopology: &Subtopology) -> Option<usize> {
    let first = subtopology.inputs.first()?.readers.first()?.transform;
    let alone = subtopology.inputs.iter().zip(0u32..).all(|(input, index)| {
        input.readers.as_slice() == [Reader { transform: first, input: index }]
    });
    alone.then_some(first)
}

/// Records of which a topic gets only the last one for each key and transaction.
pub(super) type Latest = IndexMap<(TopicIndex, i32, Vec<u8>), LatestRow>;

/// The last record for a key.
#[derive(Debug)]
pub(super) struct LatestRow {
    timestamp: Timestamp,
    value: Option<Vec<u8>>,
    headers: Headers,
}

impl LatestRow {
    /// How many bytes it holds, its key not counted.
    pub(super) fn bytes(&self) -> usize {
        self.value.as_ref().map_or(0, Vec::len) + self.headers.bytes()
    }
}

/// Moves the records held back for their keys to `outputs`.
pub(super) fn append_latest(latest: &Latest, outputs: &mut Outputs) {
    for ((topic, partition, key), row) in latest {
        let headers = row.headers.names.iter().zip(&row.headers.values);
        outputs.headers.push(outputs.topics.len(), headers);
        outputs.topics.push(*topic);
        outputs.partitions.push(*partition);
        outputs.timestamps.push(row.timestamp);
        outputs.keys.push(Some(key));
        outputs.values.push(row.value.as_deref());
    }
}

/// Where routed records go.
pub(super) struct Destinations<'a> {
    pub(super) topology: &'a Topology,
    pub(super) inboxes: &'a mut [Inbox],
    pub(super) outputs: &'a mut Outputs,
    pub(super) latest: &'a mut Latest,
    /// The time of records that no record caused.
    pub(super) stream_time: Timestamp,
}

impl Destinations<'_> {
    /// Routes what `transform` emitted for `cause`.
    pub(super) fn route(
        &mut self,
        transform: &Transform,
        cause: &Inbox,
        emits: Emits,
    ) -> Result<(), Failure> {
        self.check_partitions(transform, &emits)?;
        let plain = transform
            .outputs
            .iter()
            .all(|output| matches!(output.route, Route::Topic(_)) && !output.latest_per_key);
        let headers_go_through = emits.headers.is_none();
        let no_headers = cause.batch.records.headers.counts.is_empty();
        if plain && headers_go_through && no_headers && self.outputs.is_empty() {
            self.route_columns(transform, cause, emits);
        } else {
            self.route_rows(transform, cause, &emits);
        }
        Ok(())
    }

    fn check_partitions(&self, transform: &Transform, emits: &Emits) -> Result<(), Failure> {
        for (row, &partition) in emits.partitions.iter().enumerate() {
            let output = &transform.outputs[index(emits.outputs[row])];
            let Route::Topic(topic) = output.route else { continue };
            let topic = self.topology.topic(topic);
            if partition != PARTITION_BY_KEY && !(0..topic.partitions).contains(&partition) {
                return Err(Failure {
                    kind: FailureKind::Malformed,
                    record: usize::try_from(emits.causes[row]).ok(),
                    message: format!(
                        "output `{}` was given partition {partition}, but topic `{}` has {}",
                        output.name, topic.name, topic.partitions
                    ),
                });
            }
        }
        Ok(())
    }

    /// The common case: every record goes to a topic, so the columns move as they are.
    fn route_columns(&mut self, transform: &Transform, cause: &Inbox, emits: Emits) {
        let times = &cause.batch.records.timestamps;
        let topics =
            emits.outputs.iter().map(|&output| match transform.outputs[index(output)].route {
                Route::Topic(topic) => topic,
                Route::Transforms(_) => unreachable!("only topics, as seen before"),
            });
        self.outputs.topics = topics.collect();
        let stamps = emits.timestamps.iter().zip(&emits.causes);
        self.outputs.timestamps =
            stamps.map(|(&time, &cause)| self.timestamp(time, cause, times)).collect();
        self.outputs.partitions = emits.partitions;
        self.outputs.keys = emits.keys;
        self.outputs.values = emits.values;
    }

    fn timestamp(&self, time: Timestamp, cause: i32, times: &[Timestamp]) -> Timestamp {
        match usize::try_from(cause) {
            _ if time != TIMESTAMP_OF_CAUSE => time,
            Ok(row) => times[row],
            Err(_) => self.stream_time,
        }
    }

    fn route_rows(&mut self, transform: &Transform, cause: &Inbox, emits: &Emits) {
        let causes = Rows::of(&cause.batch.records);
        let own = emits.headers.as_ref().map(HeaderRows::of);
        for (row, (key, value)) in emits.keys.iter().zip(&emits.values).enumerate() {
            let cause_row = usize::try_from(emits.causes[row]).ok();
            let headers = match &own {
                Some(own) if !own.is_of_cause(row) => own.at(row),
                _ => cause_row.map_or(&[][..], |row| causes.headers.at(row)),
            };
            let record = Row {
                offset: cause_row.map_or(-1, |row| cause.batch.records.offsets[row]),
                timestamp: self.timestamp(
                    emits.timestamps[row],
                    emits.causes[row],
                    &cause.batch.records.timestamps,
                ),
                timestamp_type: TimestampType::CreateTime as u8,
                key,
                value,
                headers,
            };
            let root = cause_row.map_or(NO_CAUSE, |row| cause.roots[row]);
            let output = &transform.outputs[index(emits.outputs[row])];
            match &output.route {
                Route::Topic(topic) if output.latest_per_key && key.is_some() => {
                    self.hold_back(*topic, emits.partitions[row], &record);
                }
                Route::Topic(topic) => self.produce(*topic, emits.partitions[row], &record),
                Route::Transforms(readers) => {
                    for reader in readers {
                        self.inboxes[reader.transform].push(reader.input, root, &record);
                    }
                }
            }
        }
    }

    fn produce(&mut self, topic: TopicIndex, partition: i32, record: &Row<'_>) {
        let outputs = &mut *self.outputs;
        outputs.headers.push(outputs.topics.len(), record.headers.iter().copied());
        outputs.topics.push(topic);
        outputs.partitions.push(partition);
        outputs.timestamps.push(record.timestamp);
        outputs.keys.push(record.key);
        outputs.values.push(record.value);
    }

    fn hold_back(&mut self, topic: TopicIndex, partition: i32, record: &Row<'_>) {
        let mut headers = Headers::default();
        headers.push(0, record.headers.iter().copied());
        let row = LatestRow {
            timestamp: record.timestamp,
            value: record.value.map(<[u8]>::to_vec),
            headers,
        };
        let key = record.key.unwrap_or_default().to_vec();
        self.latest.insert((topic, partition, key), row);
    }
}

fn index(output: u32) -> usize {
    usize::try_from(output).expect("an index fits")
}

/// One record, borrowed from columns.
struct Row<'a> {
    offset: i64,
    timestamp: Timestamp,
    timestamp_type: u8,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: &'a [Header<'a>],
}

/// Records by row.
struct Rows<'a> {
    records: &'a Records,
    keys: Vec<Option<&'a [u8]>>,
    values: Vec<Option<&'a [u8]>>,
    headers: HeaderRows<'a>,
}

impl<'a> Rows<'a> {
    fn of(records: &'a Records) -> Self {
        Self {
            records,
            keys: records.keys.iter().collect(),
            values: records.values.iter().collect(),
            headers: HeaderRows::of(&records.headers),
        }
    }

    fn at(&self, row: usize) -> Row<'_> {
        Row {
            offset: self.records.offsets[row],
            timestamp: self.records.timestamps[row],
            timestamp_type: self.records.timestamp_types[row],
            key: self.keys[row],
            value: self.values[row],
            headers: self.headers.at(row),
        }
    }
}

/// Headers by row.
struct HeaderRows<'a> {
    counts: &'a [u32],
    pairs: Vec<Header<'a>>,
    starts: Vec<usize>,
}

impl<'a> HeaderRows<'a> {
    fn of(headers: &'a Headers) -> Self {
        let mut start = 0;
        let starts = headers.counts.iter().map(|&count| {
            let first = start;
            start += if count == HEADERS_OF_CAUSE { 0 } else { index(count) };
            first
        });
        Self {
            counts: &headers.counts,
            starts: starts.collect(),
            pairs: headers.names.iter().zip(&headers.values).collect(),
        }
    }

    fn is_of_cause(&self, row: usize) -> bool {
        self.counts.get(row) == Some(&HEADERS_OF_CAUSE)
    }

    fn at(&self, row: usize) -> &[Header<'a>] {
        match self.counts.get(row) {
            Some(&count) => &self.pairs[self.starts[row]..self.starts[row] + index(count)],
            None => &[],
        }
    }
}
