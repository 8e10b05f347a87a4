//! Pipelines as text, and what they come to: one file for each part of them.

mod control;
mod mistakes;
mod module_config;
mod remedies;
mod swap;
mod together;
mod transforms;
mod values;
mod whole;

use std::time::Duration;

use expect::{HELLO, with};

use super::*;

mod expect {
    pub(super) const HELLO: &str = "\
application: hello
kafka:
  bootstrap.servers: localhost:9092
transforms:
  - name: hello
    module: hello.wasm
    inputs: [names]
    outputs: { greetings: greetings }
";

    /// The hello pipeline with more lines before it.
    pub(super) fn with(lines: &str) -> String {
        format!("{lines}\n{HELLO}")
    }
}

/// What the Kafka clients are taken to know here; those in milliseconds are checked.
const PROPERTIES: [&str; 15] = [
    "bootstrap.servers",
    "delivery.timeout.ms",
    "fetch.wait.max.ms",
    "heartbeat.interval.ms",
    "linger.ms",
    "max.poll.interval.ms",
    "message.max.bytes",
    "sasl.mechanism",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "session.timeout.ms",
    "socket.timeout.ms",
    "ssl.ca.location",
    "transaction.timeout.ms",
];

fn sources() -> Sources {
    let variables = [("BROKERS", "kafka:9092"), ("PASSWORD", "hunter2"), ("WORKERS", "3")];
    Sources {
        variables: variables.map(|(name, value)| (name.into(), value.into())).into(),
        folder: "/pipelines".into(),
        kafka_properties: Some(KafkaProperties {
            is_known: |name| PROPERTIES.contains(&name),
            names: PROPERTIES.map(Into::into).into(),
            expected: |name, value| {
                let wrong = name.ends_with(".ms") && value.parse::<u32>().is_err();
                wrong.then(|| "write a number between 0 and 900000".into())
            },
        }),
    }
}

fn parse(yaml: &str) -> Result<Pipeline, String> {
    let path = Path::new("pipeline.yaml");
    read(path, yaml, &sources())
        .map_err(|problems| Error::Refused { path: path.into(), problems }.to_string())
}

/// What is wrong with a pipeline, without the file's name: all of it.
#[track_caller]
fn check(yaml: &str, expected: &str) {
    let found = match parse(yaml) {
        Ok(_) => String::new(),
        Err(found) => found.replace("pipeline.yaml:", ""),
    };
    assert_eq!(found, expected, "in:\n{yaml}");
}

/// A pipeline of these transforms; the first line of `transforms` is line 4.
#[track_caller]
fn check_transforms(transforms: &str, expected: &str) {
    let head = "application: app\nkafka: {bootstrap.servers: b}\ntransforms:\n";
    check(&format!("{head}{transforms}"), expected);
}
