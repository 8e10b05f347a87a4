//! What a topic can be told: the settings that Apache Kafka knows, with its defaults. All are
//! checked, stored and told back; those that say so in [`TopicConfig`] are followed.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;

use super::super::refusal::Refusal;

/// The type of a setting, as `DescribeConfigs` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// A setting of topics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: &'static str,
    /// The words allowed; or for numbers the least.
    allowed: Allowed,
}

#[derive(Clone, Copy, Debug)]
enum Allowed {
    Any,
    AtLeast(i64),
    Words(&'static [&'static str]),
}

const fn setting(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    allowed: Allowed,
) -> Setting {
    Setting { name, kind, default, allowed }
}

const LONG_MAX: &str = "9223372036854775807";

/// All settings, by name.
pub(crate) const SETTINGS: &[Setting] = {
    use Allowed::{Any, AtLeast, Words};
    use Kind::{Boolean, Double, Int, List, Long, String};
    &[
        setting("cleanup.policy", List, "delete", Words(&["compact", "delete"])),
        setting("compression.gzip.level", Int, "-1", AtLeast(-1)),
        setting("compression.lz4.level", Int, "9", AtLeast(1)),
        setting(
            "compression.type",
            String,
            "producer",
            Words(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        ),
        setting("compression.zstd.level", Int, "3", AtLeast(-131_072)),
        setting("delete.retention.ms", Long, "86400000", AtLeast(0)),
        setting("file.delete.delay.ms", Long, "60000", AtLeast(0)),
        setting("flush.messages", Long, LONG_MAX, AtLeast(1)),
        setting("flush.ms", Long, LONG_MAX, AtLeast(0)),
        setting("follower.replication.throttled.replicas", List, "", Any),
        setting("index.interval.bytes", Int, "4096", AtLeast(0)),
        setting("leader.replication.throttled.replicas", List, "", Any),
        setting("local.retention.bytes", Long, "-2", AtLeast(-2)),
        setting("local.retention.ms", Long, "-2", AtLeast(-2)),
        setting("max.compaction.lag.ms", Long, LONG_MAX, AtLeast(1)),
        setting("max.message.bytes", Int, "1048588", AtLeast(0)),
        setting("message.timestamp.after.max.ms", Long, "3600000", AtLeast(0)),
        setting("message.timestamp.before.max.ms", Long, LONG_MAX, AtLeast(0)),
        setting(
            "message.timestamp.type",
            String,
            "CreateTime",
            Words(&["CreateTime", "LogAppendTime"]),
        ),
        setting("min.cleanable.dirty.ratio", Double, "0.5", Any),
        setting("min.compaction.lag.ms", Long, "0", AtLeast(0)),
        setting("min.insync.replicas", Int, "1", AtLeast(1)),
        setting("preallocate", Boolean, "false", Any),
        setting("remote.log.copy.disable", Boolean, "false", Any),
        setting("remote.log.delete.on.disable", Boolean, "false", Any),
        setting("remote.storage.enable", Boolean, "false", Any),
        setting("retention.bytes", Long, "-1", AtLeast(-1)),
        setting("retention.ms", Long, "604800000", AtLeast(-1)),
        setting("segment.bytes", Int, "1073741824", AtLeast(14)),
        setting("segment.index.bytes", Int, "10485760", AtLeast(4)),
        setting("segment.jitter.ms", Long, "0", AtLeast(0)),
        setting("segment.ms", Long, "604800000", AtLeast(1)),
        setting("unclean.leader.election.enable", Boolean, "false", Any),
    ]
};

/// Finds a setting.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

impl Setting {
    fn check(&self, value: &str) -> Result<(), Refusal> {
        let invalid = |what: &str| {
            let name = self.name;
            let why = format!("Invalid value {value} for configuration {name}: {what}");
            Err(Refusal::new(ResponseError::InvalidConfig, why))
        };
        let number = match self.kind {
            Kind::Boolean if !matches!(value, "true" | "false") => {
                return invalid("Expected value to be either true or false");
            }
            Kind::Double if !value.parse().is_ok_and(|ratio| (0.0..=1.0).contains(&ratio)) => {
                return invalid("Not a number from 0 to 1");
            }
            Kind::Int => value.parse::<i32>().map(i64::from),
            Kind::Long => value.parse::<i64>(),
            Kind::Boolean | Kind::Double | Kind::String | Kind::List => Ok(0),
        };
        let Ok(number) = number else { return invalid("Not a number of its range") };
        match self.allowed {
            Allowed::AtLeast(least) if number < least => {
                invalid(&format!("Value must be at least {least}"))
            }
            Allowed::Words(words) if !list(value).all(|word| words.contains(&word)) => {
                invalid(&format!("String must be one of: {}", words.join(", ")))
            }
            Allowed::Any | Allowed::AtLeast(_) | Allowed::Words(_) => Ok(()),
        }
    }
}

/// The words of a list.
fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim)
}

/// A change of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Set(String),
    Reset,
    /// Adds words to a list.
    Append(String),
    /// Takes words off a list.
    Subtract(String),
}

/// What a topic was told, and what of it the broker follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicConfig {
    own: BTreeMap<String, String>,
}

impl TopicConfig {
    /// Takes settings, all of them or none.
    pub(crate) fn new(
        settings: impl IntoIterator<Item = (String, Option<String>)>,
    ) -> Result<Self, Refusal> {
        let changes = settings.into_iter().map(|(name, value)| match value {
            Some(value) => Ok((name, Change::Set(value))),
            None => {
                let why = format!("Null value not supported for topic configs: {name}");
                Err(Refusal::new(ResponseError::InvalidConfig, why))
            }
        });
        let changes: Vec<_> = changes.collect::<Result<_, _>>()?;
        Self::default().changed(changes)
    }

    /// The same with changes, all of them or none.
    pub(crate) fn changed(
        &self,
        changes: impl IntoIterator<Item = (String, Change)>,
    ) -> Result<Self, Refusal> {
        let mut config = self.clone();
        for (name, change) in changes {
            let Some(setting) = find(&name) else {
                let why = format!("Unknown topic config name: {name}");
                return Err(Refusal::new(ResponseError::InvalidConfig, why));
            };
            match config.value_after(setting, change)? {
                None => config.own.remove(&name),
                Some(value) => {
                    setting.check(&value)?;
                    config.own.insert(name, value)
                }
            };
        }
        Ok(config)
    }

    fn value_after(&self, setting: &Setting, change: Change) -> Result<Option<String>, Refusal> {
        let words = || list(self.get(setting)).filter(|word| !word.is_empty()).map(str::to_owned);
        if matches!(change, Change::Append(_) | Change::Subtract(_)) && setting.kind != Kind::List {
            let why = format!("Can't APPEND or SUBTRACT: {} is not a list", setting.name);
            return Err(Refusal::new(ResponseError::InvalidConfig, why));
        }
        Ok(match change {
            Change::Reset => None,
            Change::Set(value) => Some(value),
            Change::Append(more) => {
                let mut words: Vec<_> = words().collect();
                let new = list(&more).filter(|word| !words.iter().any(|old| old == word));
                let new: Vec<_> = new.map(str::to_owned).collect();
                words.extend(new);
                Some(words.join(","))
            }
            Change::Subtract(less) => {
                let words = words().filter(|word| !list(&less).any(|gone| gone == word));
                Some(words.collect::<Vec<_>>().join(","))
            }
        })
    }

    /// The value of a setting.
    pub(crate) fn get(&self, setting: &Setting) -> &str {
        self.own.get(setting.name).map_or(setting.default, String::as_str)
    }

    /// Whether the topic was told this setting itself.
    pub(crate) fn is_own(&self, setting: &Setting) -> bool {
        self.own.contains_key(setting.name)
    }

    fn value(&self, name: &'static str) -> &str {
        let setting = find(name).expect("named in this file alone, and in the table");
        self.get(setting)
    }

    fn number(&self, name: &'static str) -> i64 {
        self.value(name).parse().expect("checked when it was set")
    }

    fn size(&self, name: &'static str) -> Option<usize> {
        usize::try_from(self.number(name)).ok()
    }

    /// Whether old records may go.
    pub(crate) fn deletes(&self) -> bool {
        list(self.value("cleanup.policy")).any(|word| word == "delete")
    }

    /// Whether of each key the last record stays.
    pub(crate) fn compacts(&self) -> bool {
        list(self.value("cleanup.policy")).any(|word| word == "compact")
    }

    pub(crate) fn batch_bytes_max(&self) -> usize {
        self.size("max.message.bytes").unwrap_or(0)
    }

    pub(crate) fn timestamp_after_ms_max(&self) -> i64 {
        self.number("message.timestamp.after.max.ms")
    }

    /// Whether records carry the time of their append, not the producer's.
    pub(crate) fn has_append_time(&self) -> bool {
        self.value("message.timestamp.type") == "LogAppendTime"
    }

    pub(crate) fn delete_retention_ms(&self) -> i64 {
        self.number("delete.retention.ms")
    }

    /// None for ever.
    pub(crate) fn retention_ms(&self) -> Option<i64> {
        Some(self.number("retention.ms")).filter(|retention| *retention >= 0)
    }

    /// None for any number of bytes.
    pub(crate) fn retention_bytes(&self) -> Option<usize> {
        self.size("retention.bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(changes: &[(&str, Change)], expected: Result<&[(&str, &str)], &str>) {
        let changes = changes.iter().map(|(name, change)| ((*name).to_owned(), change.clone()));
        match (TopicConfig::default().changed(changes), expected) {
            (Ok(config), Ok(expected)) => {
                for (name, value) in expected {
                    assert_eq!(config.get(find(name).unwrap()), *value, "{name}");
                }
            }
            (Err(refusal), Err(expected)) => {
                let message = refusal.message.unwrap();
                assert!(message.contains(expected), "{message:?} does not say {expected:?}");
            }
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    fn set(value: &str) -> Change {
        Change::Set(value.to_owned())
    }

    #[test]
    fn settings_are_told_back_with_their_defaults() {
        check(&[], Ok(&[("cleanup.policy", "delete"), ("max.message.bytes", "1048588")]));
        check(&[("retention.ms", set("-1"))], Ok(&[("retention.ms", "-1")]));
        check(
            &[("retention.ms", set("5")), ("retention.ms", Change::Reset)],
            Ok(&[("retention.ms", "604800000")]),
        );
    }

    #[test]
    fn lists_grow_and_shrink() {
        let (append, subtract) =
            (Change::Append("compact".to_owned()), Change::Subtract("delete".to_owned()));
        check(&[("cleanup.policy", append.clone())], Ok(&[("cleanup.policy", "delete,compact")]));
        check(
            &[("cleanup.policy", append.clone()), ("cleanup.policy", subtract)],
            Ok(&[("cleanup.policy", "compact")]),
        );
        check(&[("retention.ms", append)], Err("not a list"));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        check(&[("retention.hours", set("1"))], Err("retention.hours"));
        check(&[("retention.ms", set("soon"))], Err("retention.ms"));
        check(&[("retention.ms", set("-2"))], Err("at least -1"));
        check(&[("max.message.bytes", set("99999999999"))], Err("max.message.bytes"));
        check(&[("cleanup.policy", set("compress"))], Err("cleanup.policy"));
        check(&[("preallocate", set("yes"))], Err("true or false"));
        check(&[("min.cleanable.dirty.ratio", set("2"))], Err("from 0 to 1"));
    }

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_allowed() {
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.name));
        for setting in SETTINGS {
            setting.check(setting.default).unwrap();
        }
    }
}
