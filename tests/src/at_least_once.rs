//! A pipeline without transactions: nothing may be lost, some of it may be there twice.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use sidestream_verifier::verdict::Verdict;

use crate::{
    examples,
    follow::Record,
    scene::{Play, Scene},
};

/// Pass-through and count over one input, whose values are numbers that no other record has.
pub const AT_LEAST_ONCE: Play = Play {
    pipeline: "\
{head}
guarantee: at_least_once
transforms:
  - name: pass-through
    module: {modules}/pass-through.wasm
    inputs: ['{topic:events}']
    outputs: { out: '{topic:passed}' }
  - name: count
    module: {modules}/count.wasm
    inputs: ['{topic:counted}']
    stores: [counts]
    outputs: { counts: '{topic:counts}' }
",
    inputs: &[("events", examples::event, 300), ("counted", examples::event, 300)],
    outputs: &["passed", "counts"],
    repartitions: &[],
    stores: &["counts"],
    check,
};

fn check(scene: &Scene) -> Result<Vec<Verdict>> {
    let read = |name: &str| scene.read(&scene.topic(name));
    let mut verdict = Verdict::default();
    let (events, passed) = (read("events")?, read("passed")?);
    check_order(&events, &passed)?;
    verdict.compared("records passed", passed.len());
    let (counted, counts) = (read("counted")?, read("counts")?);
    check_counts(&counted, &counts)?;
    verdict.compared("counts", counts.len());
    Ok(vec![verdict])
}

/// In each partition the outputs, without those that were there before, are the inputs.
fn check_order(inputs: &[Record], outputs: &[Record]) -> Result<()> {
    ensure!(!inputs.is_empty(), "nothing was sent");
    let in_order = |records: &[Record], once: bool| {
        let (mut partitions, mut seen) = (BTreeMap::<i32, Vec<Record>>::new(), BTreeSet::new());
        for record in records {
            if !once || seen.insert(record.value.clone()) {
                let of_partition = partitions.entry(record.partition).or_default();
                of_partition.push(Record { offset: 0, ..record.clone() });
            }
        }
        partitions
    };
    let (expected, found) = (in_order(inputs, false), in_order(outputs, true));
    for (partition, expected) in expected {
        let found = found.get(&partition).map_or(&[][..], Vec::as_slice);
        let differs = expected.iter().zip(found).position(|(expected, found)| expected != found);
        ensure!(differs.is_none(), "partition {partition} differs from record {differs:?} on");
        let (expected, found) = (expected.len(), found.len());
        ensure!(expected == found, "partition {partition}: {found} of {expected} records came out");
    }
    Ok(())
}

/// The last count of each key is at least the number of its records.
fn check_counts(inputs: &[Record], counts: &[Record]) -> Result<()> {
    let mut last = BTreeMap::new();
    for count in counts {
        last.insert(count.key.clone(), count.value_text());
    }
    let mut expected = BTreeMap::<_, u64>::new();
    for input in inputs {
        *expected.entry(input.key.clone()).or_default() += 1;
    }
    for (key, expected) in expected {
        let count = last.get(&key).with_context(|| format!("{key:?} was not counted"))?;
        ensure!(
            count.parse::<u64>()? >= expected,
            "{key:?} was counted {count} < {expected} times"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(values: &[&str]) -> Vec<Record> {
        let record = |value: &&str| Record {
            key: Some(b"k".to_vec()),
            value: Some(value.as_bytes().to_vec()),
            ..Record::default()
        };
        values.iter().map(record).collect()
    }

    #[test]
    fn repetitions_are_fine_and_losses_are_not() {
        let inputs = records(&["1", "2", "3"]);
        check_order(&inputs, &records(&["1", "2", "1", "2", "3"])).unwrap();
        check_order(&inputs, &records(&["1", "3"])).unwrap_err();
        check_order(&inputs, &records(&["2", "1", "3"])).unwrap_err();
        check_order(&inputs, &records(&["1", "2"])).unwrap_err();
        check_counts(&inputs, &records(&["1", "4"])).unwrap();
        check_counts(&inputs, &records(&["1", "2"])).unwrap_err();
        check_counts(&inputs, &[]).unwrap_err();
    }
}
