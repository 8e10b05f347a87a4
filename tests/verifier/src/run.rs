//! Reads what a pipeline of each kind read and wrote, and checks it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::Result;

use crate::{check, disk::read_stores, read::Cluster, record::Topic, verdict::Verdict};

/// A pipeline whose work is to be verified. It must have settled: everything processed, and its
/// agents stopped if state directories are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// Where its topics are.
    pub cluster: Cluster,
    /// Its application id.
    pub application: String,
    /// The state directories of all of its agents; none, and stores are not looked at.
    pub state_directories: Vec<PathBuf>,
}

impl Pipeline {
    /// A copy of one topic.
    pub fn pass_through(&self, input: &str, output: &str) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        let input = self.input(input, &mut verdict)?;
        let output = self.cluster.read(output, &mut verdict)?;
        check::check_pass_through(&input, &output, &mut verdict);
        Ok(verdict)
    }

    /// Word count in two stages: lines, a repartition topic, counts, and the store of the counts.
    pub fn word_count(&self, names: &WordCount) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        let lines = self.input(&names.lines, &mut verdict)?;
        let repartition = format!("{}-{}-repartition", self.application, names.repartition);
        self.cluster.check_settled(&self.application, &repartition, &mut verdict)?;
        let counts = check::count_words(&lines);
        verdict.compared("lines", lines.len());
        self.check_counts(&counts, (&names.counts, &names.store), &mut verdict)?;
        Ok(verdict)
    }

    /// A count of the records of each key, in all inputs together.
    pub fn count(&self, inputs: &[String], counts: &str, store: &str) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        let mut expected = BTreeMap::new();
        for input in inputs {
            let input = self.input(input, &mut verdict)?;
            verdict.compared("input records", input.len());
            for (key, count) in check::count_keys(&input) {
                *expected.entry(key).or_default() += count;
            }
        }
        self.check_counts(&expected, (counts, store), &mut verdict)?;
        Ok(verdict)
    }

    fn check_counts(
        &self,
        counts: &BTreeMap<Vec<u8>, u64>,
        (output, store): (&str, &str),
        verdict: &mut Verdict,
    ) -> Result<()> {
        let output = self.cluster.read(output, verdict)?;
        check::check_counts(counts, &output, verdict);
        let fold =
            counts.iter().map(|(key, n)| (key.clone(), n.to_string().into_bytes())).collect();
        let changelog = self.check_state(store, &fold, verdict)?;
        check::check_rising(&changelog, verdict);
        Ok(())
    }

    /// Outputs that say which input record caused them.
    pub fn stamped(
        &self,
        inputs: &[String],
        outputs: &[String],
        stamps: check::Stamps,
    ) -> Result<Verdict> {
        self.stamped_by(inputs, outputs, stamps, None)
    }

    /// The same, by modules that also say their versions: each record by one, and none by those
    /// that were `never` to commit anything.
    pub fn versions(
        &self,
        inputs: &[String],
        outputs: &[String],
        stamps: check::Stamps,
        never: &BTreeSet<u32>,
    ) -> Result<Verdict> {
        self.stamped_by(inputs, outputs, stamps, Some(never))
    }

    fn stamped_by(
        &self,
        inputs: &[String],
        outputs: &[String],
        stamps: check::Stamps,
        never: Option<&BTreeSet<u32>>,
    ) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        let inputs: Result<Vec<_>> =
            inputs.iter().map(|topic| self.input(topic, &mut verdict)).collect();
        let outputs: Result<Vec<_>> =
            outputs.iter().map(|topic| self.cluster.read(topic, &mut verdict)).collect();
        let (inputs, outputs) = (inputs?, outputs?);
        check::check_stamped(&inputs, &outputs, stamps, &mut verdict);
        if let Some(never) = never {
            check::check_versions(&inputs, &outputs, never, &mut verdict);
        }
        Ok(verdict)
    }

    /// Orders joined with a table of customers, which is the store too.
    pub fn enrich(&self, names: &Enrich) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        let orders = self.input(&names.orders, &mut verdict)?;
        let customers = self.input(&names.customers, &mut verdict)?;
        let output = self.cluster.read(&names.enriched, &mut verdict)?;
        check::check_enriched(&orders, &customers, &output, &mut verdict);
        self.check_state(&names.store, &check::fold_table(&customers), &mut verdict)?;
        Ok(verdict)
    }

    /// The first record of each key within a time.
    pub fn dedupe(&self, names: &Dedupe) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        let input = self.input(&names.input, &mut verdict)?;
        let output = self.cluster.read(&names.output, &mut verdict)?;
        check::check_dedupe(&input, &output, names.within_ms, &mut verdict);
        for store in &names.stores {
            let changelog = self.changelog(store, &mut verdict)?;
            self.check_stores(store, &changelog, &mut verdict)?;
        }
        Ok(verdict)
    }

    fn input(&self, topic: &str, verdict: &mut Verdict) -> Result<Topic> {
        self.cluster.read_committed_by(&self.application, topic, verdict)
    }

    fn changelog(&self, store: &str, verdict: &mut Verdict) -> Result<Topic> {
        let topic = format!("{}-{store}-changelog", self.application);
        self.cluster.read(&topic, verdict)
    }

    /// Checks that the changelog of a store and the store itself are this fold.
    fn check_state(
        &self,
        store: &str,
        fold: &BTreeMap<Vec<u8>, Vec<u8>>,
        verdict: &mut Verdict,
    ) -> Result<Topic> {
        let changelog = self.changelog(store, verdict)?;
        check::check_changelog(fold, &changelog, verdict);
        self.check_stores(store, &changelog, verdict)?;
        Ok(changelog)
    }

    fn check_stores(&self, store: &str, changelog: &Topic, verdict: &mut Verdict) -> Result<()> {
        if !self.state_directories.is_empty() {
            let copies = read_stores(&self.state_directories, store)?;
            check::check_stores(changelog, &copies, verdict);
        }
        Ok(())
    }
}

/// The parts of a word count, as the pipeline names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordCount {
    /// The topic of lines.
    pub lines: String,
    /// The repartition topic's name in the pipeline.
    pub repartition: String,
    /// The topic of counts.
    pub counts: String,
    /// The store.
    pub store: String,
}

/// The parts of a join with a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrich {
    /// The topic of the stream.
    pub orders: String,
    /// The topic of the table.
    pub customers: String,
    /// The topic of the output.
    pub enriched: String,
    /// The store.
    pub store: String,
}

/// The parts of a de-duplicator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dedupe {
    /// The topic of the input.
    pub input: String,
    /// The topic of the output.
    pub output: String,
    /// For how long a key is remembered, in milliseconds.
    pub within_ms: i64,
    /// The stores.
    pub stores: Vec<String>,
}
