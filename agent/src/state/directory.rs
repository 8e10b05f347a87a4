//! The state directory: its lock, the version of its format, and who the agent is.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use super::Error;
use crate::private::{self, PrivateFolder};

/// The version of everything in a state directory. It rises with each change that an older agent
/// would misread.
pub const FORMAT_VERSION: u32 = 1;

const LOCK: &str = "lock";
const FORMAT: &str = "format";
const IDENTITY: &str = "identity";

/// The most bytes an identity may have: Kafka's limit for a `group.instance.id` is 249, and the
/// worker's number comes behind it.
const IDENTITY_LENGTH_MAX: usize = 200;

/// A state directory that this process holds.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    identity: Identity,
    /// Held until the process ends; the operating system lets go of it by itself.
    _lock: File,
}

/// Who an agent is, from one start to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    name: String,
    /// The highest number of workers it ever had.
    workers: u32,
    /// What its members asked their group for last, if that is known.
    subscription: Option<String>,
}

/// What writes here, by name and version.
pub(super) fn writer() -> String {
    format!("sidestream {}", env!("CARGO_PKG_VERSION"))
}

impl Directory {
    /// Locks the directory, which is made if it isn't there, and checks its format.
    pub(super) fn open(path: &Path, given: Option<&str>) -> Result<Self, Error> {
        if let Some(name) = given {
            check_name(name).map_err(|problem| {
                Error::Unusable(format!("the identity '{name}' can't be used: {problem}"))
            })?;
        }
        private::make(path).map_err(|source| failed("make the directory", path, source))?;
        let lock = lock(path)?;
        check_format(path)?;
        let identity = identity(path, given)?;
        Ok(Self { path: path.to_owned(), identity, _lock: lock })
    }

    /// The folder of an application's state, which nobody else can enter, as far as that is ours to
    /// say: what is in it is the data itself.
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        if let Err(reason) = PrivateFolder::open(&path) {
            tracing::warn!(path = %path.display(), reason, "others may be able to read the state");
        }
        path
    }

    pub(super) fn identity(&self) -> &str {
        &self.identity.name
    }

    /// Notes that the agent has `workers` workers; returns the most it ever had.
    pub(super) fn raise_worker_count(&mut self, workers: u32) -> Result<u32, Error> {
        if workers > self.identity.workers {
            self.change(Identity { workers, ..self.identity.clone() })?;
        }
        Ok(self.identity.workers)
    }

    /// What the agent's members asked their group for last, as it was noted; none if that is not
    /// known.
    pub(super) fn subscription(&self) -> Option<&str> {
        self.identity.subscription.as_deref()
    }

    /// Notes what the agent's members ask their group for from now on, in one word.
    pub(super) fn note_subscription(&mut self, subscription: &str) -> Result<(), Error> {
        if self.subscription() == Some(subscription) {
            return Ok(());
        }
        let subscription = Some(subscription.to_owned());
        self.change(Identity { subscription, ..self.identity.clone() })
    }

    fn change(&mut self, identity: Identity) -> Result<(), Error> {
        replace(&self.path.join(IDENTITY), &identity.to_text())?;
        self.identity = identity;
        Ok(())
    }
}

fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join(LOCK);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|source| failed("open", &path, source))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Error::Locked { path: directory.to_owned(), holder: holder(&mut file) });
        }
        Err(TryLockError::Error(source)) => return Err(failed("lock", &path, source)),
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.write_all(pid.as_bytes()))
        .map_err(|source| failed("write", &path, source))?;
    Ok(file)
}

/// Who holds the lock; its file may be empty for a moment after it was taken.
fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    let read = lock.take(32).read_to_string(&mut text);
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("process {pid}"),
        _ => "another process".to_owned(),
    }
}

fn check_format(directory: &Path) -> Result<(), Error> {
    let path = directory.join(FORMAT);
    let Some(text) = read(&path)? else {
        return replace(&path, &format!("format {FORMAT_VERSION}\nwritten by {}\n", writer()));
    };
    let found = text.lines().next().and_then(|line| line.strip_prefix("format ")?.parse().ok());
    match found {
        Some(FORMAT_VERSION) => Ok(()),
        Some(found) if found > FORMAT_VERSION => Err(Error::Newer {
            path: directory.to_owned(),
            found,
            writer: text
                .lines()
                .find_map(|line| line.strip_prefix("written by "))
                .unwrap_or("an unknown program")
                .to_owned(),
        }),
        Some(_) | None => Err(Error::Unusable(format!(
            "the file {} does not name a format version: if this is a state directory, empty it, \
             and the state is restored from its changelogs",
            path.display()
        ))),
    }
}

/// The identity that is given, else the one that is kept, else a new one. A kept one that is
/// damaged is replaced: that only costs waiting for the sessions of the old one to end.
fn identity(directory: &Path, given: Option<&str>) -> Result<Identity, Error> {
    let path = directory.join(IDENTITY);
    let text = read(&path)?;
    let kept = text.as_deref().and_then(Identity::from_text);
    if text.is_some() && kept.is_none() {
        tracing::warn!(path = %path.display(), "the agent's identity is damaged; it gets a new one");
    }
    let identity = match (kept, given) {
        (Some(kept), None) => return Ok(kept),
        (Some(kept), Some(name)) if kept.name == name => return Ok(kept),
        (_, Some(name)) => Identity::new(name.to_owned()),
        (None, None) => Identity::new(random_name()?),
    };
    replace(&path, &identity.to_text())?;
    Ok(identity)
}

impl Identity {
    fn new(name: String) -> Self {
        Self { name, workers: 0, subscription: None }
    }

    fn to_text(&self) -> String {
        let subscription = self.subscription.as_ref();
        let subscription = subscription.map(|word| format!("subscription {word}\n"));
        let (name, workers) = (&self.name, self.workers);
        format!("identity {name}\nworkers {workers}\n{}", subscription.unwrap_or_default())
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let name = lines.next()?.strip_prefix("identity ")?;
        let workers = lines.next()?.strip_prefix("workers ")?.parse().ok()?;
        check_name(name).ok()?;
        // Older agents wrote no such line.
        let subscription = lines.next().and_then(|line| line.strip_prefix("subscription "));
        let subscription = subscription.map(str::to_owned);
        Some(Self { name: name.to_owned(), workers, subscription })
    }
}

/// Whether Kafka takes it as a `group.instance.id`.
fn check_name(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c);
    if name.is_empty() || name.len() > IDENTITY_LENGTH_MAX {
        return Err(format!("it must have 1 to {IDENTITY_LENGTH_MAX} characters"));
    }
    match name.chars().find(|&c| !legal(c)) {
        Some(c) => Err(format!("'{c}' is not a letter of ASCII, a digit, '.', '_' or '-'")),
        None => Ok(()),
    }
}

fn random_name() -> Result<String, Error> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 8];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|source| failed("read", path, source))?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", path, source)),
    }
}

/// Gives a file a new content, all of it or, after a crash of the machine, none.
fn replace(path: &Path, content: &str) -> Result<(), Error> {
    let write = || {
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|source| failed("write", path, source))
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Failed { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn open(path: &Path) -> Result<Directory, Error> {
        Directory::open(path, None)
    }

    #[test]
    fn a_second_holder_is_refused_and_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path()).unwrap();
        let message = open(folder.path()).unwrap_err().to_string();
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        drop(first);
        open(folder.path()).unwrap();
    }

    #[test]
    fn the_identity_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path()).unwrap().identity().to_owned();
        assert_eq!(first.len(), 16);
        assert_eq!(open(folder.path()).unwrap().identity(), first);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(open(other.path()).unwrap().identity(), first);
    }

    #[test]
    fn a_given_identity_takes_the_place_of_the_kept_one() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).unwrap().raise_worker_count(4).unwrap();
        let mut given = Directory::open(folder.path(), Some("pod-0")).unwrap();
        assert_eq!(given.identity(), "pod-0");
        assert_eq!(given.raise_worker_count(2).unwrap(), 2);
        drop(given);
        assert_eq!(open(folder.path()).unwrap().identity(), "pod-0");
        for bad in ["", "a b", "ä", "a/b", &"x".repeat(201)] {
            assert!(matches!(Directory::open(folder.path(), Some(bad)), Err(Error::Unusable(_))));
        }
    }

    #[test]
    fn the_state_is_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let made = folder.path().join("made");
        let application = open(&made).unwrap().folder("application");
        assert_eq!([mode(&made), mode(&application)], [0o700; 2]);
        // One that is given is its giver's; what is in it is closed all the same.
        for path in [&made, &application] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(open(&made).unwrap().folder("application"), application);
        assert_eq!([mode(&made), mode(&application)], [0o755, 0o700]);
    }

    #[test]
    fn the_worker_count_only_rises() {
        let folder = tempfile::tempdir().unwrap();
        for (given, highest) in [(2, 2), (5, 5), (1, 5)] {
            let mut directory = open(folder.path()).unwrap();
            assert_eq!(directory.raise_worker_count(given).unwrap(), highest);
        }
    }

    #[test]
    fn what_was_asked_for_is_known_until_the_identity_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let old = "identity pod-0\nworkers 2\n";
        fs::write(folder.path().join(IDENTITY), old).unwrap();
        let mut directory = open(folder.path()).unwrap();
        assert_eq!(directory.subscription(), None);
        directory.note_subscription("1a").unwrap();
        directory.raise_worker_count(3).unwrap();
        drop(directory);
        let mut directory = open(folder.path()).unwrap();
        assert_eq!(directory.subscription(), Some("1a"));
        assert_eq!(directory.raise_worker_count(1).unwrap(), 3);
        directory.note_subscription("2b").unwrap();
        assert_eq!(directory.subscription(), Some("2b"));
        drop(directory);
        let other = Directory::open(folder.path(), Some("pod-1")).unwrap();
        assert_eq!(other.subscription(), None);
    }

    #[test]
    fn a_damaged_identity_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        for damaged in ["", "identity \nworkers 1\n", "identity a\nworkers x\n", "\u{0}"] {
            fs::write(folder.path().join(IDENTITY), damaged).unwrap();
            let made = open(folder.path()).unwrap().identity().to_owned();
            assert_eq!(open(folder.path()).unwrap().identity(), made);
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name_and_version() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()).unwrap());
        let newer = "format 7\nwritten by sidestream 9.1.0\n";
        fs::write(folder.path().join(FORMAT), newer).unwrap();
        let message = open(folder.path()).unwrap_err().to_string();
        for part in ["format 7", "sidestream 9.1.0", &writer(), "up to 1"] {
            assert!(message.contains(part), "{message}");
        }
        fs::write(folder.path().join(FORMAT), [0xff, 0, 1]).unwrap();
        assert!(matches!(open(folder.path()), Err(Error::Unusable(_))));
    }
}
