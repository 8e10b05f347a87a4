//! The records of a task that wait: one queue for each input, from which they are taken in the
//! order of their timestamps.

use std::{collections::VecDeque, time::Duration};

use crate::{
    record::{Batch, FetchEpoch, NO_TIMESTAMP, Offset, Records, Timestamp, time_told_by},
    task::time::TaskTime,
};

/// How long a task waits for an input of which it isn't known whether there is more. A bound for
/// a partition whose broker is away.
const UNKNOWN_END_WAIT_MAX: Duration = Duration::from_secs(5);

/// What waits of one input partition.
#[derive(Debug, Default)]
pub(crate) struct InputQueue {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// The next offset to take in; records below it are known already.
    next: Offset,
    /// What is fetched under another epoch is stale.
    epoch: FetchEpoch,
    /// Whether everything up to the partition's end has been taken in.
    at_end: bool,
    /// Whether fetching is paused because too much waits.
    pub(crate) paused: bool,
}

/// Fetched records, and how many of them were taken.
#[derive(Debug)]
struct Chunk {
    records: Records,
    taken: usize,
    key_bytes: usize,
    value_bytes: usize,
    headers: usize,
}

impl InputQueue {
    /// Forgets what waits; goes on with what is fetched from `offset` under `epoch`. Fetching is not
    /// paused from then on: whoever reads from elsewhere has the log resume.
    pub(crate) fn reset(&mut self, offset: Offset, epoch: FetchEpoch) {
        *self = Self { next: offset, epoch, ..Self::default() };
    }

    /// Takes in what was fetched. Returns whether it was fetched under the current epoch.
    pub(crate) fn push(&mut self, records: Records, epoch: FetchEpoch, next: Offset) -> bool {
        if epoch != self.epoch {
            return false;
        }
        self.at_end = records.is_empty();
        let known = records.offsets.partition_point(|&offset| offset < self.next);
        let mut chunk = Chunk::new(records);
        chunk.skip(known);
        if chunk.left() > 0 {
            self.bytes += chunk.records.bytes();
            self.chunks.push_back(chunk);
        }
        self.next = self.next.max(next);
        true
    }

    /// How many bytes wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The timestamp of the record that waits longest.
    fn head(&self) -> Option<Timestamp> {
        self.chunks.front().map(|chunk| chunk.records.timestamps[chunk.taken])
    }

    /// The offset to read next once everything taken out has been processed.
    pub(crate) fn position(&self) -> Offset {
        match self.chunks.front() {
            Some(chunk) => chunk.records.offsets[chunk.taken],
            None => self.next,
        }
    }

    /// Takes a run of at most `max` records from the first chunk; returns their highest timestamp.
    fn take_run(&mut self, input: u32, max: usize, batch: &mut Batch, run: &Run) -> Timestamp {
        let Some(chunk) = self.chunks.front_mut() else { return NO_TIMESTAMP };
        let (count, latest) = run.measure(&chunk.records.timestamps[chunk.taken..], max);
        batch.inputs.resize(batch.inputs.len() + count, input);
        chunk.take_into(count, &mut batch.records);
        if chunk.left() == 0 {
            self.bytes -= chunk.records.bytes();
            self.chunks.pop_front();
        }
        latest
    }

    /// Takes the first chunk as it is, if none of it was taken and it has at most `max` records
    /// whose timestamps stay below `below`.
    fn take_chunk(&mut self, max: usize, below: Option<Timestamp>) -> Option<Records> {
        let chunk = self.chunks.front()?;
        let mut times = chunk.records.timestamps.iter().map(|&time| time_told_by(time));
        let early = below.is_none_or(|below| times.all(|time| time < below));
        if chunk.taken > 0 || chunk.left() > max || !early {
            return None;
        }
        let chunk = self.chunks.pop_front()?;
        self.bytes -= chunk.records.bytes();
        Some(chunk.records)
    }
}

/// How far to go on taking records of one input.
struct Run {
    /// Not beyond this timestamp, where another input has an earlier record.
    until: Option<Timestamp>,
    /// The record that reaches this timestamp is the last.
    boundary: Option<Timestamp>,
}

impl Run {
    /// How many records to take, at least one, and their highest timestamp.
    fn measure(&self, timestamps: &[Timestamp], max: usize) -> (usize, Timestamp) {
        let mut latest = NO_TIMESTAMP;
        for (count, &time) in timestamps.iter().enumerate().take(max) {
            if count > 0 && self.until.is_some_and(|until| time > until) {
                return (count, latest);
            }
            let told = time_told_by(time);
            latest = latest.max(told);
            if self.boundary.is_some_and(|boundary| told >= boundary) {
                return (count + 1, latest);
            }
        }
        (timestamps.len().min(max), latest)
    }
}

impl Chunk {
    fn new(records: Records) -> Self {
        Self { records, taken: 0, key_bytes: 0, value_bytes: 0, headers: 0 }
    }

    fn left(&self) -> usize {
        self.records.len() - self.taken
    }

    fn skip(&mut self, count: usize) {
        let (keys, values) = (self.records.keys.lengths(), self.records.values.lengths());
        self.key_bytes += bytes_of(&keys[self.taken..self.taken + count]);
        self.value_bytes += bytes_of(&values[self.taken..self.taken + count]);
        self.headers += self.header_count(count);
        self.taken += count;
    }

    /// How many headers the next `count` records have.
    fn header_count(&self, count: usize) -> usize {
        let counts = &self.records.headers.counts;
        let counts = counts.get(self.taken..self.taken + count).unwrap_or_default();
        counts.iter().map(|&count| usize::try_from(count).expect("a count fits")).sum()
    }

    fn take_into(&mut self, count: usize, to: &mut Records) {
        let rows = self.taken..self.taken + count;
        let from = &self.records;
        self.headers += match from.headers.counts.is_empty() && to.headers.counts.is_empty() {
            true => 0,
            false => self.take_headers(count, to),
        };
        to.offsets.extend_from_slice(&from.offsets[rows.clone()]);
        to.timestamps.extend_from_slice(&from.timestamps[rows.clone()]);
        to.timestamp_types.extend_from_slice(&from.timestamp_types[rows.clone()]);
        self.key_bytes = to.keys.extend_rows(&from.keys, rows.clone(), self.key_bytes);
        self.value_bytes = to.values.extend_rows(&from.values, rows, self.value_bytes);
        self.taken += count;
    }

    /// Copies the headers of the next `count` records; returns how many there are.
    fn take_headers(&self, count: usize, to: &mut Records) -> usize {
        let (from, headers) = (&self.records.headers, self.header_count(count));
        let counts = from.counts.get(self.taken..self.taken + count);
        to.headers.counts.resize(to.offsets.len(), 0);
        to.headers.counts.extend_from_slice(counts.unwrap_or_default());
        to.headers.counts.resize(to.offsets.len() + count, 0);
        let pairs = from.names.iter().zip(&from.values).skip(self.headers).take(headers);
        for (name, value) in pairs {
            to.headers.names.push(name);
            to.headers.values.push(value);
        }
        headers
    }
}

fn bytes_of(lengths: &[i32]) -> usize {
    lengths.iter().filter_map(|&length| usize::try_from(length).ok()).sum()
}

/// The inputs of a task.
#[derive(Debug)]
pub(crate) struct InputGroup {
    pub(crate) queues: Vec<InputQueue>,
    /// Since when some input is empty while another is not.
    waiting_since: Option<Duration>,
}

/// Whether records can be taken from a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Nothing waits.
    Empty,
    /// Records wait, but an input that is empty may have earlier ones until this moment.
    Wait(Duration),
    /// Records can be taken.
    Ready,
}

impl InputGroup {
    pub(crate) fn new(inputs: usize) -> Self {
        let queues = (0..inputs).map(|_| InputQueue::default()).collect();
        Self { queues, waiting_since: None }
    }

    /// Whether records can be taken at `now`: each input has some, or has been waited for.
    pub(crate) fn readiness(&mut self, now: Duration, max_task_idle: Duration) -> Readiness {
        let empty = self.queues.iter().filter(|queue| queue.is_empty()).count();
        if empty == self.queues.len() {
            self.waiting_since = None;
            return Readiness::Empty;
        }
        if empty == 0 {
            self.waiting_since = None;
            return Readiness::Ready;
        }
        let unknown = self.queues.iter().any(|queue| queue.is_empty() && !queue.at_end);
        let wait = match unknown {
            true => max_task_idle.max(UNKNOWN_END_WAIT_MAX),
            false => max_task_idle,
        };
        let until = self.waiting_since.get_or_insert(now).saturating_add(wait);
        match now < until {
            true => Readiness::Wait(until),
            false => Readiness::Ready,
        }
    }

    /// Takes records in the order of their timestamps until there are `max`, an input runs out,
    /// or one brings stream time to `boundary` (it is the last one then). Sees their times in
    /// `time`.
    pub(crate) fn take(
        &mut self,
        max: usize,
        boundary: Option<Timestamp>,
        time: &mut TaskTime,
        batch: &mut Batch,
    ) {
        if let [queue] = self.queues.as_mut_slice()
            && let Some(records) = queue.take_chunk(max, boundary)
        {
            let latest = records.timestamps.iter().map(|&time| time_told_by(time)).max();
            latest.into_iter().for_each(|latest| time.observe(0, latest));
            batch.inputs.resize(records.len(), 0);
            batch.records = records;
            return;
        }
        let alone = self.queues.iter().filter(|queue| !queue.is_empty()).count() == 1;
        while batch.inputs.len() < max {
            let heads = self.queues.iter().zip(0u32..);
            let mut heads: Vec<_> =
                heads.filter_map(|(queue, input)| Some((queue.head()?, input))).collect();
            heads.sort_unstable();
            let Some(&(_, input)) = heads.first() else { break };
            // Of equal timestamps the lower input's goes first.
            let until = heads.get(1).map(|&(time, other)| time - Timestamp::from(other < input));
            let index = usize::try_from(input).expect("an index fits");
            let left = max - batch.inputs.len();
            let latest = self.queues[index].take_run(input, left, batch, &Run { until, boundary });
            time.observe(index, latest);
            let due = boundary.is_some_and(|boundary| time.stream_time() >= boundary);
            let ran_out = self.queues[index].is_empty() && !alone;
            if due || ran_out {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(rows: &[(Offset, Timestamp)]) -> Records {
        let mut records = Records::default();
        for &(offset, timestamp) in rows {
            records.offsets.push(offset);
            records.timestamps.push(timestamp);
            records.timestamp_types.push(0);
            records.keys.push(Some(&offset.to_be_bytes()));
            records.values.push(None);
            records.headers.counts.push(u32::from(offset % 2 == 1));
            if offset % 2 == 1 {
                records.headers.names.push(Some(b"odd"));
                records.headers.values.push(Some(&offset.to_be_bytes()));
            }
        }
        records
    }

    fn take(group: &mut InputGroup, max: usize, boundary: Option<Timestamp>) -> Batch {
        let (mut batch, mut time) = (Batch::default(), TaskTime::new(group.queues.len()));
        group.take(max, boundary, &mut time, &mut batch);
        batch
    }

    fn group(queues: &[&[(Offset, Timestamp)]]) -> InputGroup {
        let mut group = InputGroup::new(queues.len());
        for (queue, rows) in group.queues.iter_mut().zip(queues) {
            let next = rows.last().map_or(0, |row| row.0 + 1);
            assert!(queue.push(records(rows), 0, next));
        }
        group
    }

    #[test]
    fn what_is_read_anew_is_not_paused() {
        let mut group = group(&[&[(0, 10), (1, 5)]]);
        group.queues[0].paused = true;
        group.queues[0].reset(0, 1);
        assert!(!group.queues[0].paused && group.queues[0].is_empty());
        assert!(!group.queues[0].push(records(&[(0, 10)]), 0, 1), "fetched before");
    }

    #[test]
    fn records_come_by_timestamp_across_inputs_and_by_offset_within_one() {
        let mut group = group(&[&[(0, 10), (1, 5), (2, 30)], &[(0, 7), (1, 20)]]);
        let batch = take(&mut group, 10, None);
        let order: Vec<_> =
            batch.inputs.iter().copied().zip(batch.records.offsets.iter().copied()).collect();
        assert_eq!(order, [(1, 0), (0, 0), (0, 1), (1, 1)], "until an input runs out");
        assert_eq!(batch.records.headers.counts, [0, 0, 1, 1]);
        assert_eq!(group.queues[0].position(), 2);
        assert_eq!(group.queues[1].position(), 2);
    }

    #[test]
    fn the_record_that_reaches_the_boundary_is_the_last() {
        let mut group = group(&[&[(0, 10), (1, 20), (2, 30)]]);
        assert_eq!(take(&mut group, 10, Some(20)).records.offsets, [0, 1]);
        assert_eq!(take(&mut group, 10, Some(31)).records.offsets, [2]);
    }

    #[test]
    fn stale_and_known_records_are_dropped() {
        let mut group = InputGroup::new(1);
        group.queues[0].reset(1, 7);
        assert!(!group.queues[0].push(records(&[(1, 1)]), 6, 2));
        assert!(group.queues[0].push(records(&[(0, 0), (1, 1), (5, 5)]), 7, 6));
        let batch = take(&mut group, 10, None);
        assert_eq!(batch.records.offsets, [1, 5]);
        assert_eq!(batch.records.headers.counts, [1, 1]);
        assert_eq!(group.queues[0].position(), 6);
        assert_eq!(group.queues[0].bytes(), 0);
    }

    #[test]
    fn an_empty_input_is_waited_for_longer_when_its_end_was_not_seen() {
        let mut group = group(&[&[(0, NO_TIMESTAMP)], &[]]);
        let idle = Duration::from_secs(1);
        assert_eq!(group.readiness(Duration::ZERO, idle), Readiness::Wait(idle));
        assert_eq!(group.readiness(idle, idle), Readiness::Ready);
        group.queues[1].at_end = false;
        assert_eq!(group.readiness(idle, idle), Readiness::Wait(UNKNOWN_END_WAIT_MAX));
    }
}
