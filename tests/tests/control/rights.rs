//! What the agent's user may not do is told before it matters.

use sidestream_tests::{
    broker::{Cluster, Options},
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

#[test]
fn rights_that_are_missing_are_told_by_a_check() -> Result<()> {
    let properties = [
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("allow.everyone.if.no.acl.found", "true"),
    ];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let cluster = Cluster::start(&Options { properties, ..Options::default() })?;
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
