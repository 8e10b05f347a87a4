//! Whether brokers can be reached, told once when it changes.

use std::time::{Duration, Instant};

use sidestream_core::ports::SourceEvent;

use super::{connections, native::Client};

/// How often brokers that are away are looked for.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long such a look may take.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);

/// Whether the brokers can be reached.
#[derive(Default)]
pub(super) struct Health {
    /// What was told to be waited for.
    waiting: Option<String>,
    /// A sign that brokers may be away, not checked yet.
    suspicion: Option<String>,
    /// When that was last checked.
    probed: Option<Instant>,
    /// How many connections were closed by then.
    connections: u64,
}

impl Health {
    /// Tells, once, that something is waited for.
    pub(super) fn wait_for(&mut self, why: String, events: &mut Vec<SourceEvent>) {
        if self.waiting.is_none() {
            self.waiting = Some(why.clone());
            events.push(SourceEvent::Waiting(why));
        }
    }

    /// Another client takes the place of the one that was reported about.
    pub(super) fn forget_connections(&mut self) {
        self.connections = 0;
    }

    /// Tells once that the brokers are away, and once that they are back. A lost connection or an
    /// error is only a sign: librdkafka often has another way, so it is tried before it is told.
    pub(super) fn report(&mut self, client: &Client, events: &mut Vec<SourceEvent>) {
        let context = client.context();
        if let Some((_, why)) = context.take_errors().pop() {
            let told = connections::told(&context.connection_errors());
            self.suspicion = Some(if told.is_empty() { why } else { told.join("; ") });
        }
        let connections = context.closed_connections();
        if connections != std::mem::replace(&mut self.connections, connections) {
            let why = || "a connection was lost".to_owned();
            self.suspicion.get_or_insert_with(why);
        }
        let away = self.waiting.is_some();
        let due = self.probed.is_none_or(|probed| probed.elapsed() >= PROBE_INTERVAL);
        if !due || (!away && self.suspicion.is_none()) {
            return;
        }
        let reached = client.reaches_broker(PROBE_TIMEOUT);
        self.probed = Some(Instant::now());
        match (reached, self.suspicion.take(), away) {
            (true, _, true) => {
                self.waiting = None;
                events.push(SourceEvent::Recovered);
            }
            (false, Some(why), false) => self.wait_for(why, events),
            (true, _, false) | (false, _, true) | (false, None, false) => {}
        }
    }
}
