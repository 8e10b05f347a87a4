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

/// Looks again and again until `look` says that nothing is left. The time counts anew whenever less is
/// left than ever before: how quick a machine is does not matter. An error of `look` says nothing.
pub fn until_done<T: Ord>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<()> {
    let (mut least, mut since) = (None, Instant::now());
    loop {
        let failure = match look() {
            Ok(None) => return Ok(()),
            Ok(Some(left)) if least.as_ref().is_none_or(|least| left < *least) => {
                (least, since) = (Some(left), Instant::now());
                continue;
            }
            Ok(Some(_)) => anyhow!("nothing was done since"),
            Err(error) => error,
        };
        if since.elapsed() >= patience {
            return Err(failure).context(format!("no {what}, and no step further in {patience:?}"));
        }
        thread::sleep(PAUSE);
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
