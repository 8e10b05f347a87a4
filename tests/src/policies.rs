//! Transforms that meet poison, and what their policies make of it: one record in a thousand traps,
//! is rejected, asks for another try, emits too much or something that Kafka refuses, and a few
//! never come to an end. All others pass, in order, and nothing of what failed is seen but where a
//! policy puts it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use sidestream_verifier::verdict::Verdict;

use crate::{
    follow::Record,
    load,
    random::Random,
    scene::{Play, Scene},
};

/// A transform for each policy, each with a topic and a store of its own.
pub const POLICIES: Play = Play {
    pipeline: "\
{head}
limits: { batch_time_max: 400ms, record_bytes_max: 2MB, output_bytes_max: 4MB, retry_backoff: 20ms, retry_attempts_max: 3 }
transforms:
  - name: skipping
    module: {modules}/poison.wasm
    inputs: ['{topic:skipped-in}']
    stores: [skipped]
    outputs: { out: '{topic:skipped-out}' }
    on_error: skip
    config: &poison { trap: ['trap'], reject: ['reject'], retry: ['retry'], flood: ['flood'], large: ['large'], spin: ['spin'] }
  - name: dead-lettering
    module: {modules}/poison.wasm
    inputs: ['{topic:dead-in}']
    stores: [dead]
    outputs: { out: '{topic:dead-out}' }
    on_error: { dead_letter: '{application}-dead' }
    config: *poison
  - name: retrying
    module: {modules}/poison.wasm
    inputs: ['{topic:retried-in}']
    stores: [retried]
    outputs: { out: '{topic:retried-out}' }
    on_error: { dead_letter: '{application}-retried' }
    retry: { attempts: 2, backoff: 10ms }
    config: *poison
",
    inputs: &[
        ("skipped-in", record, 1_000),
        ("dead-in", record, 1_000),
        ("retried-in", record, 1_000),
    ],
    outputs: &["skipped-out", "dead-out", "retried-out"],
    repartitions: &[],
    stores: &["skipped", "dead", "retried"],
    check,
};

/// How records fail; the words that their values begin with, and what headers call it.
const WAYS: [(&str, &str); 5] = [
    ("trap", "trap"),
    ("reject", "reject"),
    ("retry", "retry"),
    ("flood", "limit"),
    ("large", "refused"),
];

/// A record of one of a few keys; its value has a number that no other has.
fn record(number: u64, random: &mut Random) -> load::Record {
    let word = match number {
        _ if number % 10_000 == 7_777 => "spin",
        _ if number % 1_000 == 500 => WAYS[usize::try_from(number / 1_000 % 5).unwrap_or(0)].0,
        _ => "fine",
    };
    load::Record {
        key: Some(format!("key-{}", random.skewed(40)).into_bytes()),
        value: Some(format!("{word} {number}").into_bytes()),
        timestamp: None,
    }
}

/// What the headers of a dead letter call the way in which a record fails, if it does.
fn kind(record: &Record) -> Option<&'static str> {
    let text = record.value_text();
    let ways = WAYS.into_iter().chain([("spin", "deadline")]);
    let mut found = ways.filter(|(word, _)| text.starts_with(word));
    found.next().map(|(_, kind)| kind)
}

fn check(scene: &Scene) -> Result<Vec<Verdict>> {
    let mut verdict = Verdict::default();
    let dead = |name: &str| format!("{}-{name}", scene.application());
    for (name, transform, dead_letters) in [
        ("skipped", "skipping", None),
        ("dead", "dead-lettering", Some(dead("dead"))),
        ("retried", "retrying", Some(dead("retried"))),
    ] {
        let topic = scene.topic(&format!("{name}-in"));
        let inputs = scene.read(&topic)?;
        let (poison, fine): (Vec<_>, Vec<_>) =
            inputs.into_iter().partition(|record| kind(record).is_some());
        let outputs = scene.read(&scene.topic(&format!("{name}-out")))?;
        ensure!(poison.len() >= WAYS.len(), "{topic} had only {} that fail", poison.len());
        check_outputs(&fine, &outputs).with_context(|| topic.clone())?;
        check_store(&fine, &scene.read(&scene.changelog(name))?).with_context(|| topic.clone())?;
        if let Some(dead_letters) = dead_letters {
            let letters = scene.read(&dead_letters)?;
            check_letters(&topic, transform, &poison, &letters).with_context(|| topic.clone())?;
            verdict.compared("dead letters", letters.len());
        }
        verdict.compared("records passed", outputs.len());
        verdict.compared("records that fail", poison.len());
    }
    Ok(vec![verdict])
}

fn by_partition(records: &[Record]) -> BTreeMap<i32, Vec<Record>> {
    let mut partitions = BTreeMap::<i32, Vec<Record>>::new();
    for record in records {
        let place = partitions.entry(record.partition).or_default();
        place.push(Record { offset: 0, headers: Vec::new(), ..record.clone() });
    }
    partitions
}

/// What came out is what went in, in its order.
fn check_outputs(inputs: &[Record], outputs: &[Record]) -> Result<()> {
    ensure!(!inputs.is_empty(), "nothing was sent");
    let (expected, found) = (by_partition(inputs), by_partition(outputs));
    for (partition, expected) in &expected {
        let found = found.get(partition).map_or(&[][..], Vec::as_slice);
        let differs = expected.iter().zip(found).find(|(expected, found)| expected != found);
        ensure!(differs.is_none(), "partition {partition}: {differs:?}");
        let (expected, found) = (expected.len(), found.len());
        ensure!(expected == found, "partition {partition}: {found} of {expected} came out");
    }
    ensure!(inputs.len() == outputs.len(), "there is more than went in");
    Ok(())
}

/// The store has the last value of each key.
fn check_store(inputs: &[Record], changes: &[Record]) -> Result<()> {
    let fold = |records: &[Record]| -> BTreeMap<_, _> {
        records.iter().map(|record| (record.key.clone(), record.value.clone())).collect()
    };
    ensure!(fold(inputs) == fold(changes), "the store is not the fold of its input");
    Ok(())
}

/// Each record that fails is there once, as it was read, and says what happened to it.
fn check_letters(
    topic: &str,
    transform: &str,
    poison: &[Record],
    letters: &[Record],
) -> Result<()> {
    let expected: BTreeMap<_, _> = poison.iter().map(|record| (&record.value, record)).collect();
    ensure!(expected.len() == letters.len(), "{} of {} are there", letters.len(), expected.len());
    for letter in letters {
        let record = expected.get(&letter.value).with_context(|| format!("{letter:?} is new"))?;
        ensure!(letter.key == record.key && letter.timestamp == record.timestamp, "{letter:?}");
        let header = |name: &str| letter.header_text(&format!("__streams.errors.{name}"));
        let said = ["exception", "topic", "partition", "offset", "processor.node.id", "task.id"];
        let said = said.map(|name| header(name).unwrap_or_default());
        let (partition, offset) = (record.partition.to_string(), record.offset.to_string());
        let kind = kind(record).unwrap_or_default();
        ensure!(
            said[..5] == [kind, topic, &partition, &offset, transform],
            "{record:?} has the headers {said:?}"
        );
        ensure!(said[5].ends_with(&format!("_{partition}")), "{record:?} is of task {}", said[5]);
        ensure!(header("message").is_some_and(|message| !message.is_empty()), "nothing is said");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_in_a_thousand_fails_in_each_way() {
        let mut random = Random::new(1);
        let mut counts = BTreeMap::<_, u32>::new();
        for number in 0..40_000 {
            let load::Record { key, value, .. } = record(number, &mut random);
            *counts.entry(kind(&Record { key, value, ..Record::default() })).or_default() += 1;
        }
        let kinds = ["trap", "reject", "retry", "limit", "refused"].map(|kind| (Some(kind), 8));
        let all = kinds.into_iter().chain([(Some("deadline"), 4), (None, 39_956)]).collect();
        assert_eq!(counts, all);
    }

    #[test]
    fn what_is_lost_doubled_or_out_of_order_is_seen() {
        let record = |value: &str| Record { value: Some(value.into()), ..Record::default() };
        let inputs = ["1", "2", "3"].map(record);
        check_outputs(&inputs, &inputs).unwrap();
        for wrong in [&["1", "3"][..], &["1", "2", "2", "3"], &["2", "1", "3"], &["1", "2"]] {
            let wrong: Vec<_> = wrong.iter().map(|value| record(value)).collect();
            check_outputs(&inputs, &wrong).unwrap_err();
        }
    }
}
