//! What can't be true of a pipeline although each of its values is sound.

use std::collections::BTreeMap;

use crate::config::{
    amounts, graph, loops,
    nearest::did_you_mean,
    pipeline::{Input, OnError, Pipeline, Source, Target, Transform},
    problem::{Position, Problem},
    setting::{NAME_LENGTH_MAX, OnOutOfRange, Start},
};

/// All that is wrong with a pipeline.
pub(crate) fn problems(pipeline: &Pipeline) -> Vec<Problem> {
    let mut problems = Vec::new();
    amounts::check(pipeline, &mut problems);
    check_unique(pipeline, &mut problems);
    for transform in &pipeline.transforms {
        check_inputs(pipeline, transform, &mut problems);
        check_outputs(pipeline, transform, &mut problems);
        check_internal_names(pipeline, transform, &mut problems);
        check_dead_letters(pipeline, transform, &mut problems);
    }
    check_starts(pipeline, &mut problems);
    check_repartitions(pipeline, &mut problems);
    check_latest(pipeline, &mut problems);
    problems.extend(loops::problems(pipeline));
    if let Err(cycle) = graph::order(&pipeline.transforms) {
        let first = &pipeline.transforms[cycle[0]];
        let names: Vec<_> =
            cycle.iter().map(|&i| format!("`{}`", pipeline.transforms[i].name)).collect();
        problems.push(Problem::new(
            first.at,
            format!("transforms hand records round in a circle: {}", names.join(", ")),
            "break it, or lead one of the outputs through a `repartition` with `allow_loop: true`",
        ));
    }
    problems
}

fn check_unique(pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    let transforms = pipeline.transforms.iter().map(|t| (t.name.as_str(), t.at));
    check_unique_names("transform", transforms, problems);
    let stores = pipeline.transforms.iter().flat_map(|t| &t.stores);
    check_unique_names("store", stores.map(|s| (s.name.as_str(), s.at)), problems);
}

fn check_unique_names<'a>(
    what: &str,
    names: impl Iterator<Item = (&'a str, Position)>,
    problems: &mut Vec<Problem>,
) {
    let mut seen = BTreeMap::new();
    for (name, at) in names {
        if let Some(Position { line, .. }) = seen.insert(name, at) {
            problems.push(Problem::new(
                at,
                format!("the {what} `{name}` is already there, in line {line}"),
                "give it a name of its own",
            ));
        }
    }
}

fn check_inputs(pipeline: &Pipeline, transform: &Transform, problems: &mut Vec<Problem>) {
    if transform.inputs.is_empty() {
        let message = format!("the transform `{}` has no inputs", transform.name);
        problems.push(Problem::new(transform.at, message, "add a topic to `inputs`"));
    }
    for (index, Input { at, source }) in transform.inputs.iter().enumerate() {
        if transform.inputs[..index].iter().any(|other| same_place(&other.source, source)) {
            let message = format!("the transform `{}` has this input twice", transform.name);
            problems.push(Problem::new(*at, message, "remove one of them"));
        }
        if let Source::Transform { transform: from, output } = source {
            check_handover(pipeline, *at, from, output, problems);
        }
    }
}

fn same_place(a: &Source, b: &Source) -> bool {
    match (a, b) {
        (Source::Topic { name: a, .. }, Source::Topic { name: b, .. }) => a == b,
        _ => a == b,
    }
}

fn check_handover(
    pipeline: &Pipeline,
    at: Position,
    from: &str,
    output: &str,
    problems: &mut Vec<Problem>,
) {
    let Some(transform) = pipeline.transforms.iter().find(|t| t.name == from) else {
        let valid = pipeline.transforms.iter().map(|t| t.name.as_str());
        let message = format!("there is no transform `{from}`");
        problems.push(Problem::new(at, message, did_you_mean(from, valid)));
        return;
    };
    let Some(found) = transform.outputs.iter().find(|o| o.name == output) else {
        let valid = transform.outputs.iter().map(|o| o.name.as_str());
        let message = format!("the transform `{from}` has no output `{output}`");
        problems.push(Problem::new(at, message, did_you_mean(output, valid)));
        return;
    };
    let remedy = match &found.target {
        Target::Transforms => return,
        Target::Topic { .. } => "take it from that topic, or give the transform a second output",
        Target::Repartition { .. } => "take it as `repartition`",
    };
    let message = format!("the output `{output}` of `{from}` goes to a topic");
    problems.push(Problem::new(at, message, remedy));
}

fn check_outputs(pipeline: &Pipeline, transform: &Transform, problems: &mut Vec<Problem>) {
    let sources = || pipeline.transforms.iter().flat_map(|t| &t.inputs).map(|input| &input.source);
    for output in &transform.outputs {
        let taken = sources().any(|source| {
            matches!(source, Source::Transform { transform: from, output: name }
                if *from == transform.name && *name == output.name)
        });
        if output.target == Target::Transforms && !taken {
            problems.push(Problem::new(
                output.at,
                format!("the output `{}` of `{}` goes nowhere", output.name, transform.name),
                "give it a topic, or take it as an input of another transform",
            ));
        }
    }
}

/// The agent's own topics: names that fit, and that nobody else uses.
fn check_internal_names(pipeline: &Pipeline, transform: &Transform, problems: &mut Vec<Problem>) {
    let prefix = format!("{}-", pipeline.application);
    let stores = transform.stores.iter().map(|store| (store.at, store.name.len() + 10));
    let repartitions = transform.outputs.iter().filter_map(|output| match &output.target {
        Target::Repartition { name, .. } => Some((output.at, name.len() + 12)),
        Target::Topic { .. } | Target::Transforms => None,
    });
    for (at, length) in stores.chain(repartitions) {
        if prefix.len() + length > NAME_LENGTH_MAX {
            let message =
                format!("the name of its topic has more than {NAME_LENGTH_MAX} characters");
            problems.push(Problem::new(at, message, "shorten it, or the `application`"));
        }
    }
    let inputs = transform.inputs.iter().filter_map(|input| match &input.source {
        Source::Topic { name, .. } => Some((input.at, name)),
        Source::Transform { .. } | Source::Repartition { .. } => None,
    });
    let outputs = transform.outputs.iter().filter_map(|output| match &output.target {
        Target::Topic { name, .. } => Some((output.at, name)),
        Target::Repartition { .. } | Target::Transforms => None,
    });
    let dead_letters = match &transform.on_error {
        OnError::DeadLetter { topic, at } => Some((*at, topic)),
        OnError::GiveUp(_) => None,
    };
    for (at, name) in inputs.chain(outputs).chain(dead_letters) {
        let suffixes = ["-changelog", "-repartition"];
        if name.starts_with(&prefix) && suffixes.iter().any(|suffix| name.ends_with(suffix)) {
            problems.push(Problem::new(
                at,
                format!("the topic name `{name}` is reserved for the agent's own topics"),
                "use another topic, or `repartition`",
            ));
        }
    }
}

/// A record that fails must not come round again, and dead letters are the agent's to write: what they
/// say is where they are put back.
fn check_dead_letters(pipeline: &Pipeline, transform: &Transform, problems: &mut Vec<Problem>) {
    for output in &transform.outputs {
        let Target::Topic { name, .. } = &output.target else { continue };
        let is_letters = |of: &&Transform| matches!(&of.on_error, OnError::DeadLetter { topic, .. } if topic == name);
        if let Some(of) = pipeline.transforms.iter().find(is_letters) {
            problems.push(Problem::new(
                output.at,
                format!("`{name}` is the topic of the dead letters of `{}`", of.name),
                "give the output a topic of its own",
            ));
        }
    }
    let OnError::DeadLetter { topic, at } = &transform.on_error else { return };
    let mut inputs = pipeline.transforms.iter().flat_map(|transform| &transform.inputs);
    if inputs.any(|input| matches!(&input.source, Source::Topic { name, .. } if name == topic)) {
        problems.push(Problem::new(
            *at,
            format!("the dead letters of `{}` go to an input of the pipeline", transform.name),
            "give them a topic of their own; another pipeline may read it",
        ));
    }
}

/// What is written only as the last of its key is written at the end of a transaction: after what
/// goes to the same topic at once, whichever was first.
fn check_latest(pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    let mut first: BTreeMap<&str, (bool, Position)> = BTreeMap::new();
    let outputs = pipeline.transforms.iter().flat_map(|t| &t.outputs);
    let outputs = outputs.filter_map(|output| match &output.target {
        Target::Topic { name, latest_per_key } => Some((name, *latest_per_key, output.at)),
        Target::Repartition { .. } | Target::Transforms => None,
    });
    for (name, latest, at) in outputs {
        let (theirs, there) = *first.entry(name).or_insert((latest, at));
        if theirs != latest {
            problems.push(Problem::new(
                at,
                format!(
                    "the topic `{name}` is written with `latest_per_key` and without (line {}), so \
                     that records of a key would change places",
                    there.line
                ),
                "give both outputs the same `latest_per_key`",
            ));
        }
    }
}

/// One task reads a topic, so there is one place to start, and one to go on after a gap.
fn check_starts(pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    let mut first: BTreeMap<&str, (&Transform, (Start, OnOutOfRange))> = BTreeMap::new();
    for transform in &pipeline.transforms {
        for Input { at, source } in &transform.inputs {
            let Source::Topic { name, start, on_out_of_range } = source else { continue };
            let start = (*start, *on_out_of_range);
            match first.get(name.as_str()) {
                None => {
                    first.insert(name, (transform, start));
                }
                Some((other, theirs)) if *theirs != start && other.name != transform.name => {
                    problems.push(Problem::new(
                        *at,
                        format!("`{}` starts elsewhere in the topic `{name}`", other.name),
                        "give both the same `start` and `on_out_of_range`",
                    ));
                }
                Some(_) => {}
            }
        }
    }
}

fn check_repartitions(pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    let mut written: BTreeMap<&str, (Position, Option<i32>)> = BTreeMap::new();
    for output in pipeline.transforms.iter().flat_map(|t| &t.outputs) {
        let Target::Repartition { name, partitions } = &output.target else { continue };
        let entry = written.entry(name).or_insert((output.at, *partitions));
        match (entry.1, partitions) {
            (Some(theirs), Some(ours)) if theirs != *ours => {
                problems.push(Problem::new(
                    output.at,
                    format!(
                        "the repartition `{name}` has {theirs} partitions elsewhere, {ours} here"
                    ),
                    "give `partitions` once",
                ));
            }
            (None, Some(_)) => entry.1 = *partitions,
            (_, _) => {}
        }
    }
    let mut read = Vec::new();
    for input in pipeline.transforms.iter().flat_map(|t| &t.inputs) {
        let Source::Repartition { name } = &input.source else { continue };
        read.push(name.as_str());
        if !written.contains_key(name.as_str()) {
            let remedy = match written.len() {
                0 => format!("add an output with `repartition: {name}`"),
                _ => did_you_mean(name, written.keys().copied()),
            };
            let message = format!("no output goes to the repartition `{name}`");
            problems.push(Problem::new(input.at, message, remedy));
        }
    }
    for (name, (at, _)) in written {
        if !read.contains(&name) {
            let remedy = format!("add an input with `repartition: {name}`, or remove the output");
            problems.push(Problem::new(
                at,
                format!("nobody reads the repartition `{name}`"),
                remedy,
            ));
        }
    }
}
