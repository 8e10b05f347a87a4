//! The simulator is only worth as much as the bugs it finds: each file of `bugs` breaks one rule
//! by a small change to a copy of the source, and two thousand seeds must find it.
//!
//! All of them are compiled once, into one program that is told which bug it has.

#![allow(clippy::unwrap_used, reason = "a harness that breaks fails its test")]
#![allow(clippy::print_stderr, reason = "progress of a long test")]

#[path = "planted_bugs/bug.rs"]
mod bug;
#[path = "planted_bugs/copy.rs"]
mod copy;
#[path = "planted_bugs/schemata.rs"]
mod schemata;

use std::{
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use bug::Bug;
use copy::Copy;

/// The seeds within which a bug must be found, from its first one on.
const SEEDS: &str = "2000";

/// The seeds in which the same program must find nothing while no bug is switched on.
const SEEDS_WITHOUT: &str = "200";

/// How many bugs are looked for side by side.
const SEARCHES: usize = 2;

/// Looks for a bug. Says which seed found it.
fn hunt(copy: &Copy, bug: &Bug) -> Result<String, String> {
    let output = copy.simulate(Some(bug), SEEDS);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(1) => {
            let found = said.lines().find(|line| line.starts_with("seed "));
            found.map(str::to_owned).ok_or_else(|| format!("it names no seed: {said}"))
        }
        Some(0) => Err("it was not found".to_owned()),
        _ => Err(format!("the simulator broke: {said}")),
    }
}

/// Looks for every bug. Returns what is wrong with those that are not found.
fn hunt_all(copy: &Copy, bugs: &[Bug]) -> Vec<String> {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..SEARCHES {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let started = Instant::now();
                    let found = hunt(copy, bug);
                    let took = started.elapsed().as_secs_f32();
                    eprintln!("{:40} {took:5.1} s  {found:?}", bug.name);
                    if let Err(error) = found {
                        let text = format!("{} ({}): {error}", bug.name, bug.why);
                        failures.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

#[test]
fn every_planted_bug_is_found() {
    let lock = fs::File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("planted-bugs.lock"));
    let lock = lock.unwrap();
    lock.lock().unwrap(); // Only one test run at a time works in this folder.
    let bugs = bug::bugs();
    assert!(!bugs.is_empty(), "no bug has a name with a part of `BUGS`");
    let started = Instant::now();
    let copy = Copy::build(&bugs).unwrap_or_else(|error| panic!("{error}"));
    eprintln!("built in {:.1} s", started.elapsed().as_secs_f32());
    let without = copy.simulate(None, SEEDS_WITHOUT);
    let said = String::from_utf8_lossy(&without.stderr);
    assert!(without.status.success(), "the sources as they are are right:\n{said}");
    let failures = hunt_all(&copy, &bugs);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
