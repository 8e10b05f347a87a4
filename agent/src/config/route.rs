//! Where records come from and go to: which keys of an input or output go together.

use crate::config::{
    choices::GivesUp,
    file::{DeadLetterSection, InputKeys, InputSection, ON_ERROR, OutputKeys, OutputSection},
    pipeline::{Input, OnError, Output, Source, Target},
    problem::{Position, Problem},
    reader::Reader,
    scalar::{Located, Short},
    setting::Setting,
};

/// Reads an input.
pub(crate) fn input(reader: &mut Reader<'_>, input: Located<Short<InputSection>>) -> Option<Input> {
    let at = input.at;
    let source = match input.value {
        Short::Name(name) => {
            let name = reader.name("inputs", &name, at)?;
            let InputKeys { start, on_out_of_range } = InputKeys::default();
            Source::Topic { name, start, on_out_of_range }
        }
        Short::Full(section) => source(reader, &section, at)?,
    };
    Some(Input { at, source })
}

fn source(reader: &mut Reader<'_>, section: &InputSection, at: Position) -> Option<Source> {
    let InputSection { topic, start, on_out_of_range, transform, output, repartition } = section;
    if let (Some(start), None) = (start, topic) {
        refuse(reader, start.at, "`start` is only for an input with `topic`", "remove `start`");
        return None;
    }
    if let (Some(policy), None) = (on_out_of_range, topic) {
        let message = "`on_out_of_range` is only for an input with `topic`";
        refuse(reader, policy.at, message, "remove `on_out_of_range`");
        return None;
    }
    if let (Some(output), None) = (output, transform) {
        let remedy = "add `transform`, the name of the transform whose output it is";
        refuse(reader, output.at, "`output` is only for an input with `transform`", remedy);
        return None;
    }
    match (topic, transform, output, repartition) {
        (Some(topic), None, _, None) => {
            let name = reader.required("topic", topic)?;
            let InputKeys { start, on_out_of_range } =
                reader.whole(|reader| section.read(reader))?;
            Some(Source::Topic { name, start, on_out_of_range })
        }
        (None, Some(transform), Some(output), None) => {
            let transform = reader.required("transform", transform)?;
            let output = reader.required("output", output)?;
            Some(Source::Transform { transform, output })
        }
        (None, None, _, Some(repartition)) => {
            let name = reader.required("repartition", repartition)?;
            Some(Source::Repartition { name })
        }
        (None, Some(transform), None, None) => {
            let remedy = "add `output`, the name of the output to take";
            refuse(reader, transform.at, "an input with `transform` needs `output`", remedy);
            None
        }
        _ => {
            let remedy = "give one of `topic`, `transform` with `output`, and `repartition`";
            refuse(reader, at, "an input comes from one place", remedy);
            None
        }
    }
}

/// Reads an output.
pub(crate) fn output(
    reader: &mut Reader<'_>,
    name: &Located<String>,
    output: Option<Located<Short<OutputSection>>>,
) -> Option<Output> {
    let at = name.at;
    let named = reader.name("outputs", &name.value, at);
    let (target, allow_loop) = match output {
        None => (Target::Transforms, OutputKeys::default().allow_loop),
        Some(Located { value: Short::Name(topic), at }) => {
            let name = reader.name("outputs", &topic, at)?;
            let OutputKeys { latest_per_key, allow_loop, .. } = OutputKeys::default();
            (Target::Topic { name, latest_per_key }, allow_loop)
        }
        Some(Located { value: Short::Full(section), at }) => {
            if let Some(problem) = misplaced(&section) {
                reader.problems.push(problem);
                return None;
            }
            let keys = reader.whole(|reader| section.read(reader))?;
            (target(reader, &section, &keys, at)?, keys.allow_loop)
        }
    };
    Some(Output { name: named?, at, target, allow_loop })
}

/// A key of an output that is there for another kind of output.
fn misplaced(section: &OutputSection) -> Option<Problem> {
    let OutputSection { topic, latest_per_key, repartition, partitions, allow_loop } = section;
    if let (Some(allow), None, None) = (allow_loop, topic, repartition) {
        let message = "`allow_loop` is only for an output with `topic` or `repartition`";
        return Some(Problem::new(allow.at, message, "remove `allow_loop`"));
    }
    if let (Some(latest), None) = (latest_per_key, topic) {
        let message = "`latest_per_key` is only for an output with `topic`";
        return Some(Problem::new(latest.at, message, "remove `latest_per_key`"));
    }
    if let (Some(partitions), None) = (partitions, repartition) {
        let message = "`partitions` is only for an output with `repartition`";
        let remedy = "remove `partitions`: the agent creates no other topics";
        return Some(Problem::new(partitions.at, message, remedy));
    }
    None
}

fn target(
    reader: &mut Reader<'_>,
    section: &OutputSection,
    keys: &OutputKeys,
    at: Position,
) -> Option<Target> {
    match (&section.topic, &section.repartition) {
        (Some(topic), None) => {
            let name = reader.required("topic", topic)?;
            Some(Target::Topic { name, latest_per_key: keys.latest_per_key })
        }
        (None, Some(repartition)) => {
            let name = reader.required("repartition", repartition)?;
            let fits = |count| i32::try_from(count).expect("a count fits, or it was refused");
            Some(Target::Repartition { name, partitions: keys.partitions.map(fits) })
        }
        (None, None) => Some(Target::Transforms),
        (Some(_), Some(_)) => {
            let remedy = "give `topic` or `repartition`, or a second output for the other";
            refuse(reader, at, "an output goes to one place", remedy);
            None
        }
    }
}

/// Reads where records go that a transform fails at.
pub(crate) fn on_error(
    reader: &mut Reader<'_>,
    written: Option<Located<Short<DeadLetterSection>>>,
) -> Option<OnError> {
    let Some(Located { value, at }) = written else {
        let default = GivesUp::parse(ON_ERROR).expect("the default is valid");
        return Some(OnError::GiveUp(default));
    };
    match value {
        Short::Full(section) => {
            let topic = reader.required("dead_letter", &section.dead_letter)?;
            Some(OnError::DeadLetter { topic, at: section.dead_letter.at })
        }
        Short::Name(name) => match GivesUp::parse(&name) {
            Ok(gives_up) => Some(OnError::GiveUp(gives_up)),
            Err(expected) => {
                let remedy = format!("{expected} or write `{{ dead_letter: topic }}`");
                refuse(reader, at, &format!("`on_error` can't be `{name}`"), &remedy);
                None
            }
        },
    }
}

fn refuse(reader: &mut Reader<'_>, at: Position, message: &str, remedy: &str) {
    reader.problems.push(Problem::new(at, message, remedy));
}
