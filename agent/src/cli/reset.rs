//! `sidestream reset`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    app::reset::{Extent, Reset},
    cli::{
        Exit,
        finding::{self, Finding},
        load,
        output::Output,
    },
};

/// How to begin anew.
#[derive(Clone, Debug, Args)]
pub struct HowToReset {
    /// The pipeline file.
    #[arg(long, value_name = "FILE", env = "SIDESTREAM_PIPELINE")]
    pub pipeline: PathBuf,
    /// Only say what would be deleted.
    #[arg(long)]
    pub dry_run: bool,
    /// How long to wait until the consumer group has no members, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub wait: u32,
}

pub(super) fn run(how: &HowToReset, output: &mut Output) -> Exit {
    match reset(how, output) {
        Ok(extent) => {
            output.answer(&lines(&extent, how.dry_run), &details(&extent, how.dry_run));
            Exit::Ok
        }
        Err(findings) => {
            output.findings(&findings, &json!({}));
            finding::exit(&findings)
        }
    }
}

fn reset(how: &HowToReset, output: &mut Output) -> Result<Extent, Vec<Finding>> {
    let pipeline = load(&how.pipeline)?;
    let failed = |error| finding::of_agent(&how.pipeline, error);
    let reset = Reset::open(&pipeline).map_err(failed)?;
    if how.dry_run {
        return reset.extent().map_err(failed);
    }
    let mut told = Vec::new();
    let patience = Duration::from_secs(how.wait.into());
    let waiting = &mut |members: &[String]| {
        if told != members {
            output.note(&format!("waiting until these have left: {}", members.join(", ")));
            members.clone_into(&mut told);
        }
    };
    reset.wait_until_empty(patience, waiting).map_err(failed)?;
    let extent = reset.extent().map_err(failed)?;
    reset.perform(&mut |step| output.note(step)).map_err(failed)?;
    Ok(extent)
}

fn lines(extent: &Extent, dry_run: bool) -> Vec<String> {
    let word = if dry_run { "would be deleted" } else { "deleted" };
    let mut lines = vec![format!("{word}: the consumer group `{}`", extent.group)];
    lines.extend(extent.topics.iter().map(|topic| format!("{word}: the topic `{topic}`")));
    if let Some(state) = &extent.state {
        lines.push(format!("{word}: the state of {} tasks in {}", extent.tasks, state.display()));
    }
    if dry_run && !extent.members.is_empty() {
        lines.push(format!("the group has members: {}", extent.members.join(", ")));
    }
    lines.push(
        "left alone: inputs, outputs, dead letters, and state on other machines, which must be \
         removed there"
            .to_owned(),
    );
    lines
}

fn details(extent: &Extent, dry_run: bool) -> Value {
    json!({
        "dry_run": dry_run,
        "group": extent.group,
        "members": extent.members,
        "topics": extent.topics,
        "state": extent.state,
        "tasks": extent.tasks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deleted_and_what_is_not_is_told() {
        let extent = Extent {
            group: "app".to_owned(),
            members: vec!["a-0 at 10.0.0.1".to_owned()],
            topics: vec!["app-counts-changelog".to_owned()],
            state: Some("/state/app".into()),
            tasks: 3,
        };
        let told = lines(&extent, true);
        assert_eq!(told[0], "would be deleted: the consumer group `app`");
        assert_eq!(told[2], "would be deleted: the state of 3 tasks in /state/app");
        assert_eq!(told[3], "the group has members: a-0 at 10.0.0.1");
        let told = lines(&extent, false);
        assert_eq!(told[1], "deleted: the topic `app-counts-changelog`");
        assert_eq!(told.len(), 4);
        assert_eq!(details(&extent, true)["tasks"], 3);
    }
}
