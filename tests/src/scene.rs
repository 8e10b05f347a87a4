//! A pipeline at work: topics, load, agents, and the questions that every test has about them.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use sidestream_verifier::{read::Cluster, run::Pipeline, verdict::Verdict};
use tempfile::TempDir;

use crate::{
    agent::{Agent, PATIENCE},
    follow::{self, Follower, Record},
    load::{Load, Maker},
    topics::{self, Observer},
    wait,
};

/// How many partitions every topic of a scene has, unless a pipeline says otherwise.
pub const PARTITIONS: i32 = 4;

/// What the pipeline files of all plays begin with.
const HEAD: &str = "\
application: {application}
kafka:
  bootstrap.servers: {bootstrap}
  consumer:
    session.timeout.ms: 6000
    heartbeat.interval.ms: 1000
  producer:
    transaction.timeout.ms: 6000
workers: {workers}
identity: {name}
state:
  directory: {state}";

/// How many workers an agent has, unless its file is written anew.
const WORKERS: usize = 2;

/// What a scene plays.
#[derive(Clone, Copy)]
pub struct Play {
    /// The pipeline file, with placeholders as in [`Agent::new`], `{head}` for all that comes before
    /// the transforms, and `{topic:NAME}` for a topic of this scene.
    pub pipeline: &'static str,
    /// The topics that it reads, by their short names, each with what makes its records and how
    /// many a second; 0 for one that stays empty.
    pub inputs: &'static [(&'static str, Maker, u64)],
    /// The topics that it writes, by their short names.
    pub outputs: &'static [&'static str],
    /// Its repartition topics, as the pipeline names them.
    pub repartitions: &'static [&'static str],
    /// Its stores.
    pub stores: &'static [&'static str],
    /// Checks what came out of it, once it has settled, without any help of the agents. Each
    /// verdict is about one part of the pipeline.
    pub check: fn(&Scene) -> Result<Vec<Verdict>>,
}

impl Play {
    /// Nothing yet, and nothing that is checked without the agents: a test says the rest.
    pub const NOTHING: Self = Self {
        pipeline: "",
        inputs: &[],
        outputs: &[],
        repartitions: &[],
        stores: &[],
        check: |_| Ok(Vec::new()),
    };
}

/// A play on a broker. Dropping it ends its agents and removes their state.
pub struct Scene {
    /// The agents, in the order they were added.
    pub agents: Vec<Agent>,
    loads: Vec<Load>,
    bootstrap: String,
    observer: Observer,
    application: String,
    /// What the names of the play's own topics begin with.
    prefix: String,
    play: Play,
    folder: TempDir,
}

impl Scene {
    /// Creates the topics of a play, under names that no other scene has, and no agent yet.
    pub fn new(bootstrap: &str, play: Play) -> Result<Self> {
        let application = topics::unique("scene");
        let prefix = format!("{application}-");
        Self::create(bootstrap, play, (application, prefix))
    }

    /// The same under the play's own names, for a broker that has no other scene.
    pub fn on_own_broker(bootstrap: &str, play: Play) -> Result<Self> {
        Self::create(bootstrap, play, ("scene".to_owned(), String::new()))
    }

    fn create(
        bootstrap: &str,
        play: Play,
        (application, prefix): (String, String),
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("sidestream-scene-").tempdir()?;
        let bootstrap = bootstrap.to_owned();
        let observer = Observer::new(&bootstrap, &application)?;
        let scene = Self {
            observer,
            agents: Vec::new(),
            loads: Vec::new(),
            bootstrap,
            application,
            prefix,
            play,
            folder,
        };
        let inputs = play.inputs.iter().map(|(name, ..)| *name);
        for name in inputs.chain(play.outputs.iter().copied()) {
            topics::create(&scene.bootstrap, &scene.topic(name), PARTITIONS, &[])?;
        }
        Ok(scene)
    }

    /// Its broker.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Its application id, which is its consumer group.
    #[must_use]
    pub fn application(&self) -> &str {
        &self.application
    }

    /// The full name of a topic of the play.
    #[must_use]
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The full name of the changelog of a store.
    #[must_use]
    pub fn changelog(&self, store: &str) -> String {
        format!("{}-{store}-changelog", self.application)
    }

    /// The full name of a repartition topic.
    #[must_use]
    pub fn repartition(&self, name: &str) -> String {
        format!("{}-{name}-repartition", self.application)
    }

    /// The topics that it reads, and those that it writes: repartition topics are both.
    fn all_topics(&self) -> (Vec<String>, Vec<String>) {
        let (repartitions, stores) = (self.play.repartitions, self.play.stores);
        let repartitions = repartitions.iter().map(|name| self.repartition(name));
        let changelogs = stores.iter().map(|name| self.changelog(name));
        let read = self.play.inputs.iter().map(|(name, ..)| self.topic(name));
        let written = self.play.outputs.iter().map(|name| self.topic(name));
        (
            read.chain(repartitions.clone()).collect(),
            written.chain(repartitions).chain(changelogs).collect(),
        )
    }

    /// Adds an agent, which isn't started yet, and says which it is.
    pub fn add_agent(&mut self) -> Result<usize> {
        let index = self.agents.len();
        let name = format!("agent-{}", char::from(b'a' + u8::try_from(index)?));
        let pipeline = self.filled_in(self.play.pipeline, WORKERS);
        self.agents.push(Agent::new(self.folder.path(), &name, &self.bootstrap, &pipeline)?);
        Ok(index)
    }

    /// Gives an agent another pipeline file, written as the play's is, for when it starts next.
    pub fn write_pipeline(&self, agent: usize, pipeline: &str, workers: usize) -> Result<()> {
        let pipeline = self.filled_in(pipeline, workers);
        self.agents[agent].write_pipeline(&self.bootstrap, &pipeline)
    }

    fn filled_in(&self, pipeline: &str, workers: usize) -> String {
        let mut pipeline = pipeline.replace("{head}", HEAD);
        pipeline = pipeline.replace("{workers}", &workers.to_string());
        pipeline = pipeline.replace("{application}", &self.application);
        let topics = self.play.inputs.iter().map(|(name, ..)| *name);
        for topic in topics.chain(self.play.outputs.iter().copied()) {
            pipeline = pipeline.replace(&format!("{{topic:{topic}}}"), &self.topic(topic));
        }
        pipeline
    }

    /// Adds and starts this many agents.
    pub fn start_agents(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let index = self.add_agent()?;
            self.agents[index].start()?;
        }
        Ok(())
    }

    /// Begins to send records to every input.
    pub fn start_load(&mut self, seed: u64) -> Result<()> {
        let fed = self.play.inputs.iter().filter(|(_, _, per_second)| *per_second > 0);
        for (number, (name, maker, per_second)) in (0..).zip(fed) {
            let topic = self.topic(name);
            self.loads.push(Load::start(
                &self.bootstrap,
                &topic,
                (seed + number, *maker),
                *per_second,
            )?);
        }
        Ok(())
    }

    /// Stops sending and says how many records were sent.
    pub fn finish_load(&mut self) -> Result<u64> {
        self.loads.drain(..).map(Load::finish).sum()
    }

    /// Where the group is: the committed offset of each partition of each topic that it reads.
    /// Partitions without one are at -1.
    pub fn position(&self) -> Result<BTreeMap<(String, i32), i64>> {
        self.observer.position(&self.all_topics().0, PARTITIONS)
    }

    /// Kills an agent and starts it again so many times, one after the other; each time all partitions
    /// go on.
    pub fn kill_in_turn(&mut self, times: usize) -> Result<()> {
        for round in 0..times {
            let number = round % self.agents.len();
            self.agents[number].kill()?;
            self.agents[number].start()?;
            self.wait_for_progress()?;
        }
        Ok(())
    }

    /// Waits until every partition of every topic that is read has gone on from where it is now:
    /// records of it were processed, which a group's first commits, of where it begins, don't say.
    /// Needs load.
    pub fn wait_for_progress(&self) -> Result<()> {
        self.wait_for_progress_in(&self.all_topics().0)
    }

    /// The same for these topics alone, by their full names.
    pub fn wait_for_progress_in(&self, topics: &[String]) -> Result<()> {
        let position = || self.observer.position(topics, PARTITIONS);
        let before = wait::until("position", PATIENCE, || position().map(Some))?;
        let further = || Ok(position()?.iter().all(|(key, offset)| *offset > before[key].max(0)));
        wait::until_true("progress of every partition", PATIENCE, further)
            .with_context(|| self.told())
    }

    /// The partitions in which a transaction is open, with where it begins.
    pub fn open_transactions(&self) -> Result<Vec<(String, i32, i64)>> {
        let mut open = Vec::new();
        for topic in self.all_topics().1 {
            let found = self.observer.open_transactions(&topic, PARTITIONS)?;
            open.extend(
                found.into_iter().map(|(partition, first)| (topic.clone(), partition, first)),
            );
        }
        Ok(open)
    }

    /// Stops the load, waits until every record is processed and no transaction is open, and stops
    /// the agents in good order. Says how many records were sent.
    pub fn settle(&mut self) -> Result<u64> {
        let sent = self.finish_load()?;
        let (read, _) = self.all_topics();
        let left = || {
            for (done, topic) in read.iter().enumerate() {
                // In their order, with nothing pending between: what one stage has committed, the
                // next is asked for.
                let records = follow::lag(&self.bootstrap, &self.application, topic)?;
                if records > 0 {
                    return Ok(Some((read.len() - done, records)));
                }
                let open = self.open_transactions()?;
                ensure!(open.is_empty(), "transactions are open: {open:?}");
            }
            Ok(None)
        };
        wait::until_done("end of the work", 2 * PATIENCE, left).with_context(|| self.told())?;
        for agent in &mut self.agents {
            if agent.is_running()? {
                let status = agent.terminate()?;
                ensure!(
                    status.success(),
                    "{} ended with {status}:\n{}",
                    agent.name(),
                    agent.log_tail()
                );
            }
        }
        Ok(sent)
    }

    /// Checks what came out, once it has settled; says for people what was compared.
    pub fn check(&self) -> Result<String> {
        let verdicts = (self.play.check)(self)?;
        for verdict in &verdicts {
            ensure!(verdict.is_good(), "{verdict}\n{}", self.told());
        }
        let mut together = Verdict::default();
        for (what, count) in verdicts.iter().flat_map(|verdict| &verdict.compared) {
            *together.compared.entry(what.clone()).or_default() += count;
        }
        Ok(together.to_string())
    }

    /// What the verifier has to know: the stores are looked at too, so no agent may be running.
    #[must_use]
    pub fn pipeline(&self) -> Pipeline {
        let directories = self.agents.iter().map(Agent::state_directory);
        Pipeline {
            cluster: Cluster::new(&self.bootstrap),
            application: self.application.clone(),
            state_directories: directories.filter(|directory| directory.is_dir()).collect(),
        }
    }

    /// Everything that is committed in a topic, given by its full name.
    pub fn read(&self, topic: &str) -> Result<Vec<Record>> {
        Follower::new(&self.bootstrap, topic)?.read_to_end(PATIENCE)
    }

    /// What the agents said last, for messages.
    #[must_use]
    pub fn told(&self) -> String {
        let tail = |agent: &Agent| format!("{} said last:\n{}\n", agent.name(), agent.log_tail());
        self.agents.iter().map(tail).collect()
    }

    /// Whether a transaction is open that nobody works on any more: it is still open, and begins
    /// where it began, after several commit intervals.
    pub fn met_open_transaction(&self) -> Result<bool> {
        const COMMIT_INTERVALS: Duration = Duration::from_millis(500);
        let before = self.open_transactions()?;
        if before.is_empty() {
            return Ok(false);
        }
        std::thread::sleep(COMMIT_INTERVALS);
        let after = self.open_transactions()?;
        Ok(before.iter().any(|open| after.contains(open)))
    }
}
