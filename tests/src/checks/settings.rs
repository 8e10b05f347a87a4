//! Settings of topics.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, ensure};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterConfigsRequest, IncrementalAlterConfigsRequest, alter_configs_request,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    },
};
use rdkafka::admin::{ConfigSource, ResourceSpecifier};

use super::{
    PATIENCE,
    clients::{admin, block_on, options, topic},
    wire::{Wire, expect, text},
};
use crate::wait;

/// The settings of a topic, and whether each is its own.
fn settings(bootstrap: &str, topic: &str) -> Result<BTreeMap<String, (String, bool)>> {
    let asked = [ResourceSpecifier::Topic(topic)];
    let answer = block_on(admin(bootstrap)?.describe_configs(&asked, &options()))??;
    let answer = answer.into_iter().next().context("no answer")?;
    let resource = answer.map_err(|code| anyhow!("{topic} is not described: {code}"))?;
    let entries = resource.entries.into_iter().map(|entry| {
        let own = entry.source == ConfigSource::DynamicTopic;
        (entry.name, (entry.value.unwrap_or_default(), own))
    });
    Ok(entries.collect())
}

fn value(settings: &BTreeMap<String, (String, bool)>, name: &str) -> Option<(String, bool)> {
    settings.get(name).cloned()
}

fn own(value: &str) -> Option<(String, bool)> {
    Some((value.to_owned(), true))
}

pub(super) fn settings_are_told_back_with_defaults(bootstrap: &str) -> Result<()> {
    let given = [
        ("cleanup.policy", "compact,delete"),
        ("delete.retention.ms", "604800000"),
        ("max.message.bytes", "2000"),
        ("message.timestamp.type", "CreateTime"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("retention.ms", "-1"),
        ("segment.ms", "600000"),
    ];
    let topic = topic(bootstrap, "told", 1, &given)?;
    let told = settings(bootstrap, &topic)?;
    for (name, expected) in given {
        ensure!(value(&told, name) == own(expected), "{name}: {:?}", told.get(name));
    }
    for (name, expected) in
        [("compression.type", "producer"), ("retention.bytes", "-1"), ("min.insync.replicas", "1")]
    {
        let found = told.get(name).map(|(value, _)| value.as_str());
        ensure!(found == Some(expected), "{name}: {found:?}");
    }
    Ok(())
}

const TOPIC: i8 = 2;

/// Changes single settings: 0 sets, 1 takes back, 2 appends, 3 subtracts.
fn change(
    wire: &mut Wire,
    topic: &str,
    changes: &[(&str, i8, &str)],
    expected: Option<ResponseError>,
) -> Result<()> {
    let changes = changes.iter().map(|(name, operation, value)| {
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(*operation)
            .with_value(Some(text(value)))
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(topic))
        .with_configs(changes.collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = wire.call(1, &request)?;
    expect(answer.responses.first().context("no answer")?.error_code, expected)
}

pub(super) fn settings_are_changed_one_by_one_or_all(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "changed", 1, &[("retention.ms", "100000")])?;
    let mut wire = Wire::connect(bootstrap)?;
    let becomes = |name: &str, expected: Option<(String, bool)>| {
        let same = || Ok(value(&settings(bootstrap, &topic)?, name) == expected);
        wait::until_true(&format!("{name} as {expected:?}"), PATIENCE, same)
    };
    change(&mut wire, &topic, &[("max.message.bytes", 0, "5000")], None)?;
    becomes("max.message.bytes", own("5000"))?;
    becomes("retention.ms", own("100000"))?;
    change(&mut wire, &topic, &[("cleanup.policy", 2, "compact")], None)?;
    becomes("cleanup.policy", own("delete,compact"))?;
    change(&mut wire, &topic, &[("cleanup.policy", 3, "delete"), ("retention.ms", 1, "")], None)?;
    becomes("cleanup.policy", own("compact"))?;
    becomes("retention.ms", Some(("604800000".to_owned(), false)))?;
    let setting = alter_configs_request::AlterableConfig::default()
        .with_name(text("segment.ms"))
        .with_value(Some(text("70000")));
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(&topic))
        .with_configs(vec![setting]);
    let answer = wire.call(2, &AlterConfigsRequest::default().with_resources(vec![resource]))?;
    expect(answer.responses.first().context("no answer")?.error_code, None)?;
    becomes("segment.ms", own("70000"))?;
    becomes("cleanup.policy", Some(("delete".to_owned(), false)))
}

pub(super) fn settings_that_make_no_sense_are_refused(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "refused", 1, &[])?;
    let mut wire = Wire::connect(bootstrap)?;
    let invalid = Some(ResponseError::InvalidConfig);
    change(&mut wire, &topic, &[("no.such.setting", 0, "1")], invalid)?;
    change(&mut wire, &topic, &[("retention.ms", 0, "soon")], invalid)?;
    change(&mut wire, &topic, &[("max.message.bytes", 0, "-1")], invalid)?;
    change(&mut wire, &topic, &[("cleanup.policy", 0, "compress")], invalid)?;
    let unknown = Some(ResponseError::UnknownTopicOrPartition);
    change(&mut wire, "no-such-topic", &[("retention.ms", 0, "1000")], unknown)?;
    let told = settings(bootstrap, &topic)?;
    ensure!(told.values().all(|(_, own)| !own), "{told:?}");
    Ok(())
}
