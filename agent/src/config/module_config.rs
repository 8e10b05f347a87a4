//! The configuration of a module: any values, of which those that stand for a variable get its type.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

use crate::config::{
    problem::{Position, Problem},
    reader::Reader,
    scalar::Entries,
};

/// A value, and where it is used and defined, which differs for an alias.
pub struct Node {
    kind: Kind,
    at: Position,
    defined: Position,
}

enum Kind {
    Scalar(Value),
    List(Vec<Node>),
    Map(Entries<Node>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, defined } = Spanned::deserialize(deserializer)?;
        Ok(Self { kind: value, at: referenced.into(), defined: defined.into() })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KindVisitor;

        impl<'de> Visitor<'de> for KindVisitor {
            type Value = Kind;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
                Ok(Kind::Scalar(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
                Ok(Kind::Scalar(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
                Ok(Kind::Scalar(value.into()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Kind, E> {
                let number = Number::from_f64(value);
                number.map(|number| Kind::Scalar(number.into())).ok_or_else(|| {
                    E::custom(format!("JSON has no number {value}, and a module gets JSON"))
                })
            }

            fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
                Ok(Kind::Scalar(value.into()))
            }

            fn visit_unit<E>(self) -> Result<Kind, E> {
                Ok(Kind::Scalar(Value::Null))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Kind, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = elements.next_element()? {
                    list.push(element);
                }
                Ok(Kind::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Kind, A::Error> {
                let mut map = Entries::default();
                while let Some(entry) = entries.next_entry()? {
                    map.0.push(entry);
                }
                Ok(Kind::Map(map))
            }
        }

        deserializer.deserialize_any(KindVisitor)
    }
}

impl JsonSchema for Node {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Any".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        true.into()
    }
}

/// What a module is configured with: a JSON object. May hold secrets: not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct ModuleConfig(pub String);

impl fmt::Debug for ModuleConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ModuleConfig")
    }
}

/// The configuration of a module, with its references replaced.
pub(crate) fn module_config(
    reader: &mut Reader<'_>,
    config: Option<Entries<Node>>,
) -> Option<ModuleConfig> {
    let config = json_map(reader, "config", config.unwrap_or_default())?;
    Some(ModuleConfig(Value::Object(config).to_string()))
}

fn json(reader: &mut Reader<'_>, key: &str, node: Node) -> Option<Value> {
    match node.kind {
        Kind::Scalar(Value::String(text)) => scalar(reader, key, &text, (node.at, node.defined)),
        Kind::Scalar(value) => Some(value),
        Kind::List(list) => {
            let list = list.into_iter().enumerate();
            let list: Vec<_> =
                list.map(|(index, node)| json(reader, &format!("{key}[{index}]"), node)).collect();
            list.into_iter().collect::<Option<_>>().map(Value::Array)
        }
        Kind::Map(map) => json_map(reader, key, map).map(Value::Object),
    }
}

fn json_map(reader: &mut Reader<'_>, key: &str, map: Entries<Node>) -> Option<Map<String, Value>> {
    let map = map.0.into_iter();
    let map: Vec<_> = map
        .map(|(name, node)| {
            let value = json(reader, &format!("{key}.{}", name.value), node)?;
            Some((name.value, value))
        })
        .collect();
    map.into_iter().collect()
}

/// A text, used and defined at these places. One that is a variable and nothing else, without quotes,
/// is what the variable's value would be in its place.
fn scalar(
    reader: &mut Reader<'_>,
    key: &str,
    text: &str,
    (at, defined): (Position, Position),
) -> Option<Value> {
    let variable = match reader.source.is_plain(defined) {
        true => reader.sources.variable(text),
        false => None,
    };
    match variable {
        Some(Ok(value)) => Some(typed(value)),
        Some(Err(missing)) => {
            let message = format!("`{key}`: {}", missing.message);
            reader.problems.push(Problem::new(at, message, missing.remedy));
            None
        }
        None => reader.text(key, text, at).map(Value::String),
    }
}

/// What a scalar of this text is: a number or a boolean if JSON says so, else text. A whole number
/// that would lose digits stays text.
fn typed(text: String) -> Value {
    let is_whole = !text.contains(['.', 'e', 'E']);
    match serde_json::from_str(&text) {
        Ok(Value::Number(number)) if !(is_whole && number.is_f64()) => Value::Number(number),
        Ok(Value::Bool(value)) => Value::Bool(value),
        _ => Value::String(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_and_booleans_are_those_of_json() {
        for (text, value) in [
            ("60000", json!(60_000)),
            ("-1", json!(-1)),
            ("0.5", json!(0.5)),
            ("true", json!(true)),
            ("false", json!(false)),
        ] {
            assert_eq!(typed(text.to_owned()), value);
        }
        let texts = ["", "007", "yes", "null", "1s", "[1]", "{}", "\"a\"", "+1", "0x10", "1e999"];
        for text in texts.into_iter().chain(["123456789012345678901234567890"]) {
            assert_eq!(typed(text.to_owned()), json!(text));
        }
    }
}
