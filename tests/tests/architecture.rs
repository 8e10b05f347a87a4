//! Who may name whom, how large files may be, and what must not be in the repository: held against
//! the sources as they are.

#![allow(clippy::print_stderr, reason = "a warning about a file's size is for whoever runs this")]

#[path = "architecture/circles.rs"]
mod circles;
#[path = "architecture/source.rs"]
mod source;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use circles::circles;
use source::{File, files};

/// The rooms of `agent/src`, and which others each may name.
const ROOMS: &[(&str, &[&str])] = &[
    ("kafka", &["crash_point", "doing", "lock"]),
    ("state", &["lock", "private"]),
    ("guest", &["lock", "private"]),
    ("crash_point", &[]),
    ("lock", &[]),
    ("private", &[]),
    ("config", &[]),
    ("control", &["config", "lock"]),
    ("plan", &["config"]),
    ("telemetry", &["lock"]),
    ("doing", &[]),
    ("settings", &["config", "guest", "kafka", "plan", "state"]),
    (
        "modules",
        &[
            "config",
            "control",
            "doing",
            "guest",
            "lock",
            "plan",
            "private",
            "settings",
            "telemetry",
        ],
    ),
    ("runtime", &["control", "doing", "kafka", "lock", "modules", "state", "telemetry"]),
    ("rollout", &["config", "control", "guest", "lock", "modules", "runtime"]),
    ("operator", &["control", "rollout", "runtime", "state", "telemetry"]),
    ("dead_letters", &["config", "kafka", "plan", "settings"]),
    (
        "app",
        &[
            "config",
            "control",
            "dead_letters",
            "guest",
            "kafka",
            "modules",
            "operator",
            "plan",
            "rollout",
            "runtime",
            "settings",
            "state",
            "telemetry",
        ],
    ),
    ("cli", &["app", "config", "control", "dead_letters", "plan", "telemetry"]),
];

/// The rooms of `agent/core/src`, likewise.
const CORE_ROOMS: &[(&str, &[&str])] = &[
    ("column", &[]),
    ("partitioner", &[]),
    ("record", &["column"]),
    ("topology", &["record"]),
    ("task", &["column", "partitioner", "record", "topology"]),
    ("ports", &["record", "task", "topology"]),
    ("worker", &["column", "ports", "record", "task", "topology"]),
];

/// Circles of files that there are all the same: what the paths of all their files begin with.
const CIRCLES: &[&[&str]] = &[
    // A transaction has the membership that its offsets need; a source that commits fails as a sink.
    &["agent/core/src/ports/sink.rs", "agent/core/src/ports/source.rs"],
    // A turn hands its task, the parts of it, its failures and their divisions to one another.
    &["agent/core/src/task/"],
    // The steps of a start, each of which begins the next.
    &[
        "agent/core/src/worker/check.rs",
        "agent/core/src/worker/restore.rs",
        "agent/core/src/worker/start.rs",
    ],
    // A verb has arguments of its own, and gets those of every verb.
    &["agent/src/cli/arguments.rs", "agent/src/cli/dev_broker.rs"],
    // Uploads go to the service, which tells of those that are too large in their words.
    &["agent/src/control/service.rs", "agent/src/control/uploads.rs"],
    // Whatever a module calls gets its host, which has the parts of each.
    &["agent/src/guest/"],
    // A property is tried on a client's settings, which say what is expected of one.
    &["agent/src/kafka/native/client.rs", "agent/src/kafka/native/properties.rs"],
    // The calls of an instance are noted where the worker keeps its code.
    &["agent/src/modules/code.rs", "agent/src/modules/measured.rs"],
    // A task opens its stores for those who read beside it, who find them by their task.
    &["agent/src/state/"],
];

/// Libraries that belong to one room of `agent/src` each.
const LIBRARIES: &[(&str, &str)] = &[
    ("rdkafka", "kafka"),
    ("rdkafka_sys", "kafka"),
    ("rocksdb", "state"),
    ("wasmparser", "guest"),
    ("wasmtime", "guest"),
    ("wasmtime_wasi", "guest"),
    ("wasmtime_wasi_io", "guest"),
    ("serde_saphyr", "config"),
    // Whoever else needs to serve or to ask goes through the control room.
    ("tonic", "control"),
    ("tonic_health", "control"),
    ("tonic_reflection", "control"),
    ("tonic_prost", "control"),
    ("prost", "control"),
    ("axum", "control"),
    ("hyper_util", "control"),
    ("tokio_rustls", "control"),
    ("clap", "cli"),
    ("indicatif", "cli"),
];

/// What the core may name beside itself and the standard library.
const CORE_LIBRARIES: &[&str] = &["indexmap", "thiserror"];

/// Parts of the standard library that would make the core see or do something outside of it, or
/// make two runs differ.
const CORE_NEVER: &[&[&str]] = &[
    &["std", "env"],
    &["std", "fs"],
    &["std", "io"],
    &["std", "net"],
    &["std", "process"],
    &["std", "sync", "Condvar"],
    &["std", "sync", "LazyLock"],
    &["std", "sync", "Mutex"],
    &["std", "sync", "OnceLock"],
    &["std", "sync", "RwLock"],
    &["std", "sync", "atomic"],
    &["std", "sync", "mpsc"],
    &["std", "thread"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["std", "collections", "HashMap"],
    &["std", "collections", "HashSet"],
    &["std", "hash", "RandomState"],
];

/// Crates of the workspace (and the SDK), and which of the others each may name.
const CRATES: &[(&str, &[&str])] = &[
    ("agent/core", &[]),
    ("agent/dev-broker", &[]),
    ("agent", &["sidestream_core", "sidestream_dev_broker"]),
    ("sdk/rust", &[]),
    ("tests/fuzz", &["sidestream", "sidestream_core", "sidestream_dev_broker"]),
    ("tests/sim", &["sidestream_core"]),
    ("tests/verifier", &[]),
    (
        "tests",
        &[
            "sidestream",
            "sidestream_core",
            "sidestream_dev_broker",
            "sidestream_sim",
            "sidestream_verifier",
        ],
    ),
];

/// Where unsafe code may be, each file saying why.
const UNSAFE: &[&str] = &["agent/src/kafka/", "agent/src/guest/", "sdk/rust/"];

/// Lines of a Rust file above which the test warns, and above which it fails.
const LINES_WARN: usize = 500;
const LINES_MAX: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of it").to_owned()
}

/// Fails with every complaint at once.
fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn rust_files() -> Vec<File> {
    files(&root()).into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

/// The Rust files of a crate, without those of crates in folders below it.
fn crate_files(folder: &str) -> Vec<File> {
    let inner = |path: &str| {
        CRATES.iter().any(|(other, _)| {
            other.len() > folder.len()
                && other.starts_with(folder)
                && path.starts_with(&format!("{other}/"))
        })
    };
    let mut files = rust_files();
    files.retain(|file| file.path.starts_with(&format!("{folder}/")) && !inner(&file.path));
    files
}

/// The room of a file: the first folder below `source`, or the file beside `lib.rs`.
fn room<'a>(path: &'a str, source: &str) -> Option<&'a str> {
    let first = path.strip_prefix(source)?.trim_start_matches('/').split('/').next()?;
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(room, "lib" | "main")).then_some(room)
}

#[test]
fn rooms_name_only_whom_they_may() {
    let mut complaints = Vec::new();
    for (folder, rooms) in [("agent", ROOMS), ("agent/core", CORE_ROOMS)] {
        let source = format!("{folder}/src");
        for file in crate_files(folder) {
            let Some(own) = room(&file.path, &source) else { continue };
            let Some((_, allowed)) = rooms.iter().find(|(name, _)| *name == own) else {
                complaints.push(format!("{}: room `{own}` is not in the table", file.path));
                continue;
            };
            for named in file.crate_modules(&source) {
                let known = rooms.iter().any(|(name, _)| *name == named);
                if known && named != own && !allowed.contains(&named.as_str()) {
                    complaints.push(format!("{}: `{own}` must not name `{named}`", file.path));
                }
            }
        }
    }
    none(&complaints);
}

#[test]
fn files_name_one_another_in_no_circle() {
    let mut complaints = Vec::new();
    let mut gone: BTreeSet<_> = CIRCLES.iter().collect();
    for folder in ["agent", "agent/core"] {
        for circle in circles(&crate_files(folder), &format!("{folder}/src")) {
            let within = |known: &[&str]| {
                circle.iter().all(|path| known.iter().any(|start| path.starts_with(start)))
            };
            match CIRCLES.iter().find(|known| within(known)) {
                Some(known) => _ = gone.remove(known),
                None => complaints.push(format!("a circle: {}", circle.join(", "))),
            }
        }
    }
    complaints.extend(gone.iter().map(|known| {
        format!("{}: no circle any more, so it is to leave the table", known.join(", "))
    }));
    none(&complaints);
}

#[test]
fn a_library_has_one_room() {
    let mut complaints = Vec::new();
    for file in crate_files("agent") {
        // The binary and the library's root name rooms, and no library of theirs.
        let own = room(&file.path, "agent/src").unwrap_or("the root");
        if file.path.starts_with("agent/tests/") {
            continue;
        }
        for first in file.first_segments() {
            let owner = LIBRARIES.iter().find(|(library, _)| *library == first);
            if let Some((library, owner)) = owner.filter(|(_, owner)| *owner != own) {
                complaints.push(format!("{}: only `{owner}` names {library}", file.path));
            }
        }
    }
    none(&complaints);
}

#[test]
fn the_core_is_pure() {
    let libraries: BTreeSet<_> = LIBRARIES.iter().map(|(library, _)| *library).collect();
    let mut complaints = Vec::new();
    for file in crate_files("agent/core") {
        for path in file.paths() {
            for never in CORE_NEVER {
                if path.len() >= never.len() && path.iter().zip(*never).all(|(a, b)| a == b) {
                    complaints.push(format!("{}: {}", file.path, never.join("::")));
                }
            }
            if libraries.contains(path[0].as_str()) {
                complaints.push(format!("{}: {}", file.path, path[0]));
            }
        }
        for word in ["async", "await", "println", "HashMap", "HashSet", "Instant", "SystemTime"] {
            if file.identifiers().contains(word) {
                complaints.push(format!("{}: {word}", file.path));
            }
        }
    }
    let manifest = std::fs::read_to_string(root().join("agent/core/Cargo.toml")).unwrap();
    for dependency in source::dependencies(&manifest) {
        if !CORE_LIBRARIES.contains(&dependency.as_str()) {
            complaints.push(format!("agent/core/Cargo.toml: {dependency}"));
        }
    }
    none(&complaints);
}

#[test]
fn crates_name_only_whom_they_may() {
    let ours = [
        "sidestream",
        "sidestream_core",
        "sidestream_dev_broker",
        "sidestream_sim",
        "sidestream_verifier",
    ];
    let mut complaints = Vec::new();
    for (folder, allowed) in CRATES {
        let own = match *folder {
            "agent" => "sidestream".to_owned(),
            "agent/core" => "sidestream_core".to_owned(),
            "agent/dev-broker" => "sidestream_dev_broker".to_owned(),
            other => format!("sidestream_{}", other.trim_start_matches("tests/")),
        };
        for file in crate_files(folder) {
            for first in file.first_segments() {
                let other = ours.contains(&first.as_str()) && first != own;
                if other && !allowed.contains(&first.as_str()) {
                    complaints.push(format!("{}: `{folder}` must not name `{first}`", file.path));
                }
            }
        }
    }
    none(&complaints);
}

#[test]
fn unsafe_code_stays_where_it_is_argued() {
    let mut complaints = Vec::new();
    for file in rust_files() {
        let allowed = UNSAFE.iter().any(|folder| file.path.starts_with(folder));
        if file.identifiers().contains("unsafe") && !allowed && !file.generated() {
            complaints.push(format!("{}: unsafe code", file.path));
        }
    }
    none(&complaints);
}

#[test]
fn files_are_small() {
    let mut complaints = Vec::new();
    for file in rust_files().iter().filter(|file| !file.generated()) {
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            complaints.push(format!("{}: {lines} lines, at most {LINES_MAX}", file.path));
        } else if lines > LINES_WARN {
            eprintln!(
                "warning: {} has {lines} lines; split it by idea before {LINES_MAX}",
                file.path
            );
        }
    }
    none(&complaints);
}

/// Marks of unfinished work, tests that are switched off, and paths of one machine.
#[test]
fn nothing_is_left_lying_about() {
    let join = |a: &str, b: &str| format!("{a}{b}");
    // Joined here, so that this file does not complain about itself.
    let never = [
        join("TO", "DO"),
        join("FIX", "ME"),
        join("XX", "X"),
        join("#[ig", "nore"),
        join("todo", "!("),
        join("unimplemented", "!("),
        join("/ro", "ot/"),
        join("/ho", "me/"),
        join("/wo", "rk/"),
        join("/Us", "ers/"),
    ];
    let mut complaints = Vec::new();
    for file in files(&root()) {
        if matches!(file.path.as_str(), "LICENSE" | "Cargo.lock") || file.generated() {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            for word in never.iter().filter(|word| line.contains(word.as_str())) {
                complaints.push(format!("{}:{}: {word}", file.path, number + 1));
            }
        }
    }
    none(&complaints);
}

#[test]
fn the_dev_script_names_no_registry() {
    let hosts = ["crates.io", "maven.org", "maven.apache.org", "npmjs.org", "pypi.org"];
    let script = std::fs::read_to_string(root().join("dev")).unwrap();
    let complaints: Vec<_> = hosts.iter().filter(|host| script.contains(**host)).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// Whatever a mirror may hand out: jars and packages of other languages have the digests known here.
/// What cargo and apt fetch is checked by them.
#[test]
fn what_is_fetched_for_tests_has_known_digests() {
    let script = std::fs::read_to_string(root().join("dev")).unwrap();
    let version = script.split("KAFKA_VERSION:-").nth(1).unwrap().split('}').next().unwrap();
    let lines = script.lines().map(str::trim);
    for line in lines.clone().filter(|line| line.contains("kafka_jars kafka")) {
        let mut words = line.split("kafka_jars ").nth(1).unwrap().split(' ');
        let (artifact, of) = (words.next().unwrap(), words.next().unwrap());
        let of = of.replace("\"$KAFKA_VERSION\"", version);
        let list = root().join(format!("tests/jars/{artifact}-{of}.sha256"));
        let list = std::fs::read_to_string(&list).unwrap_or_else(|e| panic!("{list:?}: {e}"));
        assert!(list.lines().count() > 10, "{list}");
        for line in list.lines() {
            let (digest, name) = line.split_once("  ").unwrap();
            assert!(is_digest(digest) && name.ends_with(".jar"), "{line}");
        }
    }
    for line in lines.filter(|line| line.contains("pip\" install")) {
        assert!(line.contains("--require-hashes"), "{line}");
    }
    let requirements = std::fs::read_dir(root().join("tests/requirements")).unwrap();
    for file in requirements.map(|file| file.unwrap().path()) {
        for package in std::fs::read_to_string(file).unwrap().replace("\\\n", "").lines() {
            let mut words = package.split_whitespace();
            if package.starts_with('#') {
                continue;
            }
            assert!(words.next().unwrap().contains("=="), "{package}");
            let digests: Vec<&str> =
                words.map(|word| word.strip_prefix("--hash=sha256:").unwrap()).collect();
            assert!(!digests.is_empty() && digests.iter().all(|of| is_digest(of)), "{package}");
        }
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Built as a release of the agent is, without the feature that the tests switch on.
#[test]
fn a_release_has_no_points_at_which_it_can_be_made_to_die() {
    let manifest = std::fs::read_to_string(root().join("agent/Cargo.toml")).unwrap();
    assert!(manifest.contains("\ncrash-points = []\n"), "{manifest}");
    assert!(!manifest.contains("\ndefault = "), "a release has no feature: {manifest}");
    let folder = tempfile::tempdir().unwrap();
    let has_switch = |cfg: &[&str]| {
        let object = folder.path().join("crash_point.o");
        let compiled = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()))
            .args(["--edition", "2024", "--crate-type", "lib", "--emit", "obj", "-o"])
            .arg(&object)
            .args(cfg)
            .arg(root().join("agent/src/crash_point.rs"))
            .status()
            .unwrap();
        assert!(compiled.success());
        let switch = b"SIDESTREAM_CRASH_AT";
        std::fs::read(&object).unwrap().windows(switch.len()).any(|bytes| bytes == switch)
    };
    assert!(has_switch(&["--cfg", "feature=\"crash-points\""]));
    assert!(!has_switch(&[]));
}
