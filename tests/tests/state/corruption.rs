//! Damaged files: found, said, set aside, never believed.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use sidestream_core::{record::Changes, task::StoreError};
use tempfile::TempDir;

use crate::{KEYS, TASK, agent, all, check_counts, count, offset, open, position, stores_named};

/// How many changes are in tables.
const IN_TABLES: i64 = 2 * KEYS;
/// How many more are in the log.
const IN_LOG: i64 = 20;

/// A state directory with state in tables and in the log.
fn counted() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let agent = agent(folder.path());
    let mut opened = open(&agent);
    for i in 0..IN_TABLES {
        count(&mut *opened.store, i).unwrap();
    }
    drop(opened);
    // To empty one store writes all others into tables.
    let mut opened = agent.open(TASK, &stores_named(&["counts", "marks", "gone"])).unwrap();
    let mut changes = vec![Changes::default(); 3];
    changes[2].keys.push(Some(b"key"));
    changes[2].values.push(Some(b"value"));
    opened.store.apply(&changes, &position(IN_TABLES, 3)).unwrap();
    opened.store.reset(2).unwrap();
    drop(opened);
    let mut opened = open(&agent);
    for i in IN_TABLES..IN_TABLES + IN_LOG {
        count(&mut *opened.store, i).unwrap();
    }
    opened.store.flush().unwrap();
    folder
}

fn application(folder: &Path) -> PathBuf {
    folder.join("test")
}

/// The files of the task whose names contain `part`, in the order of their names.
fn files(folder: &Path, part: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(application(folder).join("0_3")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_str().unwrap().contains(part));
    files.sort();
    files
}

/// Turns a byte around in every `step` bytes, from `first` on.
fn flip(path: &Path, first: u64, step: usize) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    for at in (first..length).step_by(step) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
    }
}

fn set_aside(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(application(folder)).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.contains("corrupt"));
    names.sort();
    names
}

/// Opens what is damaged: it must be set aside and begin anew, and work.
fn check_rebuilt_at_open(folder: &Path, what: &str) {
    let agent = agent(folder);
    let mut opened = open(&agent);
    assert!(opened.rebuilt.is_some(), "{what}");
    assert_eq!(offset(&*opened.store), 0, "{what}");
    assert_eq!(set_aside(folder), ["0_3.corrupt-1"], "{what}");
    for i in 0..10 {
        count(&mut *opened.store, i).unwrap();
    }
    check_counts(&*opened.store).unwrap();
}

#[test]
fn a_damaged_current_or_manifest_is_found_at_open() {
    for part in ["CURRENT", "MANIFEST"] {
        let folder = counted();
        for file in files(folder.path(), part) {
            flip(&file, 3, 7);
        }
        check_rebuilt_at_open(folder.path(), part);
    }
}

#[test]
fn a_missing_file_is_found_at_open() {
    for part in ["CURRENT", "MANIFEST", ".sst"] {
        let folder = counted();
        fs::remove_file(&files(folder.path(), part)[0]).unwrap();
        check_rebuilt_at_open(folder.path(), part);
    }
}

#[test]
fn a_truncated_table_is_found_at_open() {
    let folder = counted();
    let table = fs::File::options().write(true).open(&files(folder.path(), ".sst")[0]).unwrap();
    table.set_len(table.metadata().unwrap().len() / 2).unwrap();
    check_rebuilt_at_open(folder.path(), "a table");
}

#[test]
fn a_damaged_table_is_found_by_reading_and_set_aside_by_the_reset() {
    let folder = counted();
    let tables = files(folder.path(), ".sst");
    assert!(!tables.is_empty());
    for table in tables {
        flip(&table, 100, 256);
    }
    let agent = agent(folder.path());
    let mut opened = open(&agent);
    if opened.rebuilt.is_none() {
        let error = opened.store.scan(0, &all()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { store: None, .. }), "{error}");
        for store in 0..2 {
            opened.store.reset(store).unwrap();
        }
    }
    assert_eq!(set_aside(folder.path()), ["0_3.corrupt-1"]);
    assert_eq!(offset(&*opened.store), 0);
    count(&mut *opened.store, 0).unwrap();
    check_counts(&*opened.store).unwrap();
}

#[test]
fn damage_under_a_running_agent_is_found_by_each_way_to_read() {
    for way in 0..3 {
        let folder = counted();
        let agent = agent(folder.path());
        let mut opened = open(&agent);
        for table in files(folder.path(), ".sst") {
            flip(&table, 50, 128);
        }
        // What is still in a memtable is read without looking at the tables: ask for all.
        let keys: Vec<_> = (0..KEYS).map(i64::to_be_bytes).collect();
        let column = keys.iter().map(|key| Some(key.as_slice())).collect();
        let error = match way {
            0 => keys.iter().find_map(|key| opened.store.get(0, key).err()),
            1 => opened.store.get_many(0, &column).err(),
            _ => opened.store.scan(0, &all()).err(),
        };
        assert!(matches!(error, Some(StoreError::Corrupt { .. })), "{way}: {error:?}");
        // A worker that gives the task back before the reset: the next one is told.
        drop(opened);
        opened = open(&agent);
        assert!(opened.rebuilt.is_some());
        assert_eq!(offset(&*opened.store), 0);
    }
}

#[test]
fn only_the_newest_damaged_databases_are_kept() {
    let folder = counted();
    for round in 0..4 {
        flip(&files(folder.path(), "MANIFEST")[0], 3, 7);
        let agent = agent(folder.path());
        let mut opened = open(&agent);
        assert!(opened.rebuilt.is_some(), "{round}");
        count(&mut *opened.store, 0).unwrap();
    }
    assert_eq!(set_aside(folder.path()), ["0_3.corrupt-3", "0_3.corrupt-4"]);
}

/// One byte turned around anywhere: either it is found, or it did no harm; a log may end there.
#[test]
fn no_single_byte_makes_wrong_state() {
    let folder = counted();
    let names: Vec<_> = files(folder.path(), "");
    for (round, file) in (0u64..).zip(names.iter().cycle().take(60)) {
        let content = fs::read(file).unwrap();
        if content.is_empty() {
            continue;
        }
        let copy = tempfile::tempdir().unwrap();
        let task = application(copy.path()).join("0_3");
        fs::create_dir_all(&task).unwrap();
        for other in &names {
            fs::copy(other, task.join(other.file_name().unwrap())).unwrap();
        }
        let at = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % content.len() as u64;
        flip(&task.join(file.file_name().unwrap()), at, content.len());
        let agent = agent(copy.path());
        let opened = open(&agent);
        match check_counts(&*opened.store) {
            Ok(()) | Err(StoreError::Corrupt { .. }) => {}
            Err(error) => panic!("byte {at} of {}: {error}", file.display()),
        }
    }
}
