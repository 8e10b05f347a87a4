//! The agent's own topics, and how they must be configured.

use std::collections::BTreeMap;

use sidestream_core::topology::TopicKind;

use crate::{config::Problem, plan::kind_name};

/// A topic of the agent's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalTopic {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: i32,
    /// Changelog or repartition; external for one with dead letters.
    pub kind: TopicKind,
}

/// A configuration entry of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSetting {
    /// Its name, as Kafka knows it.
    pub name: &'static str,
    /// What the agent creates the topic with.
    pub value: &'static str,
    /// What a topic that is there must have.
    pub requirement: Requirement,
}

/// What a topic that is there must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Exactly this value.
    Exactly,
    /// A number not below this one; -1 is without end.
    AtLeast,
    /// Whatever it is.
    Free,
}

const CHANGELOG: &[TopicSetting] = &[
    setting("cleanup.policy", "compact", Requirement::Exactly),
    // A store that was away for half of this is rebuilt, for it may have missed deletes.
    setting("delete.retention.ms", "604800000", Requirement::AtLeast),
    setting("message.timestamp.type", "CreateTime", Requirement::Free),
    // The newest segment is never compacted: smaller ones mean less to restore.
    setting("segment.bytes", "67108864", Requirement::Free),
];

const REPARTITION: &[TopicSetting] = &[
    setting("cleanup.policy", "delete", Requirement::Exactly),
    // The agent purges what is committed; time and size must not purge what is not.
    setting("retention.ms", "-1", Requirement::Exactly),
    setting("retention.bytes", "-1", Requirement::Exactly),
    setting("message.timestamp.type", "CreateTime", Requirement::Exactly),
    // Purging frees whole segments.
    setting("segment.bytes", "52428800", Requirement::Free),
];

const fn setting(
    name: &'static str,
    value: &'static str,
    requirement: Requirement,
) -> TopicSetting {
    TopicSetting { name, value, requirement }
}

/// How a topic of this kind must be configured; nothing is asked of the user's own.
#[must_use]
pub const fn settings(kind: TopicKind) -> &'static [TopicSetting] {
    match kind {
        TopicKind::External => &[],
        TopicKind::Repartition => REPARTITION,
        TopicKind::Changelog => CHANGELOG,
    }
}

impl TopicSetting {
    /// Whether a topic with this value for it can be used.
    #[must_use]
    pub fn allows(&self, found: &str) -> bool {
        match self.requirement {
            Requirement::Exactly => found == self.value,
            Requirement::AtLeast => {
                let number = |text: &str| text.parse::<i64>().ok();
                match (number(found), number(self.value)) {
                    (Some(found), Some(least)) => found == -1 || found >= least,
                    (_, _) => false,
                }
            }
            Requirement::Free => true,
        }
    }
}

impl InternalTopic {
    /// What is wrong with the configuration of this topic as the broker describes it. Entries
    /// that the broker does not tell are taken as right.
    #[must_use]
    pub fn check(&self, found: &BTreeMap<String, String>) -> Vec<Problem> {
        let kind = kind_name(self.kind);
        let wrong = settings(self.kind).iter().filter_map(|setting| {
            let value = found.get(setting.name).filter(|value| !setting.allows(value))?;
            let TopicSetting { name, value: wanted, requirement } = setting;
            let at_least = match requirement {
                Requirement::AtLeast => "at least ",
                Requirement::Exactly | Requirement::Free => "",
            };
            Some(Problem {
                at: None,
                message: format!(
                    "the {kind} `{}` has {name}={value}, it must have {at_least}{wanted}",
                    self.name
                ),
                remedy: format!(
                    "`kafka-configs.sh --alter --entity-type topics --entity-name {} --add-config \
                     {name}={wanted}`, if no record was lost by it; else start under a new \
                     `application`",
                    self.name
                ),
            })
        });
        wrong.collect()
    }

    /// The problem that it is there with another number of partitions.
    pub(super) fn differs(&self, found: i32) -> Problem {
        let back = match self.kind {
            TopicKind::Repartition => format!("write `partitions: {found}` at its output"),
            TopicKind::Changelog | TopicKind::External => {
                format!("go back to inputs with {found} partitions")
            }
        };
        Problem {
            at: None,
            message: format!(
                "the {} `{}` has {found} partitions, the pipeline needs {}",
                kind_name(self.kind),
                self.name,
                self.partitions
            ),
            remedy: format!(
                "{back}, or start under a new `application`: state is bound to its partition"
            ),
        }
    }
}
