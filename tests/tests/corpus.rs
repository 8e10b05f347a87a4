//! What the fuzz targets of `tests/fuzz` were begun with, and what they have found: each file is tried
//! again. `./dev fuzz` looks for more.

#![allow(clippy::panic, reason = "helpers of tests are tests")]
#![allow(clippy::print_stdout, reason = "which file it was is for whoever sees it fail")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Takes bytes, and panics if what must hold does not.
type Function = fn(&[u8]);

/// The targets, by the names of their files and folders.
const TARGETS: [(&str, Function); 6] = [
    ("answer", sidestream::guest::fuzz::answer),
    ("frames", sidestream_dev_broker::fuzz::frames),
    ("metadata", sidestream_core::task::fuzz::metadata),
    ("pipeline", sidestream::config::fuzz::pipeline),
    ("position", sidestream::state::fuzz::position),
    ("request", sidestream::control::fuzz::request),
];

/// How large a file of the corpus may be: it is kept for ever.
const FILE_BYTES_MAX: usize = 64 << 10;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The names in a folder, without the given end.
fn names(folder: &Path, end: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{} can't be read: {error}", folder.display()));
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("a name is UTF-8");
    let names = entries.map(|entry| name(entry.expect("an entry of the folder")));
    names.filter_map(|name| name.strip_suffix(end).map(str::to_owned)).collect()
}

/// Tries every file of a target.
fn check(target: &str) {
    let (_, function) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    let folder = fuzz().join("corpus").join(target);
    let files = names(&folder, "");
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        // Said if it fails; a crash without a word is told by the last line.
        println!("{target}/{file}");
        let bytes = fs::read(folder.join(&file)).expect("a file of the corpus");
        assert!(bytes.len() <= FILE_BYTES_MAX, "{file} has {} bytes: make it smaller", bytes.len());
        function(&bytes);
    }
}

#[test]
fn what_guests_answer() {
    check("answer");
}

#[test]
fn frames_of_the_embedded_broker() {
    check("frames");
}

#[test]
fn metadata_of_offsets() {
    check("metadata");
}

#[test]
fn pipeline_files() {
    check("pipeline");
}

#[test]
fn positions_of_stores() {
    check("position");
}

#[test]
fn requests_to_the_control_service() {
    check("request");
}

/// A target that is fuzzed is tried here too, and has a corpus.
#[test]
fn every_target_is_here() {
    let here: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz().join("fuzz_targets"), ".rs"), here);
    assert_eq!(names(&fuzz().join("corpus"), ""), here);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("the manifest");
    for name in &here {
        assert!(manifest.contains(&format!("\nname = \"{name}\"\n")), "{name} is not built");
    }
}
