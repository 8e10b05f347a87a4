//! Pipelines that count.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    record::{Record, Topic, text},
    verdict::{Kind, Verdict},
};

/// How often each word is in the values of these records. Words are what white space divides.
#[must_use]
pub fn count_words(lines: &Topic) -> BTreeMap<Vec<u8>, u64> {
    let mut counts = BTreeMap::new();
    for line in lines.records() {
        let line = String::from_utf8_lossy(line.value.as_deref().unwrap_or_default());
        for word in line.split_whitespace() {
            *counts.entry(word.as_bytes().to_vec()).or_default() += 1;
        }
    }
    counts
}

/// How often each key is in these records. Those without one don't count.
#[must_use]
pub fn count_keys(records: &Topic) -> BTreeMap<Vec<u8>, u64> {
    let mut counts = BTreeMap::new();
    for key in records.records().filter_map(|record| record.key.as_ref()) {
        *counts.entry(key.clone()).or_default() += 1;
    }
    counts
}

/// Checks that the output counts each key up from one, without a gap or a repetition, to what was
/// counted here, and all of a key in one partition. Values are decimal digits.
pub fn check_counts(expected: &BTreeMap<Vec<u8>, u64>, output: &Topic, verdict: &mut Verdict) {
    verdict.compared("output records", output.len());
    verdict.compared("counted keys", expected.len());
    let mut seen: BTreeMap<&[u8], Seen> = BTreeMap::new();
    for record in output.records() {
        let key = record.key.as_deref().unwrap_or_default();
        let seen = seen
            .entry(key)
            .or_insert_with(|| Seen { partition: record.partition, ..Seen::default() });
        seen.take(record, output, verdict);
    }
    for (key, &count) in expected {
        let seen = seen.get(key.as_slice()).map_or(0, |seen| seen.last);
        let shown = || text(&Some(key.clone()));
        if seen < count {
            verdict.add(Kind::Lost, || {
                format!("{} is there {count} times and was counted {seen} times", shown())
            });
        }
    }
    for (key, seen) in seen {
        let there = expected.get(key).copied().unwrap_or(0);
        if seen.last > there {
            verdict.add(Kind::Invented, || {
                let key = text(&Some(key.to_vec()));
                format!("{key} is there {there} times and was counted {} times", seen.last)
            });
        }
        for count in seen.missing {
            verdict.add(Kind::Lost, || {
                format!("{} never had the count {count}", text(&Some(key.to_vec())))
            });
        }
    }
}

#[derive(Default)]
struct Seen {
    partition: i32,
    last: u64,
    missing: BTreeSet<u64>,
}

impl Seen {
    fn take(&mut self, record: &Record, output: &Topic, verdict: &mut Verdict) {
        /// A larger gap is not filled one by one.
        const GAP_MAX: u64 = 1_000;
        let place = || format!("{} ({record})", output.place(record));
        if record.partition != self.partition {
            let first = self.partition;
            verdict.add(Kind::Wrong, || format!("{}: the key was in partition {first}", place()));
        }
        let last = self.last;
        match decimal(record) {
            Some(count) if count == last + 1 => self.last = count,
            Some(count) if count > last + 1 => {
                self.missing.extend((last + 1..count).take(usize::try_from(GAP_MAX).unwrap_or(0)));
                self.last = count;
            }
            Some(count) if self.missing.remove(&count) => {
                verdict.add(Kind::Reordered, || format!("{} comes after {last}", place()));
            }
            Some(_) => verdict.add(Kind::Doubled, || format!("{} comes after {last}", place())),
            None => verdict.add(Kind::Wrong, || format!("{} is no count", place())),
        }
    }
}

/// Checks that the counts of each key in a changelog only rise: a store that was wiped counts
/// from one again.
pub fn check_rising(changelog: &Topic, verdict: &mut Verdict) {
    let mut last: BTreeMap<&[u8], u64> = BTreeMap::new();
    for record in changelog.records() {
        let last = last.entry(record.key.as_deref().unwrap_or_default()).or_default();
        match decimal(record) {
            Some(count) if count > *last => *last = count,
            Some(_) | None => verdict.add(Kind::Wiped, || {
                format!("{} ({record}) comes after {last}", changelog.place(record))
            }),
        }
    }
}

fn decimal(record: &Record) -> Option<u64> {
    std::str::from_utf8(record.value.as_deref()?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::{record, topic};

    fn verdict(output: &[(&str, &str)]) -> Verdict {
        let lines = topic("lines", vec![vec![record("", "a b\ta")], vec![record("", "a\n c ")]]);
        let records = output.iter().map(|(word, count)| record(word, count)).collect();
        let mut verdict = Verdict::default();
        check_counts(&count_words(&lines), &topic("counts", vec![records]), &mut verdict);
        verdict
    }

    #[test]
    fn every_count_once_and_in_order_is_good() {
        let good = verdict(&[("a", "1"), ("c", "1"), ("a", "2"), ("b", "1"), ("a", "3")]);
        assert!(good.is_good(), "{good}");
    }

    #[test]
    fn every_way_to_tamper_is_found() {
        let check = |kind, output: &[(&str, &str)]| {
            let others = [("b", "1"), ("c", "1")];
            let verdict = verdict(&[&others, output].concat());
            assert!(verdict.has(kind), "{verdict}");
        };
        check(Kind::Lost, &[("a", "1"), ("a", "2")]);
        check(Kind::Lost, &[("a", "1"), ("a", "3")]);
        check(Kind::Doubled, &[("a", "1"), ("a", "2"), ("a", "2"), ("a", "3")]);
        check(Kind::Reordered, &[("a", "2"), ("a", "1"), ("a", "3")]);
        check(Kind::Invented, &[("a", "1"), ("a", "2"), ("a", "3"), ("a", "4")]);
        check(Kind::Invented, &[("a", "1"), ("a", "2"), ("a", "3"), ("d", "1")]);
        check(Kind::Wrong, &[("a", "1"), ("a", "two"), ("a", "2"), ("a", "3")]);
    }

    #[test]
    fn a_key_in_two_partitions_is_found() {
        let output = topic("counts", vec![vec![record("a", "1")], vec![record("a", "2")]]);
        let mut verdict = Verdict::default();
        check_counts(&BTreeMap::from([(b"a".to_vec(), 2)]), &output, &mut verdict);
        assert!(verdict.has(Kind::Wrong), "{verdict}");
    }

    #[test]
    fn keys_are_counted_and_nulls_are_not() {
        let mut null = record("", "");
        null.key = None;
        let counts = count_keys(&topic("in", vec![vec![record("a", ""), null, record("a", "")]]));
        assert_eq!(counts, BTreeMap::from([(b"a".to_vec(), 2)]));
    }

    #[test]
    fn a_count_that_goes_back_is_a_wiped_store() {
        let check = |counts: &[&str]| {
            let records = counts.iter().map(|count| record("a", count)).collect();
            let mut verdict = Verdict::default();
            check_rising(&topic("changelog", vec![records]), &mut verdict);
            verdict.is_good()
        };
        assert!(check(&["1", "3", "4"]));
        assert!(!check(&["1", "2", "1"]));
        assert!(!check(&["1", "1"]));
        assert!(!check(&["1", "x"]));
    }
}
