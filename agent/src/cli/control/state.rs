//! `sidestream state get` and `sidestream state scan`.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{At, Failure, connect, of_client, to_json};
use crate::{
    cli::{
        finding::{About, Finding},
        output::Output,
        text::steers,
    },
    control::proto::{GetRequest, GetResponse, Owner, Position, Reading, ScanRequest},
};

/// What marks a key that is written in hexadecimal.
const HEX: &str = "hex:";

/// The most entries of one page.
const PAGE_ENTRIES_MAX: u32 = 1_000;

/// What to read.
#[derive(Clone, Debug, Subcommand)]
pub enum Read {
    /// Read the values of keys.
    Get {
        #[command(flatten)]
        at: At,
        /// The store.
        store: String,
        /// The keys: text, or `hex:` and bytes in hexadecimal.
        #[arg(required = true)]
        keys: Vec<String>,
        /// The partition of the task; all tasks of the agent that have the store unless set.
        #[arg(long)]
        partition: Option<i32>,
    },
    /// Read entries in the order of their keys.
    Scan {
        #[command(flatten)]
        at: At,
        /// The store.
        store: String,
        #[command(flatten)]
        range: Range,
    },
}

/// Which entries.
#[derive(Clone, Debug, Args)]
pub struct Range {
    /// The first key.
    #[arg(long)]
    pub from: Option<String>,
    /// The key to end before.
    #[arg(long)]
    pub to: Option<String>,
    /// The partition of the task; all tasks of the agent that have the store unless set.
    #[arg(long)]
    pub partition: Option<i32>,
    /// Highest key first; needs `--partition`.
    #[arg(long, requires = "partition")]
    pub reverse: bool,
    /// How many entries at most.
    #[arg(long, default_value_t = 100)]
    pub limit: u32,
}

pub(super) fn run(read: &Read, output: &mut Output) -> Result<(), Failure> {
    match read {
        Read::Get { at, store, keys, partition } => get(at, store, keys, *partition, output),
        Read::Scan { at, store, range } => Ok(scan(at, store, range, output)?),
    }
}

fn get(
    at: &At,
    store: &str,
    keys: &[String],
    partition: Option<i32>,
    output: &mut Output,
) -> Result<(), Failure> {
    let bytes: Vec<Vec<u8>> = keys.iter().map(|key| of_text(key)).collect::<Result<_, _>>()?;
    let request = GetRequest { store: store.to_owned(), partition, keys: bytes.clone() };
    let answer = connect(at)?.get(request).map_err(|error| vec![of_client(&error)])?;
    let details = json!({
        "readings": readings(&bytes, &answer),
        "owners": to_json(&answer.owners),
    });
    let (lines, absent) = (found(&bytes, &answer), absent(store, &bytes, &answer));
    if absent.is_empty() {
        output.answer(&lines, &details);
        return Ok(());
    }
    output.human(&lines);
    Err(Failure { findings: absent, details })
}

/// What each task answers, as JSON.
fn readings(keys: &[Vec<u8>], answer: &GetResponse) -> Vec<Value> {
    let reading = |reading: &Reading| {
        let pairs = keys.iter().zip(&reading.values);
        let values = pairs.map(|(key, value)| entry(key, value.value.as_deref()));
        let values: Vec<Value> = values.collect();
        json!({ "position": to_json(&reading.position.clone().unwrap_or_default()), "values": values })
    };
    answer.readings.iter().map(reading).collect()
}

/// The values that are there, by the tasks that have them.
fn found(keys: &[Vec<u8>], answer: &GetResponse) -> Vec<String> {
    let mut lines = Vec::new();
    for reading in &answer.readings {
        let values = keys.iter().zip(&reading.values);
        let values = values.filter_map(|(key, value)| Some((key, value.value.as_deref()?)));
        let values: Vec<String> =
            values.map(|(key, value)| format!("  {}  {}", to_text(key), to_text(value))).collect();
        if !values.is_empty() {
            lines.push(headline(&reading.position.clone().unwrap_or_default()));
            lines.extend(values);
        }
    }
    lines
}

/// The keys that none of the tasks has, and where they belong.
fn absent(store: &str, keys: &[Vec<u8>], answer: &GetResponse) -> Vec<Finding> {
    let tasks = answer.readings.iter().flat_map(|reading| &reading.position);
    let tasks: Vec<&str> = tasks.map(|position| position.task.as_str()).collect();
    let tasks = tasks.join(", ");
    let mut findings = Vec::new();
    for (place, key) in keys.iter().enumerate() {
        let has = |reading: &Reading| reading.values.get(place).is_some_and(|v| v.value.is_some());
        if answer.readings.iter().any(has) {
            continue;
        }
        let message = format!("store `{store}` has no `{}` in the tasks {tasks}", to_text(key));
        let remedy = answer.owners.get(place).map_or(String::new(), |owner| {
            let Owner { task, partition, .. } = owner;
            let whose = match owner.here {
                true => "is here: then there is none",
                false => "is not here: ask the agent that has it, as `sidestream status` shows there",
            };
            format!("as the key of records it belongs to partition {partition}, whose task {task} {whose}")
        });
        findings.push(Finding { remedy, ..Finding::new(About::Key, message) });
    }
    findings
}

fn scan(at: &At, store: &str, range: &Range, output: &mut Output) -> Result<(), Vec<Finding>> {
    let bound = |bound: &Option<String>| bound.as_deref().map(of_text).transpose();
    let (from, to) = (bound(&range.from)?, bound(&range.to)?);
    let mut client = connect(at)?;
    let (mut lines, mut pages) = (Vec::new(), Vec::new());
    let (mut left, mut page_token) = (range.limit, Vec::new());
    loop {
        let page = client
            .scan(ScanRequest {
                store: store.to_owned(),
                partition: range.partition,
                from: from.clone(),
                to: to.clone(),
                reverse: range.reverse,
                entries_max: left.clamp(1, PAGE_ENTRIES_MAX),
                page_token,
            })
            .map_err(|error| vec![of_client(&error)])?;
        let position = page.position.unwrap_or_default();
        lines.push(headline(&position));
        let entries = page.entries.iter();
        lines.extend(
            entries.map(|entry| format!("  {}  {}", to_text(&entry.key), to_text(&entry.value))),
        );
        let entries = page.entries.iter().map(|e| entry(&e.key, Some(&e.value)));
        let entries: Vec<Value> = entries.collect();
        left = left.saturating_sub(u32::try_from(entries.len()).unwrap_or(u32::MAX));
        pages.push(json!({ "position": to_json(&position), "entries": entries }));
        page_token = page.next_page_token;
        if left == 0 || page_token.is_empty() {
            break;
        }
    }
    let more = !page_token.is_empty();
    if more {
        lines.push("there are more; raise `--limit`, or go on with `--from`".to_owned());
    }
    output.answer(&lines, &json!({ "pages": pages, "more": more }));
    Ok(())
}

fn headline(position: &Position) -> String {
    let inputs = position.inputs.iter().map(|input| format!("{} {}", input.topic, input.offset));
    let inputs: Vec<String> = inputs.collect();
    format!(
        "task {} at changelog offset {}, inputs {}",
        position.task,
        position.changelog_offset,
        inputs.join(", ")
    )
}

/// A key and its value in JSON: as hexadecimal, and as text where they are some.
fn entry(key: &[u8], value: Option<&[u8]>) -> Value {
    let mut entry = Map::new();
    let mut put = |name: &str, bytes: &[u8]| {
        entry.insert(format!("{name}_hex"), Value::String(hex(bytes)));
        if let Ok(text) = std::str::from_utf8(bytes) {
            entry.insert(name.to_owned(), Value::String(text.to_owned()));
        }
    };
    put("key", key);
    match value {
        Some(value) => put("value", value),
        None => {
            entry.insert("value_hex".to_owned(), Value::Null);
        }
    }
    Value::Object(entry)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes for people: as text if they are some, else in hexadecimal.
fn to_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && !text.chars().any(steers) => text.to_owned(),
        Ok(_) | Err(_) => format!("{HEX}{}", hex(bytes)),
    }
}

/// The bytes that a key on the command line stands for.
fn of_text(text: &str) -> Result<Vec<u8>, Vec<Finding>> {
    let Some(digits) = text.strip_prefix(HEX) else { return Ok(text.as_bytes().to_vec()) };
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = match digits.len() % 2 {
        0 => digits.as_bytes().chunks(2).map(pair).collect(),
        _ => None,
    };
    bytes.ok_or_else(|| {
        let message = format!("`{text}` is no key: `{HEX}` takes pairs of hexadecimal digits");
        vec![Finding::new(About::Agent, message)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::{Exit, finding},
        control::proto,
    };

    #[test]
    fn a_key_that_is_not_there_is_told_once_and_where_it_belongs() {
        let value = |text: Option<&str>| proto::Value { value: text.map(Into::into) };
        let reading = |task: &str, values: [Option<&str>; 3]| Reading {
            position: Some(Position { task: task.to_owned(), ..Position::default() }),
            values: values.map(value).into(),
        };
        let owner = |partition, here| Owner { task: format!("0_{partition}"), partition, here };
        let answer = GetResponse {
            readings: vec![
                reading("0_0", [None, Some("7"), None]),
                reading("0_1", [None, None, None]),
            ],
            owners: vec![owner(1, true), owner(0, true), owner(3, false)],
        };
        let keys = [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()];
        assert_eq!(found(&keys, &answer), ["task 0_0 at changelog offset 0, inputs ", "  b  7"]);
        let absent = absent("counts", &keys, &answer);
        let told: Vec<String> = absent.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2);
        assert!(
            told[0].starts_with("store `counts` has no `a` in the tasks 0_0, 0_1\n"),
            "{told:?}"
        );
        assert!(told[0].contains("whose task 0_1 is here: then there is none"), "{told:?}");
        assert!(told[1].contains("partition 3, whose task 0_3 is not here"), "{told:?}");
        assert_eq!(finding::exit(&absent), Exit::Absent);
    }

    #[test]
    fn keys_are_text_or_hexadecimal() {
        assert_eq!(of_text("word").unwrap(), b"word");
        assert_eq!(of_text("hex:00ff").unwrap(), [0, 255]);
        assert_eq!(of_text("hex:").unwrap(), b"");
        for wrong in ["hex:0", "hex:zz", "hex:é0"] {
            assert!(of_text(wrong).is_err(), "{wrong}");
        }
        for bytes in [&b"word"[..], b"\x00\xff", b"", b"a\nb", "größe".as_bytes()] {
            assert_eq!(of_text(&to_text(bytes)).unwrap(), bytes);
        }
    }
}
