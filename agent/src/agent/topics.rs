//! The topics of a pipeline: looked at, planned with, created where they are the agent's own.

use std::collections::BTreeMap;

use tracing::info;

use super::Error;
use crate::{
    config::{Pipeline, Problem},
    kafka::{Admin, NewTopic, TopicInfo},
    plan::{self, InternalTopic, Plan},
};

/// Plans the pipeline on the topics as they are, creates the internal ones that are missing and
/// checks the others.
pub(super) fn prepare(pipeline: &Pipeline, admin: &Admin) -> Result<Plan, Error> {
    let plan = look(pipeline, admin)?;
    if !plan.create.is_empty() {
        let topics: Vec<NewTopic> = plan.create.iter().map(new_topic).collect();
        admin.create_topics(&topics)?;
        for topic in &plan.create {
            info!(topic = topic.name, partitions = topic.partitions, "topic created");
        }
    }
    Ok(plan)
}

/// Plans the pipeline on the topics as they are. Changes nothing.
pub(super) fn look(pipeline: &Pipeline, admin: &Admin) -> Result<Plan, Error> {
    let names = plan::topic_names(pipeline);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let found: BTreeMap<String, TopicInfo> = admin
        .describe_topics(&names)?
        .into_iter()
        .filter_map(|(name, topic)| Some((name, topic?)))
        .collect();
    let partitions = |name: &str| found.get(name).map(|topic| topic.partitions);
    if !plan::missing_topics(pipeline, &partitions, &[]).is_empty() {
        let there = admin.topic_names();
        return Err(Error::Topics(plan::missing_topics(pipeline, &partitions, &there)));
    }
    let plan = plan::plan(pipeline, &partitions).map_err(Error::Topics)?;
    let mut problems: Vec<Problem> = Vec::new();
    for topic in plan.internal.iter().filter(|topic| found.contains_key(&topic.name)) {
        problems.extend(topic.check(&admin.topic_configs(&topic.name)?));
    }
    if problems.is_empty() { Ok(plan) } else { Err(Error::Topics(problems)) }
}

fn new_topic(topic: &InternalTopic) -> NewTopic {
    let settings = plan::settings(topic.kind).iter();
    NewTopic {
        name: topic.name.clone(),
        partitions: topic.partitions,
        replication: None,
        configs: settings.map(|set| (set.name.to_owned(), set.value.to_owned())).collect(),
    }
}
