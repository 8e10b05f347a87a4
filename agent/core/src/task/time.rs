//! A task's sense of time: the time of each input, and when punctuations are due. It travels with
//! the committed offsets, as in Kafka Streams.

use std::time::Duration;

use crate::{
    record::{NO_TIMESTAMP, Timestamp},
    task::{Clock, Schedule},
};

/// The times of a task. A value: a dropped transaction drops its changes too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskTime {
    /// For each input, the highest timestamp seen.
    inputs: Vec<Timestamp>,
    /// The schedules of all transforms, with when they are due next.
    schedules: Vec<Due>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Due {
    transform: usize,
    index: u32,
    schedule: Schedule,
    next: Timestamp,
}

/// A punctuation of a transform that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DueCall {
    /// The transform.
    pub transform: usize,
    /// Which of its schedules.
    pub index: u32,
    /// The last moment it was due for.
    pub time: Timestamp,
}

const VERSION: &str = "1";

impl TaskTime {
    /// The times of a task that has seen nothing.
    pub(crate) fn new(inputs: usize) -> Self {
        Self { inputs: vec![NO_TIMESTAMP; inputs], schedules: Vec::new() }
    }

    /// The highest timestamp of all inputs.
    pub(crate) fn stream_time(&self) -> Timestamp {
        self.inputs.iter().copied().max().unwrap_or(NO_TIMESTAMP)
    }

    /// Sees a record of `input`.
    pub(crate) fn observe(&mut self, input: usize, timestamp: Timestamp) {
        self.inputs[input] = self.inputs[input].max(timestamp);
    }

    /// Takes the schedules that the module of `transform` asked for. What is known of them from
    /// before goes on; what is new starts: by stream time at once, by the wall clock after an
    /// interval.
    pub(crate) fn schedule(&mut self, transform: usize, schedules: &[Schedule], wall: Timestamp) {
        let known: Vec<Due> =
            self.schedules.extract_if(.., |due| due.transform == transform).collect();
        for (index, &schedule) in (0u32..).zip(schedules) {
            let before = known.iter().find(|due| due.index == index && due.schedule == schedule);
            let next = before.map_or_else(
                || match schedule.clock {
                    Clock::StreamTime => 0,
                    Clock::WallClock => wall.saturating_add(milliseconds(schedule.interval)),
                },
                |due| due.next,
            );
            self.schedules.push(Due { transform, index, schedule, next });
        }
        self.schedules.sort_by_key(|due| (due.transform, due.index));
    }

    /// When a punctuation by `clock` is due next.
    pub(crate) fn next(&self, clock: Clock) -> Option<Timestamp> {
        self.schedules.iter().filter(|due| due.schedule.clock == clock).map(|due| due.next).min()
    }

    /// Takes one punctuation that is due by `clock` at `now`. Missed ones count as one, and the
    /// next keeps the rhythm.
    pub(crate) fn take_due(&mut self, clock: Clock, now: Timestamp) -> Option<DueCall> {
        if now == NO_TIMESTAMP {
            return None;
        }
        let due =
            self.schedules.iter_mut().find(|due| due.schedule.clock == clock && due.next <= now)?;
        let interval = milliseconds(due.schedule.interval);
        let time = now - (now - due.next) % interval;
        due.next = time.saturating_add(interval);
        Some(DueCall { transform: due.transform, index: due.index, time })
    }

    /// What to store beside the committed offset of `input`: its time and, with the first input,
    /// the schedules. A few dozen bytes of ASCII.
    pub(crate) fn encode(&self, input: usize) -> String {
        let mut text = format!("{VERSION};{}", self.inputs[input]);
        if input == 0 {
            for due in &self.schedules {
                let clock = match due.schedule.clock {
                    Clock::StreamTime => 's',
                    Clock::WallClock => 'w',
                };
                let interval = milliseconds(due.schedule.interval);
                let Due { transform, index, next, .. } = due;
                text.push_str(&format!(";{transform},{index},{clock},{interval},{next}"));
            }
        }
        text
    }

    /// Reads what [`encode`](Self::encode) wrote for `input`. What it doesn't understand (an
    /// offset that somebody else committed) changes nothing.
    pub(crate) fn decode(&mut self, input: usize, text: &str) {
        let mut parts = text.split(';');
        if parts.next() != Some(VERSION) {
            return;
        }
        if let Some(time) = parts.next().and_then(|time| time.parse().ok()) {
            self.observe(input, time);
        }
        if input == 0 {
            self.schedules = parts.filter_map(decode_due).collect();
        }
    }
}

fn decode_due(text: &str) -> Option<Due> {
    let mut fields = text.split(',');
    let transform = fields.next()?.parse().ok()?;
    let index = fields.next()?.parse().ok()?;
    let clock = match fields.next()? {
        "s" => Clock::StreamTime,
        "w" => Clock::WallClock,
        _ => return None,
    };
    let interval = Duration::from_millis(fields.next()?.parse().ok().filter(|&ms| ms > 0)?);
    let next = fields.next()?.parse().ok()?;
    Some(Due { transform, index, schedule: Schedule { clock, interval }, next })
}

/// An interval in milliseconds, at least one.
fn milliseconds(interval: Duration) -> Timestamp {
    Timestamp::try_from(interval.as_millis()).unwrap_or(Timestamp::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(clock: Clock, ms: u64) -> Schedule {
        Schedule { clock, interval: Duration::from_millis(ms) }
    }

    #[test]
    fn stream_time_punctuates_with_the_first_record_and_then_in_step() {
        let mut time = TaskTime::new(1);
        time.schedule(0, &[every(Clock::StreamTime, 100)], 5);
        assert_eq!(time.take_due(Clock::StreamTime, time.stream_time()), None);
        time.observe(0, 1_234);
        let call = time.take_due(Clock::StreamTime, time.stream_time()).unwrap();
        assert_eq!(call.time, 1_200);
        assert_eq!(time.take_due(Clock::StreamTime, time.stream_time()), None);
        assert_eq!(time.next(Clock::StreamTime), Some(1_300));
    }

    #[test]
    fn the_wall_clock_punctuates_after_an_interval_and_once_for_all_missed() {
        let mut time = TaskTime::new(1);
        time.schedule(0, &[every(Clock::WallClock, 100)], 5);
        assert_eq!(time.take_due(Clock::WallClock, 104), None);
        assert_eq!(time.take_due(Clock::WallClock, 350).unwrap().time, 305);
        assert_eq!(time.next(Clock::WallClock), Some(405));
    }

    #[test]
    fn it_survives_being_stored_and_keeps_only_schedules_that_are_the_same() {
        let schedules = [every(Clock::StreamTime, 100), every(Clock::WallClock, 7)];
        let mut time = TaskTime::new(2);
        time.schedule(1, &schedules, 5);
        time.observe(0, 40);
        time.observe(1, 30);
        time.take_due(Clock::StreamTime, 40);
        let mut back = TaskTime::new(2);
        back.decode(0, &time.encode(0));
        back.decode(1, &time.encode(1));
        back.schedule(1, &schedules, 1_000);
        assert_eq!(back, time);
        back.schedule(1, &[every(Clock::StreamTime, 99)], 1_000);
        assert_eq!(back.next(Clock::StreamTime), Some(0));
        assert_eq!(back.next(Clock::WallClock), None);
    }

    #[test]
    fn what_others_committed_is_ignored() {
        for text in ["", "garbage", "2;5", "1;x;1,2", "1;-1;0,0,s,0,5"] {
            let mut time = TaskTime::new(1);
            time.decode(0, text);
            assert_eq!(time, TaskTime::new(1), "{text}");
        }
    }
}
