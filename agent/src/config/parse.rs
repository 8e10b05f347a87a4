//! From YAML to the file's types, with errors in the file's words.

use crate::config::{file::File, mistakes, problem::Problem, source::Source};

/// Reads YAML. `is_property` says what is a property of the Kafka clients.
pub(crate) fn parse(
    source: Source<'_>,
    is_property: &dyn Fn(&str) -> bool,
) -> Result<File, Problem> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 64,
            max_nodes: 50_000,
            max_documents: 1,
            max_aliases: 1_000,
        },
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(source.0, options)
        .map_err(|error| mistakes::explain(&error, source, is_property))
}
