//! Values from outside: `${VAR}`, `${VAR:-default}` and `${file:/path}` inside a scalar.
//!
//! Done after the file was parsed, so that what comes from outside can't change its structure.
//! `$${` stands for a plain `${`. Errors never say what a variable or file contains.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
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
    /// To check the names of the Kafka clients' properties with; without it they are taken as
    /// they are.
    pub kafka_properties: Option<KafkaProperties>,
}

/// What the Kafka clients can be configured with.
#[derive(Clone)]
pub struct KafkaProperties {
    /// Whether there is a property of this name.
    pub is_known: fn(&str) -> bool,
    /// Names to suggest.
    pub names: Vec<String>,
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
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            if rest[..start].ends_with('$') {
                result.push_str(&rest[..start]);
                result.push('{');
                rest = &rest[start + 2..];
                continue;
            }
            result.push_str(&rest[..start]);
            let after = &rest[start + 2..];
            let Some(end) = after.find('}') else {
                return Err(Missing {
                    message: "a `${` has no `}`".into(),
                    remedy: "close it, or write `$${` for a plain `${`".into(),
                });
            };
            result.push_str(&self.value(&after[..end])?);
            rest = &after[end + 1..];
        }
        result.push_str(rest);
        Ok(result)
    }

    fn value(&self, reference: &str) -> Result<String, Missing> {
        if let Some(path) = reference.strip_prefix("file:") {
            return self.secret(path);
        }
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        if !is_variable(name) {
            return Err(Missing {
                message: format!("`${{{reference}}}` is not a reference"),
                remedy: "write `${VARIABLE}`, `${VARIABLE:-default}` or `${file:/path}`; `$${` \
                         stands for a plain `${`"
                    .into(),
            });
        }
        match (self.variables.get(name), default) {
            (Some(value), None) => Ok(value.clone()),
            (Some(value), Some(_)) if !value.is_empty() => Ok(value.clone()),
            (_, Some(default)) => Ok(default.to_owned()),
            (None, None) => Err(Missing {
                message: format!("the environment variable `{name}` is not set"),
                remedy: format!("set it, or give a default: `${{{name}:-default}}`"),
            }),
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

/// A reference that leads nowhere.
#[derive(Debug)]
pub(crate) struct Missing {
    pub(crate) message: String,
    pub(crate) remedy: String,
}

fn is_variable(name: &str) -> bool {
    let letter = |c: char| c == '_' || c.is_ascii_alphabetic();
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// What is in the file, without the line end that editors add.
fn read_bounded(path: &Path) -> Result<String, String> {
    let file = super::open_regular(path).map_err(|error| error.to_string())?;
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
    fn references_that_lead_nowhere() {
        check("${PORT}", Err("`PORT` is not set"));
        check("${HOST", Err("has no `}`"));
        check("${}", Err("is not a reference"));
        check("${2B}", Err("is not a reference"));
        check("${file:absent}", Err("absent` can't be used"));
        check("${file:binary}", Err("binary` can't be used"));
        check("${file:.}", Err("it is not a file"));
    }
}
