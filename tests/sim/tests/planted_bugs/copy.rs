//! A copy of the core and the simulator, built with bugs in it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::{
    bug::Bug,
    schemata::{self, Sources},
};

/// How long a build or a search may take.
const TIME_MAX: Duration = Duration::from_secs(900);

/// What is copied of the repository besides manifests.
const FOLDERS: [&str; 2] = ["agent/core/src", "tests/sim/src"];

/// The copy, with a target folder of its own.
pub(crate) struct Copy {
    root: PathBuf,
}

impl Copy {
    /// Copies the sources with these bugs in them, and builds the simulator. What has not changed
    /// since the last time is left as it is, so that it isn't built again.
    pub(crate) fn build(bugs: &[Bug]) -> Result<Self, String> {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("planted-bugs");
        let copy = Self { root };
        let sources = schemata::plant(&sources(), bugs)?;
        for folder in FOLDERS {
            copy.remove_others(folder, &sources);
        }
        for (file, text) in &sources {
            copy.write(file, text);
        }
        copy.compile().map_err(|said| {
            let accused = schemata::accused(&sources, &said);
            format!("it does not compile; errors are in bugs {accused:?}:\n{said}")
        })?;
        Ok(copy)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.root.join(file);
        if fs::read_to_string(&path).is_ok_and(|before| before == text) {
            return;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Removes files that an earlier copy had and this one has not.
    fn remove_others(&self, folder: &str, sources: &Sources) {
        let Ok(entries) = fs::read_dir(self.root.join(folder)) else { return };
        for entry in entries {
            let entry = entry.unwrap();
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.file_type().unwrap().is_dir() {
                self.remove_others(&name, sources);
            } else if !sources.contains_key(&name) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    fn compile(&self) -> Result<(), String> {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(["build", "--quiet", "--offline", "--package", "sidestream-sim"])
            .args(["--bin", "simulate", "--target-dir"])
            .arg(self.root.join("target"))
            .env("RUSTFLAGS", "-Awarnings")
            .current_dir(&self.root);
        let output = finish(command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    }

    /// Runs the simulator with one of the bugs, or with none.
    pub(crate) fn simulate(&self, bug: Option<&Bug>, seeds: &str) -> Output {
        let mut command = Command::new(self.root.join("target/debug/simulate"));
        let first = bug.map_or("0", |bug| &bug.first);
        command.args([seeds, first]).env("TRACE_LINES", "0").env_remove(schemata::SWITCH);
        command.envs(bug.map(|bug| (schemata::SWITCH, &bug.name)));
        finish(command)
    }
}

/// The sources as they are.
fn sources() -> Sources {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut sources = BTreeMap::new();
    for folder in FOLDERS {
        read_all(&repository, folder, &mut sources);
    }
    for file in ["agent/core/Cargo.toml", "tests/sim/Cargo.toml", "Cargo.lock"] {
        sources.insert(file.to_owned(), fs::read_to_string(repository.join(file)).unwrap());
    }
    let manifest = fs::read_to_string(repository.join("Cargo.toml")).unwrap();
    sources.insert("Cargo.toml".to_owned(), small_manifest(&manifest));
    sources
}

fn read_all(repository: &Path, folder: &str, sources: &mut Sources) {
    for entry in fs::read_dir(repository.join(folder)).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            read_all(repository, &name, sources);
        } else {
            sources.insert(name, fs::read_to_string(entry.path()).unwrap());
        }
    }
}

/// A workspace of the core and the simulator alone. Hardly optimised: most bugs are found by the
/// first seeds.
fn small_manifest(manifest: &str) -> String {
    let package = manifest.split("[workspace.package]").nth(1).unwrap();
    let package = package.split("\n[").next().unwrap();
    let needed = ["indexmap", "proc-macro2", "sidestream-core", "syn", "thiserror"];
    let is_needed = |line: &&str| needed.iter().any(|name| line.starts_with(&format!("{name} =")));
    let dependencies: Vec<&str> = manifest.lines().filter(is_needed).collect();
    format!(
        "[workspace]\nresolver = \"3\"\nmembers = [\"agent/core\", \"tests/sim\"]\n\n\
         [workspace.package]{package}\n[workspace.dependencies]\n{}\n\n\
         [workspace.lints]\n\n[profile.dev]\nopt-level = 1\ndebug = false\n",
        dependencies.join("\n")
    )
}

/// Runs a command to its end, or kills it when it takes too long.
fn finish(mut command: Command) -> Output {
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it can be started");
    let mut stderr = child.stderr.take().unwrap();
    let (said, heard) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        // Ends when the process does; a test that has failed meanwhile hears it no more.
        let read = std::io::Read::read_to_end(&mut stderr, &mut text);
        read.is_ok_and(|_| said.send(text).is_ok())
    });
    let stderr = heard.recv_timeout(TIME_MAX).unwrap_or_else(|_| {
        child.kill().unwrap();
        b"it took too long".to_vec()
    });
    Output { status: child.wait().unwrap(), stdout: Vec::new(), stderr }
}
