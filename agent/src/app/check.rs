//! Whether a pipeline would start; changes nothing.

use std::{collections::BTreeMap, path::Path};

use sidestream_core::record::TaskId;

use super::{Error, topics};
use crate::{
    config::{KafkaProperties, Pipeline, Position, Problem},
    control,
    guest::Module,
    kafka::{self, Admin},
    modules::{self, code},
    plan::{self, Plan},
    settings::{kafka_config, shares},
    state,
};

/// Compiles every module, and initialises one instance of each transform that has a sound one;
/// names each to `watch` before. Returns all that is wrong.
#[must_use]
pub fn check_modules(pipeline: &Pipeline, watch: &mut dyn FnMut(&Path)) -> Vec<Error> {
    let engine = match modules::engine(pipeline, shares(pipeline, 1).guests, None) {
        Ok(engine) => engine,
        Err(error) => return vec![error.into()],
    };
    let mut errors = Vec::new();
    let mut loaded: BTreeMap<&Path, Option<Module>> = BTreeMap::new();
    for transform in &pipeline.transforms {
        loaded.entry(&transform.module).or_insert_with_key(|path| {
            watch(path);
            modules::read(&engine, transform, pipeline)
                .map_err(|error| errors.push(error.into()))
                .ok()
        });
    }
    // Which topics there are does not matter to a module.
    let external = |name: &str| {
        let prefix = format!("{}-", pipeline.application);
        let own = ["-changelog", "-repartition"].iter().any(|suffix| name.ends_with(suffix));
        (!(own && name.starts_with(&prefix))).then_some(1)
    };
    let Ok(plan) = plan::plan(pipeline, &external) else { return errors };
    for (transforms, subtopology) in plan.transforms.iter().zip(0u16..) {
        for (index, &transform) in transforms.iter().enumerate() {
            let transform = &pipeline.transforms[transform];
            let Some(module) = &loaded[transform.module.as_path()] else { continue };
            let context = code::context(
                &pipeline.application,
                &plan.topology,
                TaskId { subtopology, partition: 0 },
                index,
                &transform.config.0,
            );
            if let Err(failure) = module.instantiate(&context) {
                let (transform, at) = (transform.name.clone(), transform.at);
                errors.push(modules::Error::Initialise { transform, at, failure }.into());
            }
        }
    }
    errors
}

/// Whether the state directory could be made and written, here and by this user.
#[must_use]
pub fn check_state(pipeline: &Pipeline) -> Option<Problem> {
    let error = Error::from(state::probe(&pipeline.state.directory).err()?);
    Some(Problem {
        at: pipeline.places.given("state.directory"),
        message: error.to_string(),
        remedy: error.remedy().to_owned(),
    })
}

/// Whether the files that `control` names can be used here; what has to be done about them soon.
pub fn check_control(pipeline: &Pipeline) -> Result<Option<String>, Error> {
    Ok(control::check(&pipeline.control)?)
}

/// Plans the pipeline on the topics as they are, if a broker answers, and looks whether the cluster
/// can serve it and the user may do what it takes.
pub fn check_topics(pipeline: &Pipeline) -> Result<Plan, Error> {
    let config = kafka_config(pipeline, "check");
    config.validate()?;
    let admin = Admin::new(&config)?;
    let plan = topics::look(pipeline, &admin)?;
    let names: Vec<&str> = plan.topology.topics.iter().map(|topic| topic.name.as_str()).collect();
    let mut troubles = admin.troubles(&names)?;
    troubles.extend(admin.missing_rights(&topics::uses(&plan.topology))?);
    let problem = |trouble: kafka::Trouble| Problem {
        at: None,
        message: trouble.what,
        remedy: trouble.remedy,
    };
    let mut problems: Vec<Problem> = troubles.into_iter().map(problem).collect();
    problems.extend(topics::check_creation(&plan, &admin)?);
    if problems.is_empty() { Ok(plan) } else { Err(Error::Topics(problems)) }
}

impl Error {
    /// What to do about it, where the message does not say so.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Kafka(kafka::Error::Unavailable(_)) => {
                "start the brokers, or correct `bootstrap.servers`, security properties or network"
            }
            Self::State(state::Error::Failed { .. }) => {
                "give `state.directory` a folder that the agent's user can write"
            }
            _ => "",
        }
    }

    /// Where the pipeline file has what it is about.
    #[must_use]
    pub const fn at(&self) -> Option<Position> {
        match self {
            Self::Module(error) => error.at(),
            _ => None,
        }
    }

    /// Whether the pipeline file has to be corrected.
    #[must_use]
    pub fn is_of_pipeline(&self) -> bool {
        matches!(self, Self::Kafka(kafka::Error::Property { .. }))
    }
}

/// What the pipeline file's `kafka` may say.
#[must_use]
pub fn kafka_properties() -> KafkaProperties {
    KafkaProperties {
        is_known: kafka::is_property,
        names: kafka::property_names(),
        expected: kafka::refused_value,
    }
}
