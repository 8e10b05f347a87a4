//! Waiting for a condition, with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

/// How long to pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until `look` finds something. An error of `look` counts as nothing yet;
/// the last one is part of the error when `deadline` has passed.
pub fn until<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let seen = look();
        match seen {
            Ok(Some(found)) => return Ok(found),
            Ok(None) | Err(_) if start.elapsed() < deadline => thread::sleep(PAUSE),
            Ok(None) => return Err(anyhow!("no {what} within {deadline:?}")),
            Err(error) => return Err(error).context(format!("no {what} within {deadline:?}")),
        }
    }
}

/// Looks again and again until `look` says yes.
pub fn until_true(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<bool>,
) -> Result<()> {
    until(what, deadline, || Ok(look()?.then_some(())))
}
