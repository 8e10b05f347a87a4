//! The simulator is only worth as much as the bugs it finds: each file of `bugs` breaks one rule
//! by a small change to a copy of the source, and two thousand seeds must find it.

#![allow(clippy::unwrap_used, reason = "a harness that breaks fails its test")]
#![allow(clippy::print_stderr, reason = "progress of a long test")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// The seeds within which a bug must be found.
const SEEDS: &str = "2000";

/// How many copies of the source are built side by side.
const COPIES: usize = 2;

/// How long a build or a search may take.
const TIME_MAX: Duration = Duration::from_secs(900);

/// A change that breaks a rule.
struct Bug {
    name: String,
    why: String,
    changes: Vec<Change>,
}

/// A replacement of a text that is there exactly once.
struct Change {
    file: String,
    find: String,
    replace: String,
}

/// Reads a bug: `why:`, then for each change `file:`, `<<<<`, what to find, `====`, what to put
/// in its place, `>>>>`.
fn parse(name: String, text: &str) -> Bug {
    let mut bug = Bug { name, why: String::new(), changes: Vec::new() };
    let mut file = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(why) = line.strip_prefix("why: ") {
            why.clone_into(&mut bug.why);
        } else if let Some(path) = line.strip_prefix("file: ") {
            path.clone_into(&mut file);
        } else if line == "<<<<" {
            let mut until = |end: &str| {
                let lines: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
                lines.join("\n")
            };
            let (find, replace) = (until("===="), until(">>>>"));
            bug.changes.push(Change { file: file.clone(), find, replace });
        }
    }
    assert!(!bug.why.is_empty() && !bug.changes.is_empty(), "{} is not a bug", bug.name);
    bug
}

/// All bugs, or only those that `BUGS` names (parts of names, with commas).
fn bugs() -> Vec<Bug> {
    let only = env::var("BUGS").unwrap_or_default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bugs");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            parse(name, &fs::read_to_string(path).unwrap())
        })
        .filter(|bug| only.is_empty() || only.split(',').any(|name| bug.name.contains(name)))
        .collect()
}

/// A copy of the core and the simulator, with a target folder of its own.
struct Copy {
    root: PathBuf,
    sources: BTreeMap<String, String>,
}

impl Copy {
    /// Copies the sources; what has not changed since the last time is left as it is, so that it
    /// isn't built again.
    fn new(number: usize) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("planted-bugs-{number}"));
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut sources = BTreeMap::new();
        for folder in ["agent/core/src", "tests/sim/src"] {
            read_all(&repository, folder, &mut sources);
        }
        for file in ["agent/core/Cargo.toml", "tests/sim/Cargo.toml", "Cargo.lock"] {
            sources.insert(file.to_owned(), fs::read_to_string(repository.join(file)).unwrap());
        }
        let manifest = fs::read_to_string(repository.join("Cargo.toml")).unwrap();
        sources.insert("Cargo.toml".to_owned(), small_manifest(&manifest));
        for folder in ["agent/core/src", "tests/sim/src"] {
            remove_others(&root, folder, &sources);
        }
        let copy = Self { root, sources };
        for (file, text) in &copy.sources {
            copy.write(file, text);
        }
        copy
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.root.join(file);
        if fs::read_to_string(&path).is_ok_and(|before| before == text) {
            return;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The sources with a bug in them.
    fn broken(&self, bug: &Bug) -> Result<BTreeMap<String, String>, String> {
        let mut broken: BTreeMap<String, String> = BTreeMap::new();
        for Change { file, find, replace } in &bug.changes {
            let original = self.sources.get(file).ok_or_else(|| format!("there is no {file}"))?;
            let text = broken.entry(file.clone()).or_insert_with(|| original.clone());
            let places = text.matches(find.as_str()).count();
            if places != 1 {
                return Err(format!("{file} has this {places} times, not once:\n{find}"));
            }
            *text = text.replacen(find.as_str(), replace, 1);
        }
        Ok(broken)
    }

    fn build(&self) -> Result<(), String> {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(["build", "--quiet", "--offline", "--package", "sidestream-sim"])
            .args(["--bin", "simulate", "--target-dir"])
            .arg(self.root.join("target"))
            .env("CARGO_INCREMENTAL", "1")
            .env("RUSTFLAGS", "-Awarnings")
            .current_dir(&self.root);
        let output = finish(command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    }

    fn simulate(&self, seeds: &str) -> Output {
        let mut command = Command::new(self.root.join("target/debug/simulate"));
        command.arg(seeds).env("TRACE_LINES", "0");
        finish(command)
    }

    /// Plants a bug, looks for it, takes it away. Says which seed found it.
    fn hunt(&self, bug: &Bug) -> Result<String, String> {
        for (file, text) in &self.broken(bug)? {
            self.write(file, text);
        }
        let built = self.build();
        let output = built.map(|()| self.simulate(SEEDS));
        for change in &bug.changes {
            self.write(&change.file, &self.sources[&change.file]);
        }
        let output = output.map_err(|said| format!("it does not compile:\n{said}"))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(1) => {
                let found = said.lines().find(|line| line.starts_with("seed "));
                Ok(found.unwrap_or("no seed").to_owned())
            }
            Some(0) => Err("it was not found".to_owned()),
            _ => Err(format!("the simulator broke: {said}")),
        }
    }
}

fn read_all(repository: &Path, folder: &str, sources: &mut BTreeMap<String, String>) {
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

/// Removes files that an earlier copy had and this one has not.
fn remove_others(root: &Path, folder: &str, sources: &BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            remove_others(root, &name, sources);
        } else if !sources.contains_key(&name) {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// A workspace of the core and the simulator alone. Not optimised: most bugs are found by the
/// first seeds, so that building takes longer than looking.
fn small_manifest(manifest: &str) -> String {
    let package = manifest.split("[workspace.package]").nth(1).unwrap();
    let package = package.split("\n[").next().unwrap();
    let needed = ["indexmap", "thiserror", "sidestream-core"];
    let is_needed = |line: &&str| needed.iter().any(|name| line.starts_with(&format!("{name} =")));
    let dependencies: Vec<&str> = manifest.lines().filter(is_needed).collect();
    format!(
        "[workspace]\nresolver = \"3\"\nmembers = [\"agent/core\", \"tests/sim\"]\n\n\
         [workspace.package]{package}\n[workspace.dependencies]\n{}\n\n\
         [workspace.lints]\n\n[profile.dev]\nopt-level = 0\ndebug = false\n",
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

#[test]
fn every_planted_bug_is_found() {
    let lock = fs::File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("planted-bugs.lock"));
    let lock = lock.unwrap();
    lock.lock().unwrap(); // Only one test run at a time works in these folders.
    let (bugs, next) = (bugs(), AtomicUsize::new(0));
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for number in 0..COPIES {
            let (bugs, next, failures) = (&bugs, &next, &failures);
            scope.spawn(move || {
                let copy = Copy::new(number);
                copy.build().expect("the sources as they are can be built");
                assert!(copy.simulate("20").status.success(), "the sources as they are are right");
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let started = Instant::now();
                    let found = copy.hunt(bug);
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
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
