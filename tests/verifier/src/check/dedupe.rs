//! A pipeline that passes on the first record of each key within a time.

use std::collections::HashMap;

use crate::{
    record::{Record, Topic},
    verdict::{Kind, Verdict},
};

/// What must become of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passes,
    Drops,
    /// It comes after the time of the partition has gone past the end of the one before: whether
    /// that one was forgotten already depends on when a punctuation came.
    Either,
}

/// Checks that the output has, in the order of each input partition, exactly the records whose key
/// did not come in the `within_ms` milliseconds before them, by their timestamps.
pub fn check_dedupe(input: &Topic, output: &Topic, within_ms: i64, verdict: &mut Verdict) {
    verdict.compared("input records", input.len());
    verdict.compared("output records", output.len());
    let empty = Vec::new();
    for partition in 0..input.partitions.len().max(output.partitions.len()) {
        let events = input.partitions.get(partition).unwrap_or(&empty);
        let passed = output.partitions.get(partition).unwrap_or(&empty);
        Check { input, output, within_ms, verdict }.partition(events, passed);
    }
}

struct Check<'a> {
    input: &'a Topic,
    output: &'a Topic,
    within_ms: i64,
    verdict: &'a mut Verdict,
}

impl Check<'_> {
    fn partition(&mut self, events: &[Record], passed: &[Record]) {
        let mut passed = passed.iter().peekable();
        let mut seen: HashMap<&[u8], i64> = HashMap::new();
        let mut stream_time = i64::MIN;
        for event in events {
            stream_time = stream_time.max(event.timestamp);
            let key = event.key.as_deref().unwrap_or_default();
            let fate = fate(event, seen.get(key).copied(), stream_time, self.within_ms);
            let next = passed.next_if(|next| fate != Fate::Drops && next.says_the_same(event));
            if next.is_some() || fate == Fate::Passes {
                seen.insert(key, event.timestamp);
            }
            if next.is_none() && fate == Fate::Passes {
                self.explain(event, &mut passed);
            }
        }
        for record in passed {
            self.verdict.add(Kind::Invented, || {
                format!("{} ({record}) must have been dropped", self.output.place(record))
            });
        }
    }

    /// The next output is not what it must be: either it is too much, or what must be there is
    /// lost.
    fn explain<'b>(
        &mut self,
        event: &Record,
        passed: &mut std::iter::Peekable<impl Iterator<Item = &'b Record> + Clone>,
    ) {
        const WINDOW: usize = 1_000;
        let ahead = passed.clone().take(WINDOW).position(|record| record.says_the_same(event));
        let Some(ahead) = ahead else {
            self.verdict.add(Kind::Lost, || {
                let (input, output) = (self.input.place(event), &self.output.name);
                format!("{input} ({event}) is not in {output}")
            });
            return;
        };
        for record in passed.by_ref().take(ahead) {
            self.verdict.add(Kind::Doubled, || {
                let place = self.output.place(record);
                format!("{place} ({record}) is in the wrong place, or must have been dropped")
            });
        }
        passed.next();
    }
}

fn fate(event: &Record, seen: Option<i64>, stream_time: i64, within_ms: i64) -> Fate {
    match seen {
        Some(seen) if event.timestamp.abs_diff(seen) < within_ms.unsigned_abs() => {
            match stream_time >= seen + within_ms {
                true => Fate::Either,
                false => Fate::Drops,
            }
        }
        Some(_) | None => Fate::Passes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::{record, topic};

    fn at(&(key, timestamp): &(&str, i64)) -> Record {
        Record { timestamp, ..record(key, &format!("{key}{timestamp}")) }
    }

    fn verdict(events: &[(&str, i64)], passed: &[(&str, i64)]) -> Verdict {
        let topic = |name, records: &[_]| topic(name, vec![records.iter().map(at).collect()]);
        let mut verdict = Verdict::default();
        check_dedupe(&topic("events", events), &topic("unique", passed), 100, &mut verdict);
        verdict
    }

    const EVENTS: &[(&str, i64)] =
        &[("a", 0), ("b", 10), ("a", 50), ("a", 99), ("c", 99), ("a", 100), ("b", 200)];

    #[test]
    fn the_first_of_each_key_within_the_time_is_good() {
        let good = verdict(EVENTS, &[("a", 0), ("b", 10), ("c", 99), ("a", 100), ("b", 200)]);
        assert!(good.is_good(), "{good}");
    }

    #[test]
    fn every_way_to_tamper_is_found() {
        let check = |passed: &[(&str, i64)]| {
            let verdict = verdict(EVENTS, passed);
            assert!(!verdict.is_good(), "{passed:?}");
            verdict
        };
        let lost = check(&[("a", 0), ("c", 99), ("a", 100), ("b", 200)]);
        assert!(lost.has(Kind::Lost), "{lost}");
        check(&[("a", 0), ("b", 10), ("c", 99), ("a", 100)]);
        check(&[("a", 0), ("a", 0), ("b", 10), ("c", 99), ("a", 100), ("b", 200)]);
        check(&[("a", 0), ("b", 10), ("a", 50), ("c", 99), ("a", 100), ("b", 200)]);
        check(&[("b", 10), ("a", 0), ("c", 99), ("a", 100), ("b", 200)]);
        check(&[("a", 0), ("b", 10), ("c", 99), ("a", 100), ("b", 200), ("b", 201)]);
        check(&[]);
    }

    #[test]
    fn one_that_comes_late_may_pass_or_not() {
        let events = &[("a", 0), ("b", 150), ("a", 60)];
        assert!(verdict(events, &[("a", 0), ("b", 150)]).is_good());
        assert!(verdict(events, &[("a", 0), ("b", 150), ("a", 60)]).is_good());
    }
}
