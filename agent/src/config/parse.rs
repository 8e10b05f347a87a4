//! From YAML to the file's types, with errors in the file's words.

use serde_saphyr::{Error as YamlError, UserMessageFormatter};

use crate::config::{
    file::File,
    nearest::did_you_mean,
    problem::{Position, Problem},
};

/// Reads YAML.
pub(crate) fn parse(text: &str) -> Result<File, Problem> {
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
    serde_saphyr::from_str_with_options(text, options).map_err(|error| explain(&error))
}

fn explain(error: &YamlError) -> Problem {
    let error = error.without_snippet();
    let (message, remedy) = match error {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            (format!("unknown key `{field}`"), did_you_mean(field, expected.iter().copied()))
        }
        YamlError::SerdeMissingField { field, .. } => {
            (format!("the key `{field}` is missing"), format!("add `{field}: …`"))
        }
        YamlError::SerdeInvalidType { unexpected, expected, .. } => {
            (format!("this is {unexpected}"), format!("write {expected}"))
        }
        YamlError::DuplicateMappingKey { key: Some(key), .. } => {
            (format!("the key `{key}` is already there"), "remove one of them".into())
        }
        YamlError::NullIntoString { .. } => {
            ("there is no value".into(), "write one, or remove the key".into())
        }
        other => {
            let rendered = other.render_with_formatter(&UserMessageFormatter);
            in_our_words(without_place(&rendered))
        }
    };
    Problem { at: error.location().map(Position::from), message, remedy }
}

/// The library says the place once more at the end of some messages.
fn without_place(message: &str) -> &str {
    message.rfind(" at line ").map_or(message, |end| &message[..end])
}

/// What the library expects of a value's shape, in the words of the file's users.
fn in_our_words(message: &str) -> (String, String) {
    let shape = match message {
        "expected mapping start" => "a mapping: `key: value` lines, or `{key: value}`",
        "expected sequence start" => "a list: `- element` lines, or `[element]`",
        "expected string scalar" => "a single value",
        _ => return (message.to_owned(), "correct the YAML".into()),
    };
    ("this has the wrong shape".into(), format!("write {shape}"))
}
