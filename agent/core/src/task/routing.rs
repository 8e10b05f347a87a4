//! Where emitted records go: to topics, or to other transforms of the same task.

use std::ops::Range;

use indexmap::IndexMap;

use crate::{
    partitioner,
    record::{
        Batch, Emits, HEADERS_OF_CAUSE, Header, Headers, NO_CAUSE, Offset, Origin,
        PARTITION_BY_KEY, Records, TIMESTAMP_OF_CAUSE, Timestamp, TimestampType, TopicIndex,
        time_told_by,
    },
    task::{Doer, Failure, FailureKind, Produced, RecordId, time::DueCall},
    topology::{Reader, Route, Subtopology, Topology, Transform},
};

/// The records that one transform is to process in one call.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) batch: Batch,
    /// For each record, the row of the task's batch that it stems from, or [`NO_CAUSE`].
    pub(super) roots: Vec<i32>,
    /// For each record, how many before it stem from the same row; once it is sorted.
    pub(super) siblings: Vec<u32>,
}

impl Inbox {
    pub(super) fn len(&self) -> usize {
        self.roots.len()
    }

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
        if !self.roots.is_sorted() {
            self.sort_rows();
        }
        self.siblings.clear();
        for (row, root) in self.roots.iter().enumerate() {
            let first = row == 0 || self.roots[row - 1] != *root;
            self.siblings.push(if first { 0 } else { self.siblings[row - 1] + 1 });
        }
    }

    /// Notes what its first record stems from, once it is sorted.
    pub(super) fn trace(&mut self, roots: &Roots) {
        let Some(&sibling) = self.siblings.first() else { return };
        let (input, offset) = roots.of(self, 0).unwrap_or_default();
        self.batch.origin = Origin { punctuation: roots.punctuation, input, offset, sibling };
    }

    fn sort_rows(&mut self) {
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

    /// Some of the records, as a batch of their own.
    pub(super) fn part(&self, part: &Range<usize>, roots: &Roots) -> Self {
        let mut inbox = Self::default();
        let rows = Rows::of(&self.batch.records);
        for row in part.clone() {
            inbox.push(self.batch.inputs[row], self.roots[row], &rows.at(row));
        }
        inbox.siblings.extend_from_slice(&self.siblings[part.clone()]);
        inbox.batch.partition = self.batch.partition;
        inbox.batch.wall_clock = self.batch.wall_clock;
        inbox.batch.stream_time = match part.start {
            0 => self.batch.stream_time,
            first => roots.stream_time_before(self.roots[first]),
        };
        inbox.trace(roots);
        inbox
    }
}

/// What is known of the records that all others of a round stem from.
#[derive(Debug, Default)]
pub(super) struct Roots {
    stream_time: Timestamp,
    punctuation: Option<(usize, u32, Timestamp)>,
    inputs: Vec<u32>,
    offsets: Vec<Offset>,
    timestamps: Vec<Timestamp>,
}

impl Roots {
    pub(super) fn of_batch(batch: &Batch) -> Self {
        Self {
            stream_time: batch.stream_time,
            punctuation: None,
            inputs: batch.inputs.clone(),
            offsets: batch.records.offsets.clone(),
            timestamps: batch.records.timestamps.clone(),
        }
    }

    /// Those of a punctuation at `stream_time`: there are none.
    pub(super) fn none(stream_time: Timestamp, due: &DueCall) -> Self {
        let punctuation = Some((due.transform, due.index, due.time));
        Self { stream_time, punctuation, ..Self::default() }
    }

    /// Whether a punctuation is what everything stems from.
    pub(super) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    fn stream_time_before(&self, root: i32) -> Timestamp {
        let before = usize::try_from(root).unwrap_or(0);
        let times = self.timestamps[..before].iter().map(|&time| time_told_by(time));
        times.fold(self.stream_time, Timestamp::max)
    }

    /// The input record that a row of `inbox` stems from: its input and offset.
    pub(super) fn of(&self, inbox: &Inbox, row: usize) -> Option<(usize, Offset)> {
        let root = usize::try_from(inbox.roots[row]).ok()?;
        Some((index(self.inputs[root]), self.offsets[root]))
    }

    /// What identifies a row of `inbox` when it is processed again; nothing if a punctuation
    /// caused it.
    pub(super) fn id(&self, transform: usize, inbox: &Inbox, row: usize) -> Option<RecordId> {
        let (input, offset) = self.of(inbox, row)?;
        Some(RecordId {
            transform: u16::try_from(transform).expect("few transforms"),
            input: u16::try_from(input).expect("few inputs"),
            sibling: inbox.siblings[row],
            offset,
        })
    }
}

/// Gives the records of a task's batch to the transforms that read them.
pub(super) fn distribute(subtopology: &Subtopology, batch: Batch, inboxes: &mut [Inbox]) {
    if let Some(transform) = only_reader(subtopology) {
        let rows = i32::try_from(batch.inputs.len()).expect("a batch is bounded");
        inboxes[transform] = Inbox { batch, roots: (0..rows).collect(), siblings: Vec::new() };
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

/// What a record that is held back takes besides its key, value and headers.
const HELD_BACK_BYTES: usize = 256;

/// The last record for a key.
#[derive(Debug)]
pub(super) struct LatestRow {
    timestamp: Timestamp,
    value: Option<Vec<u8>>,
    headers: Headers,
    origin: Doer,
}

impl LatestRow {
    /// How many bytes it holds, its key not counted.
    pub(super) fn bytes(&self) -> usize {
        HELD_BACK_BYTES + self.value.as_ref().map_or(0, Vec::len) + self.headers.bytes()
    }
}

/// Moves the records held back for their keys to `produced`.
pub(super) fn append_latest(latest: &Latest, produced: &mut Produced) {
    let Produced { outputs, origins } = produced;
    for ((topic, partition, key), row) in latest {
        let headers = row.headers.names.iter().zip(&row.headers.values);
        outputs.headers.push(outputs.topics.len(), headers);
        outputs.topics.push(*topic);
        outputs.partitions.push(*partition);
        outputs.timestamps.push(row.timestamp);
        outputs.keys.push(Some(key));
        outputs.values.push(row.value.as_deref());
        origins.push(row.origin);
    }
}

/// Refuses partitions that are not there, before anything is routed.
pub(super) fn check_partitions(
    topology: &Topology,
    transform: &Transform,
    emits: &Emits,
) -> Result<(), Failure> {
    for (row, &partition) in emits.partitions.iter().enumerate() {
        let output = &transform.outputs[index(emits.outputs[row])];
        let Route::Topic(topic) = output.route else { continue };
        let topic = topology.topic(topic);
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

/// Where routed records go.
pub(super) struct Destinations<'a> {
    pub(super) topology: &'a Topology,
    pub(super) subtopology: &'a Subtopology,
    pub(super) inboxes: &'a mut [Inbox],
    pub(super) roots: &'a Roots,
    pub(super) produced: &'a mut Produced,
    pub(super) latest: &'a mut Latest,
    /// The time of records that no record caused.
    pub(super) stream_time: Timestamp,
}

impl Destinations<'_> {
    /// Routes what the transform at `place` emitted for `cause`.
    pub(super) fn route(&mut self, place: usize, cause: &Inbox, emits: Emits) {
        let transform = &self.subtopology.transforms[place];
        let plain = transform
            .outputs
            .iter()
            .all(|output| matches!(output.route, Route::Topic(_)) && !output.latest_per_key);
        let headers_go_through = emits.headers.is_none();
        let no_headers = cause.batch.records.headers.counts.is_empty();
        if plain && headers_go_through && no_headers && self.produced.outputs.is_empty() {
            self.route_columns(place, cause, emits);
        } else {
            self.route_rows(place, cause, &emits);
        }
    }

    fn origin(&self, place: usize, cause: &Inbox, row: i32) -> Doer {
        let row = usize::try_from(row).ok();
        Doer::new(place, row.and_then(|row| self.roots.id(place, cause, row)))
    }

    /// The common case: every record goes to a topic, so the columns move as they are.
    fn route_columns(&mut self, place: usize, cause: &Inbox, emits: Emits) {
        let transform = &self.subtopology.transforms[place];
        let origins = emits.causes.iter().map(|&row| self.origin(place, cause, row)).collect();
        self.produced.origins = origins;
        let times = &cause.batch.records.timestamps;
        let topics =
            emits.outputs.iter().map(|&output| match transform.outputs[index(output)].route {
                Route::Topic(topic) => topic,
                Route::Transforms(_) => unreachable!("only topics, as seen before"),
            });
        let topics = topics.collect();
        let stamps = emits.timestamps.iter().zip(&emits.causes);
        let timestamps = stamps.map(|(&time, &cause)| self.timestamp(time, cause, times)).collect();
        let outputs = &mut self.produced.outputs;
        outputs.timestamps = timestamps;
        outputs.topics = topics;
        outputs.partitions = emits.partitions;
        outputs.keys = emits.keys;
        outputs.values = emits.values;
    }

    fn timestamp(&self, time: Timestamp, cause: i32, times: &[Timestamp]) -> Timestamp {
        match usize::try_from(cause) {
            _ if time != TIMESTAMP_OF_CAUSE => time,
            Ok(row) => times[row],
            Err(_) => self.stream_time,
        }
    }

    fn route_rows(&mut self, place: usize, cause: &Inbox, emits: &Emits) {
        let subtopology = self.subtopology;
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
            let origin = self.origin(place, cause, emits.causes[row]);
            let output = &subtopology.transforms[place].outputs[index(emits.outputs[row])];
            match &output.route {
                Route::Topic(topic) if output.latest_per_key && key.is_some() => {
                    self.hold_back(*topic, emits.partitions[row], &record, origin);
                }
                Route::Topic(topic) => {
                    self.produce(*topic, emits.partitions[row], &record);
                    self.produced.origins.push(origin);
                }
                Route::Transforms(readers) => {
                    for reader in readers {
                        self.inboxes[reader.transform].push(reader.input, root, &record);
                    }
                }
            }
        }
    }

    fn produce(&mut self, topic: TopicIndex, partition: i32, record: &Row<'_>) {
        let outputs = &mut self.produced.outputs;
        outputs.headers.push(outputs.topics.len(), record.headers.iter().copied());
        outputs.topics.push(topic);
        outputs.partitions.push(partition);
        outputs.timestamps.push(record.timestamp);
        outputs.keys.push(record.key);
        outputs.values.push(record.value);
    }

    fn hold_back(&mut self, topic: TopicIndex, partition: i32, record: &Row<'_>, origin: Doer) {
        let mut headers = Headers::default();
        headers.push(0, record.headers.iter().copied());
        let row = LatestRow {
            timestamp: record.timestamp,
            value: record.value.map(<[u8]>::to_vec),
            headers,
            origin,
        };
        let key = record.key.unwrap_or_default().to_vec();
        let partition = match partition {
            PARTITION_BY_KEY => partitioner::partition(&key, self.topology.topic(topic).partitions),
            chosen => chosen,
        };
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

#[cfg(test)]
#[path = "routing_tests.rs"]
mod tests;
