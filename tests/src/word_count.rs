//! Word count in two stages: a pipeline, its load, and what it has to come to.

use anyhow::Result;
use sidestream_verifier::{run::WordCount, verdict::Verdict};

use crate::{
    load::Record,
    random::Random,
    scene::{Play, Scene},
};

/// The pipeline file.
const PIPELINE: &str = "\
{head}
memory_max: 128MiB
swap: { probation_records: 200, probation_time: 2s }
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
    check,
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

/// What the verifier says of the word count of a scene.
pub(crate) fn check(scene: &Scene) -> Result<Vec<Verdict>> {
    let verdict = scene.pipeline().word_count(&WordCount {
        lines: scene.topic("lines"),
        repartition: "words".to_owned(),
        counts: scene.topic("counts"),
        store: "counts".to_owned(),
    })?;
    Ok(vec![verdict])
}
