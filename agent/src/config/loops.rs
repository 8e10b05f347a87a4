//! Transforms that read what they write, through topics of the same pipeline.

use std::collections::BTreeSet;

use crate::config::{
    pipeline::{Output, Pipeline, Source, Target, Transform},
    problem::Problem,
};

/// Refuses topics through which records come back to the transform that wrote them, unless the
/// output says that they may.
pub(crate) fn problems(pipeline: &Pipeline) -> Vec<Problem> {
    let transforms = &pipeline.transforms;
    let mut problems = Vec::new();
    // A circle is told once, at the first output of it.
    let mut told = BTreeSet::new();
    for (index, transform) in transforms.iter().enumerate().filter(|(_, t)| !t.outputs.is_empty()) {
        for output in &transform.outputs {
            let Some(topic) = topic(output).filter(|_| !output.allow_loop) else { continue };
            let Some(path) = way(transforms, index, output).filter(|_| !told.contains(&index))
            else {
                continue;
            };
            let others: Vec<_> =
                path.iter().map(|&next| format!("`{}`", transforms[next].name)).collect();
            let message = match others.as_slice() {
                [_] => format!("the transform `{}` reads its own output, {topic}", transform.name),
                others => format!(
                    "what `{}` writes to {topic} comes back to it, by way of {}",
                    transform.name,
                    others[..others.len() - 1].join(", ")
                ),
            };
            let remedy = "write to another topic, or add `allow_loop: true` to the output if every \
                          record leaves the loop some time";
            problems.push(Problem::new(output.at, message, remedy));
            told.extend(path.into_iter().filter(|&next| next != index));
        }
    }
    problems
}

fn topic(output: &Output) -> Option<String> {
    match &output.target {
        Target::Topic { name, .. } => Some(format!("the topic `{name}`")),
        Target::Repartition { name, .. } => Some(format!("the repartition `{name}`")),
        Target::Transforms => None,
    }
}

/// The transforms that a record passes from an output to the transform `to`, which is the last; none
/// if it does not come there.
fn way(transforms: &[Transform], to: usize, output: &Output) -> Option<Vec<usize>> {
    let mut paths: Vec<Vec<usize>> =
        readers(transforms, &transforms[to], output).map(|reader| vec![reader]).collect();
    let mut seen = BTreeSet::new();
    while let Some(path) = paths.pop() {
        let last = *path.last().expect("a path begins with a reader");
        if last == to {
            return Some(path);
        }
        if !seen.insert(last) {
            continue;
        }
        for next in transforms[last].outputs.iter().filter(|output| !output.allow_loop) {
            for reader in readers(transforms, &transforms[last], next) {
                paths.push(path.iter().copied().chain([reader]).collect());
            }
        }
    }
    None
}

/// The transforms that read an output of `from`.
fn readers<'a>(
    transforms: &'a [Transform],
    from: &'a Transform,
    output: &'a Output,
) -> impl Iterator<Item = usize> + 'a {
    let reads = move |source: &Source| match (source, &output.target) {
        (Source::Topic { name, .. }, Target::Topic { name: written, .. })
        | (Source::Repartition { name }, Target::Repartition { name: written, .. }) => {
            name == written
        }
        (Source::Transform { transform, output: taken }, Target::Transforms) => {
            *transform == from.name && *taken == output.name
        }
        _ => false,
    };
    (0..transforms.len())
        .filter(move |&index| transforms[index].inputs.iter().any(|input| reads(&input.source)))
}
