//! The dead letters of a pipeline: counted, shown, put back.
//!
//! Which letters were put back is written where they stand: the transaction that puts a letter back
//! also writes a mark into the letter's own partition, behind it. So a letter and its mark share
//! their fate whatever dies when, letters can be put back in any order, and a topic's retention
//! never takes a mark before its letter.
//!
//! Brokers do not tell readers who wrote a record, so whoever may write to the topic can write a mark
//! as well. All that comes of it is that a letter is passed over, which is counted and told, until it
//! is put back with `again`.

mod letter;
mod list;
mod marks;
mod replay;
mod selection;
mod show;

use std::{
    collections::BTreeSet,
    ops::{ControlFlow, Range},
};

use sidestream_core::record::Offset;

use self::{letter::Content, marks::Marks};
pub use self::{
    letter::{Letter, Place},
    list::{Count, Listed, Listing},
    replay::{Homeless, Replay, Replayed},
    selection::Selection,
    show::{PutBack, Shown},
};
use crate::{
    config::{Pipeline, Problem, pipeline::OnError},
    kafka::{self, Admin, End, StoredRecord, TopicReader},
    plan,
    settings::kafka_config,
};

/// Dead letters can't be read or put back. The variants say what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Correct the pipeline file, or what is asked for.
    #[error("the pipeline has no such dead letters")]
    Refused(Vec<Problem>),
    /// Correct the properties of the Kafka clients, or the brokers.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
}

/// Is told how many of how many offsets are read.
pub type Watch<'a> = &'a mut dyn FnMut(u64, u64);

/// The dead-letter topics of a pipeline, which may run meanwhile.
pub struct DeadLetters {
    application: String,
    config: kafka::Config,
    admin: Admin,
    reader: TopicReader,
    topics: Vec<Topic>,
    /// The topics that the pipeline reads.
    inputs: BTreeSet<String>,
}

/// A topic, and how many partitions it has; none if it is not there yet.
struct Topic {
    name: String,
    partitions: i32,
}

/// A partition, and what of it is read.
struct Part {
    topic: String,
    partition: i32,
    range: Range<Offset>,
}

impl DeadLetters {
    /// Connects, and looks at the topics.
    pub fn open(pipeline: &Pipeline) -> Result<Self, Error> {
        let names = topic_names(pipeline);
        if names.is_empty() {
            return Err(problem(
                "no transform of the pipeline has dead letters".to_owned(),
                "give one `on_error: { dead_letter: TOPIC }`",
            ));
        }
        let config = kafka_config(pipeline, "dead-letters");
        config.validate()?;
        let admin = Admin::new(&config)?;
        let mut described = admin.describe_topics(&names)?;
        let topic = |name: &str| Topic {
            name: name.to_owned(),
            partitions: described.remove(name).flatten().map_or(0, |topic| topic.partitions),
        };
        let topics = names.into_iter().map(topic).collect();
        let reader = TopicReader::new(&config)?;
        let application = pipeline.application.clone();
        let inputs = plan::input_names(pipeline);
        Ok(Self { application, config, admin, reader, topics, inputs })
    }

    /// The dead-letter topic that is meant: the one of this name, or the only one there is.
    pub fn topic(&self, name: Option<&str>) -> Result<String, Error> {
        let names: Vec<&str> = self.topics.iter().map(|topic| topic.name.as_str()).collect();
        match (name, names.as_slice()) {
            (Some(name), names) if names.contains(&name) => Ok(name.to_owned()),
            (None, [only]) => Ok((*only).to_owned()),
            (Some(name), names) => Err(problem(
                format!("the dead letters of the pipeline do not go to `{name}`"),
                &format!("they go to {}", names.join(", ")),
            )),
            (None, names) => Err(problem(
                format!("the pipeline has several dead-letter topics: {}", names.join(", ")),
                "write TOPIC:PARTITION:OFFSET",
            )),
        }
    }

    /// What is there now of the partitions that are wanted.
    fn parts(&self, end: End, wanted: impl Fn(&str, i32) -> bool) -> Result<Vec<Part>, Error> {
        let mut parts = Vec::new();
        for topic in &self.topics {
            let bounds = self.reader.bounds(&topic.name, topic.partitions, end)?;
            for (partition, range) in (0..).zip(bounds) {
                if wanted(&topic.name, partition) {
                    parts.push(Part { topic: topic.name.clone(), partition, range });
                }
            }
        }
        Ok(parts)
    }

    /// Reads all parts, one after another.
    fn walk(
        &mut self,
        parts: &[Part],
        progress: &mut Progress<'_>,
        visit: &mut dyn FnMut(usize, Content) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (number, part) in parts.iter().enumerate() {
            let mut visited = Ok(());
            let mut visit_one = |record: StoredRecord| {
                progress.reach(record.offset - part.range.start);
                visited = visit(number, Content::of(record, &part.topic, part.partition));
                if visited.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            let place = (part.topic.as_str(), part.partition);
            self.reader.read(place, part.range.clone(), &mut visit_one)?;
            visited?;
            progress.pass(part.range.end - part.range.start);
        }
        Ok(())
    }

    /// Which letters of the parts were put back.
    fn marks(&mut self, parts: &[Part], progress: &mut Progress<'_>) -> Result<Marks, Error> {
        let mut marks = Marks::default();
        self.walk(parts, progress, &mut |part, content| match content {
            // No replay wrote it: it would hide a letter that is yet to come.
            Content::Mark(mark) if !mark.is_behind_its_letter() => {
                marks.foreign += 1;
                Ok(())
            }
            // Of a letter that is there no more.
            Content::Mark(mark) if mark.letter < parts[part].range.start => Ok(()),
            Content::Mark(mark) if !marks.insert(part, mark.letter) => Err(problem(
                "too many letters were put back one by one to remember them all".to_owned(),
                "let old ones expire: set `retention.ms` of the dead-letter topic",
            )),
            Content::Mark(_) | Content::Letter(_) | Content::Other => Ok(()),
        })?;
        Ok(marks)
    }
}

/// How far the reading of some parts, several times over, has come.
struct Progress<'a> {
    watch: Watch<'a>,
    passed: u64,
    total: u64,
}

impl<'a> Progress<'a> {
    fn new(watch: Watch<'a>, parts: &[Part], passes: u64) -> Self {
        let lengths = parts.iter().map(|part| unsigned(part.range.end - part.range.start));
        Self { watch, passed: 0, total: passes * lengths.sum::<u64>() }
    }

    fn reach(&mut self, within: Offset) {
        (self.watch)(self.passed + unsigned(within), self.total);
    }

    fn pass(&mut self, length: Offset) {
        self.passed += unsigned(length);
        (self.watch)(self.passed, self.total);
    }
}

fn unsigned(length: Offset) -> u64 {
    u64::try_from(length).unwrap_or(0)
}

/// The topics that dead letters go to, each once, in the order of the file.
fn topic_names(pipeline: &Pipeline) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for transform in &pipeline.transforms {
        if let OnError::DeadLetter { topic, .. } = &transform.on_error
            && !names.contains(&topic.as_str())
        {
            names.push(topic);
        }
    }
    names
}

fn problem(message: String, remedy: &str) -> Error {
    Error::Refused(vec![Problem { at: None, message, remedy: remedy.to_owned() }])
}
