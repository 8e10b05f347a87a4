//! Logs: to standard error, as text for people or as one JSON object a line.
//!
//! What is logged are fields of the agent's own types, none of which shows a secret.

pub mod metrics;

use std::io::{self, IsTerminal};

use tracing::{Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, filter::Targets, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt,
};

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The least level to log.
    pub level: Level,
    /// In which form.
    pub format: Format,
}

/// In which form to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was before: set it up once.
    #[error("logging is set up already")]
    AlreadySetUp,
}

/// Sends the logs of this process to standard error from now on. What libraries log is taken from
/// `warn` on, unless `level` is graver; librdkafka's also at `debug`.
pub fn set_up(config: Config) -> Result<(), Error> {
    let colours = io::stderr().is_terminal();
    subscriber(config, io::stderr, colours).try_init().map_err(|_| Error::AlreadySetUp)
}

fn subscriber<W>(config: Config, writer: W, colours: bool) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
    let layer = match config.format {
        Format::Text => layer.boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    };
    let own = LevelFilter::from_level(config.level);
    let libraries = own.min(LevelFilter::WARN);
    // What its property `debug` asks for comes at this level.
    let librdkafka = if own >= LevelFilter::DEBUG { own } else { libraries };
    let targets = Targets::new()
        .with_default(libraries)
        .with_target("librdkafka", librdkafka)
        .with_target("sidestream", own)
        .with_target("sidestream_core", own);
    tracing_subscriber::registry().with(layer.with_filter(targets))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was logged.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(config: Config, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(config, move || writer.clone(), false);
        tracing::subscriber::with_default(subscriber, log);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_has_one_object_a_line_with_the_fields() {
        let config = Config { level: Level::INFO, format: Format::Json };
        let text = logged(config, || {
            tracing::info!(target: "sidestream::worker", task = "0_1", "restored");
            tracing::debug!(target: "sidestream::worker", "left out");
        });
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(line["message"], "restored");
        assert_eq!(line["task"], "0_1");
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn libraries_are_heard_from_warn_on() {
        let config = Config { level: Level::DEBUG, format: Format::Text };
        let text = logged(config, || {
            tracing::debug!(target: "sidestream_core::worker", "own");
            tracing::info!(target: "h2", "chatter");
            tracing::warn!(target: "h2", "trouble");
            tracing::info!(target: "librdkafka", "asked for");
        });
        assert!(text.contains("asked for"), "{text}");
        assert!(text.contains("own") && text.contains("trouble"), "{text}");
        assert!(!text.contains("chatter"), "{text}");
    }

    #[test]
    fn a_graver_level_holds_for_libraries_too() {
        let config = Config { level: Level::ERROR, format: Format::Text };
        let text = logged(config, || tracing::warn!(target: "librdkafka", "trouble"));
        assert_eq!(text, "");
    }
}
