//! Where records come from and go to: which keys of an input or output go together.

use crate::config::{
    defaults,
    file::{DeadLetterSection, InputSection, OutputSection},
    pipeline::{GivesUp, Input, OnError, Output, Source, Target},
    problem::{Position, Problem},
    resolve::Resolver,
    scalar::{Located, Short},
    setting::{Count, Name, OnOutOfRange, Setting, Start},
};

/// Reads an input.
pub(crate) fn input(
    resolver: &mut Resolver<'_>,
    input: Located<Short<InputSection>>,
) -> Option<Input> {
    let at = input.at;
    let source = match input.value {
        Short::Name(name) => {
            let name = resolver.name("inputs", &name, at)?;
            Source::Topic { name, start: Start::Earliest, on_out_of_range: OnOutOfRange::Fail }
        }
        Short::Full(section) => source(resolver, &section, at)?,
    };
    Some(Input { at, source })
}

fn source(resolver: &mut Resolver<'_>, section: &InputSection, at: Position) -> Option<Source> {
    let InputSection { topic, start, on_out_of_range, transform, output, repartition } = section;
    if let (Some(start), None) = (start, topic) {
        refuse(resolver, start.at, "`start` is only for an input with `topic`", "remove `start`");
        return None;
    }
    if let (Some(policy), None) = (on_out_of_range, topic) {
        let message = "`on_out_of_range` is only for an input with `topic`";
        refuse(resolver, policy.at, message, "remove `on_out_of_range`");
        return None;
    }
    if let (Some(output), None) = (output, transform) {
        let remedy = "add `transform`, the name of the transform whose output it is";
        refuse(resolver, output.at, "`output` is only for an input with `transform`", remedy);
        return None;
    }
    match (topic, transform, output, repartition) {
        (Some(topic), None, _, None) => {
            let Name(name) = resolver.required("topic", topic)?;
            let start = match start {
                Some(start) => resolver.required("start", start)?,
                None => Start::Earliest,
            };
            let on_out_of_range = match on_out_of_range {
                Some(policy) => resolver.required("on_out_of_range", policy)?,
                None => OnOutOfRange::Fail,
            };
            Some(Source::Topic { name, start, on_out_of_range })
        }
        (None, Some(transform), Some(output), None) => {
            let Name(transform) = resolver.required("transform", transform)?;
            let Name(output) = resolver.required("output", output)?;
            Some(Source::Transform { transform, output })
        }
        (None, None, _, Some(repartition)) => {
            let Name(name) = resolver.required("repartition", repartition)?;
            Some(Source::Repartition { name })
        }
        (None, Some(transform), None, None) => {
            let remedy = "add `output`, the name of the output to take";
            refuse(resolver, transform.at, "an input with `transform` needs `output`", remedy);
            None
        }
        _ => {
            let remedy = "give one of `topic`, `transform` with `output`, and `repartition`";
            refuse(resolver, at, "an input comes from one place", remedy);
            None
        }
    }
}

/// Reads an output.
pub(crate) fn output(
    resolver: &mut Resolver<'_>,
    name: &Located<String>,
    output: Option<Located<Short<OutputSection>>>,
) -> Option<Output> {
    let at = name.at;
    let named = resolver.name("outputs", &name.value, at);
    let (target, allow_loop) = match output {
        None => (Target::Transforms, false),
        Some(Located { value: Short::Name(topic), at }) => {
            let name = resolver.name("outputs", &topic, at)?;
            (Target::Topic { name, latest_per_key: false }, false)
        }
        Some(Located { value: Short::Full(section), at }) => {
            let allow_loop = allow_loop(resolver, &section)?;
            (target(resolver, &section, at)?, allow_loop)
        }
    };
    Some(Output { name: named?, at, target, allow_loop })
}

fn allow_loop(resolver: &mut Resolver<'_>, section: &OutputSection) -> Option<bool> {
    let Some(allow) = &section.allow_loop else { return Some(false) };
    if section.topic.is_none() && section.repartition.is_none() {
        let message = "`allow_loop` is only for an output with `topic` or `repartition`";
        refuse(resolver, allow.at, message, "remove `allow_loop`");
        return None;
    }
    resolver.required("allow_loop", allow)
}

fn target(resolver: &mut Resolver<'_>, section: &OutputSection, at: Position) -> Option<Target> {
    let OutputSection { topic, latest_per_key, repartition, partitions, .. } = section;
    if let (Some(latest), None) = (latest_per_key, topic) {
        let message = "`latest_per_key` is only for an output with `topic`";
        refuse(resolver, latest.at, message, "remove `latest_per_key`");
        return None;
    }
    if let (Some(partitions), None) = (partitions, repartition) {
        let message = "`partitions` is only for an output with `repartition`";
        let remedy = "remove `partitions`: the agent creates no other topics";
        refuse(resolver, partitions.at, message, remedy);
        return None;
    }
    match (topic, repartition) {
        (Some(topic), None) => {
            let Name(name) = resolver.required("topic", topic)?;
            let latest_per_key = match latest_per_key {
                Some(latest) => resolver.required("latest_per_key", latest)?,
                None => false,
            };
            Some(Target::Topic { name, latest_per_key })
        }
        (None, Some(repartition)) => {
            let Name(name) = resolver.required("repartition", repartition)?;
            let partitions = match partitions {
                Some(partitions) => {
                    let Count(count) = resolver.required("partitions", partitions)?;
                    Some(i32::try_from(count).expect("a count fits, or it was refused"))
                }
                None => None,
            };
            Some(Target::Repartition { name, partitions })
        }
        (None, None) => Some(Target::Transforms),
        (Some(_), Some(_)) => {
            let remedy = "give `topic` or `repartition`, or a second output for the other";
            refuse(resolver, at, "an output goes to one place", remedy);
            None
        }
    }
}

/// Reads where records go that a transform fails at.
pub(crate) fn on_error(
    resolver: &mut Resolver<'_>,
    written: Option<Located<Short<DeadLetterSection>>>,
) -> Option<OnError> {
    let Some(Located { value, at }) = written else {
        let default = GivesUp::parse(defaults::ON_ERROR).expect("the default is valid");
        return Some(OnError::GiveUp(default));
    };
    match value {
        Short::Full(section) => {
            let Name(topic) = resolver.required("dead_letter", &section.dead_letter)?;
            Some(OnError::DeadLetter { topic, at: section.dead_letter.at })
        }
        Short::Name(name) => match GivesUp::parse(&name) {
            Ok(gives_up) => Some(OnError::GiveUp(gives_up)),
            Err(expected) => {
                let remedy = format!("{expected} or write `{{ dead_letter: topic }}`");
                refuse(resolver, at, &format!("`on_error` can't be `{name}`"), &remedy);
                None
            }
        },
    }
}

fn refuse(resolver: &mut Resolver<'_>, at: Position, message: &str, remedy: &str) {
    resolver.problems.push(Problem::new(at, message, remedy));
}
