//! `sidestream events`.

use clap::Args;
use serde_json::json;

use super::to_json;
use crate::{
    cli::{
        output::Output,
        text::{MESSAGE_CHARS_MAX, clean},
    },
    control::{
        client::{Client, Error},
        proto::{Event, OtherLife, WatchEventsRequest, watch_events_response::What},
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
    /// The life of the agent that this event is of, as `--output json` tells; an agent that was started
    /// anew since then begins with its oldest event, and says so.
    #[arg(long, default_value_t = 0, requires = "after")]
    pub life: i64,
}

/// Shows events, one a line.
pub(super) fn run(client: &mut Client, follow: &Follow, output: &mut Output) -> Result<(), Error> {
    let Follow { follow, after, life } = *follow;
    let watch = WatchEventsRequest { after, only_past: !follow, life };
    client.events(watch, |what| {
        match what {
            What::Event(event) => output.line(&line(&event), &to_json(&event)),
            What::Missed(missed) => output
                .line(&format!("{missed} events are kept no more"), &json!({ "missed": missed })),
            What::OtherLife(OtherLife { life }) => {
                let line = format!(
                    "the agent was started anew at {}: these are its events since",
                    time(life)
                );
                output.line(&line, &json!({ "other_life": life }));
            }
        }
        true
    })
}

fn time(milliseconds: i64) -> String {
    format!("{:.3}", jiff::Timestamp::from_millisecond(milliseconds).unwrap_or_default())
}

fn line(event: &Event) -> String {
    let mut line = format!("{} {} {}", time(event.time_ms), event.sequence, event.kind);
    if let Some(worker) = event.worker {
        line.push_str(&format!(" worker {worker}"));
    }
    if !event.task.is_empty() {
        line.push_str(&format!(" task {}", event.task));
    }
    if !event.message.is_empty() {
        line.push_str(&format!(": {}", clean(&event.message, MESSAGE_CHARS_MAX)));
    }
    line
}
