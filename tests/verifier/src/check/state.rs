//! Changelogs and stores.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use crate::{
    record::{Bytes, Topic, text},
    verdict::{Kind, Verdict},
};

/// What a store on disk holds: one task's part of it, in one state directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreCopy {
    /// Where it is.
    pub place: String,
    /// The task's partition.
    pub partition: i32,
    /// The next offset of the changelog partition to apply; `None` if nothing can be said of it.
    pub position: Option<i64>,
    /// The entries.
    pub entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Checks that the last change of each key in the changelog is what was folded here, and that all
/// of a key is in one partition.
pub fn check_changelog(
    expected: &BTreeMap<Vec<u8>, Vec<u8>>,
    changelog: &Topic,
    verdict: &mut Verdict,
) {
    verdict.compared("changelog records", changelog.len());
    let mut last: HashMap<&[u8], (i32, &Bytes)> = HashMap::new();
    for record in changelog.records() {
        let key = record.key.as_deref().unwrap_or_default();
        let before = last.insert(key, (record.partition, &record.value));
        if before.is_some_and(|(partition, _)| partition != record.partition) {
            verdict.add(Kind::Wrong, || {
                format!("{} ({record}): the key is in two partitions", changelog.place(record))
            });
        }
    }
    last.retain(|_, (_, value)| value.is_some());
    let none = None;
    for (key, value) in expected {
        let found = last.remove(key.as_slice()).map_or(&none, |(_, value)| value);
        check_value(key, &Some(value.clone()), found, &changelog.name, verdict);
    }
    for (key, (_, value)) in last {
        check_value(key, &None, value, &changelog.name, verdict);
    }
}

/// Checks that each copy of a store holds what the changelog says up to its position, and that,
/// for each partition of the changelog, one has all of it.
///
/// What compaction has taken away can't be compared: a key with no record below the position and
/// one above it.
pub fn check_stores(changelog: &Topic, copies: &[StoreCopy], verdict: &mut Verdict) {
    for (partition, records) in (0..).zip(&changelog.partitions) {
        let copies = copies.iter().filter(|copy| copy.partition == partition);
        let mut furthest = -1;
        for copy in copies {
            let Some(position) = copy.position else { continue };
            furthest = furthest.max(position);
            verdict.compared("entries of stores", copy.entries.len());
            let mut state: BTreeMap<&[u8], &Bytes> = BTreeMap::new();
            let mut unknown = BTreeSet::new();
            for record in records {
                let key = record.key.as_deref().unwrap_or_default();
                match record.offset < position {
                    true => drop(state.insert(key, &record.value)),
                    false if !state.contains_key(key) => drop(unknown.insert(key)),
                    false => {}
                }
            }
            let name = format!("{} at {position}", copy.place);
            compare(&state, &unknown, copy, &name, verdict);
        }
        if let Some(last) = records.last()
            && furthest <= last.offset
        {
            verdict.add(Kind::Lost, || {
                let place = changelog.place(last);
                format!("no store has all of the changelog: {place} comes after {furthest}")
            });
        }
    }
}

fn compare(
    state: &BTreeMap<&[u8], &Bytes>,
    unknown: &BTreeSet<&[u8]>,
    copy: &StoreCopy,
    name: &dyn fmt::Display,
    verdict: &mut Verdict,
) {
    for (&key, &value) in state {
        let found = copy.entries.get(key).cloned();
        if found != *value {
            verdict.add(Kind::Wiped, || {
                let (key, value) = (text(&Some(key.to_vec())), text(value));
                format!("{name}: {key} is {}, and {value} in the changelog", text(&found))
            });
        }
    }
    let known = |key: &[u8]| state.contains_key(key) || unknown.contains(key);
    for (key, value) in copy.entries.iter().filter(|(key, _)| !known(key)) {
        check_value(key, &None, &Some(value.clone()), name, verdict);
    }
}

fn check_value(
    key: &[u8],
    expected: &Bytes,
    found: &Bytes,
    place: &dyn fmt::Display,
    verdict: &mut Verdict,
) {
    let kind = match (expected, found) {
        (expected, found) if expected == found => return,
        (Some(_), None) => Kind::Lost,
        (None, _) => Kind::Invented,
        (Some(_), Some(_)) => Kind::Wrong,
    };
    verdict.add(kind, || {
        let key = text(&Some(key.to_vec()));
        format!("{place}: {key} is {}, and must be {}", text(found), text(expected))
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::testing::{record, topic},
        record::Record,
    };

    fn map(entries: &[(&str, &str)]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        entries
            .iter()
            .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect()
    }

    fn changelog() -> Topic {
        let delete = Record { value: None, ..record("b", "") };
        let records =
            [record("a", "1"), record("b", "1"), record("a", "2"), delete, record("c", "1")];
        topic("changelog", vec![records.to_vec()])
    }

    #[test]
    fn the_last_changes_must_be_the_fold() {
        let check = |entries: &[(&str, &str)]| {
            let mut verdict = Verdict::default();
            check_changelog(&map(entries), &changelog(), &mut verdict);
            verdict
        };
        assert!(check(&[("a", "2"), ("c", "1")]).is_good());
        assert!(check(&[("a", "2")]).has(Kind::Invented));
        assert!(check(&[("a", "3"), ("c", "1")]).has(Kind::Wrong));
        assert!(check(&[("a", "2"), ("b", "1"), ("c", "1")]).has(Kind::Lost));
    }

    #[test]
    fn a_key_in_two_partitions_is_found() {
        let two = topic("changelog", vec![vec![record("a", "1")], vec![record("a", "2")]]);
        let mut verdict = Verdict::default();
        check_changelog(&map(&[("a", "2")]), &two, &mut verdict);
        assert!(verdict.has(Kind::Wrong));
    }

    fn stores(copies: &[(i64, &[(&str, &str)])]) -> Verdict {
        let copy = |&(position, entries): &(i64, &[(&str, &str)])| StoreCopy {
            position: Some(position),
            entries: map(entries),
            ..StoreCopy::default()
        };
        let mut verdict = Verdict::default();
        check_stores(&changelog(), &copies.iter().map(copy).collect::<Vec<_>>(), &mut verdict);
        verdict
    }

    const WHOLE: (i64, &[(&str, &str)]) = (6, &[("a", "2"), ("c", "1")]);

    #[test]
    fn a_store_must_hold_the_changelog_up_to_its_position() {
        assert!(stores(&[WHOLE]).is_good());
        assert!(stores(&[WHOLE, (2, &[("a", "1"), ("b", "1")])]).is_good());
        assert!(stores(&[WHOLE, (1, &[("a", "1"), ("b", "was compacted away")])]).is_good());
        assert!(stores(&[WHOLE, (2, &[("a", "2"), ("b", "1")])]).has(Kind::Wiped), "ahead");
        assert!(stores(&[(6, &[("c", "1")])]).has(Kind::Wiped), "lost");
        assert!(stores(&[(6, &[("a", "2"), ("b", "1"), ("c", "1")])]).has(Kind::Wiped), "deleted");
        assert!(stores(&[(6, &[("a", "2"), ("c", "1"), ("d", "1")])]).has(Kind::Invented));
    }

    #[test]
    fn one_store_must_have_all() {
        assert!(stores(&[(4, &[("a", "2")])]).has(Kind::Lost));
        assert!(stores(&[]).has(Kind::Lost));
    }
}
