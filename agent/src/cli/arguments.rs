//! What can be asked for.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    cli::{
        control::Control, dead_letter::DeadLetter, dev_broker::Broker, exit, output::OutputFormat,
        reset::HowToReset,
    },
    config::pipeline,
};

/// Runs WebAssembly transforms over Kafka partitions, with local state, exactly once.
#[derive(Clone, Debug, Parser)]
#[command(name = "sidestream", version, after_help = exit::HELP)]
pub struct Arguments {
    /// For people, or as JSON.
    #[arg(long, global = true, value_enum, default_value_t, env = "SIDESTREAM_OUTPUT")]
    pub output: OutputFormat,
    /// The least level to log; goes before the pipeline file's.
    #[arg(long, global = true, value_enum, env = "SIDESTREAM_LOG_LEVEL")]
    pub log_level: Option<LogLevel>,
    /// The form of the log; goes before the pipeline file's.
    #[arg(long, global = true, value_enum, env = "SIDESTREAM_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Run a pipeline until SIGTERM or SIGINT, then drain.
    Run {
        /// The pipeline file.
        #[arg(env = "SIDESTREAM_PIPELINE")]
        file: PathBuf,
    },
    /// Check a pipeline: its file, its modules, the brokers and topics. Changes nothing.
    Check {
        /// The pipeline file.
        #[arg(env = "SIDESTREAM_PIPELINE")]
        file: PathBuf,
        /// Ask no broker, and look at nothing else that is there only where the agent runs.
        #[arg(long)]
        offline: bool,
    },
    #[command(flatten)]
    Control(Box<Control>),
    /// List the records that failed for good, show one, or put them back.
    #[command(subcommand)]
    DeadLetter(Box<DeadLetter>),
    /// Begin an application anew: delete its group's offsets, its changelogs and repartition topics,
    /// and its state on this machine.
    ///
    /// Every input is then read from its `start` again. Inputs, outputs and dead letters are left
    /// alone. Agents must be stopped; this waits until their memberships have ended. State of agents
    /// on other machines must be removed there: they refuse to run on it.
    Reset(HowToReset),
    /// Run a Kafka broker in memory, for development: no security, and nothing is kept.
    DevBroker(Broker),
    /// Compile a module, for the agent that starts this: from standard input to standard output.
    #[command(hide = true)]
    Compile {
        /// How much memory it may have.
        memory_bytes_max: u64,
    },
    /// Print the JSON Schema of the pipeline file.
    Schema,
    /// Print a script that completes commands in a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// The least level to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LogLevel> for pipeline::LogLevel {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

/// In which form to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
