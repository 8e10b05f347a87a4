//! Child processes that never outlive the test that started them.
//!
//! Each child has a guard: a shell that waits for the end of its standard input, which the system
//! closes when this process ends, however it ends. Then it kills the child and removes its folder.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::wait;

/// Waits for the end of its input, then kills process `$1`, waits until it is gone and removes
/// the folder `$2`, if there is one.
const GUARD: &str = r#"
trap '' INT TERM HUP
read -r _
kill -KILL "$1" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$1" 2>/dev/null || break; sleep 0.1; done
[ -z "$2" ] || rm -rf "$2"
"#;

/// A signal to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ends it without a word.
    Kill,
    /// Asks it to end.
    Terminate,
    /// Freezes it.
    Stop,
    /// Thaws it.
    Continue,
}

impl Signal {
    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Terminate => "TERM",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }
}

/// A child process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    log_start: u64,
    child: Child,
    guard: Child,
}

impl Process {
    /// Starts `command` with its output appended to `log`. `folder` is removed if this process
    /// ends before the child does.
    pub fn spawn(
        name: &str,
        command: &mut Command,
        log: &Path,
        folder: Option<&Path>,
    ) -> Result<Self> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("can't write {}", log.display()))?;
        let log_start = output.metadata()?.len();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("can't start {name}: {:?}", command.get_program()))?;
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard", &child.id().to_string()])
            .arg(folder.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("can't start a guard")?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), log_start, child, guard })
    }

    /// Its name in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it had so far, in bytes.
    pub fn peak_memory_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB")).context("no VmHWM")?;
        Ok(peak.trim().parse::<u64>()? * 1024)
    }

    /// What it wrote so far, without those before it that wrote to the same file.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let own = usize::try_from(self.log_start).ok().and_then(|start| bytes.get(start..));
        String::from_utf8_lossy(own.unwrap_or_default()).into_owned()
    }

    /// The last lines of its log, for messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Sends a signal. One that has ended is left in peace.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_none() {
            let kill = format!("kill -{} {}", signal.name(), self.child.id());
            let status = Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status()?;
            // It may have ended between the two.
            anyhow::ensure!(status.success() || self.ended()?.is_some(), "{kill} failed");
        }
        Ok(())
    }

    /// Ends it without a word, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        // Straight from the library: a shell's start would blur the moment.
        self.child.kill().context("can't kill")?;
        self.child.wait()?;
        Ok(())
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    pub fn wait_for_end(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("end of {}", self.name);
        wait::until(&what, deadline, || self.ended()).with_context(|| self.log_tail())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard goes first, lest it kill a stranger who got the same process id. Whoever has
        // ended already can't be killed, which is as good.
        drop((self.guard.kill(), self.guard.wait()));
        drop((self.child.kill(), self.child.wait()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(folder: &Path) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", "echo started; exec sleep 1000"]);
        Process::spawn("sleeper", &mut command, &folder.join("log"), None).unwrap()
    }

    fn alive(id: u32) -> bool {
        let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        state
            .rsplit(')')
            .next()
            .is_some_and(|rest| !rest.trim_start().starts_with('Z') && !rest.is_empty())
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let process = sleeper(folder.path());
        let id = process.id();
        assert!(alive(id));
        drop(process);
        assert!(!alive(id));
    }

    #[test]
    fn a_guard_kills_when_its_input_ends() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = sleeper(folder.path());
        drop(process.guard.stdin.take());
        let status = process.wait_for_end(Duration::from_secs(10)).unwrap();
        assert!(!status.success());
    }

    #[test]
    fn a_stopped_process_goes_on_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = sleeper(folder.path());
        let state = |id: u32| std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        process.signal(Signal::Stop).unwrap();
        let stopped = || Ok(state(process.id()).contains(") T "));
        wait::until_true("stop", Duration::from_secs(10), stopped).unwrap();
        process.signal(Signal::Continue).unwrap();
        let going = || Ok(!state(process.id()).contains(") T "));
        wait::until_true("going on", Duration::from_secs(10), going).unwrap();
        process.signal(Signal::Terminate).unwrap();
        process.wait_for_end(Duration::from_secs(10)).unwrap();
        let log = || Ok(process.log().contains("started"));
        wait::until_true("log", Duration::from_secs(10), log).unwrap();
    }
}
