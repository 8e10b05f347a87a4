//! What there is to see: records in and out, the state, and who has which tasks, all of it asked
//! from the broker.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{IsTerminal, Write, stdout},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use sidestream_tests::{
    follow::Follower,
    members::{self, Partitions},
    scene::{PARTITIONS, Scene},
    topics,
};

/// How often to print when it isn't a terminal that can be drawn on.
const PRINT_EVERY: Duration = Duration::from_secs(2);

/// How often to draw on one.
const DRAW_EVERY: Duration = Duration::from_millis(400);

/// The topics of the scene, followed, and what was seen of them.
pub(crate) struct Watch {
    bootstrap: String,
    application: String,
    changelog: String,
    started: Instant,
    input: Stream,
    output: Stream,
    state: Option<Stream>,
    counts: BTreeMap<String, u64>,
    words: BTreeSet<String>,
    pub(crate) tasks: Tasks,
    /// How many outputs were seen in each partition.
    pub(crate) outputs: BTreeMap<i32, u64>,
    drawn_at: Instant,
    lines_drawn: usize,
}

/// A topic that is followed.
struct Stream {
    follower: Follower,
    seen: u64,
    seen_when_drawn: u64,
}

/// Which agent has which partitions.
#[derive(Default)]
pub(crate) struct Tasks {
    by_agent: BTreeMap<&'static str, BTreeMap<String, Vec<i32>>>,
}

/// The lines, and the words between the stages.
const TOPICS_READ: usize = 2;

const AGENTS: [&str; 2] = ["agent-a", "agent-b"];

impl Tasks {
    /// Whether all partitions are taken, and each agent has some.
    pub(crate) fn both(&self) -> bool {
        AGENTS.iter().all(|agent| self.count(agent) > 0) && self.all_are_taken()
    }

    /// Whether the second agent has all partitions.
    pub(crate) fn only_second(&self) -> bool {
        self.count(AGENTS[0]) == 0 && self.all_are_taken()
    }

    fn all_are_taken(&self) -> bool {
        let all = usize::try_from(PARTITIONS).expect("a few") * TOPICS_READ;
        AGENTS.iter().map(|agent| self.count(agent)).sum::<usize>() == all
    }

    fn count(&self, agent: &str) -> usize {
        self.by_agent.get(agent).map_or(0, |topics| topics.values().map(Vec::len).sum())
    }

    fn show(&self, agent: &str) -> String {
        let Some(topics) = self.by_agent.get(agent).filter(|topics| !topics.is_empty()) else {
            return "none".to_owned();
        };
        let list = |partitions: &Vec<i32>| {
            let partitions: Vec<_> = partitions.iter().map(ToString::to_string).collect();
            partitions.join(" ")
        };
        let topics: Vec<_> = topics
            .iter()
            .map(|(topic, partitions)| format!("{topic} {}", list(partitions)))
            .collect();
        topics.join(", ")
    }
}

impl Stream {
    fn new(bootstrap: &str, topic: &str) -> Result<Self> {
        Ok(Self { follower: Follower::new(bootstrap, topic)?, seen: 0, seen_when_drawn: 0 })
    }

    fn rate(&mut self, since: Duration) -> u64 {
        let new = self.seen - self.seen_when_drawn;
        self.seen_when_drawn = self.seen;
        new * 1_000 / u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

impl Watch {
    pub(crate) fn new(scene: &Scene, started: Instant) -> Result<Self> {
        let bootstrap = scene.bootstrap().to_owned();
        Ok(Self {
            input: Stream::new(&bootstrap, &scene.topic("lines"))?,
            output: Stream::new(&bootstrap, &scene.topic("counts"))?,
            state: None,
            bootstrap,
            application: scene.application().to_owned(),
            changelog: scene.changelog("counts"),
            started,
            counts: BTreeMap::new(),
            words: BTreeSet::new(),
            tasks: Tasks::default(),
            outputs: BTreeMap::new(),
            drawn_at: Instant::now(),
            lines_drawn: 0,
        })
    }

    /// Shows what happens until something is so.
    pub(crate) fn until(
        &mut self,
        what: &str,
        deadline: Duration,
        so: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            self.look()?;
            if so(self) {
                break;
            }
            ensure!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        }
        let took = start.elapsed().as_secs_f64();
        self.say(&format!("{what}, after {took:.1} s"));
        Ok(())
    }

    /// Whether every partition has more outputs than it had.
    pub(crate) fn went_on_since(&self, before: &BTreeMap<i32, u64>) -> bool {
        (0..PARTITIONS).all(|partition| self.outputs.get(&partition) > before.get(&partition))
    }

    /// Shows what happens for some time.
    pub(crate) fn for_a_while(&mut self, time: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < time {
            self.look()?;
        }
        self.draw();
        Ok(())
    }

    /// Prints a line that stays.
    pub(crate) fn say(&mut self, text: &str) {
        self.lines_drawn = 0;
        println!("{:4} s  * {text}", self.started.elapsed().as_secs());
    }

    /// Reads on, and draws when it is time.
    fn look(&mut self) -> Result<()> {
        let every = if stdout().is_terminal() { DRAW_EVERY } else { PRINT_EVERY };
        let until = Instant::now() + DRAW_EVERY;
        while Instant::now() < until {
            self.read()?;
        }
        self.ask_for_tasks();
        if self.drawn_at.elapsed() >= every {
            self.draw();
        }
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        const WAIT: Duration = Duration::from_millis(5);
        while self.input.follower.next(WAIT)?.is_some() {
            self.input.seen += 1;
        }
        while let Some(record) = self.output.follower.next(WAIT)? {
            self.output.seen += 1;
            *self.outputs.entry(record.partition).or_default() += 1;
            let count = record.value_text().parse().unwrap_or_default();
            self.counts.insert(record.key_text(), count);
        }
        if self.state.is_none()
            && topics::partition_count(&self.bootstrap, &self.changelog)?.is_some()
        {
            self.state = Some(Stream::new(&self.bootstrap, &self.changelog)?);
        }
        while let Some(state) = &mut self.state
            && let Some(record) = state.follower.next(WAIT)?
        {
            state.seen += 1;
            self.words.insert(record.key_text());
        }
        Ok(())
    }

    fn ask_for_tasks(&mut self) {
        // In the midst of a rebalance the broker may have nothing to say; the next look is soon.
        let Ok(members) = members::assignments(&self.bootstrap, &self.application) else { return };
        let mut tasks = Tasks::default();
        for (member, partitions) in members {
            let Some(agent) = AGENTS.into_iter().find(|agent| member.starts_with(agent)) else {
                continue;
            };
            let topics = tasks.by_agent.entry(agent).or_default();
            self.add(topics, partitions);
        }
        self.tasks = tasks;
    }

    fn add(&self, topics: &mut BTreeMap<String, Vec<i32>>, partitions: Partitions) {
        for (topic, partitions) in partitions {
            let name = topic.trim_start_matches(&self.application).trim_start_matches('-');
            let name = name.trim_end_matches("-repartition");
            let all = topics.entry(name.to_owned()).or_default();
            all.extend(partitions);
            all.sort_unstable();
        }
    }

    fn draw(&mut self) {
        let since = self.drawn_at.elapsed();
        self.drawn_at = Instant::now();
        let (input, output) = (self.input.rate(since), self.output.rate(since));
        let mut counts: Vec<_> = self.counts.iter().collect();
        counts.sort_by(|a, b| b.1.cmp(a.1));
        let top: Vec<_> = counts.iter().take(5).map(|(word, n)| format!("{word} {n}")).collect();
        let changes = self.state.as_ref().map_or(0, |state| state.seen);
        let lines = [
            format!("input    {:7} lines, {input} a second", self.input.seen),
            format!(
                "output   {:7} counts, {output} a second: {}",
                self.output.seen,
                top.join(", ")
            ),
            format!("state    {:7} words, {changes} changes in the changelog", self.words.len()),
            format!("agent-a  {}", self.tasks.show(AGENTS[0])),
            format!("agent-b  {}", self.tasks.show(AGENTS[1])),
        ];
        self.print(&lines);
    }

    fn print(&mut self, lines: &[String]) {
        let seconds = self.started.elapsed().as_secs();
        if !stdout().is_terminal() {
            println!("{seconds:4} s    {}", lines.join(" | "));
            return;
        }
        if self.lines_drawn > 0 {
            print!("\x1b[{}A", self.lines_drawn);
        }
        for line in lines {
            println!("\x1b[2K{seconds:4} s    {line}");
        }
        self.lines_drawn = lines.len();
        // What can't be shown is no reason to stop.
        drop(stdout().flush());
    }
}
