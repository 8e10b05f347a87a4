//! `sidestream dead-letter list`, `show` and `replay`.

mod arguments;
mod list;
mod replay;
mod show;
mod text;

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

pub(super) use self::arguments::DeadLetter;
use crate::{
    cli::{
        Exit,
        finding::{self, Finding},
        load,
        output::Output,
    },
    dead_letters::{self, DeadLetters},
};

/// How many offsets there must be to read before a bar shows how far it is.
const LONG_OFFSETS: u64 = 20_000;

pub(super) fn run(verb: &DeadLetter, output: &mut Output) -> Exit {
    let done = match verb {
        DeadLetter::List { pipeline, choice, list } => {
            list::run(&pipeline.pipeline, choice, list, output)
        }
        DeadLetter::Show { pipeline, letter, raw } => {
            show::run(&pipeline.pipeline, (letter, *raw), output)
        }
        DeadLetter::Replay { pipeline, choice, replay } => {
            replay::run(&pipeline.pipeline, choice, replay, output)
        }
    };
    match done {
        Ok(exit) => exit,
        Err(findings) => {
            output.findings(&findings, &json!({}));
            finding::exit(&findings)
        }
    }
}

/// The dead-letter topics of the pipeline in a file.
fn open(file: &Path) -> Result<DeadLetters, Vec<Finding>> {
    let pipeline = load(file)?;
    DeadLetters::open(&pipeline).map_err(|error| finding::of_agent(file, error.into()))
}

/// Does something that takes its time while a bar on standard error, if that is a terminal, shows
/// how far it is.
fn watched<T>(
    file: &Path,
    act: impl FnOnce(&mut dyn FnMut(u64, u64)) -> Result<T, dead_letters::Error>,
) -> Result<T, Vec<Finding>> {
    let mut bar: Option<ProgressBar> = None;
    let done = act(&mut |read, total| {
        if total >= LONG_OFFSETS {
            bar.get_or_insert_with(|| new_bar(total)).set_position(read);
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    done.map_err(|error| finding::of_agent(file, error.into()))
}

fn new_bar(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("dead letters {wide_bar} {percent} %");
    ProgressBar::new(total).with_style(style.expect("the template is sound"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_sound() {
        new_bar(1).finish_and_clear();
    }
}
