//! A task's sense of time: the time of each input, and when punctuations are due. It travels with
//! the committed offsets, as in Kafka Streams.

use std::time::Duration;

use crate::{
    record::{NO_TIMESTAMP, Timestamp, time_told_by},
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
    /// [`NEVER`] if no time comes after the last one.
    next: Timestamp,
}

/// No punctuation is due at this moment: there is none after it.
const NEVER: Timestamp = Timestamp::MAX;

impl Due {
    fn is_due(&self, clock: Clock, now: Timestamp) -> bool {
        self.schedule.clock == clock && self.next <= now && self.next != NEVER
    }

    /// No punctuation waits for longer than its interval. One that would was set by a clock that
    /// was ahead, or by somebody else.
    fn bring_forward(&mut self, now: Timestamp) {
        self.next = self.next.min(now.saturating_add(milliseconds(self.schedule.interval)));
    }
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
        self.inputs[input] = self.inputs[input].max(time_told_by(timestamp));
    }

    /// Takes the schedules that the module of `transform` asked for. What is known of them from
    /// before goes on; what is new starts: by stream time at once, by the wall clock after an
    /// interval.
    pub(crate) fn schedule(&mut self, transform: usize, schedules: &[Schedule], wall: Timestamp) {
        let known: Vec<Due> =
            self.schedules.extract_if(.., |due| due.transform == transform).collect();
        for (index, &schedule) in (0u32..).zip(schedules) {
            let before = known.iter().find(|due| due.index == index && due.schedule == schedule);
            let next = before.map_or(
                match schedule.clock {
                    Clock::StreamTime => 0,
                    Clock::WallClock => wall.saturating_add(milliseconds(schedule.interval)),
                },
                |due| due.next,
            );
            let mut due = Due { transform, index, schedule, next };
            due.bring_forward(match schedule.clock {
                Clock::StreamTime => self.stream_time().max(0),
                Clock::WallClock => wall,
            });
            self.schedules.push(due);
        }
        self.schedules.sort_by_key(|due| (due.transform, due.index));
    }

    /// When a punctuation by `clock` is due next.
    pub(crate) fn next(&self, clock: Clock) -> Option<Timestamp> {
        let by_clock = self.schedules.iter().filter(|due| due.schedule.clock == clock);
        by_clock.map(|due| due.next).filter(|&next| next != NEVER).min()
    }

    /// Whether a punctuation is due by stream time. It comes before the next record.
    pub(crate) fn is_due_by_stream_time(&self) -> bool {
        let now = self.stream_time();
        now != NO_TIMESTAMP && self.schedules.iter().any(|due| due.is_due(Clock::StreamTime, now))
    }

    /// Takes the punctuation that is due by `clock` at `now` since longest. Missed ones count as
    /// one, and the next keeps the rhythm.
    pub(crate) fn take_due(&mut self, clock: Clock, now: Timestamp) -> Option<DueCall> {
        if now == NO_TIMESTAMP {
            return None;
        }
        if clock == Clock::WallClock {
            // The clock may have been set back since.
            let by_wall = self.schedules.iter_mut().filter(|due| due.schedule.clock == clock);
            by_wall.for_each(|due| due.bring_forward(now));
        }
        let due = self.schedules.iter_mut().filter(|due| due.is_due(clock, now));
        let due = due.min_by_key(|due| due.next)?;
        let interval = milliseconds(due.schedule.interval);
        let time = now - now.saturating_sub(due.next) % interval;
        due.next = time.checked_add(interval).unwrap_or(NEVER);
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

    /// How many bytes [`encode`](Self::encode) may come to, whatever the times are by then.
    pub(crate) fn encoded_bytes_max(&self) -> usize {
        let latest = self.schedules.iter().map(|due| Due { next: Timestamp::MIN, ..due.clone() });
        Self { inputs: vec![Timestamp::MIN], schedules: latest.collect() }.encode(0).len()
    }

    /// Reads what [`encode`](Self::encode) wrote for `input` of a task with so many `transforms`.
    /// What it doesn't understand (an offset that somebody else committed) changes nothing, and
    /// what is of a transform that is gone is dropped.
    pub(crate) fn decode(&mut self, input: usize, transforms: usize, text: &str) {
        let mut parts = text.split(';');
        if parts.next() != Some(VERSION) {
            return;
        }
        if let Some(time) = parts.next().and_then(|time| time.parse().ok()) {
            self.observe(input, time);
        }
        if input == 0 {
            let dues = parts.filter_map(decode_due);
            self.schedules = dues.filter(|due| due.transform < transforms).collect();
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
    // As it is written: an interval that no timestamp can hold would come back as another one.
    let interval_ms: Timestamp = fields.next()?.parse().ok().filter(|&ms| ms > 0)?;
    let interval = Duration::from_millis(interval_ms.unsigned_abs());
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
    use crate::record::TIMESTAMP_MAX;

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
        back.decode(0, 2, &time.encode(0));
        back.decode(1, 2, &time.encode(1));
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
            time.decode(0, 1, text);
            assert_eq!(time, TaskTime::new(1), "{text}");
        }
    }

    #[test]
    fn schedules_of_transforms_that_are_gone_are_dropped() {
        let mut time = TaskTime::new(1);
        time.decode(0, 1, "1;5;1,0,w,1000,7;1,0,s,1000,0");
        assert_eq!(time.take_due(Clock::WallClock, 10), None);
        assert!(!time.is_due_by_stream_time());
        assert_eq!(time.stream_time(), 5);
    }

    #[test]
    fn nothing_stays_due_at_the_ends_of_time() {
        for clock in [Clock::StreamTime, Clock::WallClock] {
            for next in [Timestamp::MIN, -1, 0, 1, Timestamp::MAX - 1, Timestamp::MAX] {
                for now in [Timestamp::MIN, -2, 0, 1, Timestamp::MAX - 1, Timestamp::MAX] {
                    for interval in [1, 1_000, u64::MAX] {
                        let schedule = every(clock, interval);
                        let mut time = TaskTime::new(1);
                        time.schedules.push(Due { transform: 0, index: 0, schedule, next });
                        let due = time.take_due(clock, now);
                        assert!(due.is_none_or(|due| due.time <= now), "{due:?} at {now}");
                        assert_eq!(time.take_due(clock, now), None, "{next} {now} {interval}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_wall_clock_goes_on_after_it_was_ahead_or_behind() {
        let (then, ahead) = (1_000_000_000_000, 1_000_000_000_000_000);
        let schedules = [every(Clock::WallClock, 1_000)];
        let mut time = TaskTime::new(1);
        time.schedule(0, &schedules, then);
        assert!(time.take_due(Clock::WallClock, ahead).is_some());
        let mut back = TaskTime::new(1);
        back.decode(0, 1, &time.encode(0));
        back.schedule(0, &schedules, then);
        assert_eq!(back.next(Clock::WallClock), Some(then + 1_000));
        assert_eq!(time.take_due(Clock::WallClock, then), None, "it was set back while it ran");
        assert!(time.take_due(Clock::WallClock, then + 1_000).is_some());
    }

    #[test]
    fn what_others_committed_can_not_silence_a_schedule() {
        let schedules = [every(Clock::StreamTime, 100)];
        let mut time = TaskTime::new(1);
        time.decode(0, 1, "1;50;0,0,s,100,9223372036854775806");
        time.schedule(0, &schedules, 5);
        time.observe(0, 150);
        assert!(time.is_due_by_stream_time());
    }

    #[test]
    fn the_punctuation_that_waits_longest_comes_first() {
        let mut time = TaskTime::new(1);
        time.schedule(0, &[every(Clock::WallClock, 1), every(Clock::WallClock, 2)], 0);
        let indices: Vec<u32> = (2..8)
            .filter_map(|now| time.take_due(Clock::WallClock, now))
            .map(|due| due.index)
            .collect();
        assert_eq!(indices, [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn a_time_that_is_none_does_not_move_stream_time() {
        let mut time = TaskTime::new(1);
        for (timestamp, expected) in
            [(5, 5), (Timestamp::MAX, 5), (Timestamp::MIN, 5), (TIMESTAMP_MAX, TIMESTAMP_MAX)]
        {
            time.observe(0, timestamp);
            assert_eq!(time.stream_time(), expected);
        }
    }
}
