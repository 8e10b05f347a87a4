//! `sidestream run`.

use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::{
    app::{Agent, Stop},
    cli::{
        Arguments, Exit,
        finding::{self, About, Finding},
        load, log_config,
        output::Output,
    },
    config::Pipeline,
    telemetry,
};

/// Runs a pipeline until a signal comes or it can't go on.
pub(super) fn run(arguments: &Arguments, file: &Path, output: &mut Output) -> Exit {
    let findings = match load(file) {
        Ok(pipeline) => run_pipeline(arguments, file, &pipeline).err().unwrap_or_default(),
        Err(findings) => findings,
    };
    if !findings.is_empty() {
        output.findings(&findings, &serde_json::json!({}));
    }
    finding::exit(&findings)
}

fn run_pipeline(
    arguments: &Arguments,
    file: &Path,
    pipeline: &Pipeline,
) -> Result<(), Vec<Finding>> {
    let failed = |error: &dyn std::error::Error| vec![Finding::new(About::Run, error.to_string())];
    telemetry::set_up(log_config(arguments, pipeline)).map_err(|error| failed(&error))?;
    let stop = Stop::default();
    listen(stop.clone(), pipeline.shutdown.leave_on_stop).map_err(|error| failed(&error))?;
    Agent::start(pipeline, stop)
        .and_then(Agent::wait)
        .map_err(|error| finding::of_agent(file, error))
}

/// Requests a stop at the first SIGTERM or SIGINT, and ends the process at the second.
fn listen(stop: Stop, leave: bool) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let wait = move || {
        runtime.block_on(async {
            for first in [true, false] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if first {
                    info!("draining; a second signal stops at once");
                    stop.request(leave);
                }
            }
        });
        warn!("stopped at once; what was not committed is processed again");
        std::process::exit(Exit::Failed as i32);
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map(drop)
}
