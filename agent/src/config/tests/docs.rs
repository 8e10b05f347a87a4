//! `docs/pipeline.md`: every key of a pipeline file, as the schema has it.

use serde_json::Value;

use super::{homes::place, setting::REFERENCE, *};

/// The sections, in the order of the page.
const SECTIONS: &[&str] = &[
    "KafkaSection",
    "TransformSection",
    "InputSection",
    "OutputSection",
    "StoreSection",
    "DeadLetterSection",
    "RetrySection",
    "LimitsSection",
    "SwapSection",
    "StateSection",
    "ShutdownSection",
    "LogSection",
    "ControlSection",
    "ReadOnlySection",
    "TlsSection",
    "HttpSection",
];

const HEAD: &str = "\
# The pipeline file

This page is written by a test of `agent/src/config`, from the definitions of the keys there.

{description}

`sidestream schema` prints all of this as a JSON Schema (draft 2020-12). An editor with a YAML language
server checks a pipeline file against it if the file begins with
`# yaml-language-server: $schema=pipeline.schema.json`, where that file has the schema.

- A **size** is a whole number and a unit: `512MiB`, `64KiB`, `1GB`.
- A **duration** is a number and a unit: `100ms`, `1s`, `5m`, `1h 30m`.
- A **name** has letters, digits, `.`, `_` and `-`, {length} of them at most.
- A **time** is written as `2026-01-31T12:00:00Z`.
";

const TABLE: &str = "\n| key | value | default | meaning |\n|---|---|---|---|\n";

/// The whole page.
fn page() -> String {
    let schema = schema();
    let text = |schema: &Value| one_line(schema["description"].as_str().unwrap());
    let length = setting::NAME_LENGTH_MAX.to_string();
    let mut page = HEAD.replace("{description}", &text(&schema)).replace("{length}", &length);
    page += "\n## The top of the file\n";
    page += &table(&schema);
    let sections = schema["$defs"].as_object().unwrap();
    let mut names: Vec<_> = sections.keys().collect();
    names.retain(|name| !SECTIONS.contains(&name.as_str()));
    assert!(names.is_empty(), "sections without a place on the page: {names:?}");
    for name in SECTIONS {
        let section = &sections[*name];
        page += &format!("\n## {}\n\n{}\n", title(name), text(section));
        page += &table(section);
    }
    page
}

/// What a section is called in its heading.
fn title(section: &str) -> String {
    let place = place(section);
    match place.split_once(' ') {
        Some(("a", rest)) => format!("A {rest}"),
        Some(("an", rest)) => format!("An {rest}"),
        _ => place,
    }
}

/// The keys of a section: first those that must be there.
fn table(section: &Value) -> String {
    let required: Vec<_> =
        section["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut keys: Vec<_> = section["properties"].as_object().unwrap().iter().collect();
    keys.sort_by_key(|(key, _)| !required.contains(&key.as_str()));
    let mut table = TABLE.to_owned();
    for (key, schema) in keys {
        let default = match (&schema["default"], required.contains(&key.as_str())) {
            (Value::Null, true) => "must be given".to_owned(),
            (Value::Null, false) => String::new(),
            (Value::String(default), _) => format!("`{default}`"),
            (default, _) => format!("`{default}`"),
        };
        let meaning = one_line(schema["description"].as_str().unwrap());
        table += &format!("| `{key}` | {} | {default} | {meaning} |\n", kinds(schema));
    }
    let others = &section["additionalProperties"];
    if others.is_object() {
        table += &format!("| any other | {} | | A property of all clients. |\n", kinds(others));
    }
    table
}

/// What a value may be, in words.
fn kinds(schema: &Value) -> String {
    let mut kinds = Vec::new();
    collect_kinds(schema, &mut kinds);
    kinds.dedup();
    kinds.join(" or ")
}

fn collect_kinds(schema: &Value, kinds: &mut Vec<String>) {
    let has_type = |name: &str| match &schema["type"] {
        Value::String(only) => only == name,
        several => several.as_array().is_some_and(|all| all.iter().any(|one| one == name)),
    };
    let number = |key: &str| schema[key].as_f64();
    let title = schema["title"].as_str();
    if let Some(alternatives) = schema["anyOf"].as_array() {
        alternatives.iter().for_each(|schema| collect_kinds(schema, kinds));
    } else if let Some(section) = schema["$ref"].as_str() {
        let title = title_of(section);
        kinds.push(format!("[{}](#{})", title.to_lowercase(), anchor(&title)));
    } else if let Some(values) = schema["enum"].as_array() {
        let shown = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
        kinds.extend(
            values.iter().filter(|value| !value.is_null()).map(|v| format!("`{}`", shown(v))),
        );
    } else if title == Some(REFERENCE) || schema["type"] == "null" {
        // Any scalar may be a reference, and any key may be left empty that may be left out.
    } else if has_type("array") {
        kinds.push(format!("list of: {}", self::kinds(&schema["items"])));
    } else if has_type("object") {
        kinds.push(format!("mapping to: {}", self::kinds(&schema["additionalProperties"])));
    } else if let Some(title) = title {
        let least = number("minimum").map(|least| format!(" from {least}"));
        let above = number("exclusiveMinimum").map(|least| format!(" above {least}"));
        let most = number("maximum").filter(|most| *most < f64::from(i32::MAX));
        let most = most.map(|most| format!(" up to {most}"));
        kinds.push([Some(title.to_owned()), least, above, most].into_iter().flatten().collect());
    } else {
        kinds.push(if has_type("string") { "name" } else { "anything" }.to_owned());
    }
}

fn title_of(reference: &str) -> String {
    title(reference.trim_start_matches("#/$defs/"))
}

/// The anchor that a page has for a heading.
fn anchor(title: &str) -> String {
    let title = title.to_lowercase().replace(' ', "-");
    title.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

/// A description as a cell of a table.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[test]
fn the_page_of_the_pipeline_file_is_what_its_definitions_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pipeline.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/pipeline.md is not what the definitions in agent/src/config say; to write it anew: \
         UPDATE_DOCS=1 cargo test --workspace page_of_the_pipeline_file"
    );
}
