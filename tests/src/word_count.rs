//! Word count in two stages: a pipeline, its load, and what it has to come to.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::{
    follow::Record as Read,
    load::Record,
    random::Random,
    scene::{Play, Scene},
};

/// The pipeline file.
const PIPELINE: &str = "\
application: {application}
kafka:
  bootstrap.servers: {bootstrap}
  consumer:
    session.timeout.ms: 6000
    heartbeat.interval.ms: 1000
workers: 2
identity: {name}
state:
  directory: {state}
transforms:
  - name: split
    module: {modules}/split-words.wasm
    inputs: ['{topic:lines}']
    outputs:
      words: {repartition: words}
  - name: count
    module: {modules}/count-words.wasm
    inputs: [{repartition: words}]
    stores: [counts]
    outputs:
      counts: '{topic:counts}'
";

/// Lines of many words, most of them rare: what the chaos run feeds.
pub const WORD_COUNT: Play = Play {
    pipeline: PIPELINE,
    inputs: &[("lines", many_words, 300)],
    outputs: &["counts"],
    repartitions: &["words"],
    stores: &["counts"],
    check: check_scene,
};

/// Lines of a few well-known words: what the demo shows.
pub const WORD_COUNT_FOR_PEOPLE: Play =
    Play { inputs: &[("lines", known_words, 100)], ..WORD_COUNT };

const KNOWN: &[&str] = &[
    "the", "river", "runs", "to", "sea", "and", "stone", "under", "light", "of", "old", "bridge",
    "where", "wind", "keeps", "its", "word", "a", "boat", "waits", "for", "rain", "in", "quiet",
    "harbour", "while", "night", "counts", "stars", "one", "by", "again",
];

fn line(words: impl Iterator<Item = String>) -> Record {
    let line = words.collect::<Vec<_>>().join(" ");
    Record { value: Some(line.into_bytes()), ..Record::default() }
}

fn known_words(_: u64, random: &mut Random) -> Record {
    let count = random.within(3..9);
    line((0..count).map(|_| {
        let index = random.skewed(KNOWN.len() as u64);
        KNOWN[usize::try_from(index).expect("an index")].to_owned()
    }))
}

pub(crate) fn many_words(_: u64, random: &mut Random) -> Record {
    let count = random.within(1..6);
    line((0..count).map(|_| format!("word{}", random.skewed(5_000))))
}

/// How often each word is in these lines, counted here and now.
#[must_use]
pub fn count(lines: &[Read]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in lines {
        for word in line.value_text().split_whitespace() {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    counts
}

fn check_scene(scene: &Scene) -> Result<String> {
    let (lines, output) = (scene.read(&scene.topic("lines"))?, scene.read(&scene.topic("counts"))?);
    let outputs = check(&lines, &output)?;
    let words = check_changelog(&lines, &scene.read(&scene.changelog("counts"))?)?;
    Ok(format!(
        "exact: {} lines hold {words} different words; every count is right, and each of {outputs} \
         outputs is there once and in order",
        lines.len()
    ))
}

/// Checks that the last change of every word is its count; gives the number of words.
fn check_changelog(lines: &[Read], changelog: &[Read]) -> Result<usize> {
    let last = |record: &Read| (record.key_text(), record.value_text());
    let state: BTreeMap<_, _> = changelog.iter().map(last).collect();
    let expected: BTreeMap<_, _> =
        count(lines).into_iter().map(|(word, count)| (word, count.to_string())).collect();
    let differs = expected.iter().find(|(word, count)| state.get(*word) != Some(count));
    ensure!(differs.is_none(), "the changelog does not end with {differs:?}");
    ensure!(state.len() == expected.len(), "the changelog has words that the input has not");
    Ok(state.len())
}

/// Checks that for every word the output counts up from one, without a gap or a repetition, to
/// what was counted here; gives the number of output records.
pub fn check(lines: &[Read], output: &[Read]) -> Result<usize> {
    let expected = count(lines);
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for record in output {
        let (word, value) = (record.key_text(), record.value_text());
        let last = seen.entry(word.clone()).or_default();
        ensure!(
            value == (*last + 1).to_string(),
            "`{word}` was counted {last}, and then {value}, at offset {} of partition {}",
            record.offset,
            record.partition
        );
        *last += 1;
    }
    for (word, count) in &expected {
        let counted = seen.get(word).copied().unwrap_or_default();
        ensure!(counted == *count, "`{word}` is there {count} times and was counted {counted}");
    }
    let foreign = seen.keys().find(|word| !expected.contains_key(*word));
    ensure!(foreign.is_none(), "{foreign:?} was counted and isn't there");
    Ok(output.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Read {
        Read { value: Some(text.into()), ..Read::default() }
    }

    fn counted(word: &str, count: &str) -> Read {
        Read { key: Some(word.into()), value: Some(count.into()), ..Read::default() }
    }

    fn verdict(output: &[(&str, &str)]) -> bool {
        let output: Vec<_> = output.iter().map(|(word, n)| counted(word, n)).collect();
        check(&[line("a b"), line("a")], &output).is_ok()
    }

    #[test]
    fn every_count_must_be_there_once_and_in_order() {
        assert!(verdict(&[("a", "1"), ("b", "1"), ("a", "2")]));
        assert!(!verdict(&[("a", "1"), ("b", "1")]), "lost");
        assert!(!verdict(&[("a", "1"), ("a", "1"), ("b", "1"), ("a", "2")]), "doubled");
        assert!(!verdict(&[("a", "2"), ("b", "1"), ("a", "1")]), "reordered");
        assert!(!verdict(&[("a", "1"), ("b", "1"), ("a", "2"), ("c", "1")]), "invented");
        assert!(!verdict(&[("a", "1"), ("b", "1"), ("a", "2"), ("a", "3")]), "too many");
    }
}
