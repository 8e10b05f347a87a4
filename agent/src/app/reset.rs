//! An application begins anew: its group's offsets, its own topics and its state on this machine come
//! to an end together. The counterpart of Kafka's `kafka-streams-application-reset`.
//!
//! Offsets go first, state on disk last: an agent that is started here after a reset that was killed
//! half way finds that its state on disk has seen more than its group or its changelogs say, and refuses
//! to run. The reset can be done again, and then does what is left.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::Error;
use crate::{
    config::{Pipeline, Problem},
    kafka::Admin,
    plan,
    settings::kafka_config,
    state::{self, Stores},
};

/// How often to look whether the group is empty.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// An application that is to begin anew.
pub struct Reset {
    application: String,
    admin: Admin,
    /// The agent's own topics, as far as they are there.
    topics: Vec<String>,
    /// The state on this machine, held so that no agent starts on it meanwhile.
    stores: Option<Arc<Stores>>,
}

/// What a reset would end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The consumer group.
    pub group: String,
    /// Who is in the group now: a reset waits until nobody is.
    pub members: Vec<String>,
    /// Changelogs and repartition topics.
    pub topics: Vec<String>,
    /// The folder with the state on this machine, if there is some.
    pub state: Option<PathBuf>,
    /// Of how many tasks.
    pub tasks: usize,
}

impl Reset {
    /// Takes hold of the state directory, if there is one, and looks at the topics. Changes nothing.
    pub fn open(pipeline: &Pipeline) -> Result<Self, Error> {
        let stores = match pipeline.state.directory.is_dir() {
            true => Some(Stores::open_directory(&state::Config {
                identity: pipeline.general.identity.clone(),
                ..state::Config::new(&pipeline.state.directory, &pipeline.application)
            })?),
            false => None,
        };
        let config = kafka_config(pipeline, "reset");
        config.validate()?;
        let admin = Admin::new(&config)?;
        let mut topics = plan::internal_names(pipeline);
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let described = admin.describe_topics(&names)?;
        topics.retain(|name| described.get(name).is_some_and(Option::is_some));
        Ok(Self { application: pipeline.application.clone(), admin, topics, stores })
    }

    /// What would come to an end.
    pub fn extent(&self) -> Result<Extent, Error> {
        let tasks = match &self.stores {
            Some(stores) => stores.on_disk()?.len(),
            None => 0,
        };
        let folder = self.stores.as_ref().filter(|_| tasks > 0).map(|stores| stores.folder());
        Ok(Extent {
            group: self.application.clone(),
            members: self.admin.group_members(&self.application)?,
            topics: self.topics.clone(),
            state: folder.map(Path::to_owned),
            tasks,
        })
    }

    /// Waits until the group has no members, and tells `waiting` who is in it. The memberships of
    /// agents that were stopped or killed end with their sessions, those of agents that run never.
    pub fn wait_until_empty(
        &self,
        patience: Duration,
        waiting: &mut dyn FnMut(&[String]),
    ) -> Result<(), Error> {
        let since = Instant::now();
        loop {
            let members = self.admin.group_members(&self.application)?;
            if members.is_empty() {
                return Ok(());
            }
            if since.elapsed() >= patience {
                return Err(self.not_empty(&members));
            }
            waiting(&members);
            std::thread::park_timeout(LOOK_INTERVAL);
        }
    }

    fn not_empty(&self, members: &[String]) -> Error {
        Error::Topics(vec![Problem {
            at: None,
            message: format!(
                "the consumer group `{}` has members: {}; nothing was reset",
                self.application,
                members.join(", ")
            ),
            remedy:
                "stop all agents of the application; the membership of one that was stopped or \
                     killed ends with its session (`session.timeout.ms`)"
                    .to_owned(),
        }])
    }

    /// Ends all of it. Tells `step` what comes next.
    pub fn perform(self, step: &mut dyn FnMut(&str)) -> Result<(), Error> {
        step("deleting the consumer group with its offsets");
        self.admin.delete_group(&self.application)?;
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        if !topics.is_empty() {
            step("deleting changelogs and repartition topics");
            self.admin.delete_topics(&topics)?;
        }
        if let Some(stores) = &self.stores {
            step("removing the state on this machine");
            stores.remove_all()?;
        }
        Ok(())
    }
}
