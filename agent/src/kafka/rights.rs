//! What the agent's user has to be allowed and is not, as far as brokers tell. They do not tell of
//! transactional ids.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Admin, Error, Right, Trouble,
    error::call_failed,
    native::{Code, Granted},
};

/// How long one of the requests may take.
const TIME_MAX: Duration = Duration::from_secs(5);
/// The brokers' own topic of groups. Asking for a group before it is there would make it.
const GROUPS: &str = "__consumer_offsets";

impl Admin {
    /// The rights that the user lacks to do this with topics that are there, and to be a member of
    /// the application's group. Changes nothing.
    pub fn missing_rights(
        &self,
        uses: &BTreeMap<&str, BTreeSet<Right>>,
    ) -> Result<Vec<Trouble>, Error> {
        let client = self.client();
        let names: Vec<&str> = uses.keys().copied().chain([GROUPS]).collect();
        let failed = |failure| call_failed("asking for the user's rights", &failure);
        let granted = client.rights_to_topics(&names, TIME_MAX).map_err(failed)?;
        let lacks = uses.iter().filter_map(|(topic, uses)| {
            Some((format!("the topic `{topic}`"), lacking(granted.get(*topic)?, uses), *topic))
        });
        let mut troubles: Vec<Trouble> =
            lacks.filter_map(|(what, lacks, name)| trouble(&what, "topic", name, &lacks)).collect();
        if granted.get(GROUPS).is_some_and(|groups| *groups != Granted::Absent) {
            let group = self.application();
            // Whether groups are served is another question.
            let granted = match client.rights_to_group(group, TIME_MAX) {
                Ok(granted) => granted,
                Err(failure)
                    if failure.code == Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED =>
                {
                    Granted::Nothing
                }
                Err(_) => Granted::Unknown,
            };
            let lacks = lacking(&granted, &BTreeSet::from([Right::Read]));
            troubles.extend(trouble(&format!("the group `{group}`"), "group", group, &lacks));
        }
        Ok(troubles)
    }
}

fn lacking(granted: &Granted, wanted: &BTreeSet<Right>) -> Vec<Right> {
    let is_missing = |right: &&Right| match granted {
        Granted::Absent | Granted::Unknown => false,
        Granted::Nothing => true,
        Granted::Some(all) => !all.contains(right),
    };
    wanted.iter().filter(is_missing).copied().collect()
}

fn trouble(what: &str, kind: &str, name: &str, lacks: &[Right]) -> Option<Trouble> {
    let verbs: Vec<&str> = lacks.iter().map(|right| right.verb()).collect();
    let operations: Vec<String> =
        lacks.iter().map(|right| format!("--operation {right:?}")).collect();
    (!lacks.is_empty()).then(|| Trouble {
        what: format!("the agent's user may not {} {what}", verbs.join(" and ")),
        remedy: format!(
            "allow it: `kafka-acls.sh --add --allow-principal User:NAME {} --{kind} {name}`",
            operations.join(" ")
        ),
    })
}

impl Right {
    const fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete records of",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_the_command_that_allows_it() {
        let wanted = BTreeSet::from([Right::Read, Right::Write]);
        for (granted, lacks) in [
            (Granted::Absent, &[][..]),
            (Granted::Unknown, &[]),
            (Granted::Some(vec![Right::Write, Right::Read]), &[]),
            (Granted::Some(vec![Right::Delete, Right::Read]), &[Right::Write]),
            (Granted::Nothing, &[Right::Read, Right::Write]),
        ] {
            assert_eq!(lacking(&granted, &wanted), lacks, "{granted:?}");
        }
        assert_eq!(trouble("the topic `t`", "topic", "t", &[]), None);
        let told = trouble("the topic `t`", "topic", "t", &[Right::Read, Right::Write]).unwrap();
        assert_eq!(
            told.to_string(),
            "the agent's user may not read and write the topic `t`: allow it: `kafka-acls.sh --add \
             --allow-principal User:NAME --operation Read --operation Write --topic t`"
        );
    }
}
