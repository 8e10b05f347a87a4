//! Module files in real folders, changed as editors, deployments and the kubelet do it.

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
};

use super::*;

/// How long to wait for news; less than [`SWEEP_INTERVAL`], so that it is the kernel who notifies.
const WAIT: Duration = Duration::from_secs(20);
const BYTES_MAX: u64 = 1000;

fn watched(path: &Path) -> Watched {
    let seen = fs::read(path).ok().map(|module| Digest::of(&module));
    Watched { transforms: vec!["count".to_owned()], path: path.to_owned(), seen }
}

/// Puts a file there that is whole from the beginning.
fn place(path: &Path, content: impl AsRef<[u8]>) {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, content).unwrap();
    fs::rename(&temporary, path).unwrap();
}

/// Writes over what is there, which is shorter, at once: nobody sees half of it, however slow the
/// machine is.
fn overwrite(path: &Path, content: &str) {
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    assert_eq!(file.write(content.as_bytes()).unwrap(), content.len());
}

/// Watches files whose content is known.
fn start(paths: &[&Path]) -> (Files, Receiver<News>) {
    let (sender, news) = channel();
    let files = paths.iter().map(|path| watched(path)).collect();
    let files =
        Files::start(files, BYTES_MAX, Until::Dropped, move |news| sender.send(news).unwrap());
    (files.unwrap(), news)
}

#[track_caller]
fn changed(news: &Receiver<News>, path: &Path, content: &[u8]) {
    match news.recv_timeout(WAIT).unwrap() {
        News::Changed(change) => check(&change, path, content),
        News::Problem(problem) => panic!("{problem:?}"),
    }
}

#[track_caller]
fn check(change: &Change, path: &Path, content: &[u8]) {
    assert_eq!(change.path, path);
    assert_eq!(change.transforms, ["count"]);
    assert_eq!(change.module, content);
    assert_eq!(change.digest, Digest::of(content));
}

#[track_caller]
fn problem(news: &Receiver<News>) -> String {
    match news.recv_timeout(WAIT).unwrap() {
        News::Problem(problem) => problem.message,
        News::Changed(change) => panic!("{change:?}"),
    }
}

#[test]
fn a_file_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("count.wasm");
    fs::write(&path, "old").unwrap();
    let (_files, news) = start(&[&path]);
    overwrite(&path, "new");
    changed(&news, &path, b"new");
    overwrite(&path, "newer");
    changed(&news, &path, b"newer");
}

#[test]
fn a_file_is_renamed_into_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("modules/count.wasm");
    fs::create_dir(folder.path().join("modules")).unwrap();
    fs::write(&path, "old").unwrap();
    let (_files, news) = start(&[&path]);
    for content in ["new", "newer"] {
        // In another folder, so that nothing but the rename is to be seen.
        let temporary = folder.path().join("count.wasm");
        fs::write(&temporary, content).unwrap();
        fs::rename(&temporary, &path).unwrap();
        changed(&news, &path, content.as_bytes());
    }
}

/// As the kubelet's writer of volumes does it: a folder of all files, then a switch of one link.
#[test]
fn a_config_map_is_switched() {
    let folder = tempfile::tempdir().unwrap();
    let volume = folder.path();
    let publish = |name: &str, content: &str| {
        let data = volume.join(name);
        fs::create_dir(&data).unwrap();
        fs::write(data.join("count.wasm"), content).unwrap();
        symlink(name, volume.join("..data_tmp")).unwrap();
        let before = fs::read_link(volume.join("..data"));
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
        if let Ok(before) = before {
            fs::remove_dir_all(volume.join(before)).unwrap();
        }
    };
    publish("..2026_11_23_08_00_00.1", "old");
    let path = volume.join("count.wasm");
    symlink("..data/count.wasm", &path).unwrap();
    let (_files, news) = start(&[&path]);
    publish("..2026_11_23_08_01_00.2", "new");
    changed(&news, &path, b"new");
    publish("..2026_11_23_08_02_00.3", "newer");
    changed(&news, &path, b"newer");
}

#[test]
fn a_folder_on_the_way_is_switched_or_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let release = |name: &str, content: &str| {
        let release = folder.path().join(name);
        fs::create_dir_all(&release).unwrap();
        place(&release.join("count.wasm"), content);
        symlink(&release, folder.path().join("next")).unwrap();
        fs::rename(folder.path().join("next"), folder.path().join("current")).unwrap();
    };
    release("releases/1", "old");
    let path = folder.path().join("current/count.wasm");
    let (_files, news) = start(&[&path]);
    // The first time it is looked at anyway, since it has just begun to be watched.
    for (name, content) in [("releases/2", "new"), ("releases/3", "newer")] {
        release(name, content);
        changed(&news, &path, content.as_bytes());
    }
    fs::remove_dir_all(folder.path().join("releases")).unwrap();
    assert!(problem(&news).contains("is gone"));
    release("releases/3", "newest");
    changed(&news, &path, b"newest");
}

#[test]
fn a_file_that_has_the_same_content_is_no_news() {
    let folder = tempfile::tempdir().unwrap();
    let [touched, replaced, other] = ["a", "b", "c"].map(|name| folder.path().join(name));
    for path in [&touched, &replaced, &other] {
        fs::write(path, "old").unwrap();
    }
    let (_files, news) = start(&[&touched, &replaced, &other]);
    overwrite(&touched, "old");
    place(&replaced, "old");
    // It is looked at after the others, and was written after them: so its news are the last.
    place(&other, "new");
    changed(&news, &other, b"new");
}

#[test]
fn a_file_vanishes_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("count.wasm");
    fs::write(&path, "old").unwrap();
    let (_files, news) = start(&[&path]);
    fs::remove_file(&path).unwrap();
    let message = problem(&news);
    for part in [path.to_str().unwrap(), "is gone", "the running module stays"] {
        assert!(message.contains(part), "{message}");
    }
    place(&path, "new");
    changed(&news, &path, b"new");
}

#[test]
fn a_file_that_is_too_large_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("count.wasm");
    fs::write(&path, "old").unwrap();
    let (_files, news) = start(&[&path]);
    place(&path, vec![0; 1001]);
    let message = problem(&news);
    assert!(message.contains("larger than 1000 bytes"), "{message}");
    place(&path, vec![0; 1000]);
    changed(&news, &path, &[0; 1000]);
}

#[test]
fn a_file_that_is_another_one_than_the_start_has_read_is_news() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("count.wasm");
    fs::write(&path, "new").unwrap();
    let (sender, news) = channel();
    let known = Watched { seen: Some(Digest::of(b"old")), ..watched(&path) };
    let tell = move |news| sender.send(news).unwrap();
    let _files = Files::start(vec![known], BYTES_MAX, Until::Dropped, tell).unwrap();
    changed(&news, &path, b"new");
}

/// With the end of its thread, what it tells by is gone.
#[test]
fn what_is_not_to_be_watched_is_looked_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["new", "absent", "known"].map(|name| folder.path().join(name));
    let [new, absent, known] = &paths;
    fs::write(new, "new").unwrap();
    fs::write(known, "known").unwrap();
    let (sender, news) = channel();
    let unknown = |path: &PathBuf| Watched { seen: None, ..watched(path) };
    let files = vec![unknown(new), unknown(absent), watched(known)];
    let tell = move |news| sender.send(news).unwrap();
    let _files = Files::start(files, BYTES_MAX, Until::Seen, tell).unwrap();
    changed(&news, new, b"new");
    assert!(problem(&news).contains("is gone"));
    assert_eq!(news.recv_timeout(WAIT).unwrap_err(), RecvTimeoutError::Disconnected);
}

#[test]
fn files_are_looked_at_where_nobody_notifies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("count.wasm");
    fs::write(&path, "old").unwrap();
    let (sender, news) = channel();
    // What the system says when a user has too many.
    let none = |_: &Registry| Err(io::Error::from_raw_os_error(libc::EMFILE));
    let tell = move |news| sender.send(news).unwrap();
    let files = vec![watched(&path)];
    let _files = Files::start_with(files, BYTES_MAX, Until::Dropped, none, tell).unwrap();
    overwrite(&path, "new");
    changed(&news, &path, b"new");
    overwrite(&path, "newer");
    changed(&news, &path, b"newer");
}

#[test]
fn a_drop_ends_the_thread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("count.wasm");
    fs::write(&path, "old").unwrap();
    let (files, news) = start(&[&path]);
    let begun = Instant::now();
    drop(files);
    assert!(begun.elapsed() < SWEEP_INTERVAL / 3, "it waited for {:?}", begun.elapsed());
    // Its end of the channel is gone with it.
    assert!(matches!(news.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Disconnected)));
}

/// A file and the clock by which it is looked at.
struct Looked {
    file: File,
    begun: Instant,
}

impl Looked {
    fn new(path: &Path) -> Self {
        Self { file: File::new(watched(path), BYTES_MAX).unwrap(), begun: Instant::now() }
    }

    fn at(&mut self, milliseconds: u64) -> Option<News> {
        self.file.look(self.begun + Duration::from_millis(milliseconds))
    }

    #[track_caller]
    fn problem_at(&mut self, milliseconds: u64) -> String {
        match self.at(milliseconds) {
            Some(News::Problem(problem)) => problem.message,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_file_that_is_written_slowly_is_taken_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("count.wasm");
    fs::write(&path, "old").unwrap();
    let mut looked = Looked::new(&path);
    let mut content = String::new();
    for part in 0..10 {
        content.push_str("a part of it, ");
        fs::write(&path, &content).unwrap();
        for milliseconds in [0, 200, 400] {
            assert!(looked.at(400 * part + milliseconds).is_none());
            assert!(looked.file.is_restless());
        }
    }
    assert!(looked.at(4099).is_none());
    match looked.at(4100) {
        Some(News::Changed(change)) => check(&change, &path, content.as_bytes()),
        other => panic!("{other:?}"),
    }
    assert!(!looked.file.is_restless());
    assert!(looked.at(9000).is_none());
}

#[test]
fn a_file_that_is_never_still_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("count.wasm");
    fs::write(&path, "").unwrap();
    let mut looked = Looked::new(&path);
    let mut content = String::new();
    for part in 0..150 {
        content.push('.');
        fs::write(&path, &content).unwrap();
        match part * 400 {
            60_000.. => unreachable!(),
            milliseconds => assert!(looked.at(milliseconds).is_none()),
        }
    }
    fs::write(&path, "almost").unwrap();
    let message = looked.problem_at(60_000);
    assert!(message.contains("not been still for 500 ms within 60 seconds"), "{message}");
    fs::write(&path, "done").unwrap();
    assert!(looked.at(60_100).is_none());
    match looked.at(60_600) {
        Some(News::Changed(change)) => check(&change, &path, b"done"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_problem_is_told_once_until_it_is_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("count.wasm");
    fs::write(&path, "old").unwrap();
    let mut looked = Looked::new(&path);
    let mut now = 0;
    let mut settle = |looked: &mut Looked| {
        now += 1000;
        assert!(looked.at(now).is_none());
        now += 500;
        looked.at(now)
    };
    assert!(settle(&mut looked).is_none());
    let mut told = Vec::new();
    for bytes in [Some(1001), Some(1002), None, None, Some(2000), Some(2001)] {
        match bytes {
            Some(bytes) => fs::write(&path, vec![0; bytes]).unwrap(),
            None => drop(fs::remove_file(&path)),
        }
        if let Some(News::Problem(problem)) = settle(&mut looked) {
            told.push(problem.message);
        }
    }
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].contains("larger") && told[1].contains("gone") && told[2].contains("larger"));
    // Back as it was: no change, and the next trouble is told again.
    fs::write(&path, "old").unwrap();
    assert!(settle(&mut looked).is_none());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    match settle(&mut looked) {
        Some(News::Problem(problem)) => assert!(problem.message.contains("is not a file")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_folders_of_each_link_are_watched() {
    let folder = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(folder.path()).unwrap();
    fs::create_dir_all(root.join("data/1")).unwrap();
    fs::create_dir_all(root.join("mount")).unwrap();
    fs::write(root.join("data/1/count.wasm"), "old").unwrap();
    symlink("1", root.join("data/current")).unwrap();
    symlink("../data/current/count.wasm", root.join("mount/count.wasm")).unwrap();
    symlink(root.join("mount"), root.join("modules")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    let folders = |path: &str| {
        let found = folders::folders_of(&root.join(path)).into_iter();
        let relative = |folder: PathBuf| folder.strip_prefix(&root).unwrap().display().to_string();
        found.map(relative).collect::<Vec<_>>()
    };
    assert_eq!(folders("data/1/count.wasm"), ["data/1"]);
    assert_eq!(folders("modules/count.wasm"), ["", "data", "data/1", "mount"]);
    assert_eq!(folders("modules/absent/count.wasm"), ["", "mount"]);
    assert_eq!(folders("loop"), [""]);
}
