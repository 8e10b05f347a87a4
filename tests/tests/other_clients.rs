//! Clients that have nothing to do with librdkafka get on with the embedded broker: Apache Kafka's
//! own console tools, and a client written in Python.

use std::process::Command;

use anyhow::{Result, ensure};
use sidestream_dev_broker::{DevBroker, Options};
use sidestream_tests::{
    agent,
    tools::{cached, kafka_tool},
};

fn tool(class: &str, broker: &DevBroker, arguments: &[&str], input: &str) -> Result<String> {
    kafka_tool(class, &broker.bootstrap(), arguments, input)
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
