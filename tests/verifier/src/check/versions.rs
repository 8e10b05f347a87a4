//! Outputs that say which version of a module made them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::stamped::stamp;
use crate::{
    record::{Record, Topic},
    verdict::{Kind, Verdict},
};

/// For each partition of the inputs, the version of each record that came out, by its offset.
type Histories<'a> = HashMap<(usize, i32), BTreeMap<i64, First<'a>>>;

/// The output that was seen first of those of an input record.
struct First<'a> {
    version: u32,
    output: &'a Topic,
    record: &'a Record,
}

/// Checks that all outputs of an input record are of one version, and none is of a version that
/// was `never` to commit anything. An output says its version in the header `version`, in decimal
/// digits, and where it is from as [`check_stamped`](super::check_stamped) has it, which is to be
/// asked too: what is lost or doubled is not looked for here.
///
/// How many versions there were is counted, and how often the version changes from one record of
/// an input partition to the next.
pub fn check_versions(
    inputs: &[Topic],
    outputs: &[Topic],
    never: &BTreeSet<u32>,
    verdict: &mut Verdict,
) {
    let mut histories = Histories::new();
    let mut versions = HashSet::new();
    for output in outputs {
        for record in output.records() {
            let Some(version) = version(record) else {
                verdict.add(Kind::Wrong, || {
                    format!("{} ({record}) does not say its version", output.place(record))
                });
                continue;
            };
            versions.insert(version);
            if never.contains(&version) {
                verdict.add(Kind::Invented, || {
                    let place = output.place(record);
                    format!("{place} ({record}) is of version {version}, which never ran")
                });
            }
            let Some((input, partition, offset)) = stamp(record, inputs) else { continue };
            let history = histories.entry((input, partition)).or_default();
            let first = history.entry(offset).or_insert(First { version, output, record });
            if first.version != version {
                verdict.add(Kind::Doubled, || two_versions(first, output, record, version));
            }
        }
    }
    verdict.compared("versions", versions.len());
    verdict.compared("changes of version", histories.values().map(changes).sum());
}

fn version(record: &Record) -> Option<u32> {
    record.header("version")?.parse().ok()
}

fn two_versions(first: &First<'_>, output: &Topic, record: &Record, version: u32) -> String {
    let (place, first_place) = (output.place(record), first.output.place(first.record));
    format!(
        "{place} ({record}) is of version {version}, and {first_place}, which is from the same \
         record, of version {}",
        first.version
    )
}

/// How often the version is another one than that of the record before.
fn changes(history: &BTreeMap<i64, First<'_>>) -> usize {
    let after = history.values().skip(1);
    history.values().zip(after).filter(|(before, after)| before.version != after.version).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{
        Stamps, check_stamped,
        testing::{record, topic},
    };

    const STAMPS: Stamps = Stamps { outputs_per_record: 2, same_value: false };

    fn inputs() -> Vec<Topic> {
        let records = || (0..10).map(|n| record("k", &format!("v{n}"))).collect();
        vec![topic("in", vec![records(), records()])]
    }

    fn output(cause: &Record, version: u32) -> Record {
        let header = |name: &str, value: String| (name.to_owned(), Some(value.into_bytes()));
        let headers = vec![
            header("input", "in".to_owned()),
            header("partition", cause.partition.to_string()),
            header("offset", cause.offset.to_string()),
            header("version", version.to_string()),
        ];
        Record { headers, ..record("k", "1") }
    }

    /// Each record once: the first four of each partition of version 1, then 2, the last again 1.
    fn records() -> Vec<Record> {
        let version = |cause: &Record| if (4..9).contains(&cause.offset) { 2 } else { 1 };
        inputs()[0].records().map(|cause| output(cause, version(cause))).collect()
    }

    /// What comes of two outputs for each record, of which the second one is changed.
    fn verdict(never: &[u32], change: impl Fn(&mut Vec<Record>)) -> Verdict {
        let (same, mut changed) = (records(), records());
        change(&mut changed);
        let outputs = [topic("out", vec![same]), topic("copies", vec![vec![], changed])];
        let mut verdict = Verdict::default();
        check_stamped(&inputs(), &outputs, STAMPS, &mut verdict);
        check_versions(&inputs(), &outputs, &never.iter().copied().collect(), &mut verdict);
        verdict
    }

    fn says(verdict: &Verdict, kind: Kind, text: &str) -> bool {
        verdict.violations.iter().any(|v| v.kind == kind && v.message.contains(text))
    }

    #[test]
    fn versions_come_and_go_between_records() {
        let good = verdict(&[3], |_| {});
        assert!(good.is_good(), "{good}");
        let compared = |what: &str| good.compared[what];
        assert_eq!((compared("versions"), compared("changes of version")), (2, 4));
    }

    #[test]
    fn two_versions_of_one_record_are_found() {
        let mixed = verdict(&[], |records| records[3].headers[3].1 = Some(b"2".to_vec()));
        assert!(says(&mixed, Kind::Doubled, "copies[1]@3"), "{mixed}");
        assert!(says(&mixed, Kind::Doubled, "and out[0]@3"), "{mixed}");
        assert_eq!(mixed.counts[&Kind::Doubled], 1);
        // Its outputs are as many as they must be, and from two versions.
        let instead = verdict(&[], |records| {
            let another = output(&inputs()[0].partitions[1][0], 2);
            records[10] = another;
        });
        assert!(says(&instead, Kind::Doubled, "copies[1]@10"), "{instead}");
    }

    #[test]
    fn a_version_that_never_ran_is_found() {
        let refused = verdict(&[2], |_| {});
        assert!(says(&refused, Kind::Invented, "out[0]@4"), "{refused}");
        assert_eq!(refused.counts[&Kind::Invented], 20);
    }

    #[test]
    fn an_output_without_a_version_is_found() {
        for header in [None, Some(b"two".to_vec())] {
            let without = verdict(&[], |records| records[5].headers[3].1 = header.clone());
            assert!(says(&without, Kind::Wrong, "copies[1]@5"), "{without}");
        }
    }

    #[test]
    fn what_is_lost_or_doubled_is_found_as_ever() {
        assert!(verdict(&[], |records| drop(records.remove(4))).has(Kind::Lost));
        let doubled = |records: &mut Vec<Record>| records.push(records[19].clone());
        assert!(verdict(&[], doubled).has(Kind::Doubled));
        // Once by the old version, and once again by the new one.
        let again = |records: &mut Vec<Record>| {
            let again = output(&inputs()[0].partitions[0][3], 2);
            records.insert(4, again);
        };
        let again = verdict(&[], again);
        assert!(says(&again, Kind::Doubled, "in[0]@3"), "{again}");
        assert!(says(&again, Kind::Doubled, "of version 2"), "{again}");
    }
}
