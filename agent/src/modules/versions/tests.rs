//! Versions in real folders.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use super::*;

const OLD: &[u8] = b"the old module";
const NEW: &[u8] = b"the new module";

/// A place for a folder of versions, gone with the test.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("application/modules")
    }

    fn open(&self) -> Versions {
        Versions::open(&self.folder(), 3, None).unwrap()
    }

    fn refused(&self) -> String {
        Versions::open(&self.folder(), 3, None).unwrap_err().to_string()
    }

    fn module(&self, content: &[u8]) -> PathBuf {
        self.folder().join(format!("{}.wasm", Digest::of(content)))
    }

    fn files(&self) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let names = fs::read_dir(self.folder()).unwrap().map(name);
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// What the files are called when these modules are kept.
    fn files_of(&self, modules: &[&[u8]]) -> Vec<String> {
        let name = |content: &&[u8]| format!("{}.wasm", Digest::of(content));
        let mut names: Vec<String> = modules.iter().map(name).collect();
        names.push(INDEX.to_owned());
        names.sort();
        names
    }
}

fn names(versions: &Versions, transform: &str) -> Vec<String> {
    versions.list(transform).into_iter().map(|kept| kept.name).collect()
}

/// What a start does with a module file of this content.
fn start(versions: &Versions, file: &[u8], at_ms: i64) -> Choice {
    let choice = versions.choose("count", file).unwrap();
    match &choice {
        Choice::File | Choice::FileInstead(_) => {
            versions.keep("count", file, "count.wasm", at_ms).unwrap();
            versions.handled("count", Digest::of(file)).unwrap();
        }
        Choice::Kept(_) => {}
        Choice::KeptUntilSwap(_) => {
            swap(versions, file);
            versions.keep("count", file, "count.wasm", at_ms).unwrap();
            versions.handled("count", Digest::of(file)).unwrap();
        }
    }
    choice
}

/// A swap with this module file begins.
fn swap(versions: &Versions, file: &[u8]) {
    versions.begin("count", Digest::of(file)).unwrap();
}

fn kept(content: &[u8], name: &str) -> Choice {
    Choice::Kept(version(content, name))
}

fn kept_until_swap(content: &[u8], name: &str) -> Choice {
    Choice::KeptUntilSwap(version(content, name))
}

fn version(content: &[u8], name: &str) -> Version {
    Version { digest: Digest::of(content), module: content.to_vec(), name: name.to_owned() }
}

#[test]
fn a_restart_goes_on_with_what_was_swapped_in() {
    let place = Place::new();
    let versions = place.open();
    assert_eq!(start(&versions, OLD, 1), Choice::File);
    versions.keep("count", NEW, "new.wasm", 2).unwrap();
    drop(versions);
    let versions = place.open();
    assert_eq!(start(&versions, OLD, 3), kept(NEW, "new.wasm"));
    let since: Vec<i64> = versions.list("count").iter().map(|kept| kept.since_ms).collect();
    assert_eq!(since, [2, 1]);
    assert_eq!(versions.list("count")[1].digest(), Digest::of(OLD));
}

#[test]
fn a_file_that_is_new_is_swapped_in_and_what_ran_before_goes_on_until_then() {
    let place = Place::new();
    let versions = place.open();
    start(&versions, OLD, 1);
    versions.keep("count", NEW, "new.wasm", 2).unwrap();
    let until_swap = kept_until_swap(NEW, "new.wasm");
    assert_eq!(versions.choose("count", b"newer still").unwrap(), until_swap);
    // For example, it was refused.
    versions.handled("count", Digest::of(b"newer still")).unwrap();
    drop(versions);
    let versions = place.open();
    assert_eq!(versions.choose("count", b"newer still").unwrap(), kept(NEW, "new.wasm"));
    // Whoever puts the first one back wants it.
    assert_eq!(start(&versions, OLD, 3), until_swap);
    assert_eq!(names(&versions, "count"), ["count.wasm", "new.wasm"]);
    assert_eq!(versions.choose("count", OLD).unwrap(), Choice::File);
}

#[test]
fn a_rollback_to_the_file_is_possible_after_the_file_was_replaced() {
    let place = Place::new();
    let versions = place.open();
    start(&versions, OLD, 1);
    assert_eq!(start(&versions, NEW, 2), kept_until_swap(OLD, "count.wasm"));
    assert_eq!(versions.read("count", None).unwrap(), version(OLD, "count.wasm"));
    versions.keep("count", OLD, "count.wasm", 3).unwrap();
    assert_eq!(start(&versions, NEW, 4), kept(OLD, "count.wasm"));
    assert_eq!(versions.read("count", None).unwrap().digest, Digest::of(NEW));
}

#[test]
fn the_oldest_versions_make_room_and_their_files_go() {
    let place = Place::new();
    let versions = place.open();
    let modules: [&[u8]; 5] = [b"0", b"1", b"2", b"3", b"4"];
    for (number, module) in modules.iter().enumerate() {
        versions.keep("count", module, &number.to_string(), 0).unwrap();
    }
    assert_eq!(names(&versions, "count"), ["4", "3", "2"]);
    assert_eq!(place.files(), place.files_of(&modules[2..]));
    versions.keep("count", b"2", "2 again", 1).unwrap();
    assert_eq!(names(&versions, "count"), ["2 again", "4", "3"]);
    assert_eq!(place.files(), place.files_of(&modules[2..]));
    // Fewer, by configuration; the running one is always kept.
    drop(versions);
    let versions = Versions::open(&place.folder(), 0, None).unwrap();
    assert_eq!(names(&versions, "count"), ["2 again"]);
    assert_eq!(place.files(), place.files_of(&[b"2"]));
}

#[test]
fn a_file_that_another_transform_runs_stays() {
    let place = Place::new();
    let versions = Versions::open(&place.folder(), 1, None).unwrap();
    versions.keep("count", OLD, "old.wasm", 0).unwrap();
    versions.keep("join", OLD, "old.wasm", 0).unwrap();
    versions.keep("count", NEW, "new.wasm", 1).unwrap();
    assert_eq!(place.files(), place.files_of(&[OLD, NEW]));
    versions.keep("join", NEW, "new.wasm", 1).unwrap();
    assert_eq!(place.files(), place.files_of(&[NEW]));
}

#[test]
fn transforms_are_given_up_only_if_told_so() {
    let place = Place::new();
    let versions = place.open();
    versions.keep("count", OLD, "old.wasm", 0).unwrap();
    versions.keep("join", NEW, "new.wasm", 0).unwrap();
    assert_eq!(names(&place.open(), "join"), ["new.wasm"]);
    let versions = Versions::open(&place.folder(), 3, Some(&["count"])).unwrap();
    assert_eq!(names(&versions, "join"), [""; 0]);
    assert_eq!(names(&versions, "count"), ["old.wasm"]);
    assert_eq!(place.files(), place.files_of(&[OLD]));
}

#[test]
fn a_version_is_found_by_its_first_digits() {
    let place = Place::new();
    let versions = place.open();
    // Of these two, the digests begin with the same digit.
    let (first, second) = (b"13".as_slice(), b"29".as_slice());
    let digits = |content: &[u8]| Digest::of(content).to_string();
    let common = digits(first)[..1].to_owned();
    assert_eq!(common, digits(second)[..1]);
    versions.keep("count", first, "first", 0).unwrap();
    versions.keep("count", second, "second", 1).unwrap();
    let wanted = digits(first)[..8].to_ascii_uppercase();
    assert_eq!(versions.read("count", Some(&wanted)).unwrap(), version(first, "first"));
    assert_eq!(versions.read("count", Some(&digits(second))).unwrap().name, "second");
    assert_eq!(versions.read("count", Some("")).unwrap().name, "first");

    let ambiguous = versions.read("count", Some(&common)).unwrap_err();
    assert!(matches!(ambiguous, Error::Ambiguous { .. }), "{ambiguous}");
    let unknown = versions.read("count", Some("nothing")).unwrap_err();
    assert!(matches!(unknown, Error::Unknown { .. }), "{unknown}");
    for message in [ambiguous.to_string(), unknown.to_string()] {
        for there in [&digits(first)[..12], &digits(second)[..12], "`second`, running"] {
            assert!(message.contains(there), "{message}");
        }
    }
    let none = versions.read("absent", None).unwrap_err().to_string();
    assert!(none.contains("`absent`") && none.contains("kept are none"), "{none}");
}

#[test]
fn a_damaged_module_is_never_used() {
    let place = Place::new();
    let versions = place.open();
    start(&versions, OLD, 1);
    versions.keep("count", b"between", "between.wasm", 1).unwrap();
    versions.keep("count", NEW, "new.wasm", 2).unwrap();
    let path = place.module(NEW);
    for damaged in [b"the NEW module".as_slice(), b"the new", b"the new module and more"] {
        fs::write(&path, damaged).unwrap();
        let message = versions.choose("count", OLD).unwrap_err().to_string();
        for part in [path.to_str().unwrap(), "`new.wasm`", "`count`", "put the right file there"] {
            assert!(message.contains(part), "{message}");
        }
    }
    // A module file that is new takes its place, and what is wrong is said.
    let instead = versions.choose("count", b"newest").unwrap();
    assert_eq!(instead, Choice::FileInstead("it is larger than 14 bytes".to_owned()));
    // The remedies: the right file, or none.
    fs::write(&path, NEW).unwrap();
    assert_eq!(versions.choose("count", OLD).unwrap(), kept(NEW, "new.wasm"));
    fs::remove_file(&path).unwrap();
    assert!(versions.choose("count", OLD).unwrap_err().to_string().contains("it is gone"));
    drop(versions);
    // Not the one before it: nobody has asked for that.
    let versions = place.open();
    assert_eq!(start(&versions, OLD, 3), Choice::FileInstead("its file is gone".to_owned()));
    assert_eq!(names(&versions, "count"), ["count.wasm", "between.wasm"]);
}

#[test]
fn a_module_that_is_swapped_in_again_heals_its_file() {
    let place = Place::new();
    let versions = place.open();
    versions.keep("count", NEW, "new.wasm", 1).unwrap();
    versions.keep("count", OLD, "old.wasm", 2).unwrap();
    fs::write(place.module(NEW), b"damaged").unwrap();
    versions.read("count", None).unwrap_err();
    versions.keep("count", NEW, "new.wasm", 3).unwrap();
    assert_eq!(versions.read("count", Some(&Digest::of(NEW).to_string())).unwrap().module, NEW);
}

#[test]
fn any_damage_of_the_index_is_reported() {
    let place = Place::new();
    let versions = place.open();
    start(&versions, OLD, 1);
    drop(versions);
    let path = place.folder().join(INDEX);
    let sound = fs::read(&path).unwrap();
    let spaces = |byte: u8| byte.is_ascii_whitespace();
    for position in 0..sound.len() {
        if spaces(sound[position]) {
            continue;
        }
        let mut damaged = sound.clone();
        damaged[position] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let message = place.refused();
        assert!(message.contains(path.to_str().unwrap()), "{message}");
        assert!(message.contains("delete it"), "{message}");
    }
    fs::write(&path, &sound[..sound.len() / 2]).unwrap();
    assert!(place.refused().contains("is damaged"));
    // Nothing was deleted meanwhile.
    fs::write(&path, &sound).unwrap();
    assert_eq!(place.open().list("count")[0].digest(), Digest::of(OLD));
    assert_eq!(place.files(), place.files_of(&[OLD]));
}

#[test]
fn an_index_of_the_format_before_is_read() {
    let place = Place::new();
    start(&place.open(), OLD, 1);
    let path = place.folder().join(INDEX);
    let mut index = Index::from_bytes(&fs::read(&path).unwrap()).unwrap();
    index.set_tries("count", Digest::of(NEW), 0);
    let index = String::from_utf8(index.to_bytes()).unwrap();
    assert!(!index.contains("tries"), "{index}");
    fs::write(&path, index.replace("\"version\": 2", "\"version\": 1")).unwrap();
    let versions = place.open();
    assert_eq!(versions.choose("count", NEW).unwrap(), kept_until_swap(OLD, "count.wasm"));
    // Its first try is not known to have been one.
    swap(&versions, NEW);
    assert!(!versions.give_up("count", Digest::of(NEW)).unwrap());
}

#[test]
fn a_newer_index_is_refused_by_its_version() {
    let place = Place::new();
    drop(place.open());
    let newer = br#"{"version": 7, "else": {}}"#;
    fs::write(place.folder().join(INDEX), newer).unwrap();
    let message = place.refused();
    assert!(message.contains("format 7") && message.contains("up to 2"), "{message}");
}

/// What is on disk when a process is killed between the steps of a [`Versions::keep`].
#[test]
fn a_kill_leaves_the_old_index_or_the_new_one() {
    let old = Place::new();
    start(&old.open(), OLD, 1);
    let old_index = fs::read(old.folder().join(INDEX)).unwrap();
    let new_index = {
        let new = Place::new();
        let versions = Versions::open(&new.folder(), 1, None).unwrap();
        start(&versions, OLD, 1);
        versions.keep("count", NEW, "new.wasm", 2).unwrap();
        fs::read(new.folder().join(INDEX)).unwrap()
    };
    let module = format!("{}.wasm", Digest::of(NEW));
    let temporary = format!(".new-{module}");
    // For each step, the files that are there when it was begun and not ended.
    type Files<'a> = &'a [(&'a str, &'a [u8])];
    let steps: [(Files<'_>, bool); 4] = [
        (&[(INDEX, &old_index), (&temporary, b"the new")], false),
        (&[(INDEX, &old_index), (&module, NEW)], false),
        (&[(INDEX, &old_index), (&module, NEW), (".new-index.json", b"{\"vers")], false),
        (&[(INDEX, &new_index), (&module, NEW)], true),
    ];
    for (files, is_new) in steps {
        for (name, content) in files {
            fs::write(old.folder().join(name), content).unwrap();
        }
        fs::write(old.module(OLD), OLD).unwrap();
        let versions = old.open();
        let expected = if is_new { kept(NEW, "new.wasm") } else { Choice::File };
        assert_eq!(versions.choose("count", OLD).unwrap(), expected);
        assert_eq!(old.files(), old.files_of(&[if is_new { NEW } else { OLD }]));
    }
}

#[test]
fn what_can_not_be_written_down_did_not_happen() {
    let place = Place::new();
    let versions = place.open();
    start(&versions, OLD, 1);
    // A folder in its place can't be replaced by a file.
    let path = place.folder().join(INDEX);
    let index = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let message = versions.keep("count", NEW, "new.wasm", 2).unwrap_err().to_string();
    assert!(message.contains("can't write") && message.contains(INDEX), "{message}");
    assert_eq!(names(&versions, "count"), ["count.wasm"]);
    fs::remove_dir(&path).unwrap();
    // Nor is a module named that is not there.
    fs::create_dir(place.module(b"newer")).unwrap();
    versions.keep("count", b"newer", "newer.wasm", 2).unwrap_err();
    assert!(!path.exists());
    fs::remove_dir(place.module(b"newer")).unwrap();
    fs::write(&path, index).unwrap();
    assert_eq!(names(&place.open(), "count"), ["count.wasm"]);
    assert_eq!(place.files(), place.files_of(&[OLD]));
    versions.keep("count", NEW, "new.wasm", 2).unwrap();
    assert_eq!(names(&place.open(), "count"), ["new.wasm", "count.wasm"]);
}

#[test]
fn the_folder_is_private() {
    let place = Place::new();
    let versions = place.open();
    versions.keep("count", NEW, "new.wasm", 1).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&place.folder()), 0o700);
    for file in place.files() {
        assert_eq!(mode(&place.folder().join(file)), 0o600);
    }
    let chmod = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    chmod(&place.module(NEW), 0o620);
    versions.handled("count", Digest::of(OLD)).unwrap();
    let message = versions.choose("count", OLD).unwrap_err().to_string();
    assert!(message.contains("others can write it (mode 620)"), "{message}");
    // As a volume's driver does it: everything is opened to a group. There is no shell in an image.
    chmod(&place.folder(), 0o770);
    chmod(&place.folder().join(INDEX), 0o660);
    let versions = place.open();
    assert_eq!(versions.choose("count", OLD).unwrap(), kept(NEW, "new.wasm"));
    assert_eq!(mode(&place.folder()), 0o700);
    assert_eq!([mode(&place.module(NEW)), mode(&place.folder().join(INDEX))], [0o600; 2]);
    // Somebody else's are shown by root alone.
    if std::os::unix::fs::chown(place.folder(), Some(65_531), None).is_ok() {
        let refused = place.refused();
        assert!(
            refused.contains("belongs to user 65531") && refused.contains("chown"),
            "{refused}"
        );
    }
}

#[test]
fn links_are_not_followed() {
    let place = Place::new();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::create_dir_all(place.folder().parent().unwrap()).unwrap();
    symlink(elsewhere.path(), place.folder()).unwrap();
    assert!(place.refused().contains("links are not followed"));
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    fs::remove_file(place.folder()).unwrap();
    fs::write(place.folder(), "a file").unwrap();
    assert!(place.refused().contains("can't hold the versions"));
    fs::remove_file(place.folder()).unwrap();

    let versions = place.open();
    start(&versions, OLD, 1);
    versions.keep("count", NEW, "new.wasm", 2).unwrap();
    fs::rename(place.module(NEW), elsewhere.path().join("new.wasm")).unwrap();
    symlink(elsewhere.path().join("new.wasm"), place.module(NEW)).unwrap();
    assert!(versions.choose("count", OLD).unwrap_err().to_string().contains("not a file"));
}

#[test]
fn a_file_whose_swap_ended_the_process_twice_is_given_up() {
    let place = Place::new();
    let (new, until_swap) = (Digest::of(NEW), kept_until_swap(OLD, "count.wasm"));
    start(&place.open(), OLD, 1);
    for _ in 0..2 {
        let versions = place.open();
        assert!(!versions.give_up("count", new).unwrap());
        assert_eq!(versions.choose("count", NEW).unwrap(), until_swap);
        swap(&versions, NEW);
    }
    let versions = place.open();
    assert!(versions.give_up("count", new).unwrap());
    assert_eq!(versions.choose("count", NEW).unwrap(), kept(OLD, "count.wasm"));
    // It is told once, and another content begins anew.
    drop(versions);
    let versions = place.open();
    assert!(!versions.give_up("count", new).unwrap());
    assert_eq!(versions.choose("count", NEW).unwrap(), kept(OLD, "count.wasm"));
    swap(&versions, b"newer");
    swap(&versions, NEW);
    assert!(!versions.give_up("count", new).unwrap());
    versions.handled("count", new).unwrap();
    swap(&versions, NEW);
    assert!(!versions.give_up("count", new).unwrap());
}

#[test]
fn stops_in_good_order_do_not_count() {
    let place = Place::new();
    let new = Digest::of(NEW);
    start(&place.open(), OLD, 1);
    for _ in 0..5 {
        let versions = place.open();
        assert!(!versions.give_up("count", new).unwrap());
        swap(&versions, NEW);
        versions.postpone("count", new).unwrap();
    }
    assert_eq!(place.open().choose("count", NEW).unwrap(), kept_until_swap(OLD, "count.wasm"));
}
