//! The kinds of scalar that a pipeline file has: how each is read and described.

use std::time::Duration;

use serde_json::{Value, json};

use crate::config::nearest::did_you_mean;

/// A kind of scalar. It is read from text after references in it were replaced.
pub trait Setting {
    /// What it is read as.
    type Value;

    /// Reads one; the error says what is expected, never what was given.
    fn parse(text: &str) -> Result<Self::Value, String>;

    /// Its JSON Schema.
    fn schema() -> Value;
}

/// A kind of scalar with few values, each of which has a name.
pub trait Choice: Copy + 'static {
    /// All values and their names.
    const ALL: &'static [(&'static str, Self)];
}

impl<T: Choice> Setting for T {
    type Value = Self;

    fn parse(text: &str) -> Result<Self, String> {
        let found = T::ALL.iter().find(|(name, _)| *name == text);
        let names = T::ALL.iter().map(|(name, _)| *name);
        found.map(|(_, value)| *value).ok_or_else(|| did_you_mean(text, names))
    }

    fn schema() -> Value {
        let names = T::ALL.iter().map(|(name, _)| match *name {
            "true" => json!(true),
            "false" => json!(false),
            name => json!(name),
        });
        or_reference(&json!({ "enum": names.collect::<Vec<_>>() }))
    }
}

impl Choice for bool {
    const ALL: &'static [(&'static str, Self)] = &[("true", true), ("false", false)];
}

/// Any text.
pub enum Text {}

impl Setting for Text {
    type Value = String;

    fn parse(text: &str) -> Result<String, String> {
        if text.is_empty() { Err("write something".into()) } else { Ok(text.into()) }
    }

    fn schema() -> Value {
        json!({ "title": "text", "type": ["string", "number", "boolean"] })
    }
}

/// A name that can be (a part of) a Kafka topic's name.
pub enum Name {}

/// How long a topic's name may be.
pub(crate) const NAME_LENGTH_MAX: usize = 249;

impl Setting for Name {
    type Value = String;

    fn parse(text: &str) -> Result<String, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if text.is_empty() || text == "." || text == ".." || !text.chars().all(legal) {
            return Err("use letters, digits, `.`, `_` and `-`".into());
        }
        if text.len() > NAME_LENGTH_MAX {
            return Err(format!("use at most {NAME_LENGTH_MAX} characters"));
        }
        Ok(text.into())
    }

    fn schema() -> Value {
        or_reference(&json!({
            "title": "name",
            "type": "string",
            "pattern": "^[A-Za-z0-9._-]+$",
            "maxLength": NAME_LENGTH_MAX
        }))
    }
}

/// A whole number of at least one.
pub enum Count {}

impl Setting for Count {
    type Value = u32;

    fn parse(text: &str) -> Result<u32, String> {
        match text.parse::<i32>() {
            Ok(count @ 1..) => Ok(count.unsigned_abs()),
            _ => Err(format!("write a whole number between 1 and {}", i32::MAX)),
        }
    }

    fn schema() -> Value {
        or_reference(&json!({
            "title": "whole number", "type": "integer", "minimum": 1, "maximum": i32::MAX
        }))
    }
}

/// How many times as much as something else: a number above one.
pub enum Ratio {}

/// The largest ratio; a bound that is never reached is one as well.
const RATIO_MAX: f64 = 1_000.0;

impl Setting for Ratio {
    type Value = f64;

    fn parse(text: &str) -> Result<f64, String> {
        match text.parse::<f64>() {
            Ok(ratio) if ratio > 1.0 && ratio <= RATIO_MAX => Ok(ratio),
            _ => Err(format!("write a number above 1 and up to {RATIO_MAX}, such as `2` or `1.5`")),
        }
    }

    fn schema() -> Value {
        or_reference(&json!({
            "title": "number", "type": "number", "exclusiveMinimum": 1, "maximum": RATIO_MAX
        }))
    }
}

/// A number of bytes.
pub enum Size {}

const SIZE_UNITS: &[(&str, u64)] = &[
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

impl Setting for Size {
    type Value = u64;

    fn parse(text: &str) -> Result<u64, String> {
        let hint = || match format!("{text}B") {
            meant if text.ends_with(['i', 'K', 'M', 'G', 'T']) && Self::parse(&meant).is_ok() => {
                format!("did you mean `{meant}`?")
            }
            _ => "write a whole number and a unit, such as `512MiB`, `64KiB` or `1GB`".to_owned(),
        };
        let (number, unit) = SIZE_UNITS
            .iter()
            .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))
            .ok_or_else(hint)?;
        let number: u64 = number.trim_end().parse().map_err(|_| hint())?;
        match number.checked_mul(*unit) {
            Some(bytes @ 1..=0x7fff_ffff_ffff_ffff) => Ok(bytes),
            Some(0) => Err("write at least `1B`".into()),
            _ => Err("write a smaller size".into()),
        }
    }

    fn schema() -> Value {
        or_reference(&json!({
            "title": "size",
            "type": "string",
            "pattern": "^[0-9]+ ?([KMGT]i?B|kB|B)$",
            "examples": ["512MiB", "64KiB", "1GB"]
        }))
    }
}

impl Setting for Duration {
    type Value = Self;

    fn parse(text: &str) -> Result<Self, String> {
        let hint = || {
            // Days are not always as long, so the library takes none.
            let days = text.trim_end_matches("ays").trim_end_matches("ay").strip_suffix('d');
            match days.and_then(|days| days.trim_end().parse::<u32>().ok()) {
                Some(days @ ..=366) => format!("write days as hours: `{}h`", days * 24),
                _ => "write a number and a unit, such as `100ms`, `1s`, `5m` or `1h`".to_owned(),
            }
        };
        let duration: jiff::SignedDuration = text.parse().map_err(|_| hint())?;
        let duration = Self::try_from(duration).map_err(|_| hint())?;
        if duration > Self::from_secs(366 * 86_400) {
            return Err("write at most a year".into());
        }
        Ok(duration)
    }

    fn schema() -> Value {
        or_reference(&json!({
            "title": "duration",
            "type": "string",
            "pattern": "^[0-9]",
            "examples": ["100ms", "1s", "5m", "1h 30m"]
        }))
    }
}

/// Where to start reading a topic for which the group has no offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At its first record.
    Earliest,
    /// After its last record.
    Latest,
    /// At the first record of this time or later, in milliseconds since 1970-01-01 UTC.
    At(i64),
}

impl Setting for Start {
    type Value = Self;

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            time => {
                match time.parse::<jiff::Timestamp>() {
                    Ok(time) if time.as_millisecond() >= 0 => Ok(Self::At(time.as_millisecond())),
                    _ => Err("write `earliest`, `latest` or a time such as `2026-01-31T12:00:00Z`"
                        .into()),
                }
            }
        }
    }

    fn schema() -> Value {
        or_reference(&json!({ "anyOf": [
            { "enum": ["earliest", "latest"] },
            { "title": "time", "type": "string", "format": "date-time" }
        ] }))
    }
}

/// What to do about a partition whose committed offset can't be read on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOutOfRange {
    /// Stop its task.
    Fail,
    /// Go on at its first record.
    Earliest,
    /// Go on after its last record.
    Latest,
}

impl Setting for OnOutOfRange {
    type Value = Self;

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "fail" => Ok(Self::Fail),
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ => Err("write `fail`, `earliest` or `latest`".into()),
        }
    }

    fn schema() -> Value {
        or_reference(&json!({ "enum": ["fail", "earliest", "latest"] }))
    }
}

/// Every scalar may come from outside.
pub(crate) fn or_reference(schema: &Value) -> Value {
    let reference = json!({ "title": REFERENCE, "type": "string", "pattern": "\\$\\{.+\\}" });
    json!({ "anyOf": [schema, reference] })
}

/// What a value from outside is called in the schema.
pub(crate) const REFERENCE: &str = "reference";

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Setting<Value: PartialEq + std::fmt::Debug>>(
        text: &str,
        expected: Option<T::Value>,
    ) {
        let (found, expected) = (T::parse(text).ok(), expected);
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn sizes() {
        check::<Size>("512MiB", Some(512 << 20));
        check::<Size>("64 KiB", Some(64 << 10));
        check::<Size>("2GB", Some(2_000_000_000));
        check::<Size>("1B", Some(1));
        for wrong in ["512", "0B", "-1B", "1.5GiB", "99999999999TiB", "9000000TiB", "MiB", ""] {
            check::<Size>(wrong, None);
        }
    }

    #[test]
    fn durations() {
        check::<Duration>("100ms", Some(Duration::from_millis(100)));
        check::<Duration>("1h 30m", Some(Duration::from_secs(5_400)));
        check::<Duration>("0s", Some(Duration::ZERO));
        for wrong in ["100", "-1s", "1 month", "s", "", "999999h"] {
            check::<Duration>(wrong, None);
        }
    }

    #[test]
    fn units_of_others_are_told_in_ours() {
        let hint = |hint: Result<u64, String>| hint.unwrap_err();
        assert_eq!(hint(Size::parse("512Mi")), "did you mean `512MiB`?");
        assert_eq!(hint(Size::parse("2G")), "did you mean `2GB`?");
        assert!(hint(Size::parse("i")).starts_with("write a whole number"));
        for (text, hours) in [("1d", "`24h`"), ("7 days", "`168h`"), ("1 day", "`24h`")] {
            let hint = Duration::parse(text).unwrap_err();
            assert_eq!(hint, format!("write days as hours: {hours}"));
        }
        for text in ["d", "-1d", "999999999999d", "1w"] {
            assert!(Duration::parse(text).unwrap_err().starts_with("write a number"), "{text}");
        }
    }

    #[test]
    fn starts() {
        check::<Start>("earliest", Some(Start::Earliest));
        check::<Start>("1970-01-01T00:00:01Z", Some(Start::At(1_000)));
        check::<Start>("1970-01-01T01:00:01+01:00", Some(Start::At(1_000)));
        check::<Start>("1969-01-01T00:00:01Z", None);
        check::<Start>("yesterday", None);
    }

    #[test]
    fn names_and_numbers() {
        check::<Name>("word-count_1.0", Some("word-count_1.0".into()));
        for wrong in ["", ".", "..", "a b", "ü", &"a".repeat(250)] {
            check::<Name>(wrong, None);
        }
        for (text, ratio) in [("2", 2.0), ("1.5", 1.5), ("1000", 1_000.0)] {
            check::<Ratio>(text, Some(ratio));
        }
        for wrong in ["1", "0.5", "-2", "1001", "inf", "NaN", "3x", ""] {
            check::<Ratio>(wrong, None);
        }
        check::<Count>("7", Some(7));
        for wrong in ["0", "-1", "1.5", "many", "3000000000"] {
            check::<Count>(wrong, None);
        }
    }
}
