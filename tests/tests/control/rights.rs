//! What the agent's user may not do is told before it matters.

use sidestream_tests::{
    broker::{Cluster, Options},
    follow::Follower,
    load,
    random::Random,
    tools::kafka_tool,
    topics,
};

use super::{
    diagnosis::{SPLIT, check},
    *,
};

/// Adds a rule for everybody. What has one is closed for all that no rule allows.
fn rule(bootstrap: &str, rule: &str) -> Result<()> {
    let words: Vec<&str> = ["--add"].into_iter().chain(rule.split(' ')).collect();
    kafka_tool("AclCommand", bootstrap, &words, "").map(drop)
}

/// A broker that takes rules.
fn with_rules() -> Result<Cluster> {
    let properties = [
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("allow.everyone.if.no.acl.found", "true"),
    ];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Cluster::start(&Options { properties, ..Options::default() })
}

#[test]
fn rights_that_are_missing_are_told_by_a_check() -> Result<()> {
    let cluster = with_rules()?;
    let bootstrap = cluster.bootstrap();
    topics::create(&bootstrap, "mine-lines", 1, &[])?;
    topics::create(&bootstrap, "mine-words", 1, &[])?;
    let folder = tempfile::tempdir()?;
    let mut agent = Agent::new(folder.path(), "mine", &bootstrap, SPLIT)?;
    ensure!(check(&agent)?.0 == 0, "{:?}", check(&agent)?);
    // The brokers' topic of groups is there once there was one.
    agent.start()?;
    wait_until_ready(&agent)?;
    agent.terminate()?;
    ensure!(check(&agent)?.0 == 0, "{:?}", check(&agent)?);
    let describe = "--allow-principal User:* --operation Describe";
    rule(&bootstrap, &format!("{describe} --topic mine-words --topic mine-dead --group mine"))?;
    let told = || {
        let (exit, told) = check(&agent)?;
        let lacks = ["may not write the topic `mine-words`", "may not read the group `mine`"];
        Ok(exit == 4 && lacks.iter().all(|lack| told.contains(lack)))
    };
    wait::until_true("missing rights", PATIENCE, told)
        .with_context(|| format!("{:?}", check(&agent)))?;
    // A topic that is to be made is none that may be.
    let file = agent.pipeline_file();
    let text = std::fs::read_to_string(&file)?;
    let letters = "on_error: { dead_letter: mine-dead }\n    outputs";
    std::fs::write(&file, text.replace("outputs", letters))?;
    rule(&bootstrap, "--allow-principal User:* --operation All --cluster")?;
    rule(&bootstrap, "--deny-principal User:* --operation Create --cluster")?;
    let told = || Ok(check(&agent)?.1.contains("topic mine-dead can't be created"));
    wait::until_true("a right to create", PATIENCE, told)
        .with_context(|| format!("{:?}", check(&agent)))
}

/// Two transforms that have nothing to do with each other.
const TWO: &str = "\
application: {name}
kafka: { bootstrap.servers: '{bootstrap}' }
state: { directory: '{state}' }
limits: { retry_backoff: 10ms }
transforms:
  - name: split
    module: {modules}/split-words.wasm
    inputs: [{ topic: '{name}-lines', start: earliest }]
    outputs: { words: '{name}-words' }
  - name: other
    module: {modules}/split-words.wasm
    inputs: [{ topic: '{name}-other-lines', start: earliest }]
    outputs: { words: '{name}-other-words' }
";

fn one_word(number: u64, _: &mut Random) -> load::Record {
    let value = Some(format!("word{number}").into_bytes());
    load::Record { key: None, value, timestamp: None }
}

#[test]
fn a_right_that_is_taken_while_it_runs_stops_the_tasks_that_need_it_alone() -> Result<()> {
    let cluster = with_rules()?;
    let bootstrap = cluster.bootstrap();
    for topic in ["own-lines", "own-words", "own-other-lines", "own-other-words"] {
        topics::create(&bootstrap, topic, 1, &[])?;
    }
    let folder = tempfile::tempdir()?;
    let mut agent = Agent::new(folder.path(), "own", &bootstrap, TWO)?;
    agent.start()?;
    let send = || {
        load::send_all(&bootstrap, "own-lines", (1, one_word), 20)?;
        load::send_all(&bootstrap, "own-other-lines", (1, one_word), 20)
    };
    let there = |topic, count| {
        let all = || Ok(Follower::new(&bootstrap, topic)?.read_to_end(PATIENCE)?.len() == count);
        wait::until_true(topic, PATIENCE, all).with_context(|| agent.log_tail())
    };
    send()?;
    there("own-words", 20)?;
    there("own-other-words", 20)?;
    rule(&bootstrap, "--allow-principal User:* --operation Describe --topic own-words")?;
    send()?;
    let stopped = agent.wait_for_log("a task was stopped")?;
    ensure!(stopped.contains("own-words") && stopped.contains("write"), "{stopped}");
    there("own-other-words", 40)?;
    let status = ask(&agent, &["status"])?;
    let failed = tasks(&status).iter().filter(|task| text(&task["state"]) == "failed").count();
    ensure!(failed == 1, "{status}");
    rule(&bootstrap, "--allow-principal User:* --operation All --topic own-words")?;
    let state = agent.state_directory().display().to_string();
    let well = || Ok(run(&["retry", "--state", &state])?.exit == 0);
    wait::until_true("a task that runs again", PATIENCE, well)?;
    there("own-words", 40)?;
    agent.terminate().map(drop)
}
