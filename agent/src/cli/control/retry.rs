//! `sidestream retry`: stopped tasks are tried again.

use serde_json::json;

use super::{Failure, of_client, to_json};
use crate::{
    cli::{
        finding::{About, Finding},
        output::Output,
    },
    control::{
        client::{Client, Error},
        proto::{Retried, TaskState},
    },
};

/// Has stopped tasks tried again, all unless some are named, and says what came of each.
pub(super) fn run(
    client: &mut Client,
    tasks: &[String],
    output: &mut Output,
) -> Result<(), Failure> {
    let retried = client.retry(tasks.to_vec()).map_err(|error| vec![of_client(&error)])?;
    let details = json!({ "tasks": to_json(&retried) });
    let findings: Vec<Finding> = retried.iter().filter_map(finding).collect();
    if !findings.is_empty() {
        return Err(Failure { findings, details });
    }
    let lines = match retried.is_empty() {
        true => vec!["no task is stopped".to_owned()],
        false => retried.iter().map(|task| format!("task {} runs again", task.task)).collect(),
    };
    output.answer(&lines, &details);
    Ok(())
}

/// Lets a paused agent go on; returns the tasks that stay stopped.
pub(super) fn resume(client: &mut Client) -> Result<Vec<String>, Error> {
    client.resume()?;
    let workers = client.status()?.workers.into_iter();
    let tasks = workers.flat_map(|worker| worker.tasks);
    let stopped = tasks.filter(|task| task.state() == TaskState::Failed);
    Ok(stopped.map(|task| task.id).collect())
}

/// What is wrong with what came of a task, if anything.
fn finding(retried: &Retried) -> Option<Finding> {
    let Retried { task, reason, .. } = retried;
    let message = match retried.state() {
        TaskState::Running if reason.is_empty() => return None,
        TaskState::Failed => format!("task {task} was stopped again: {reason}"),
        state => {
            let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            return Some(Finding {
                remedy: "`sidestream status` shows how it goes on".to_owned(),
                ..Finding::new(
                    About::Run,
                    format!("task {task} is {} and not over it yet{reason}", state.name()),
                )
            });
        }
    };
    Some(Finding::new(About::Run, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Exit, finding};

    fn retried(state: TaskState, reason: &str) -> Retried {
        Retried { task: "0_2".to_owned(), state: state.into(), reason: reason.to_owned() }
    }

    #[test]
    fn only_a_task_that_runs_again_is_well() {
        assert_eq!(finding(&retried(TaskState::Running, "")), None);
        for (state, reason, says) in [
            (TaskState::Failed, "it rejects", "task 0_2 was stopped again: it rejects"),
            (TaskState::Restoring, "", "task 0_2 is restoring and not over it yet"),
            (TaskState::Running, "not now", "task 0_2 is running and not over it yet: not now"),
        ] {
            let finding = finding(&retried(state, reason)).unwrap();
            assert_eq!(finding.message, says);
            assert_eq!(finding::exit(&[finding]), Exit::Failed);
        }
    }
}
