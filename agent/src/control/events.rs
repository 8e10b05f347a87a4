//! What happened lately, for whoever wants to follow it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::Notify;

use super::proto::Event;
use crate::lock::Held;

/// How many events are kept. A reader that is further behind is told how many it missed.
const KEPT_MAX: usize = 1_024;

/// The last events of an agent. Writers never wait for readers.
#[derive(Debug)]
pub struct Events {
    /// When this life of the agent began, in milliseconds since 1970-01-01 UTC: sequence numbers are
    /// its own.
    life: i64,
    ring: Mutex<Ring>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Ring {
    /// The sequence number of the newest event.
    newest: u64,
    kept: VecDeque<Event>,
    closed: bool,
}

/// What a reader gets.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Batch {
    /// How many events are kept no more.
    pub(crate) missed: u64,
    /// The events, in order.
    pub(crate) events: Vec<Event>,
    /// There will be no more.
    pub(crate) closed: bool,
}

impl Default for Events {
    fn default() -> Self {
        Self { life: now_ms(), ring: Mutex::default(), changed: Notify::new() }
    }
}

impl Events {
    /// When this life of the agent began.
    pub(super) const fn life(&self) -> i64 {
        self.life
    }

    /// Whether the event `after` of a life (0 if it is not said which) can't be one of these.
    pub(super) fn is_of_other_life(&self, life: i64, after: u64) -> bool {
        (life != 0 && life != self.life) || after > self.ring().newest
    }

    /// Tells of an event of the agent.
    pub fn tell(&self, kind: &str, message: impl Into<String>) {
        self.push(Event { kind: kind.into(), message: message.into(), ..Event::default() });
    }

    /// Tells of an event of a worker, and maybe of one of its tasks.
    pub fn tell_of(&self, worker: usize, task: String, kind: &str, message: impl Into<String>) {
        let worker = u32::try_from(worker).ok();
        let message = message.into();
        self.push(Event { kind: kind.into(), worker, task, message, ..Event::default() });
    }

    fn push(&self, event: Event) {
        let mut ring = self.ring();
        ring.newest += 1;
        let (sequence, life) = (ring.newest, self.life);
        let event = Event { sequence, life, time_ms: now_ms(), ..event };
        if ring.kept.len() >= KEPT_MAX {
            ring.kept.pop_front();
        }
        ring.kept.push_back(event);
        drop(ring);
        self.changed.notify_waiters();
    }

    /// No more events come: readers end.
    pub(super) fn close(&self) {
        self.ring().closed = true;
        self.changed.notify_waiters();
    }

    /// The events after that number, at most `max` of them; from the oldest kept on if it is 0.
    pub(crate) fn after(&self, after: u64, max: usize) -> Batch {
        let ring = self.ring();
        let oldest = ring.newest + 1 - ring.kept.len() as u64;
        let missed = match after {
            0 => 0,
            after => oldest.saturating_sub(after.saturating_add(1)),
        };
        let skip =
            usize::try_from(after.saturating_add(1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        let events = ring.kept.iter().skip(skip).take(max).cloned().collect();
        Batch { missed, events, closed: ring.closed }
    }

    /// As [`after`](Self::after), once there is something.
    pub(super) async fn wait_after(&self, after: u64, max: usize) -> Batch {
        loop {
            let changed = self.changed.notified();
            let batch = self.after(after, max);
            if batch.closed || batch.missed > 0 || !batch.events.is_empty() {
                return batch;
            }
            changed.await;
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.held()
    }
}

/// Now, in milliseconds since 1970-01-01 UTC.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(batch: &Batch) -> Vec<u64> {
        batch.events.iter().map(|event| event.sequence).collect()
    }

    #[test]
    fn a_reader_goes_on_where_it_was() {
        let events = Events::default();
        (0..5).for_each(|number| events.tell("number", number.to_string()));
        assert_eq!(sequences(&events.after(0, 3)), [1, 2, 3]);
        assert_eq!(sequences(&events.after(3, 9)), [4, 5]);
        assert_eq!(events.after(5, 9), Batch::default());
    }

    #[test]
    fn a_place_that_is_not_of_this_life_is_known() {
        let events = Events::default();
        (0..5).for_each(|number| events.tell("number", number.to_string()));
        for (life, after, is_other) in [
            (0, 0, false),
            (0, 5, false),
            (events.life(), 5, false),
            (0, 6, true),
            (0, u64::MAX, true),
            (events.life() - 1, 3, true),
            (events.life() - 1, 0, true),
        ] {
            assert_eq!(events.is_of_other_life(life, after), is_other, "{life} {after}");
        }
        assert_eq!(events.after(u64::MAX, 9), Batch::default());
    }

    #[test]
    fn a_slow_reader_is_told_how_many_it_missed() {
        let events = Events::default();
        (0..KEPT_MAX + 10).for_each(|number| events.tell("number", number.to_string()));
        let batch = events.after(4, 1);
        assert_eq!((batch.missed, sequences(&batch)), (6, vec![11]));
        let batch = events.after(0, 1);
        assert_eq!((batch.missed, sequences(&batch)), (0, vec![11]), "a new one missed nothing");
    }

    #[tokio::test]
    async fn readers_wake_for_an_event_and_at_the_end() {
        let events = std::sync::Arc::new(Events::default());
        let reader = tokio::spawn({
            let events = std::sync::Arc::clone(&events);
            async move {
                let first = events.wait_after(0, 9).await;
                (first, events.wait_after(1, 9).await)
            }
        });
        tokio::task::yield_now().await;
        events.tell("paused", "");
        tokio::task::yield_now().await;
        events.close();
        let (first, last) = reader.await.unwrap();
        assert_eq!(sequences(&first), [1]);
        assert!(last.closed);
    }
}
