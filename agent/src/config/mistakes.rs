//! What is wrong with a file that is no pipeline, in the words of those who write it. The library
//! says where; what was probably meant is seen in the lines around.

use serde_saphyr::{Error as YamlError, UserMessageFormatter};

use crate::config::{
    foreign::foreign,
    homes::{home, homes},
    nearest::did_you_mean,
    problem::{Position, Problem},
    shapes,
    source::{Source, indentation, is_empty},
};

/// Says what the library found.
pub(crate) fn explain(
    error: &YamlError,
    source: Source<'_>,
    is_property: &dyn Fn(&str) -> bool,
) -> Problem {
    let error = error.without_snippet();
    let mut at = error.location().map(Position::from);
    let place = at.unwrap_or(Position { line: 1, column: 1 });
    let (message, remedy) = match error {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            (format!("unknown key `{field}`"), unknown_key(field, expected, is_property))
        }
        YamlError::SerdeMissingField { field, .. } => match elsewhere(field, source, place) {
            Some((there, message, remedy)) => {
                at = Some(there);
                (message, remedy)
            }
            None => missing_key(field),
        },
        YamlError::SerdeInvalidType { unexpected, expected, .. } => {
            shapes::wrong(source, source.value_at(place), expected)
                .unwrap_or_else(|| (format!("this is {unexpected}"), format!("write {expected}")))
        }
        YamlError::DuplicateMappingKey { key: Some(key), .. } => {
            (format!("the key `{key}` is already there"), "remove one of them".into())
        }
        YamlError::NullIntoString { .. } => no_value(source, place),
        other => {
            let rendered = other.render_with_formatter(&UserMessageFormatter);
            let message = without_place(&rendered);
            let is_template = source.line(place.line).contains("{{");
            let shape = shapes::wrong(source, place, message).filter(|_| !is_template);
            shape.unwrap_or_else(|| syntax(message, source, place))
        }
    };
    Problem { at, message, remedy }
}

/// The library says the place once more at the end of some messages.
fn without_place(message: &str) -> &str {
    message.rfind(" at line ").map_or(message, |end| &message[..end])
}

/// Where a key belongs that is not known where it stands.
fn unknown_key(
    field: &str,
    expected: &[&'static str],
    is_property: &dyn Fn(&str) -> bool,
) -> String {
    if let Some(instead) = foreign(field) {
        return instead.into();
    }
    let homes = homes(field);
    if !homes.is_empty() {
        return format!("it belongs to {}", homes.join(" or "));
    }
    if field.contains('.') && is_property(field) {
        return "it belongs to `kafka`".into();
    }
    did_you_mean(field, expected.iter().copied())
}

fn missing_key(field: &str) -> (String, String) {
    let written = shapes::example(field, "").unwrap_or_else(|| format!("{field}: …"));
    let message = match home(field) {
        Some(home) => format!("the key `{field}` of {home} is missing"),
        None => format!("the key `{field}` is missing"),
    };
    (message, format!("add `{written}`"))
}

/// A key that is missing where something begins may be there, but indented as no part of it.
fn elsewhere(
    field: &str,
    source: Source<'_>,
    place: Position,
) -> Option<(Position, String, String)> {
    let column = usize::try_from(place.column).unwrap_or(1).saturating_sub(1);
    let lines = source.0.lines().zip(1u64..).skip(usize::try_from(place.line).unwrap_or(0));
    let mut lines = lines.filter(|(line, _)| !is_empty(line)).take_while(|(line, _)| {
        indentation(line) >= column.saturating_sub(2) && !line.trim_start().starts_with("- ")
    });
    let is_field = |line: &str| line.split_once(':').is_some_and(|(key, _)| key.trim() == field);
    let (line, number) = lines.find(|(line, _)| is_field(line))?;
    let here = indentation(line);
    let there = Position { line: number, column: here as u64 + 1 };
    (here != column).then(|| {
        let message = format!(
            "`{field}` is indented by {here} spaces and so no part of what begins above, which needs it"
        );
        (there, message, format!("indent it by {column} spaces"))
    })
}

fn no_value(source: Source<'_>, place: Position) -> (String, String) {
    let line = source.line(place.line);
    let value = line.split_once(':').and_then(|(_, value)| value.trim_start().chars().next());
    match value {
        Some(sign @ ('#' | '!')) => (
            format!("there is no value: what begins with `{sign}` has another meaning"),
            "put quotes around it".into(),
        ),
        _ => ("there is no value".into(), "write one, or remove the key".into()),
    }
}

/// What is no YAML at all: the library's words, and the usual cause of them.
fn syntax(message: &str, source: Source<'_>, place: Position) -> (String, String) {
    let (before, after) = source.around(place);
    let line = source.line(place.line);
    let message = message.to_owned();
    if line.contains("{{") {
        let message = "this is a template, which is not rendered".into();
        return (message, "render it first, for example with `helm template`".into());
    }
    if let Some(reference) = bare_reference(line) {
        return (
            message,
            format!(
                "put quotes around the reference, `\"{reference}\"`: inside `{{…}}` and `[…]` its own \
             braces end what is around it; or write one key a line"
            ),
        );
    }
    if message.contains("tab") {
        return (
            "there is a tab, which YAML does not take for indentation".into(),
            "use spaces".into(),
        );
    }
    if message.starts_with("YAML document too large") && message.contains("documents") {
        let message = "there is a second document after `---`".into();
        return (message, "a pipeline is one document: remove one of them".into());
    }
    if source.0.lines().all(is_empty) {
        let remedy = "write at least `application`, `kafka` and `transforms`";
        return ("the file is empty".into(), remedy.into());
    }
    if message.contains("mapping values") || message.contains("did not find expected key") {
        return (misplaced(source, place).unwrap_or(message), indentation_remedy(before));
    }
    let remedy = match after.chars().next() {
        _ if message.contains("quote") => "close the quote",
        Some('%' | '@' | '`' | '*' | '&' | '!' | '|' | '>') => {
            "put quotes around the value: what it begins with has another meaning"
        }
        _ => "correct the YAML; a value with `: `, ` #` or brackets in it needs quotes",
    };
    (message, remedy.into())
}

/// The reference without quotes in a line that has brackets.
fn bare_reference(line: &str) -> Option<&str> {
    let start = line.find("${")?;
    let before = &line[..start];
    let is_quoted = ['"', '\''].iter().any(|quote| before.matches(*quote).count() % 2 == 1);
    if is_quoted || !before.contains(['{', '[']) {
        return None;
    }
    let end = line[start..].find('}')?;
    Some(&line[start..=start + end])
}

/// A line whose indentation fits none before it.
fn misplaced(source: Source<'_>, place: Position) -> Option<String> {
    let (above, line_above) = source.line_before(place.line)?;
    let (here, there) = (indentation(source.line(place.line)), indentation(line_above));
    let is_inner = line_above.trim_end().ends_with(':') && here > there;
    (here != there && !is_inner).then(|| {
        format!("line {} is indented by {here} spaces, line {above} by {there}", place.line)
    })
}

fn indentation_remedy(before: &str) -> String {
    let quotes = match before.trim_start().trim_start_matches("- ").contains(": ") {
        true => "; a value with `: ` in it needs quotes",
        false => "",
    };
    format!("indent keys that belong together equally{quotes}")
}
