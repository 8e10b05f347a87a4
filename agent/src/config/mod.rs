//! The pipeline file and the environment, read into one validated value.
//!
//! Raw ([`mod@file`]), then typed, then checked as a whole, once, at start: [`load`] gives a
//! [`Pipeline`] or all that is wrong with the file, each with its line, column and remedy. What is
//! known of a key, from its default to its meaning, stands where its section is defined: in
//! [`mod@file`], `limits`, `swap` and `control`.

mod amounts;
mod assemble;
mod choices;
mod client_properties;
mod control;
pub mod file;
mod foreign;
#[doc(hidden)]
pub mod fuzz;
mod graph;
mod homes;
mod interpolate;
mod limits;
mod loops;
mod mistakes;
mod module_config;
mod nearest;
mod parse;
pub mod pipeline;
mod places;
mod problem;
mod reader;
mod reference;
mod regular;
mod route;
mod scalar;
mod schema;
mod section;
mod setting;
mod shapes;
mod source;
mod swap;
#[cfg(test)]
mod tests;
mod timeouts;
mod validate;

use std::{io::Read, path::Path};

pub use self::{
    control::{Control, Listen, ReadOnly, SOCKET_PATH_BYTES_MAX, Tls},
    interpolate::{KafkaProperties, Sources},
    pipeline::Pipeline,
    problem::{Error, Position, Problem},
    regular::{open_regular, read_regular},
    schema::schema,
    setting::{Choice, OnOutOfRange, Start},
};
pub(crate) use self::{
    graph::{order, upstream},
    nearest::nearest,
};

/// How large a pipeline file may be, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the pipeline file at `path`. Paths in it, and those of secret files, start at its folder.
pub fn load(path: &Path, mut sources: Sources) -> Result<Pipeline, Error> {
    let unreadable = |source| Error::Unreadable { path: path.into(), source };
    let path = std::path::absolute(path).map_err(unreadable)?;
    let mut text = String::new();
    open_regular(&path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(unreadable)?;
    sources.folder = path.parent().unwrap_or(Path::new("/")).into();
    read(&path, &text, &sources).map_err(|problems| Error::Refused { path, problems })
}

/// Reads a number of bytes as the pipeline file has them, such as `512MiB`. The error says how to
/// write one.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    <setting::Size as setting::Setting>::parse(text)
}

/// Reads a pipeline from the text of a file.
fn read(path: &Path, text: &str, sources: &Sources) -> Result<Pipeline, Vec<Problem>> {
    if text.len() as u64 > FILE_BYTES_MAX {
        let message = format!("the file is larger than {FILE_BYTES_MAX} bytes");
        let remedy = "is it a pipeline file?".into();
        return Err(vec![Problem { at: None, message, remedy }]);
    }
    let source = source::Source(text);
    let is_property =
        |name: &str| sources.kafka_properties.as_ref().is_some_and(|known| (known.is_known)(name));
    let file = parse::parse(source, &is_property).map_err(|problem| vec![problem])?;
    let mut reader = reader::Reader::new(sources, source);
    let mut pipeline = assemble::pipeline(&mut reader, path, file);
    let mut problems = reader.problems;
    if let Some(pipeline) = &mut pipeline {
        timeouts::settle(pipeline, &mut problems);
        amounts::settle(pipeline, &mut problems);
        problems.extend(validate::problems(pipeline));
    }
    problems.sort_by_key(|problem| problem.at);
    match pipeline {
        Some(pipeline) if problems.is_empty() => Ok(pipeline),
        _ => Err(problems),
    }
}

/// A pipeline from text, for tests of what is done with one.
#[cfg(test)]
pub(crate) fn read_for_tests(text: &str) -> Pipeline {
    read(Path::new("/pipelines/pipeline.yaml"), text, &Sources::default()).unwrap()
}
