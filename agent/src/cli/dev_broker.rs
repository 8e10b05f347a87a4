//! `sidestream dev-broker`.

use std::net::SocketAddr;

use clap::Args;
use sidestream_dev_broker::{DevBroker, Options};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::{
        Arguments, Exit,
        finding::{self, About, Finding},
        output::Output,
    },
    config, telemetry,
};

/// How the broker is to be.
#[derive(Clone, Debug, Args)]
pub struct Broker {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:9092")]
    listen: SocketAddr,
    /// The most memory that records may take: beyond it the oldest go, of topics that allow it.
    #[arg(long, default_value = "512MiB", value_parser = config::parse_bytes)]
    memory_max: u64,
    /// How many partitions a topic gets that asks for no number.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=1000))]
    partitions: i32,
    /// Create topics when a client asks for them.
    #[arg(long)]
    auto_create_topics: bool,
}

/// Runs a broker until a signal comes.
pub(super) fn run(arguments: &Arguments, broker: &Broker, output: &mut Output) -> Exit {
    let findings = match serve(arguments, broker, output) {
        Ok(()) => Vec::new(),
        Err(error) => vec![Finding::new(About::Run, error.to_string())],
    };
    if !findings.is_empty() {
        output.findings(&findings, &serde_json::json!({}));
    }
    finding::exit(&findings)
}

fn serve(
    arguments: &Arguments,
    broker: &Broker,
    output: &mut Output,
) -> Result<(), Box<dyn std::error::Error>> {
    telemetry::set_up(super::log_config_without_pipeline(arguments))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let broker = DevBroker::start(Options {
        address: broker.listen,
        bytes_max: usize::try_from(broker.memory_max)?,
        default_partitions: broker.partitions,
        auto_create_topics: broker.auto_create_topics,
        ..Options::default()
    })?;
    output.text(&format!("bootstrap.servers={}", broker.bootstrap()));
    runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    broker.stop();
    Ok(())
}
