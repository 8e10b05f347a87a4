//! Topics that vanish, come back, grow or lose records under running agents, and offsets that do.

use super::*;

/// One transform that skips what fails.
const SKIPPING: Play = Play {
    pipeline: "\
{head}
limits: { retry_backoff: 10ms }
transforms:
  - name: passing
    module: {modules}/poison.wasm
    inputs: ['{topic:in}']
    outputs: { out: '{topic:out}' }
    on_error: skip
",
    inputs: &[("in", fine, 200)],
    outputs: &["out"],
    ..Play::NOTHING
};

/// One transform that counts, on inputs that the test sends.
const COUNTING: Play = Play {
    pipeline: "\
{head}
transforms:
  - name: count
    module: {modules}/count.wasm
    inputs: ['{topic:in}']
    stores: [counts]
    outputs: { counts: '{topic:counts}' }
",
    inputs: &[("in", fine, 0)],
    outputs: &["counts"],
    stores: &["counts"],
    ..Play::NOTHING
};

fn fine(number: u64, _: &mut Random) -> load::Record {
    let value = Some(format!("fine {number}").into_bytes());
    load::Record { key: Some(number.to_string().into_bytes()), value, timestamp: None }
}

/// Else librdkafka waits for half a minute before it says that a topic is gone.
fn gone_topics_are_told_soon(agent: &Agent) -> Result<()> {
    let file = agent.pipeline_file();
    let pipeline = std::fs::read_to_string(&file)?;
    let soon = "  producer:\n    topic.metadata.propagation.max.ms: 0\n";
    std::fs::write(&file, pipeline.replacen("  producer:\n", soon, 1))?;
    Ok(())
}

#[test]
fn a_topic_that_is_deleted_while_nothing_goes_there_costs_no_record() -> Result<()> {
    let mut scene =
        Scene::new(&broker::shared().bootstrap(), Play { inputs: &[("in", fine, 0)], ..SKIPPING })?;
    let (bootstrap, input, out) =
        (scene.bootstrap().to_owned(), scene.topic("in"), scene.topic("out"));
    scene.add_agent()?;
    gone_topics_are_told_soon(&scene.agents[0])?;
    load::send_all(&bootstrap, &input, (1, fine), 100)?;
    scene.agents[0].start()?;
    wait_until_read(&scene, &input)?;
    topics::delete(&bootstrap, &out)?;
    load::send_all(&bootstrap, &input, (1, fine), 100)?;
    let told = scene.agents[0].wait_for_log("a task waits")?;
    ensure!(told.contains(&out), "it says which topic: {told}");
    topics::create(&bootstrap, &out, PARTITIONS, &[])?;
    wait_until_read(&scene, &input)?;
    let log = scene.agents[0].log();
    ensure!(!log.contains("skipped") && !log.contains("a task was stopped"), "{log}");
    ensure!(scene.read(&out)?.len() == 100, "all that was sent since came out, once");
    scene.agents[0].terminate().map(drop)
}

#[test]
fn a_topic_that_is_deleted_and_made_again_costs_no_record() -> Result<()> {
    let mut scene = Scene::new(&broker::embedded().bootstrap(), SKIPPING)?;
    let (bootstrap, out) = (scene.bootstrap().to_owned(), scene.topic("out"));
    scene.add_agent()?;
    gone_topics_are_told_soon(&scene.agents[0])?;
    scene.start_load(5)?;
    scene.agents[0].start()?;
    scene.wait_for_progress()?;
    topics::delete(&bootstrap, &out)?;
    let told = scene.agents[0].wait_for_log("a task waits")?;
    ensure!(told.contains(&out), "it says which topic: {told}");
    topics::create(&bootstrap, &out, PARTITIONS, &[])?;
    scene.wait_for_progress()?;
    let sent = scene.settle()?;
    let log = scene.agents[0].log();
    ensure!(!log.contains("skipped") && !log.contains("a task was stopped"), "{log}");
    let there = scene.read(&out)?;
    let last = format!("fine {}", sent - 1);
    ensure!(there.iter().any(|record| record.value_text() == last), "the last one came out");
    Ok(())
}

/// Waits until the group has committed all of a topic.
fn wait_until_read(scene: &Scene, topic: &str) -> Result<()> {
    let all = || Ok(follow::lag(scene.bootstrap(), scene.application(), topic)? == 0);
    wait::until_true("everything read", PATIENCE, all).with_context(|| scene.told())
}

#[test]
fn offsets_behind_the_state_stop_its_tasks_wherever_the_state_is() -> Result<()> {
    let mut scene = Scene::new(&broker::embedded().bootstrap(), COUNTING)?;
    let (bootstrap, group) = (scene.bootstrap().to_owned(), scene.application().to_owned());
    let input = scene.topic("in");
    load::send_all(&bootstrap, &input, (1, fine), 200)?;
    scene.start_agents(1)?;
    wait_until_read(&scene, &input)?;
    scene.agents[0].terminate()?;
    let counted = scene.read(&scene.topic("counts"))?.len();
    for (keeps_disk, expires) in [(true, true), (false, true), (false, false)] {
        match expires {
            true => topics::delete_group(&bootstrap, &group)?,
            false => topics::reset_offsets(&bootstrap, &group, &input, 0)?,
        }
        if !keeps_disk {
            std::fs::remove_dir_all(scene.agents[0].state_directory())?;
        }
        scene.agents[0].start()?;
        let stopped = scene.agents[0].wait_for_log("a task was stopped")?;
        ensure!(
            stopped.contains("but the group starts at 0")
                && stopped.contains("sidestream reset")
                && stopped.contains("UNKNOWN_MEMBER_ID"),
            "{stopped}"
        );
        ensure!(scene.agents[0].is_running()?, "the agent goes on");
        scene.agents[0].terminate()?;
    }
    ensure!(scene.read(&scene.topic("counts"))?.len() == counted, "something was counted twice");
    Ok(())
}

#[test]
fn offsets_that_are_set_further_on_leave_records_out_and_that_is_told_once() -> Result<()> {
    /// Beyond what was read of any partition, and below every end.
    const SET_TO: i64 = 120;
    const TOLD: &str = "records are left out";
    let mut scene = Scene::new(&broker::shared().bootstrap(), COUNTING)?;
    let (bootstrap, group) = (scene.bootstrap().to_owned(), scene.application().to_owned());
    let (input, counts) = (scene.topic("in"), scene.topic("counts"));
    load::send_all(&bootstrap, &input, (1, fine), 200)?;
    scene.start_agents(1)?;
    wait_until_read(&scene, &input)?;
    scene.agents[0].terminate()?;
    ensure!(topics::ends(&bootstrap, &input)?.iter().all(|&end| end < SET_TO), "few were read");
    load::send_all(&bootstrap, &input, (1, fine), 600)?;
    let left: Vec<i64> = topics::ends(&bootstrap, &input)?.iter().map(|end| end - SET_TO).collect();
    ensure!(left.iter().all(|&left| left > 0), "there is something left of each: {left:?}");
    topics::reset_offsets(&bootstrap, &group, &input, SET_TO)?;
    scene.agents[0].start()?;
    let told = scene.agents[0].wait_for_log(TOLD)?;
    ensure!(told.contains("was set to 120 by somebody else than an agent"), "{told}");
    wait_until_read(&scene, &input)?;
    let log = scene.agents[0].log();
    ensure!(log.matches(TOLD).count() == left.len(), "once for each partition: {log}");
    scene.agents[0].terminate()?;
    // From now on the offsets are the agent's own.
    load::send_all(&bootstrap, &input, (1, fine), 100)?;
    scene.agents[0].start()?;
    wait_until_read(&scene, &input)?;
    let log = scene.agents[0].log();
    ensure!(!log.contains(TOLD), "it was told already: {log}");
    let expected = 300 + usize::try_from(left.iter().sum::<i64>())?;
    let counted = scene.read(&counts)?.len();
    ensure!(counted == expected, "{counted} records came out in place of {expected}");
    scene.agents[0].terminate().map(drop)
}

#[test]
fn a_changelog_that_is_deleted_under_a_running_agent_stops_its_tasks_and_loses_nothing_silently()
-> Result<()> {
    let mut scene = Scene::new(&broker::shared().bootstrap(), COUNTING)?;
    let (bootstrap, input) = (scene.bootstrap().to_owned(), scene.topic("in"));
    scene.add_agent()?;
    gone_topics_are_told_soon(&scene.agents[0])?;
    load::send_all(&bootstrap, &input, (1, fine), 100)?;
    scene.agents[0].start()?;
    wait_until_read(&scene, &input)?;
    let changelog = scene.changelog("counts");
    topics::delete(&bootstrap, &changelog)?;
    load::send_all(&bootstrap, &input, (1, fine), 100)?;
    let told = scene.agents[0].wait_for_log("a task waits")?;
    ensure!(told.contains(&changelog), "it says which topic: {told}");
    ensure!(scene.agents[0].is_running()?, "the agent goes on");
    let counted = scene.read(&scene.topic("counts"))?.len();
    scene.agents[0].terminate()?;
    // Started again, it makes the changelog anew, and must not take that for all there was.
    scene.agents[0].start()?;
    let stopped = scene.agents[0].wait_for_log("a task was stopped")?;
    ensure!(stopped.contains(&changelog) && stopped.contains("sidestream reset"), "{stopped}");
    ensure!(scene.read(&scene.topic("counts"))?.len() == counted, "something was counted anew");
    scene.agents[0].terminate().map(drop)
}

#[test]
fn an_input_that_gets_more_partitions_ends_the_agent_with_a_remedy() -> Result<()> {
    let mut scene = Scene::new(&broker::shared().bootstrap(), COUNTING)?;
    let (bootstrap, input) = (scene.bootstrap().to_owned(), scene.topic("in"));
    load::send_all(&bootstrap, &input, (1, fine), 100)?;
    scene.start_agents(1)?;
    wait_until_read(&scene, &input)?;
    let counted = scene.read(&scene.topic("counts"))?.len();
    topics::grow(&bootstrap, &input, usize::try_from(PARTITIONS)? + 2)?;
    // Clients look for it every five minutes; a start finds it at once.
    scene.agents[0].terminate()?;
    scene.agents[0].start()?;
    let told = scene.agents[0].wait_for_log("the pipeline needs 6")?;
    ensure!(told.contains(&scene.changelog("counts")), "{told}");
    let remedy = scene.agents[0].wait_for_log("start under a new `application`")?;
    ensure!(remedy.contains("go back to inputs with 4 partitions"), "{remedy}");
    ensure!(scene.read(&scene.topic("counts"))?.len() == counted, "something was counted twice");
    Ok(())
}

/// Writes into the pipeline file what the remedy of a stopped task says.
fn go_on_at_earliest(agent: &Agent, input: &str) -> Result<()> {
    let file = agent.pipeline_file();
    let pipeline = std::fs::read_to_string(&file)?;
    let told = format!("[{{ topic: '{input}', on_out_of_range: earliest }}]");
    std::fs::write(&file, pipeline.replace(&format!("['{input}']"), &told))?;
    Ok(())
}

#[test]
fn what_retention_took_stops_its_task_alone_until_it_is_told_where_to_go_on() -> Result<()> {
    let mut scene = Scene::new(&broker::embedded().bootstrap(), FAILING)?;
    let bootstrap = scene.bootstrap().to_owned();
    let (input, output) = (scene.topic("in"), scene.topic("out"));
    load::send_all(&bootstrap, &input, (1, fine), 200)?;
    scene.start_agents(1)?;
    wait_until_read(&scene, &input)?;
    scene.agents[0].terminate()?;
    load::send_all(&bootstrap, &input, (2, fine), 200)?;
    let ends = topics::ends(&bootstrap, &input)?;
    topics::delete_records(&bootstrap, &input, 0, ends[0] - 5)?;
    scene.agents[0].start()?;
    let stopped = scene.agents[0].wait_for_log("a task was stopped")?;
    ensure!(stopped.contains("on_out_of_range"), "{stopped}");
    let of_first = || -> Result<usize> {
        Ok(scene.read(&output)?.iter().filter(|output| output.partition == 0).count())
    };
    let others = || {
        let committed = topics::committed(&bootstrap, scene.application(), &input)?;
        Ok((1..ends.len()).all(|partition| committed[partition] == Some(ends[partition])))
    };
    wait::until_true("the other partitions", PATIENCE, others).with_context(|| scene.told())?;
    let before = of_first()?;
    let agent = &mut scene.agents[0];
    ensure!(agent.is_running()?, "the agent goes on");
    agent.terminate()?;
    go_on_at_earliest(agent, &input)?;
    agent.start()?;
    wait_until_read(&scene, &input)?;
    let after = scene.read(&output)?.iter().filter(|output| output.partition == 0).count();
    ensure!(after == before + 5, "{after} instead of {}", before + 5);
    scene.agents[0].terminate().map(drop)
}

#[test]
fn an_input_that_is_gone_for_a_while_is_waited_for() -> Result<()> {
    let mut scene = Scene::new(&broker::embedded().bootstrap(), FAILING)?;
    let bootstrap = scene.bootstrap().to_owned();
    let (input, output) = (scene.topic("in"), scene.topic("out"));
    load::send_all(&bootstrap, &input, (1, fine), 100)?;
    scene.add_agent()?;
    go_on_at_earliest(&scene.agents[0], &input)?;
    scene.agents[0].start()?;
    wait_until_read(&scene, &input)?;
    topics::delete(&bootstrap, &input)?;
    let waiting = scene.agents[0].wait_for_log("are not all there")?;
    ensure!(waiting.contains(&input), "{waiting}");
    // Who has not seen that it is gone would read on in the new one where it was in the old.
    let both = || Ok(scene.agents[0].log().matches("are not all there").count() >= 2);
    wait::until_true("both workers to wait", PATIENCE, both).with_context(|| scene.told())?;
    topics::create(&bootstrap, &input, PARTITIONS, &[])?;
    load::send_all(&bootstrap, &input, (2, fine), 300)?;
    let all = || Ok(scene.read(&output)?.len() == 400);
    wait::until_true("what came after it", PATIENCE, all).with_context(|| scene.told())?;
    ensure!(scene.agents[0].is_running()?, "the agent goes on");
    scene.agents[0].terminate().map(drop)
}
