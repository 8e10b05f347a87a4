//! `sidestream check`.

use std::path::Path;

use serde_json::{Value, json};
use sidestream_core::topology::Topology;

use crate::{
    app,
    cli::{
        Exit,
        finding::{self, About, Finding},
        load,
        output::Output,
        progress::Progress,
    },
    config::Pipeline,
    plan::Plan,
};

/// Checks a pipeline: its file, then its modules and, unless `offline`, the state directory, the files
/// of `control`, brokers and topics.
pub(super) fn check(file: &Path, offline: bool, output: &mut Output) -> Exit {
    let pipeline = match load(file) {
        Ok(pipeline) => pipeline,
        Err(findings) => {
            output.findings(&findings, &json!({}));
            return finding::exit(&findings);
        }
    };
    let mut findings = Vec::new();
    let mut progress = Progress::new(output);
    let mut compiling =
        |path: &Path| progress.step(output, "compiling", &path.display().to_string());
    for error in app::check_modules(&pipeline, &mut compiling) {
        findings.extend(finding::of_agent(file, error));
    }
    if !offline && let Some(problem) = app::check_state(&pipeline) {
        findings.push(Finding::of_problem(About::State, file, problem));
    }
    let mut warnings = Vec::new();
    if !offline {
        match app::check_control(&pipeline) {
            Ok(warning) => warnings.extend(warning),
            Err(error) => findings.extend(finding::of_agent(file, error)),
        }
    }
    let plan = match offline {
        true => None,
        false => match look_at_topics(&pipeline, &mut progress, output) {
            Ok(plan) => Some(plan),
            Err(error) => {
                findings.extend(finding::of_agent(file, error));
                None
            }
        },
    };
    progress.end();
    output.findings(&findings, &details(plan.as_ref(), &warnings));
    if findings.is_empty() {
        output.human(&summary(&pipeline, plan.as_ref()));
    }
    let told: Vec<String> = warnings.iter().map(|warning| format!("warning: {warning}")).collect();
    output.human(&told);
    finding::exit(&findings)
}

fn look_at_topics(
    pipeline: &Pipeline,
    progress: &mut Progress,
    output: &mut Output,
) -> Result<Plan, app::Error> {
    progress.step(output, "asking the brokers", "");
    app::check_topics(pipeline)
}

/// The plan, and what has to be done soon, as JSON.
fn details(plan: Option<&Plan>, warnings: &[String]) -> Value {
    let Some(plan) = plan else { return json!({ "warnings": warnings }) };
    let topology = &plan.topology;
    let subtopologies = topology.subtopologies.iter().map(|subtopology| {
        let transforms: Vec<_> = subtopology.transforms.iter().map(|t| &t.name).collect();
        let stores: Vec<_> = subtopology.stores.iter().map(|store| &store.name).collect();
        json!({
            "partitions": subtopology.partitions,
            "transforms": transforms,
            "inputs": input_names(topology, subtopology),
            "stores": stores,
        })
    });
    let create = plan.create.iter();
    let create = create.map(|topic| json!({ "topic": topic.name, "partitions": topic.partitions }));
    json!({
        "subtopologies": subtopologies.collect::<Vec<_>>(),
        "topics_to_create": create.collect::<Vec<_>>(),
        "warnings": warnings,
    })
}

/// What a pipeline without problems will do, for people.
fn summary(pipeline: &Pipeline, plan: Option<&Plan>) -> Vec<String> {
    let mut lines = vec![format!("pipeline `{}`: no problems", pipeline.application)];
    let Some(plan) = plan else {
        lines.push("state directory, brokers and topics were not looked at".into());
        return lines;
    };
    for (subtopology, number) in plan.topology.subtopologies.iter().zip(0..) {
        let transforms: Vec<_> = subtopology.transforms.iter().map(|t| t.name.as_str()).collect();
        lines.push(format!(
            "sub-topology {number}: {} tasks run {} on {}",
            subtopology.partitions,
            transforms.join(", "),
            input_names(&plan.topology, subtopology).join(", "),
        ));
    }
    for topic in &plan.create {
        lines.push(format!(
            "`run` will create the topic {} with {} partitions",
            topic.name, topic.partitions
        ));
    }
    lines
}

fn input_names<'a>(
    topology: &'a Topology,
    subtopology: &'a sidestream_core::topology::Subtopology,
) -> Vec<&'a str> {
    let topics = subtopology.inputs.iter().map(|input| topology.topic(input.topic));
    topics.map(|topic| topic.name.as_str()).collect()
}
