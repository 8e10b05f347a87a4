//! What a fuzzer asks of this room; the test of the corpus asks the same of what was found.

use std::path::Path;

use super::{KafkaProperties, Pipeline, Problem, Sources, graph, pipeline::Transform, read};

/// What a file may refer to here.
const VARIABLES: [(&str, &str); 4] =
    [("HOST", "kafka"), ("EMPTY", ""), ("WORKERS", "3"), ("ODD", "a: ${HOST}\n- b")];

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

/// Takes `data` for a pipeline file. One that names other files is passed over: nothing is read here.
///
/// Panics if a refusal doesn't say what is wrong, at a place that is there, and if the same file
/// comes to something else when it is read again.
pub fn pipeline(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.contains("file:") {
        return;
    }
    let sources = sources(&VARIABLES);
    let (first, again) = (read_with(text, &sources), read_with(text, &sources));
    match (&first, &again) {
        (Ok(pipeline), Ok(same)) => {
            assert_eq!(format!("{pipeline:?}"), format!("{same:?}"));
            check_transforms(&pipeline.transforms);
        }
        (Err(problems), Err(same)) => {
            assert_eq!(problems, same);
            assert!(!problems.is_empty(), "a refusal has a reason");
            problems.iter().for_each(|problem| check_problem(problem, text));
        }
        _ => assert_eq!(first.is_ok(), again.is_ok(), "read twice"),
    }
}

fn read_with(text: &str, sources: &Sources) -> Result<Pipeline, Vec<Problem>> {
    read(Path::new("/pipelines/pipeline.yaml"), text, sources)
}

/// Where a file's references lead: to these variables, and to no file.
pub(super) fn sources(variables: &[(&str, &str)]) -> Sources {
    Sources {
        variables: variables.iter().map(|&(name, value)| (name.into(), value.into())).collect(),
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

/// What later steps rely on.
fn check_transforms(transforms: &[Transform]) {
    let order = graph::order(transforms).expect("a pipeline with a circle is refused");
    let place = |transform: usize| order.iter().position(|other| *other == transform);
    for transform in 0..transforms.len() {
        assert!(graph::upstream(transforms, transform).all(|from| place(from) < place(transform)));
    }
}

fn check_problem(problem: &Problem, text: &str) {
    assert!(!problem.message.is_empty(), "{problem:?}");
    let Some(at) = problem.at else { return };
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() as u64;
    // What is missing at the end is missing after the last line.
    assert!((1..=lines + 1).contains(&at.line) && at.column >= 1, "{problem:?} of {lines} lines");
}
