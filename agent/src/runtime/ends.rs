//! Where the inputs end, as it was looked up last, and what holds them back.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use sidestream_core::record::TopicPartition;

use crate::kafka::PartitionEnd;

/// How long an open transaction may hold back an input before it is told.
pub(crate) const HELD_TIME_MAX: Duration = Duration::from_secs(30);

/// Where the inputs of the tasks end.
#[derive(Default)]
pub(crate) struct Ends {
    known: HashMap<TopicPartition, KnownEnd>,
    /// Why they could not be looked up the last time.
    failure: Option<String>,
}

/// Where an input ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownEnd {
    pub(crate) end: PartitionEnd,
    /// Since when an open transaction holds back what is behind `end.stable`.
    pub(crate) held_since: Option<Instant>,
    is_told: bool,
}

impl KnownEnd {
    /// What is known of an end at `now`, by what was known of it before.
    fn after(before: Option<&Self>, end: PartitionEnd, now: Instant) -> Self {
        let same = before.filter(|before| before.end.stable == end.stable);
        match same.and_then(|before| Some((before.held_since?, before.is_told))) {
            _ if end.stable == end.last => Self { end, held_since: None, is_told: false },
            Some((since, is_told)) => Self { end, held_since: Some(since), is_told },
            None => Self { end, held_since: Some(now), is_told: false },
        }
    }
}

impl Ends {
    /// Takes in where partitions end, in place of what was known. Gives those, each once, that an
    /// open transaction holds back for long.
    pub(crate) fn set(
        &mut self,
        ends: Result<HashMap<TopicPartition, PartitionEnd>, String>,
    ) -> Vec<(TopicPartition, PartitionEnd)> {
        self.set_at(Instant::now(), ends)
    }

    fn set_at(
        &mut self,
        now: Instant,
        ends: Result<HashMap<TopicPartition, PartitionEnd>, String>,
    ) -> Vec<(TopicPartition, PartitionEnd)> {
        let ends = match ends {
            Ok(ends) => ends,
            Err(failure) => {
                self.failure = Some(failure);
                return Vec::new();
            }
        };
        let before = std::mem::take(self);
        let mut held = Vec::new();
        for (partition, end) in ends {
            let mut end = KnownEnd::after(before.known.get(&partition), end, now);
            let is_long = |since| now.duration_since(since) >= HELD_TIME_MAX;
            if !end.is_told && end.held_since.is_some_and(is_long) {
                end.is_told = true;
                held.push((partition, end.end));
            }
            self.known.insert(partition, end);
        }
        held
    }

    /// Where a partition ended.
    pub(crate) fn of(&self, partition: TopicPartition) -> Option<KnownEnd> {
        self.known.get(&partition).copied()
    }

    /// Why they could not be looked up the last time.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use sidestream_core::record::TopicIndex;

    use super::*;

    #[test]
    fn what_a_transaction_holds_back_for_long_is_told_once_for_each_place() {
        let mut ends = Ends::default();
        let partition = TopicPartition::new(TopicIndex(0), 3);
        let start = Instant::now();
        let mut look = |seconds, stable, last| {
            let found = HashMap::from([(partition, PartitionEnd { stable, last })]);
            let now = start + Duration::from_secs(seconds);
            let told = ends.set_at(now, Ok(found)).len();
            let since = ends.of(partition).unwrap().held_since;
            (told, since.map(|since| since.duration_since(start).as_secs()))
        };
        assert_eq!(look(0, 7, 7), (0, None));
        assert_eq!(look(2, 7, 9), (0, Some(2)));
        assert_eq!(look(31, 7, 12), (0, Some(2)));
        assert_eq!(look(32, 7, 20), (1, Some(2)));
        assert_eq!(look(60, 7, 30), (0, Some(2)), "it was told");
        assert_eq!(look(61, 15, 30), (0, Some(61)), "another transaction");
        assert_eq!(look(95, 15, 30), (1, Some(61)));
        assert_eq!(look(96, 30, 30), (0, None));
        assert_eq!(ends.set(Err("away".to_owned())), []);
        assert_eq!((ends.failure(), ends.of(partition).is_some()), (Some("away"), true));
    }
}
