//! Which properties of the Kafka clients a pipeline may set.

use crate::config::{
    defaults,
    interpolate::Sources,
    nearest::nearest,
    pipeline::Pipeline,
    problem::{Position, Problem},
    scalar::Located,
};

/// Properties that the agent sets itself, because exactly-once rests on them, and what to do
/// instead.
const OWNED: &[(&str, &str)] = &[
    ("group.id", "it is the `application`"),
    ("group.instance.id", "it is made from the `identity`"),
    ("group.protocol", "the agent uses the classic protocol"),
    ("transactional.id", "it is made from the `identity`"),
    ("enable.auto.commit", "see `commit_interval`"),
    ("auto.commit.interval.ms", "see `commit_interval`"),
    ("enable.auto.offset.store", "the agent commits what it has processed"),
    ("auto.offset.reset", "see `start` of an input"),
    ("isolation.level", "see `guarantee`"),
    ("enable.idempotence", "see `guarantee`"),
    ("acks", "every record is written to all replicas"),
    ("request.required.acks", "every record is written to all replicas"),
    ("partition.assignment.strategy", "tasks need co-partitioned inputs"),
    ("enable.partition.eof", "the agent needs it to restore state"),
];

/// Refuses a property that the agent owns or that the client does not know.
pub(crate) fn check_name(
    section: &str,
    name: &Located<String>,
    sources: &Sources,
    problems: &mut Vec<Problem>,
) {
    let key = name.value.as_str();
    if let Some((_, instead)) = OWNED.iter().find(|(owned, _)| *owned == key) {
        problems.push(Problem::new(
            name.at,
            format!("`{section}.{key}` belongs to the agent"),
            format!("remove it: {instead}"),
        ));
        return;
    }
    let Some(known) = sources.kafka_properties.as_ref().filter(|known| !(known.is_known)(key))
    else {
        return;
    };
    let sections = if section == "kafka" { &["consumer", "producer", "admin"][..] } else { &[] };
    let names = known.names.iter().map(String::as_str).chain(sections.iter().copied());
    let remedy = match nearest(key, names) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "see the list of librdkafka's properties".into(),
    };
    problems.push(Problem::new(
        name.at,
        format!("`{section}.{key}` is no property of librdkafka"),
        remedy,
    ));
}

/// Refuses a pipeline that names no broker.
pub(crate) fn check_servers(pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    let names = ["bootstrap.servers", "metadata.broker.list"];
    let kafka = &pipeline.kafka;
    let given = |properties: &super::pipeline::Properties| {
        names.iter().any(|name| properties.get(name).is_some_and(|servers| !servers.is_empty()))
    };
    let everywhere = given(&kafka.consumer) && given(&kafka.producer) && given(&kafka.admin);
    if !given(&kafka.common) && !everywhere {
        problems.push(Problem {
            at: Some(Position { line: 1, column: 1 }),
            message: "`kafka` names no broker".into(),
            remedy: format!(
                "add `bootstrap.servers: {}` to it",
                defaults::BOOTSTRAP_SERVERS_EXAMPLE
            ),
        });
    }
}
