//! The verbs of the command line.

mod arguments;
mod check;
mod control;
mod dead_letter;
mod dev_broker;
mod exit;
mod finding;
mod output;
mod progress;
mod reset;
mod run;
#[cfg(test)]
mod tests;
mod text;

use std::{path::Path, process::ExitCode};

use clap::{CommandFactory, Parser};

pub use self::{arguments::Arguments, exit::Exit};
use self::{
    arguments::{LogFormat, Verb},
    finding::Finding,
    output::Output,
};
use crate::{
    config::{self, Pipeline, Sources, pipeline},
    telemetry,
};

/// Does what the command line asks for.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut output = Output::new(arguments.output);
    let exit = match &arguments.verb {
        Verb::Run { file } => run::run(&arguments, file, &mut output),
        Verb::Check { file, offline } => check::check(file, *offline, &mut output),
        Verb::Control(verb) => control::run(verb, &mut output),
        Verb::DeadLetter(verb) => dead_letter::run(verb, &mut output),
        Verb::Reset(how) => reset::run(how, &mut output),
        Verb::DevBroker(broker) => dev_broker::run(&arguments, broker, &mut output),
        Verb::Compile { memory_bytes_max } => {
            return ExitCode::from(crate::app::compile(*memory_bytes_max));
        }
        Verb::Schema => {
            output.text(&format!("{:#}", config::schema()));
            Exit::Ok
        }
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "sidestream", &mut script);
            output.text(&String::from_utf8_lossy(&script));
            Exit::Ok
        }
    };
    exit.into()
}

/// Reads the pipeline file with the environment of this process.
fn load(file: &Path) -> Result<Pipeline, Vec<Finding>> {
    let kafka_properties = Some(crate::app::kafka_properties());
    let sources = Sources { kafka_properties, ..Sources::from_process() };
    config::load(file, sources).map_err(|error| finding::of_pipeline(file, error))
}

/// What the pipeline file says of logs, unless the command line says otherwise.
fn log_config(arguments: &Arguments, pipeline: &Pipeline) -> telemetry::Config {
    log_config_of(arguments, pipeline.log.level, pipeline.log.format)
}

/// What the command line says of logs, where there is no pipeline.
fn log_config_without_pipeline(arguments: &Arguments) -> telemetry::Config {
    let pipeline::Log { level, format } = pipeline::Log::default();
    log_config_of(arguments, level, format)
}

fn log_config_of(
    arguments: &Arguments,
    level: pipeline::LogLevel,
    format: pipeline::LogFormat,
) -> telemetry::Config {
    use tracing::Level;
    let level = match arguments.log_level.map_or(level, Into::into) {
        pipeline::LogLevel::Error => Level::ERROR,
        pipeline::LogLevel::Warn => Level::WARN,
        pipeline::LogLevel::Info => Level::INFO,
        pipeline::LogLevel::Debug => Level::DEBUG,
        pipeline::LogLevel::Trace => Level::TRACE,
    };
    let format = match (arguments.log_format, format) {
        (Some(LogFormat::Text), _) | (None, pipeline::LogFormat::Text) => telemetry::Format::Text,
        (Some(LogFormat::Json), _) | (None, pipeline::LogFormat::Json) => telemetry::Format::Json,
    };
    telemetry::Config { level, format }
}
