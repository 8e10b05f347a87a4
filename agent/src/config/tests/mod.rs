//! Pipelines as text, and what they come to: one file for each part of them.

mod control;
mod docs;
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

fn sources() -> Sources {
    fuzz::sources(&[("BROKERS", "kafka:9092"), ("PASSWORD", "hunter2"), ("WORKERS", "3")])
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
