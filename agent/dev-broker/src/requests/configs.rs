//! Settings of topics, told and changed. The broker's own can be read only.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
        IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, alter_configs_response,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{
            DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
        },
        incremental_alter_configs_request, incremental_alter_configs_response,
    },
};

use super::{Context, text};
use crate::{
    cluster::{Cluster, NODE_ID},
    refusal::{self, Refusal},
    topics::{Change, Kind, SETTINGS, Setting, TopicConfig},
};

/// Types of resources, as the protocol numbers them.
mod resource {
    pub(super) const TOPIC: i8 = 2;
    pub(super) const BROKER: i8 = 4;
}

/// Sources of a value, as the protocol numbers them.
mod origin {
    pub(super) const TOPIC: i8 = 1;
    pub(super) const BROKER: i8 = 4;
    pub(super) const DEFAULT: i8 = 5;
}

/// Where a value comes from.
pub(super) fn source(config: &TopicConfig, setting: &Setting) -> i8 {
    if config.is_own(setting) { origin::TOPIC } else { origin::DEFAULT }
}

/// Tells settings, defaults included.
pub(crate) fn describe(
    cluster: &mut Cluster,
    request: DescribeConfigsRequest,
    _context: &Context,
) -> DescribeConfigsResponse {
    let synonyms = request.include_synonyms;
    let results = request.resources.into_iter().map(|asked| {
        let outcome = told(cluster, &asked);
        let result = DescribeConfigsResult::default()
            .with_error_code(refusal::code(&outcome))
            .with_error_message(refusal::message(&outcome))
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name.clone());
        let keys = asked.configuration_keys.as_deref().unwrap_or_default();
        let wanted = |name: &str| keys.is_empty() || keys.iter().any(|key| key.as_str() == name);
        let told = outcome.unwrap_or_default().into_iter().filter(|told| wanted(told.name));
        result.with_configs(told.map(|told| told.encoded(synonyms)).collect())
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

/// A setting as it is told.
struct Told {
    name: &'static str,
    value: String,
    source: i8,
    kind: Kind,
    read_only: bool,
}

impl Told {
    fn encoded(self, synonyms: bool) -> DescribeConfigsResourceResult {
        let (name, value) = (text(self.name), Some(text(&self.value)));
        let synonym = DescribeConfigsSynonym::default()
            .with_name(name.clone())
            .with_value(value.clone())
            .with_source(self.source);
        DescribeConfigsResourceResult::default()
            .with_name(name)
            .with_value(value)
            .with_read_only(self.read_only)
            .with_config_source(self.source)
            .with_synonyms(if synonyms { vec![synonym] } else { Vec::new() })
            .with_config_type(self.kind as i8)
    }
}

fn told(cluster: &Cluster, asked: &DescribeConfigsResource) -> Result<Vec<Told>, Refusal> {
    let name = asked.resource_name.as_str();
    match asked.resource_type {
        resource::TOPIC => {
            let config = &cluster.topics.get(name)?.config;
            let told = |setting: &Setting| Told {
                name: setting.name,
                value: config.get(setting).to_owned(),
                source: source(config, setting),
                kind: setting.kind,
                read_only: false,
            };
            Ok(SETTINGS.iter().map(told).collect())
        }
        resource::BROKER if name.is_empty() => Ok(Vec::new()),
        resource::BROKER if name == NODE_ID.to_string() => Ok(broker(cluster)),
        resource::BROKER => {
            let why = format!("Unexpected broker id, expected {NODE_ID}, but received {name}");
            Err(Refusal::new(ResponseError::InvalidRequest, why))
        }
        other => Err(unsupported(other)),
    }
}

fn unsupported(resource: i8) -> Refusal {
    let why = format!("resources of type {resource} have no settings here");
    Refusal::new(ResponseError::InvalidRequest, why)
}

/// What clients may want to know of the broker itself.
fn broker(cluster: &Cluster) -> Vec<Told> {
    let options = &cluster.options;
    let settings = [
        ("auto.create.topics.enable", options.auto_create_topics.to_string(), Kind::Boolean),
        ("default.replication.factor", "1".to_owned(), Kind::Int),
        ("group.max.session.timeout.ms", "1800000".to_owned(), Kind::Int),
        ("group.min.session.timeout.ms", "6000".to_owned(), Kind::Int),
        ("message.max.bytes", "1048588".to_owned(), Kind::Int),
        ("min.insync.replicas", "1".to_owned(), Kind::Int),
        ("node.id", NODE_ID.to_string(), Kind::Int),
        ("num.partitions", options.default_partitions.to_string(), Kind::Int),
        ("offsets.topic.replication.factor", "1".to_owned(), Kind::Int),
        ("transaction.max.timeout.ms", "900000".to_owned(), Kind::Int),
    ];
    let told = settings.into_iter().map(|(name, value, kind)| Told {
        name,
        value,
        source: origin::BROKER,
        kind,
        read_only: true,
    });
    told.collect()
}

/// Changes the settings of a resource, or only checks whether it could be done.
fn alter(
    cluster: &mut Cluster,
    (kind, name): (i8, &str),
    change: impl FnOnce(&TopicConfig) -> Result<TopicConfig, Refusal>,
    apply: bool,
) -> Result<(), Refusal> {
    if kind != resource::TOPIC {
        return Err(unsupported(kind));
    }
    let topic = cluster.topics.get_mut(name)?;
    let config = change(&topic.config)?;
    if apply {
        topic.config = config;
    }
    Ok(())
}

/// Replaces all settings of topics.
pub(crate) fn replace(
    cluster: &mut Cluster,
    request: AlterConfigsRequest,
    _context: &Context,
) -> AlterConfigsResponse {
    let apply = !request.validate_only;
    let responses = request.resources.into_iter().map(|asked| {
        let settings = asked.configs.iter().map(|setting| {
            (setting.name.to_string(), setting.value.as_ref().map(|value| value.to_string()))
        });
        let of = (asked.resource_type, asked.resource_name.as_str());
        let outcome = alter(cluster, of, |_| TopicConfig::new(settings), apply);
        alter_configs_response::AlterConfigsResourceResponse::default()
            .with_error_code(refusal::code(&outcome))
            .with_error_message(refusal::message(&outcome))
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name)
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}

/// Changes single settings of topics.
pub(crate) fn change(
    cluster: &mut Cluster,
    request: IncrementalAlterConfigsRequest,
    _context: &Context,
) -> IncrementalAlterConfigsResponse {
    let apply = !request.validate_only;
    let responses = request.resources.into_iter().map(|asked| {
        let changes: Result<Vec<_>, _> = asked.configs.iter().map(read_change).collect();
        let of = (asked.resource_type, asked.resource_name.as_str());
        let outcome =
            changes.and_then(|changes| alter(cluster, of, |config| config.changed(changes), apply));
        incremental_alter_configs_response::AlterConfigsResourceResponse::default()
            .with_error_code(refusal::code(&outcome))
            .with_error_message(refusal::message(&outcome))
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name)
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

fn read_change(
    asked: &incremental_alter_configs_request::AlterableConfig,
) -> Result<(String, Change), Refusal> {
    let name = asked.name.to_string();
    let value = || {
        asked.value.as_ref().map(|value| value.to_string()).ok_or_else(|| {
            let why = format!("Null value not supported for {name}");
            Refusal::new(ResponseError::InvalidRequest, why)
        })
    };
    let change = match asked.config_operation {
        0 => Change::Set(value()?),
        1 => Change::Reset,
        2 => Change::Append(value()?),
        3 => Change::Subtract(value()?),
        other => {
            let why = format!("there is no operation {other} on settings");
            return Err(Refusal::new(ResponseError::InvalidRequest, why));
        }
    };
    Ok((name, change))
}
