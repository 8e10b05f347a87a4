//! What can be asked about dead letters.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use crate::{
    cli::finding::{self, Finding},
    dead_letters::{DeadLetters, Place, Selection},
};

/// One of these says which letters to put back.
const WHICH: [&str; 6] = ["letters", "all", "topic", "transform", "exception", "partition"];

/// What to do with dead letters.
#[derive(Clone, Debug, Subcommand)]
pub enum DeadLetter {
    /// List dead letters, and count them by transform and exception.
    List {
        #[command(flatten)]
        pipeline: PipelineFile,
        #[command(flatten)]
        choice: Choice,
        #[command(flatten)]
        list: HowToList,
    },
    /// Show one dead letter whole.
    Show {
        #[command(flatten)]
        pipeline: PipelineFile,
        /// Where it stands, as `list` tells; the topic may be left out if there is only one.
        #[arg(value_name = "[TOPIC:]PARTITION:OFFSET", value_parser = parse)]
        letter: LetterPlace,
        /// Write its value alone, byte by byte.
        #[arg(long)]
        raw: bool,
    },
    /// Put dead letters back into the topics that they came from, each once.
    ///
    /// A letter goes back with its key, value, time and own headers, into the partition that it
    /// came from, if the pipeline reads that topic. Every transform that reads the topic gets it. Letters that were put back are left
    /// alone when this is done again, also after it was killed.
    Replay {
        #[command(flatten)]
        pipeline: PipelineFile,
        #[command(flatten)]
        choice: ReplayChoice,
        #[command(flatten)]
        replay: HowToReplay,
    },
}

/// Which pipeline is meant.
#[derive(Clone, Debug, Args)]
pub struct PipelineFile {
    /// The pipeline file.
    #[arg(long, value_name = "FILE", env = "SIDESTREAM_PIPELINE")]
    pub pipeline: PathBuf,
}

/// Which letters are meant: those that fit all that is given.
#[derive(Clone, Debug, Default, Args)]
pub struct Choice {
    /// Those in this dead-letter topic.
    #[arg(long)]
    pub topic: Option<String>,
    /// Those of this transform.
    #[arg(long, value_name = "NAME")]
    pub transform: Option<String>,
    /// Those with this word for what happened, such as `trap` or `reject`.
    #[arg(long, value_name = "WORD")]
    pub exception: Option<String>,
    /// Those in this partition of the dead-letter topic.
    #[arg(long, value_name = "NUMBER")]
    pub partition: Option<i32>,
}

/// How to list them.
#[derive(Clone, Debug, Args)]
pub struct HowToList {
    /// Only those that were not put back yet.
    #[arg(long)]
    pub waiting: bool,
    /// How many letters at most; all are counted.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    pub limit: u32,
}

/// Which letters to put back; something has to be said.
#[derive(Clone, Debug, Args)]
#[group(skip)]
#[command(group(ArgGroup::new("which").args(WHICH).required(true).multiple(true)))]
pub struct ReplayChoice {
    /// Those at these places, as `list` tells.
    #[arg(value_name = "[TOPIC:]PARTITION:OFFSET", value_parser = parse)]
    pub letters: Vec<LetterPlace>,
    /// All of them.
    #[arg(long, conflicts_with_all = ["letters", "topic", "transform", "exception", "partition"])]
    pub all: bool,
    #[command(flatten)]
    pub choice: Choice,
    /// The one at this offset of the partition.
    #[arg(long, value_name = "NUMBER", requires = "partition")]
    pub offset: Option<i64>,
}

/// How to put them back.
#[derive(Clone, Debug, Args)]
pub struct HowToReplay {
    /// Put them into this topic, by their keys, instead of where they came from.
    #[arg(long, value_name = "TOPIC")]
    pub to: Option<String>,
    /// Also into topics that the pipeline does not read, where letters say that they came from there:
    /// whoever may write to the dead-letter topic may say so.
    #[arg(long, conflicts_with = "to")]
    pub anywhere: bool,
    /// Also those that were put back before.
    #[arg(long)]
    pub again: bool,
    /// Say what would be put back, and put nothing back.
    #[arg(long)]
    pub dry_run: bool,
}

/// Where a letter stands; the topic may go without saying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterPlace {
    topic: Option<String>,
    partition: i32,
    offset: i64,
}

/// Reads `TOPIC:PARTITION:OFFSET` or `PARTITION:OFFSET`; no topic has a colon in its name.
fn parse(text: &str) -> Result<LetterPlace, String> {
    let place = || {
        let (rest, offset) = text.rsplit_once(':')?;
        let (topic, partition) = match rest.rsplit_once(':') {
            Some((topic, partition)) => (Some(topic.to_owned()), partition),
            None => (None, rest),
        };
        let (partition, offset) = (partition.parse::<i32>().ok()?, offset.parse::<i64>().ok()?);
        let is_topic = topic.as_deref().is_none_or(|topic| !topic.is_empty());
        (is_topic && partition >= 0 && offset >= 0).then_some(LetterPlace {
            topic,
            partition,
            offset,
        })
    };
    place().ok_or_else(|| "write TOPIC:PARTITION:OFFSET, or PARTITION:OFFSET".to_owned())
}

impl LetterPlace {
    pub(super) fn resolve(
        &self,
        file: &std::path::Path,
        letters: &DeadLetters,
    ) -> Result<Place, Vec<Finding>> {
        let topic = letters.topic(self.topic.as_deref());
        let topic = topic.map_err(|error| finding::of_agent(file, error.into()))?;
        Ok(Place { topic, partition: self.partition, offset: self.offset })
    }
}

impl Choice {
    pub(super) fn selection(&self) -> Selection {
        Selection {
            topic: self.topic.clone(),
            transform: self.transform.clone(),
            exception: self.exception.clone(),
            partition: self.partition,
            ..Selection::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Arguments;

    #[test]
    fn a_place_has_a_topic_or_goes_without() {
        let place = |topic: Option<&str>| LetterPlace {
            topic: topic.map(str::to_owned),
            partition: 3,
            offset: 17,
        };
        assert_eq!(parse("3:17").unwrap(), place(None));
        assert_eq!(parse("bad.words-1:3:17").unwrap(), place(Some("bad.words-1")));
        for wrong in ["", "17", "3:", ":17", ":3:17", "a:b", "-3:17", "3:-1", "3:17:x", "bad:3"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_to_put_back_has_to_be_said() {
        let sound = |words: &str| {
            let all = ["sidestream", "dead-letter", "replay", "--pipeline", "p.yaml"];
            Arguments::try_parse_from(all.into_iter().chain(words.split_whitespace())).is_ok()
        };
        for words in [
            "--all",
            "--all --dry-run --to t",
            "--all --anywhere",
            "3:17 bad:4:1",
            "--transform count --exception trap --again",
            "--partition 3 --offset 17",
        ] {
            assert!(sound(words), "{words}");
        }
        for words in [
            "",
            "--dry-run",
            "--anywhere",
            "--all --anywhere --to t",
            "--to t",
            "--offset 17",
            "--all --transform count",
            "x",
        ] {
            assert!(!sound(words), "{words}");
        }
    }
}
