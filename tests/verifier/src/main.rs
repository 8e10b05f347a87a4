//! `sidestream-verifier`: checks a pipeline's work. The exit code is 0 if it is exact, 1 if it is
//! not, and 2 if it could not be checked.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use sidestream_verifier::{
    check::Stamps,
    read::Cluster,
    run::{Dedupe, Enrich, Pipeline, WordCount},
    verdict::Verdict,
};

/// Checks what a Sidestream pipeline did, without any of its code: nothing lost, doubled,
/// reordered or wiped. The pipeline must have settled.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The brokers, as bootstrap.servers.
    #[arg(long, default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// A librdkafka property for every client, as name=value.
    #[arg(long = "property", value_name = "NAME=VALUE")]
    properties: Vec<String>,
    /// The application id of the pipeline.
    #[arg(long)]
    application: String,
    /// The state directory of an agent that is stopped; give those of all agents, or none.
    #[arg(long = "state", value_name = "DIRECTORY")]
    state_directories: Vec<PathBuf>,
    /// How to say it.
    #[arg(long, default_value = "text")]
    output: Format,
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// A copy of one topic, compared position by position.
    PassThrough { input: String, output: String },
    /// Words of lines, counted in two stages.
    WordCount {
        lines: String,
        counts: String,
        #[arg(long, default_value = "words")]
        repartition: String,
        #[arg(long, default_value = "counts")]
        store: String,
    },
    /// Records of each key, counted over all inputs.
    Count {
        #[arg(long = "input", required = true)]
        inputs: Vec<String>,
        counts: String,
        #[arg(long, default_value = "counts")]
        store: String,
    },
    /// Outputs with the headers input, partition and offset of the record that caused them.
    Stamped {
        #[arg(long = "input", required = true)]
        inputs: Vec<String>,
        #[arg(long = "to", required = true)]
        outputs: Vec<String>,
        #[arg(long, default_value_t = 1)]
        outputs_per_record: u64,
        /// Outputs have the values of their input records.
        #[arg(long)]
        same_value: bool,
        /// Outputs have a header `version` too; each record was processed by one.
        #[arg(long)]
        versions: bool,
        /// A version that must not have processed anything.
        #[arg(long = "never", value_name = "VERSION", requires = "versions")]
        never: Vec<u32>,
    },
    /// Orders joined with a table of customers.
    Enrich {
        orders: String,
        customers: String,
        enriched: String,
        #[arg(long, default_value = "customers")]
        store: String,
    },
    /// The first record of each key within a time.
    Dedupe {
        input: String,
        unique: String,
        #[arg(long)]
        within_ms: i64,
        #[arg(long = "store", default_values = ["seen", "expiries"])]
        stores: Vec<String>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let format = arguments.output;
    match verify(arguments) {
        Ok(verdict) => {
            match format {
                Format::Text => println!("{verdict}"),
                Format::Json => println!("{}", verdict.to_json()),
            }
            if verdict.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("it can't be checked: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn verify(arguments: Arguments) -> Result<Verdict> {
    let property = |property: String| {
        let (name, value) = property
            .split_once('=')
            .with_context(|| format!("the property '{property}' is not name=value"))?;
        anyhow::Ok((name.to_owned(), value.to_owned()))
    };
    let pipeline = Pipeline {
        cluster: Cluster {
            bootstrap: arguments.bootstrap,
            properties: arguments.properties.into_iter().map(property).collect::<Result<_>>()?,
        },
        application: arguments.application,
        state_directories: arguments.state_directories,
    };
    match arguments.kind {
        Kind::PassThrough { input, output } => pipeline.pass_through(&input, &output),
        Kind::WordCount { lines, counts, repartition, store } => {
            pipeline.word_count(&WordCount { lines, repartition, counts, store })
        }
        Kind::Count { inputs, counts, store } => pipeline.count(&inputs, &counts, &store),
        Kind::Stamped { inputs, outputs, outputs_per_record, same_value, versions, never } => {
            let stamps = Stamps { outputs_per_record, same_value };
            if versions {
                pipeline.versions(&inputs, &outputs, stamps, &never.into_iter().collect())
            } else {
                pipeline.stamped(&inputs, &outputs, stamps)
            }
        }
        Kind::Enrich { orders, customers, enriched, store } => {
            pipeline.enrich(&Enrich { orders, customers, enriched, store })
        }
        Kind::Dedupe { input, unique, within_ms, stores } => {
            pipeline.dedupe(&Dedupe { input, output: unique, within_ms, stores })
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_make_sense() {
        Arguments::command().debug_assert();
    }
}
