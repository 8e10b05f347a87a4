//! The topics of a pipeline: looked at, planned with, created where they are the agent's own.

use std::collections::{BTreeMap, BTreeSet};

use sidestream_core::topology::{OnError, Route, TopicKind, Topology};
use tracing::info;

use super::Error;
use crate::{
    config::{Pipeline, Problem},
    kafka::{Admin, NewTopic, Right, TopicInfo},
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

/// What would keep a start from creating the topics that are missing. Changes nothing.
pub(super) fn check_creation(plan: &Plan, admin: &Admin) -> Result<Vec<Problem>, Error> {
    let topics: Vec<NewTopic> = plan.create.iter().map(new_topic).collect();
    let problem = |message| Problem { at: None, message, remedy: String::new() };
    Ok(admin.check_creation(&topics)?.into_iter().map(problem).collect())
}

/// What is done with each topic.
pub(super) fn uses(topology: &Topology) -> BTreeMap<&str, BTreeSet<Right>> {
    let mut uses = BTreeMap::<&str, BTreeSet<Right>>::new();
    let mut add = |topic, rights: &[Right]| {
        uses.entry(topology.topic(topic).name.as_str()).or_default().extend(rights);
    };
    for subtopology in &topology.subtopologies {
        for input in &subtopology.inputs {
            add(input.topic, &[Right::Read]);
            if topology.topic(input.topic).kind == TopicKind::Repartition {
                // What was processed is purged.
                add(input.topic, &[Right::Delete]);
            }
        }
        for store in &subtopology.stores {
            add(store.changelog, &[Right::Read, Right::Write]);
        }
        for transform in &subtopology.transforms {
            if let OnError::DeadLetter(topic) = transform.on_error.then {
                add(topic, &[Right::Write]);
            }
            for output in &transform.outputs {
                if let Route::Topic(topic) = output.route {
                    add(topic, &[Right::Write]);
                }
            }
        }
    }
    uses
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn each_use_of_a_topic_is_known() {
        let pipeline = config::read_for_tests(
            "\
application: shop
kafka: { bootstrap.servers: 'b:1' }
transforms:
  - name: split
    module: m.wasm
    inputs: [orders]
    outputs: { items: { repartition: items } }
    on_error: { dead_letter: bad }
  - name: count
    module: m.wasm
    inputs: [{ repartition: items }]
    outputs: { counts: counts }
    stores: [totals]
",
        );
        let plan = plan::plan(&pipeline, &|_| Some(2)).unwrap();
        let told: Vec<String> =
            uses(&plan.topology).iter().map(|(topic, uses)| format!("{topic} {uses:?}")).collect();
        assert_eq!(
            told,
            [
                "bad {Write}",
                "counts {Write}",
                "orders {Read}",
                "shop-items-repartition {Read, Write, Delete}",
                "shop-totals-changelog {Read, Write}",
            ]
        );
    }
}
