//! Outputs that say which input record caused them.

use std::collections::{BTreeMap, HashMap};

use crate::{
    record::{Record, Topic},
    verdict::{Kind, Verdict},
};

/// What the outputs of a pipeline of stamping modules must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamps {
    /// How many outputs each input record has.
    pub outputs_per_record: u64,
    /// Whether an output has the value of its input record.
    pub same_value: bool,
}

/// A place in an input: which one, partition, offset.
type Place = (usize, i32, i64);

/// Checks that each input record's outputs are there once, and that those of one input partition
/// stand in its order within each partition of the output. An output says by its headers `input`
/// (the topic's name, or the number of the input), `partition` and `offset` where it is from, in
/// decimal digits.
pub fn check_stamped(inputs: &[Topic], outputs: &[Topic], stamps: Stamps, verdict: &mut Verdict) {
    let mut found: HashMap<Place, u64> = HashMap::new();
    let known = places(inputs);
    for output in outputs {
        verdict.compared("output records", output.len());
        for partition in &output.partitions {
            let mut last: BTreeMap<(usize, i32), i64> = BTreeMap::new();
            for record in partition {
                let Some(place) = stamp(record, inputs) else {
                    verdict.add(Kind::Wrong, || {
                        format!("{} ({record}) has no stamp", output.place(record))
                    });
                    continue;
                };
                check_output(record, place, &known, (output, stamps), verdict);
                *found.entry(place).or_default() += 1;
                let last = last.entry((place.0, place.1)).or_insert(i64::MIN);
                if place.2 < *last {
                    verdict.add(Kind::Reordered, || {
                        format!("{} ({record}) comes after offset {last}", output.place(record))
                    });
                }
                *last = (*last).max(place.2);
            }
        }
    }
    for (input, topic) in inputs.iter().enumerate() {
        verdict.compared("input records", topic.len());
        for record in topic.records() {
            let place = (input, record.partition, record.offset);
            check_number(record, topic, (found.get(&place), stamps.outputs_per_record), verdict);
        }
    }
}

fn places(inputs: &[Topic]) -> HashMap<Place, &Record> {
    let mut places = HashMap::new();
    for (input, topic) in inputs.iter().enumerate() {
        let records = topic.records();
        places.extend(records.map(|record| ((input, record.partition, record.offset), record)));
    }
    places
}

fn check_output(
    record: &Record,
    place: Place,
    known: &HashMap<Place, &Record>,
    (output, stamps): (&Topic, Stamps),
    verdict: &mut Verdict,
) {
    match known.get(&place) {
        Some(cause) if stamps.same_value && cause.value != record.value => {
            verdict.add(Kind::Wrong, || {
                format!("{} ({record}) has not the value of ({cause})", output.place(record))
            });
        }
        Some(_) => {}
        None => verdict.add(Kind::Invented, || {
            format!("{} ({record}) is from no record of the input", output.place(record))
        }),
    }
}

fn check_number(
    record: &Record,
    input: &Topic,
    (found, expected): (Option<&u64>, u64),
    verdict: &mut Verdict,
) {
    let found = found.copied().unwrap_or(0);
    let kind = match found.cmp(&expected) {
        std::cmp::Ordering::Less => Kind::Lost,
        std::cmp::Ordering::Equal => return,
        std::cmp::Ordering::Greater => Kind::Doubled,
    };
    verdict.add(kind, || {
        format!("{} ({record}) has {found} outputs, not {expected}", input.place(record))
    });
}

/// Where an output says that it is from.
pub(super) fn stamp(record: &Record, inputs: &[Topic]) -> Option<Place> {
    let name = record.header("input")?;
    let number = || name.parse().ok().filter(|&number: &usize| number < inputs.len());
    let input = inputs.iter().position(|input| input.name == name).or_else(number)?;
    let partition = record.header("partition")?.parse().ok()?;
    Some((input, partition, record.header("offset")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::{record, topic};

    fn inputs() -> Vec<Topic> {
        let records = || (0..10).map(|n| record("k", &format!("v{n}"))).collect();
        vec![topic("left", vec![records(), records()]), topic("right", vec![records()])]
    }

    fn stamped(cause: &Record, input: &str) -> Record {
        let header = |name: &str, value: String| (name.to_owned(), Some(value.into_bytes()));
        let headers = vec![
            header("input", input.to_owned()),
            header("partition", cause.partition.to_string()),
            header("offset", cause.offset.to_string()),
        ];
        Record { headers, ..record("k", &String::from_utf8_lossy(cause.value.as_ref().unwrap())) }
    }

    fn good() -> Vec<Record> {
        let inputs = inputs();
        let left = inputs[0].records().map(|record| stamped(record, "left"));
        left.chain(inputs[1].records().map(|record| stamped(record, "1"))).collect()
    }

    fn verdict(change: impl Fn(&mut Vec<Record>)) -> Verdict {
        let mut records = good();
        change(&mut records);
        let stamps = Stamps { outputs_per_record: 1, same_value: true };
        let mut verdict = Verdict::default();
        check_stamped(&inputs(), &[topic("out", vec![records, vec![]])], stamps, &mut verdict);
        verdict
    }

    #[test]
    fn each_once_and_in_order_is_good() {
        let good = verdict(|_| {});
        assert!(good.is_good(), "{good}");
        // The order among partitions is free.
        assert!(verdict(|records| records.rotate_left(10)).is_good());
    }

    #[test]
    fn every_way_to_tamper_is_found() {
        assert!(verdict(|records| drop(records.remove(3))).has(Kind::Lost));
        assert!(verdict(|records| records.push(records[29].clone())).has(Kind::Doubled));
        assert!(verdict(|records| records.swap(3, 4)).has(Kind::Reordered));
        assert!(verdict(|records| records[3].value = None).has(Kind::Wrong));
        assert!(verdict(|records| records[3].headers.clear()).has(Kind::Wrong));
        let foreign = |records: &mut Vec<Record>| {
            let mut record = records[9].clone();
            record.headers[2].1 = Some(b"99".to_vec());
            records.push(record);
        };
        assert!(verdict(foreign).has(Kind::Invented));
        assert!(verdict(|records| records[3].headers[0].1 = Some(b"7".to_vec())).has(Kind::Wrong));
    }
}
