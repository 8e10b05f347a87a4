//! Values of the wrong shape: which key it is, what is there, and what should be.

use crate::config::{
    problem::Position,
    source::{Source, indentation, is_empty},
};

/// A value that should have another shape, if `expected` is one of the library's ways to say so.
pub(crate) fn wrong(source: Source<'_>, at: Position, expected: &str) -> Option<(String, String)> {
    let expected = match expected {
        "expected mapping start" => "a mapping: `key: value` lines, or `{ key: value }`",
        "expected sequence start" => "a list: `- element` lines, or `[element]`",
        "expected string scalar" => "a single value",
        "a name or a mapping" => expected,
        _ => return None,
    };
    let (_, value) = around(source, at);
    let found = found(value);
    let Some(key) = key(source, at) else {
        return Some((format!("this is {}", found.name()), format!("write {expected}")));
    };
    let shown = match found {
        Found::Single(value) if EXAMPLES.iter().any(|(known, ..)| *known == key) => {
            format!("the single value `{value}`")
        }
        _ => found.name().to_owned(),
    };
    let remedy = match (expected, found) {
        ("a single value", Found::List) if key.ends_with("servers") => {
            "write one value with commas, such as `kafka-1:9092,kafka-2:9092`".into()
        }
        ("a single value", _) => "write a single value".into(),
        (_, Found::Empty) => match example(key, "") {
            Some(example) => {
                format!("write it such as `{example}`, or indent the lines that belong to it")
            }
            None => format!("write {expected}"),
        },
        (_, found) => match example(key, found.value()) {
            Some(example) => format!("write {expected}; here `{example}`"),
            None => format!("write {expected}"),
        },
    };
    Some((format!("`{key}` is {shown}"), remedy))
}

/// A key with a value of the right shape, as far as can be made of `value`.
pub(crate) fn example(key: &str, value: &str) -> Option<String> {
    let (_, before, usual, after) = EXAMPLES.iter().find(|(known, ..)| *known == key)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/');
    let value = match !value.is_empty() && value.chars().all(is_plain) {
        true => value,
        false => usual,
    };
    let after = after.replace("{}", value);
    Some(format!("{before}{value}{after}"))
}

/// How the keys that are no single values are written: around a value of the file, or this one.
const EXAMPLES: &[(&str, &str, &str, &str)] = &[
    ("kafka", "kafka: { bootstrap.servers: ", "localhost:9092", " }"),
    ("transforms", "transforms: [{ name: ", "shout", ", module: shout.wasm, inputs: [words] }]"),
    ("inputs", "inputs: [", "payments", "]"),
    ("stores", "stores: [", "counts", "]"),
    ("outputs", "outputs: { ", "alerts", ": {} }"),
    ("http", "http: { listen: ", "9464", " }"),
    ("control", "control: { listen: ", "127.0.0.1:9465", " }"),
    ("tls", "tls: { certificate: ", "tls.crt", ", key: tls.key }"),
    ("state", "state: { directory: ", "/var/lib/sidestream", " }"),
    ("log", "log: { level: ", "info", " }"),
    ("shutdown", "shutdown: { deadline: ", "20s", " }"),
    ("retry", "retry: { attempts: ", "3", " }"),
    ("limits", "limits: { batch_time_max: ", "1s", " }"),
    ("swap", "swap: { probation_time: ", "10s", " }"),
    ("config", "config: { limit: ", "3", " }"),
    ("on_error", "on_error: { dead_letter: ", "bad-records", " }"),
];

/// What stands where something else should.
#[derive(Clone, Copy)]
enum Found<'a> {
    Empty,
    List,
    Mapping,
    Single(&'a str),
}

impl<'a> Found<'a> {
    const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::List => "a list",
            Self::Mapping => "a mapping",
            Self::Single(_) => "a single value",
        }
    }

    /// What an example can be made of.
    fn value(self) -> &'a str {
        match self {
            Self::Single(value) => value,
            Self::Empty | Self::List | Self::Mapping => "",
        }
    }
}

/// What begins there.
fn found(value: &str) -> Found<'_> {
    if is_empty(value) {
        return Found::Empty;
    }
    if value.starts_with('[') || value.starts_with("- ") {
        return Found::List;
    }
    let end = value.find([',', '}', ']']).unwrap_or(value.len());
    let end = value[..end].find(" #").unwrap_or(end);
    let single = value[..end].trim();
    if value.starts_with('{') || single.ends_with(':') || single.contains(": ") {
        return Found::Mapping;
    }
    Found::Single(single)
}

/// What stands before a value and from there on. The place of no value at all is its key's colon.
fn around(source: Source<'_>, at: Position) -> (&str, &str) {
    let (before, value) = source.around(at);
    match value.starts_with(':') {
        true => source.around(Position { column: at.column + 1, ..at }),
        false => (before, value),
    }
}

/// The key of the value that begins there.
fn key(source: Source<'_>, at: Position) -> Option<&str> {
    let (before, value) = around(source, at);
    let before = before.trim_end();
    if let Some(before) = before.strip_suffix(':') {
        return Some(name(before));
    }
    if !before.trim_start_matches(['-', ' ']).is_empty() {
        return None;
    }
    // A value in lines of its own: its key ends a line above that is indented less, or as much as a
    // list.
    let column = indentation(source.line(at.line));
    let is_list = before.is_empty() && value.starts_with("- ");
    let mut above = at.line;
    loop {
        let (number, line) = source.line_before(above)?;
        let is_level =
            indentation(line) == column && is_list && !line.trim_start().starts_with("- ");
        if indentation(line) < column || is_level {
            return line.trim_end().strip_suffix(':').map(name);
        }
        above = number;
    }
}

/// The last word before a colon.
fn name(before: &str) -> &str {
    let start = before.rfind([' ', '{', '[', ',']).map_or(0, |index| index + 1);
    before[start..].trim_matches(['"', '\''])
}
