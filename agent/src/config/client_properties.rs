//! Which properties of the Kafka clients a pipeline may set, and to what.

use crate::config::{
    foreign::foreign,
    interpolate::Sources,
    nearest::nearest,
    pipeline::{Kafka, Properties},
    places::Places,
    problem::{Position, Problem},
    scalar::{Field, Located},
    setting::Text,
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

/// The names of all properties that the agent keeps for itself.
#[cfg(test)]
pub(crate) fn owned() -> impl Iterator<Item = &'static str> {
    OWNED.iter().map(|(name, _)| *name)
}

/// Refuses a property that the agent owns or that the client does not know.
pub(crate) fn check_name(
    section: &str,
    name: &Located<String>,
    sources: &Sources,
) -> Option<Problem> {
    let key = name.value.as_str();
    if let Some((_, instead)) = OWNED.iter().find(|(owned, _)| *owned == key) {
        let message = format!("`{section}.{key}` belongs to the agent");
        return Some(Problem::new(name.at, message, format!("remove it: {instead}")));
    }
    if let Some(instead) = foreign(key) {
        let message =
            format!("`{section}.{key}` is no property of librdkafka, but of Java's clients");
        return Some(Problem::new(name.at, message, instead));
    }
    let known = sources.kafka_properties.as_ref().filter(|known| !(known.is_known)(key))?;
    let sections = if section == "kafka" { &["consumer", "producer", "admin"][..] } else { &[] };
    let names = known.names.iter().map(String::as_str).chain(sections.iter().copied());
    let remedy = match nearest(key, names) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "see the list of librdkafka's properties".into(),
    };
    let message = format!("`{section}.{key}` is no property of librdkafka");
    Some(Problem::new(name.at, message, remedy))
}

/// Refuses a value that the client does not take. The message repeats what the file says, never what
/// a reference in it stands for.
pub(crate) fn check_value(
    key: &str,
    name: &Located<String>,
    field: &Field<Text>,
    value: &str,
    sources: &Sources,
) -> Option<Problem> {
    let known = sources.kafka_properties.as_ref()?;
    let expected = (known.expected)(&name.value, value)?;
    let message = format!("`{key}` can't be `{}`", field.text);
    Some(Problem::new(field.at, message, expected))
}

/// Refuses to sign in, or to encrypt, where the clients would do neither, and to sign in without
/// saying how.
pub(crate) fn check_security(kafka: &Kafka, places: &Places, problems: &mut Vec<Problem>) {
    problems.extend(no_mechanism(kafka, places));
    let sections = [
        ("kafka", &kafka.common),
        ("kafka.consumer", &kafka.consumer),
        ("kafka.producer", &kafka.producer),
        ("kafka.admin", &kafka.admin),
    ];
    let chosen = |properties: &Properties| properties.get("security.protocol").is_some();
    if chosen(&kafka.common) {
        return;
    }
    let everywhere = sections[1..].iter().all(|(_, properties)| chosen(properties));
    for (section, properties) in sections {
        if chosen(properties) || (section == "kafka" && everywhere) {
            continue;
        }
        let first = |prefix: &str| {
            let mut names = properties.0.iter().filter(|(_, value)| !value.is_empty());
            names.find(|(name, _)| name.starts_with(prefix)).map(|(name, _)| name)
        };
        let (name, protocol, does) = match (first("sasl."), first("ssl.")) {
            (Some(name), _) => (name, "`sasl_ssl` or `sasl_plaintext`", "signs in nor encrypts"),
            (None, Some(name)) => {
                (name, "`ssl` or `sasl_ssl`", "encrypts nor looks at certificates")
            }
            (None, None) => continue,
        };
        let key = format!("{section}.{name}");
        problems.push(Problem::new(
            places.of(&key),
            format!("`{key}` has no effect: without `security.protocol` the agent neither {does}"),
            format!("add `security.protocol` to `{section}`: {protocol}"),
        ));
    }
}

/// librdkafka's own mechanism is Kerberos, which it is built without.
fn no_mechanism(kafka: &Kafka, places: &Places) -> Option<Problem> {
    ["consumer", "producer", "admin"].into_iter().find_map(|client| {
        let (key, protocol) = kafka.effective(client, &["security.protocol"])?;
        let mechanism = kafka.effective(client, &["sasl.mechanism", "sasl.mechanisms"]);
        let signs_in = protocol.to_lowercase().starts_with("sasl_");
        (signs_in && mechanism.is_none()).then(|| {
            let message = format!("`{key}` has the clients sign in, and nothing says how");
            let remedy = "add `sasl.mechanism`, such as `SCRAM-SHA-512`, `PLAIN` or `OAUTHBEARER`";
            Problem::new(places.of(&key), message, remedy)
        })
    })
}

/// Refuses a pipeline that names no broker.
pub(crate) fn check_servers(kafka: &Kafka, at: Position) -> Option<Problem> {
    let names = ["bootstrap.servers", "metadata.broker.list"];
    let given = |properties: &Properties| {
        names.iter().any(|name| properties.get(name).is_some_and(|servers| !servers.is_empty()))
    };
    let everywhere = given(&kafka.consumer) && given(&kafka.producer) && given(&kafka.admin);
    (!given(&kafka.common) && !everywhere).then(|| {
        let remedy = "add `bootstrap.servers: localhost:9092` to it";
        Problem::new(at, "`kafka` names no broker", remedy)
    })
}
