//! Clients that have nothing to do with librdkafka get on with the embedded broker: Apache Kafka's
//! own console tools, and a client written in Python.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use sidestream::dev_broker::{DevBroker, Options};
use sidestream_tests::{agent, tools::cached};

/// Runs one of Kafka's tools on a broker, with this on its standard input; gives what it said.
fn tool(class: &str, broker: &DevBroker, arguments: &[&str], input: &str) -> Result<String> {
    let jars = cached("kafka/tools-4.3.1")?.join("*");
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp"]).arg(jars);
    command.arg(format!("org.apache.kafka.tools.{class}"));
    command.args(["--bootstrap-server", &broker.bootstrap()]).args(arguments);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = pipes.spawn().context("can't run java")?;
    process.stdin.take().context("its input")?.write_all(input.as_bytes())?;
    let output = process.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{class} ended with {}: {said}{complaints}", output.status);
    Ok(said)
}

fn create(broker: &DevBroker, topic: &str) -> Result<()> {
    let create = ["--create", "--topic", topic, "--partitions", "3"];
    let said = tool("TopicCommand", broker, &create, "")?;
    ensure!(said.contains(&format!("Created topic {topic}")), "{said}");
    Ok(())
}

#[test]
fn the_console_tools_of_apache_kafka_work() -> Result<()> {
    let broker = DevBroker::start(Options::default())?;
    create(&broker, "tools")?;
    let said = tool("TopicCommand", &broker, &["--describe", "--topic", "tools"], "")?;
    ensure!(said.contains("PartitionCount: 3"), "{said}");
    let keyed = ["--reader-property", "parse.key=true", "--reader-property", "key.separator=:"];
    let produce = [&["--topic", "tools"][..], &keyed].concat();
    tool("ConsoleProducer", &broker, &produce, "a:1\nb:2\nc:3\n")?;
    let consume = "--topic tools --group tools --from-beginning --max-messages 3 \
                   --timeout-ms 30000 --formatter-property print.key=true";
    let consume: Vec<&str> = consume.split_whitespace().collect();
    let said = tool("consumer.ConsoleConsumer", &broker, &consume, "")?;
    let mut records: Vec<&str> = said.lines().filter(|line| line.contains('\t')).collect();
    records.sort_unstable();
    ensure!(records == ["a\t1", "b\t2", "c\t3"], "{said}");
    let describe = ["--describe", "--group", "tools"];
    let said = tool("consumer.group.ConsumerGroupCommand", &broker, &describe, "")?;
    let mut committed = 0;
    for line in said.lines().filter(|line| line.starts_with("tools ")) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        ensure!(fields[5] == "0", "it lags: {said}");
        committed += fields[3].parse::<i64>()?;
    }
    ensure!(committed == 3, "{said}");
    Ok(())
}

#[test]
fn a_python_client_works() -> Result<()> {
    let broker = DevBroker::start(Options::default())?;
    create(&broker, "python")?;
    let script = agent::root().join("tests/tests/other_clients/client.py");
    let mut command = Command::new(cached("tools/kafka-python")?.join("bin/python"));
    let output = command.arg(script).args([&broker.bootstrap(), "python"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(said.trim() == "50 50 50", "{said}{complaints}");
    Ok(())
}
