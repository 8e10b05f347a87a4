//! `sidestream events`.

use clap::Args;
use serde_json::json;

use super::to_json;
use crate::{
    cli::output::Output,
    control::{
        client::{Client, Error},
        proto::{Event, WatchEventsRequest, watch_events_response::What},
    },
};

/// Which events.
#[derive(Clone, Copy, Debug, Args)]
pub struct Follow {
    /// Wait for more, until the agent ends.
    #[arg(long, short)]
    pub follow: bool,
    /// Begin with the event after the one of this number; with the oldest one kept unless set.
    #[arg(long, default_value_t = 0)]
    pub after: u64,
}

/// Shows events, one a line.
pub(super) fn run(client: &mut Client, follow: &Follow, output: &mut Output) -> Result<(), Error> {
    let watch = WatchEventsRequest { after: follow.after, only_past: !follow.follow };
    client.events(watch, |what| {
        match what {
            What::Event(event) => output.line(&line(&event), &to_json(&event)),
            What::Missed(missed) => output
                .line(&format!("{missed} events are kept no more"), &json!({ "missed": missed })),
        }
        true
    })
}

fn line(event: &Event) -> String {
    let time = jiff::Timestamp::from_millisecond(event.time_ms).unwrap_or_default();
    let mut line = format!("{time:.3} {} {}", event.sequence, event.kind);
    if let Some(worker) = event.worker {
        line.push_str(&format!(" worker {worker}"));
    }
    if !event.task.is_empty() {
        line.push_str(&format!(" task {}", event.task));
    }
    if !event.message.is_empty() {
        line.push_str(&format!(": {}", event.message));
    }
    line
}
