//! Values from outside: what the references in a scalar stand for.
//!
//! Done after the file was parsed, so that what comes from outside can't change its structure.
//! Errors never say what a variable or file contains.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
};

use crate::config::{
    reference::{self, Missing, Part},
    regular::open_regular,
};

/// How large a secret file may be, in bytes.
const SECRET_FILE_BYTES_MAX: u64 = 1 << 20;

/// Where values come from that are not in the pipeline file.
#[derive(Clone, Default)]
pub struct Sources {
    /// The environment variables.
    pub variables: BTreeMap<String, String>,
    /// Relative paths start here.
    pub folder: PathBuf,
    /// To check the properties of the Kafka clients with; without it they are taken as they are.
    pub kafka_properties: Option<KafkaProperties>,
}

/// What the Kafka clients can be configured with.
#[derive(Clone)]
pub struct KafkaProperties {
    /// Whether there is a property of this name.
    pub is_known: fn(&str) -> bool,
    /// Names to suggest.
    pub names: Vec<String>,
    /// What a property should be, if it can't be this value; never repeats the value.
    pub expected: fn(&str, &str) -> Option<String>,
}

impl Sources {
    /// The environment of this process.
    #[must_use]
    pub fn from_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { variables, ..Self::default() }
    }

    /// Replaces every reference in `text` by what it refers to. The error says what is missing and
    /// what to do.
    pub(crate) fn interpolate(&self, text: &str) -> Result<String, Missing> {
        self.all(&reference::parse(text)?)
    }

    /// The value of a text that is nothing but one variable, if `text` is such a one.
    pub(crate) fn variable(&self, text: &str) -> Option<Result<String, Missing>> {
        match reference::parse(text).ok()?.as_slice() {
            [variable @ Part::Variable { .. }] => Some(self.value(variable)),
            _ => None,
        }
    }

    fn all(&self, parts: &[Part<'_>]) -> Result<String, Missing> {
        parts.iter().map(|part| self.value(part)).collect()
    }

    fn value(&self, part: &Part<'_>) -> Result<String, Missing> {
        match part {
            Part::Text(text) => Ok(text.clone()),
            Part::File(path) => self.secret(&self.all(path)?),
            Part::Variable { name, default } => match (self.variables.get(*name), default) {
                (Some(value), None) => Ok(value.clone()),
                (Some(value), Some(_)) if !value.is_empty() => Ok(value.clone()),
                (_, Some(default)) => self.all(default),
                (None, None) => Err(Missing {
                    message: format!("the environment variable `{name}` is not set"),
                    remedy: format!("set it, or give a default: `${{{name}:-default}}`"),
                }),
            },
        }
    }

    fn secret(&self, path: &str) -> Result<String, Missing> {
        let path = self.folder.join(path);
        read_bounded(&path).map_err(|reason| Missing {
            message: format!("the file `{}` can't be used ({reason})", path.display()),
            remedy: "mount it there, or name another file".into(),
        })
    }
}

/// What is in the file, without the line end that editors add.
fn read_bounded(path: &Path) -> Result<String, String> {
    let file = open_regular(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(SECRET_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > SECRET_FILE_BYTES_MAX {
        return Err(format!("it is larger than {SECRET_FILE_BYTES_MAX} bytes"));
    }
    let end = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(end);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "hunter2\n").unwrap();
        std::fs::write(folder.path().join("binary"), [0xff, 0xfe]).unwrap();
        let variables = [("HOST", "kafka"), ("EMPTY", ""), ("TRICK", "a: ${HOST}\nb")];
        let sources = Sources {
            variables: variables.map(|(k, v)| (k.into(), v.into())).into(),
            folder: folder.path().into(),
            kafka_properties: None,
        };
        match (sources.interpolate(text), expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, expected),
            (Err(missing), Err(part)) => {
                assert!(missing.message.contains(part), "{}", missing.message);
            }
            (result, _) => panic!("{text} gave {result:?}"),
        }
    }

    #[test]
    fn references() {
        check("plain", Ok("plain"));
        check("${HOST}:9092", Ok("kafka:9092"));
        check("${HOST},${HOST}", Ok("kafka,kafka"));
        check("${PORT:-9092}", Ok("9092"));
        check("${EMPTY:-x}${EMPTY}", Ok("x"));
        check("${PORT:-}", Ok(""));
        check("${file:secret}", Ok("hunter2"));
        check("costs $5 or $${HOST}", Ok("costs $5 or ${HOST}"));
        check("${TRICK}", Ok("a: ${HOST}\nb"));
    }

    #[test]
    fn defaults_may_have_references_and_braces() {
        check("${PORT:-${HOST}}", Ok("kafka"));
        check("${HOST:-${PORT:-x}}", Ok("kafka"));
        check("${HOST:-${PORT}}", Ok("kafka"));
        check("${PORT:-${EMPTY:-${NONE:-${HOST}:9092}}}!", Ok("kafka:9092!"));
        check("${PORT:-${file:secret}}", Ok("hunter2"));
        check("${file:${NONE:-secret}}", Ok("hunter2"));
        check(r#"${PORT:-{"a": {}}}"#, Ok(r#"{"a": {}}"#));
        check("${PORT:-$${HOST}}", Ok("${HOST}"));
        check("{${HOST}}", Ok("{kafka}"));
        check("${PORT:-${NONE}}", Err("`NONE` is not set"));
    }

    #[test]
    fn what_is_nothing_but_a_variable() {
        let variables = [("N", "5")].map(|(k, v)| (k.into(), v.into())).into();
        let sources = Sources { variables, ..Sources::default() };
        for (text, value) in [("${N}", "5"), ("${M:-7}", "7"), ("${M:-${N}}", "5")] {
            assert_eq!(sources.variable(text).unwrap().unwrap(), value, "{text}");
        }
        for text in ["5", "${N} ", "x${N}", "${N}${N}", "${file:x}", "$${N}", "${N", ""] {
            assert!(sources.variable(text).is_none(), "{text}");
        }
    }

    #[test]
    fn references_that_lead_nowhere() {
        check("${PORT}", Err("`PORT` is not set"));
        check("${HOST", Err("`${HOST` has no `}`"));
        check("x ${HOST:-${PORT:-a}", Err("`${HOST:-${PORT:-a}` has no `}`"));
        check("${HOST:-{}", Err("has no `}`"));
        check("${HOST-x}", Err("`${HOST-x}` is not a reference"));
        check("${HOST:?needed}", Err("`${HOST:?needed}` is not a reference"));
        check("${HOST:-${a b}}", Err("`${a b}` is not a reference"));
        check(&"${A:-".repeat(100), Err("inside one another"));
        check("${}", Err("is not a reference"));
        check("${2B}", Err("is not a reference"));
        check("${file:absent}", Err("absent` can't be used"));
        check("${file:binary}", Err("binary` can't be used"));
        check("${file:.}", Err("it is not a file"));
    }
}
