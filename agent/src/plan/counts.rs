//! How many partitions each sub-topology and each repartition topic has.

use std::collections::BTreeMap;

use crate::config::{
    Pipeline, Position, Problem,
    pipeline::{Source, Target},
};

/// Partition counts.
#[derive(Debug, Default)]
pub(super) struct Counts<'a> {
    /// Of each sub-topology.
    pub(super) groups: Vec<i32>,
    /// Of each repartition topic, by its name in the pipeline.
    pub(super) repartitions: BTreeMap<&'a str, i32>,
}

/// One topic that a sub-topology reads.
struct Input<'a> {
    at: Position,
    name: &'a str,
    /// Its partitions, where they don't follow from a sub-topology.
    fixed: Option<i32>,
    repartition: bool,
}

/// Finds all counts. The inputs of a sub-topology must agree; a repartition topic has the count
/// it was given, or that of the topics it is read together with, or the highest of those of the
/// sub-topologies that write what its readers read.
pub(super) fn counts<'a>(
    pipeline: &'a Pipeline,
    groups: &[Vec<usize>],
    partitions: &dyn Fn(&str) -> Option<i32>,
) -> Result<Counts<'a>, Vec<Problem>> {
    let given = given_counts(pipeline);
    let inputs: Vec<_> =
        groups.iter().map(|group| inputs(pipeline, group, &given, partitions)).collect();
    let problems: Vec<_> = inputs.iter().filter_map(|inputs| disagreement(inputs)).collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut counts: Vec<Option<i32>> =
        inputs.iter().map(|inputs| inputs.iter().find_map(|input| input.fixed)).collect();
    loop {
        let unknown = (0..groups.len()).filter(|&group| counts[group].is_none());
        let found = unknown.clone().find_map(|group| {
            let upstream = upstream(pipeline, groups, &inputs[group]);
            let highest = upstream.map(|from| counts[from]).collect::<Option<Vec<_>>>()?;
            Some((group, highest.into_iter().max()?))
        });
        if let Some((group, count)) = found {
            counts[group] = Some(count);
            continue;
        }
        let circles: Vec<_> = unknown.filter_map(|group| undecided(&inputs[group])).collect();
        if !circles.is_empty() {
            return Err(circles);
        }
        break;
    }
    let groups: Vec<_> = counts.into_iter().flatten().collect();
    let mut repartitions = BTreeMap::new();
    for (inputs, count) in inputs.iter().zip(&groups) {
        let own = inputs.iter().filter(|input| input.repartition);
        repartitions.extend(own.map(|input| (input.name, *count)));
    }
    Ok(Counts { groups, repartitions })
}

/// What the file says of repartition topics.
fn given_counts(pipeline: &Pipeline) -> BTreeMap<&str, i32> {
    let outputs = pipeline.transforms.iter().flat_map(|transform| &transform.outputs);
    let given = outputs.filter_map(|output| match &output.target {
        Target::Repartition { name, partitions } => Some((name.as_str(), (*partitions)?)),
        Target::Topic { .. } | Target::Transforms => None,
    });
    given.collect()
}

fn inputs<'a>(
    pipeline: &'a Pipeline,
    group: &[usize],
    given: &BTreeMap<&str, i32>,
    partitions: &dyn Fn(&str) -> Option<i32>,
) -> Vec<Input<'a>> {
    let all = group.iter().flat_map(|&index| &pipeline.transforms[index].inputs);
    let read = all.filter_map(|input| match &input.source {
        Source::Topic { name, .. } => {
            Some(Input { at: input.at, name, fixed: partitions(name), repartition: false })
        }
        Source::Repartition { name } => {
            let fixed = given.get(name.as_str()).copied();
            Some(Input { at: input.at, name, fixed, repartition: true })
        }
        Source::Transform { .. } => None,
    });
    read.collect()
}

/// The sub-topologies that write the repartition topics among `inputs`.
fn upstream<'a>(
    pipeline: &'a Pipeline,
    groups: &'a [Vec<usize>],
    inputs: &'a [Input<'a>],
) -> impl Iterator<Item = usize> + 'a {
    let writes = |group: &[usize]| {
        group.iter().flat_map(|&index| &pipeline.transforms[index].outputs).any(|output| {
            matches!(&output.target, Target::Repartition { name, .. }
                if inputs.iter().any(|input| input.repartition && input.name == name))
        })
    };
    (0..groups.len()).filter(move |&group| writes(&groups[group]))
}

/// Inputs of one sub-topology whose counts differ.
fn disagreement(inputs: &[Input<'_>]) -> Option<Problem> {
    let mut fixed = inputs.iter().filter_map(|input| Some((input, input.fixed?)));
    let (_, count) = fixed.next()?;
    let (odd, _) = fixed.find(|(_, other)| *other != count)?;
    let mut list: Vec<_> = inputs
        .iter()
        .filter_map(|input| Some(format!("`{}` has {}", input.name, input.fixed?)))
        .collect();
    list.dedup();
    Some(Problem::new(
        odd.at,
        format!("topics that are read together differ in their partitions: {}", list.join(", ")),
        "give them equally many, or lead one of them through a `repartition`",
    ))
}

/// A repartition topic whose count depends on itself.
fn undecided(inputs: &[Input<'_>]) -> Option<Problem> {
    let input = inputs.iter().find(|input| input.repartition)?;
    Some(Problem::new(
        input.at,
        format!("how many partitions the repartition `{}` has follows from itself", input.name),
        "give `partitions` where it is written",
    ))
}
