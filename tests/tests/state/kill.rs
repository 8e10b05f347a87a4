//! State after SIGKILL, and after a machine that lost what was not synced.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use crate::{agent, check_counts, count, offset, open};

/// In the environment of a child: the state directory in which it is to count, and the value that
/// ends it (it doesn't, if there is none).
const CHILD: &str = "SIDESTREAM_TEST_STATE_CHILD";
/// A child tells how far it is, once for so many changes.
const TOLD_EVERY: i64 = 50;

/// Counts until it is killed. Does nothing unless it is started by another test.
#[test]
fn child() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let agent = agent(Path::new(&directory));
    let mut opened = open(&agent);
    let from = offset(&*opened.store);
    let mut out = std::io::stdout();
    for i in from.. {
        count(&mut *opened.store, i).unwrap();
        if i % TOLD_EVERY == 0 {
            writeln!(out, "\ncounted {i}").unwrap();
            out.flush().unwrap();
        }
    }
}

/// A process that counts. It is killed when this is dropped.
struct Counter {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Counter {
    fn start(directory: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child", "--nocapture"])
            .env(CHILD, directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Waits until it has counted further than at least `i`; returns how far it said it was.
    fn wait_for(&mut self, i: i64) -> i64 {
        let told = self.lines.by_ref().map_while(Result::ok).find_map(|line| {
            line.strip_prefix("counted ")?.parse().ok().filter(|&told: &i64| told >= i)
        });
        told.expect("the child counts until it is killed")
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.child.kill().expect("the child runs");
        self.child.wait().expect("the child was killed");
    }
}

#[test]
fn state_and_position_agree_after_every_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut told = 0;
    for round in 1..=10 {
        let mut counter = Counter::start(folder.path());
        // At other fillings of the memtables each time; some are flushed in each round.
        told = counter.wait_for(told + 1_500 + 370 * round);
        drop(counter);
        let agent = agent(folder.path());
        let opened = open(&agent);
        assert_eq!(opened.rebuilt, None);
        let offset = offset(&*opened.store);
        assert!(offset > told, "nothing that was applied is lost: {offset} after {told}");
        check_counts(&*opened.store).unwrap();
    }
}

#[test]
fn a_second_process_is_refused_until_the_first_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut counter = Counter::start(folder.path());
    counter.wait_for(0);
    let refusal = sidestream::state::Stores::open_directory(&crate::config(folder.path()));
    let message = refusal.unwrap_err().to_string();
    assert!(message.contains(&format!("process {}", counter.child.id())), "{message}");
    drop(counter);
    agent(folder.path());
}

/// What a machine's crash leaves of a log that was not synced: its first part.
#[test]
fn a_log_cut_short_anywhere_leaves_state_and_position_in_agreement() {
    let folder = tempfile::tempdir().unwrap();
    let mut counter = Counter::start(folder.path());
    let told = counter.wait_for(1_000);
    drop(counter);
    let task = folder.path().join("test").join("0_3");
    let log = std::fs::read_dir(&task)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .max()
        .expect("a log");
    let length = std::fs::metadata(&log).unwrap().len();
    let mut before = None;
    for cut in 1..=8 {
        let file = std::fs::File::options().write(true).open(&log).unwrap();
        file.set_len(length - length * cut / 10).unwrap();
        drop(file);
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        let agent = agent(copy.path());
        let opened = open(&agent);
        assert_eq!(opened.rebuilt, None);
        check_counts(&*opened.store).unwrap();
        let offset = offset(&*opened.store);
        assert!(before.is_none_or(|before| offset < before) && offset <= told + 10 * TOLD_EVERY);
        before = Some(offset);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => {
                std::fs::create_dir(&to).unwrap();
                copy_folder(&entry.path(), &to);
            }
            false => {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
}
