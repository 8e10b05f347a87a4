//! A pipeline and the topics as they are ⇒ a [`Topology`] and the internal topics it needs.
//!
//! Transforms that share an input topic, or hand records over inside the process, are one
//! sub-topology; what joins sub-topologies is repartition topics. Pure: asking the broker and
//! creating topics is the caller's.

mod build;
mod counts;
mod groups;
mod topics;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use sidestream_core::topology::{TopicKind, Topology};

pub use self::topics::{InternalTopic, Requirement, TopicSetting, settings};
use crate::config::{
    Pipeline, Problem, nearest,
    pipeline::{Input, OnError, Source, StoreKind, Target},
};

/// How a pipeline is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Everything by index; names the internal topics as if they were there.
    pub topology: Topology,
    /// For each sub-topology and each of its transforms, its index in
    /// [`Pipeline::transforms`].
    pub transforms: Vec<Vec<usize>>,
    /// For each sub-topology and each of its stores, where its entries are kept.
    pub stores: Vec<Vec<StoreKind>>,
    /// All topics of the agent's own.
    pub internal: Vec<InternalTopic>,
    /// Those of them that are not there yet, and topics for dead letters that are not.
    pub create: Vec<InternalTopic>,
}

/// Plans a pipeline. `partitions` says how many partitions a topic has, `None` if it is not
/// there; it is asked for [`topic_names`] alone. The error is all that is wrong.
pub fn plan(
    pipeline: &Pipeline,
    partitions: &dyn Fn(&str) -> Option<i32>,
) -> Result<Plan, Vec<Problem>> {
    let mut problems = missing_topics(pipeline, partitions, &[]);
    if !problems.is_empty() {
        return Err(problems);
    }
    let groups = groups::groups(&pipeline.transforms);
    let counts = counts::counts(pipeline, &groups, partitions)?;
    let plan = build::build(pipeline, &groups, &counts, partitions);
    for topic in &plan.internal {
        if let Some(found) = partitions(&topic.name)
            && found != topic.partitions
        {
            problems.push(topic.differs(found));
        }
    }
    if problems.is_empty() { Ok(plan) } else { Err(problems) }
}

/// Every topic that a pipeline needs, the agent's own included.
#[must_use]
pub fn topic_names(pipeline: &Pipeline) -> Vec<String> {
    let mut names: Vec<_> = external_topics(pipeline).map(|(_, name, _)| name.to_owned()).collect();
    names.extend(internal_names(pipeline));
    let policies = pipeline.transforms.iter().map(|transform| &transform.on_error);
    names.extend(policies.filter_map(dead_letters).map(str::to_owned));
    names.sort_unstable();
    names.dedup();
    names
}

/// The names of the topics that are the agent's own: changelogs and repartition topics.
#[must_use]
pub fn internal_names(pipeline: &Pipeline) -> Vec<String> {
    let mut names = Vec::new();
    for transform in &pipeline.transforms {
        let stores = transform.stores.iter();
        names.extend(stores.map(|store| changelog_name(&pipeline.application, &store.name)));
        names.extend(transform.outputs.iter().filter_map(|output| match &output.target {
            Target::Repartition { name, .. } => Some(repartition_name(&pipeline.application, name)),
            Target::Topic { .. } | Target::Transforms => None,
        }));
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// The topics that the pipeline reads, its own repartition topics among them.
#[must_use]
pub fn input_names(pipeline: &Pipeline) -> BTreeSet<String> {
    let inputs = pipeline.transforms.iter().flat_map(|transform| &transform.inputs);
    let name = |input: &Input| match &input.source {
        Source::Topic { name, .. } => Some(name.clone()),
        Source::Repartition { name } => Some(repartition_name(&pipeline.application, name)),
        Source::Transform { .. } => None,
    };
    inputs.filter_map(name).collect()
}

/// The topic with the state of a store.
fn changelog_name(application: &str, store: &str) -> String {
    format!("{application}-{store}-changelog")
}

/// The topic of a repartition.
fn repartition_name(application: &str, repartition: &str) -> String {
    format!("{application}-{repartition}-repartition")
}

/// The user's topics that are not there, each with the one of `there` that was probably meant.
#[must_use]
pub fn missing_topics(
    pipeline: &Pipeline,
    partitions: &dyn Fn(&str) -> Option<i32>,
    there: &[String],
) -> Vec<Problem> {
    let missing = external_topics(pipeline).filter(|(_, name, _)| partitions(name).is_none());
    let problem = |(at, name, verb): (_, &str, &str)| {
        let message = format!("the topic `{name}`, which the pipeline {verb}, is not there");
        let create = format!(
            "create it (`kafka-topics.sh --create --topic {name} --partitions …`) or correct its \
             name; the agent creates none but its own"
        );
        let remedy = match nearest(name, there.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`? Else {create}"),
            None => create,
        };
        Problem::new(at, message, remedy)
    };
    missing.map(problem).collect()
}

/// The user's topics: where each stands in the file, its name, and what is done with it.
fn external_topics(
    pipeline: &Pipeline,
) -> impl Iterator<Item = (crate::config::Position, &str, &'static str)> {
    pipeline.transforms.iter().flat_map(|transform| {
        let inputs = transform.inputs.iter().filter_map(|input| match &input.source {
            Source::Topic { name, .. } => Some((input.at, name.as_str(), "reads")),
            Source::Transform { .. } | Source::Repartition { .. } => None,
        });
        let outputs = transform.outputs.iter().filter_map(|output| match &output.target {
            Target::Topic { name, .. } => Some((output.at, name.as_str(), "writes")),
            Target::Repartition { .. } | Target::Transforms => None,
        });
        inputs.chain(outputs)
    })
}

/// The topic that dead letters go to.
fn dead_letters(on_error: &OnError) -> Option<&str> {
    match on_error {
        OnError::DeadLetter { topic, .. } => Some(topic),
        OnError::GiveUp(_) => None,
    }
}

/// What a topic of the agent's is called in messages.
fn kind_name(kind: TopicKind) -> &'static str {
    match kind {
        TopicKind::External => "topic",
        TopicKind::Repartition => "repartition topic",
        TopicKind::Changelog => "changelog",
    }
}
