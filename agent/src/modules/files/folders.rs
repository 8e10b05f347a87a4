//! Which folders decide what a path leads to, and being notified of what happens in them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::OsString,
    fs, io,
    os::fd::AsRawFd,
    path::{Component, Path, PathBuf},
};

use inotify::{Inotify, WatchDescriptor, WatchMask};
use mio::{Interest, Registry, Token, unix::SourceFd};

/// How many links the kernel follows on the way to a file.
const LINKS_MAX: usize = 40;
/// What is read of notifications at once; they are not looked at.
const BUFFER_BYTES: usize = 4096;
/// How often it is read on, so that a busy folder keeps nobody from looking.
const READS_MAX: usize = 100;

/// Folders that the kernel notifies of.
pub(super) struct Folders {
    notifications: Inotify,
    /// By their number; a folder that was moved or made anew has another one.
    watched: BTreeMap<i32, WatchDescriptor>,
}

impl Folders {
    /// None yet; what happens in them will wake who waits for `token`.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let notifications = Inotify::init()?;
        let mut source = SourceFd(&notifications.as_raw_fd());
        registry.register(&mut source, token, Interest::READABLE)?;
        Ok(Self { notifications, watched: BTreeMap::new() })
    }

    /// Watches the folders that decide what these paths lead to, and no others any more. What
    /// happened until now wakes nobody again.
    pub(super) fn watch<'a>(&mut self, paths: impl Iterator<Item = &'a Path>) -> io::Result<()> {
        self.pass_over()?;
        let mut watches = self.notifications.watches();
        let mut watched = BTreeMap::new();
        for folder in paths.flat_map(folders_of).collect::<BTreeSet<_>>() {
            match watches.add(&folder, mask()) {
                Ok(watch) => drop(watched.insert(watch.get_watch_descriptor_id(), watch)),
                // It went away since it was found; the next look finds what is there instead.
                Err(error) if gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        for (number, watch) in std::mem::take(&mut self.watched) {
            if !watched.contains_key(&number) {
                // A folder that is gone is watched no more already.
                watches.remove(watch).ok();
            }
        }
        self.watched = watched;
        Ok(())
    }

    /// Takes the notifications there are, so that the next ones find room.
    fn pass_over(&mut self) -> io::Result<()> {
        let mut buffer = [0; BUFFER_BYTES];
        for _ in 0..READS_MAX {
            match self.notifications.read_events(&mut buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn mask() -> WatchMask {
    let content = WatchMask::MODIFY | WatchMask::CLOSE_WRITE | WatchMask::ATTRIB;
    let names = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE;
    let itself = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF;
    content | names | itself | WatchMask::ONLYDIR
}

fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The folders in which a change of a name makes the path lead somewhere else: that of each link on
/// the way, and that of the file, or of what is missing.
pub(super) fn folders_of(path: &Path) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    let mut at = PathBuf::from("/");
    let mut rest = parts(path);
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        let metadata = fs::symlink_metadata(&next);
        let is_link = metadata.as_ref().is_ok_and(fs::Metadata::is_symlink);
        if is_link || metadata.is_err() || rest.is_empty() {
            folders.insert(at.clone());
        }
        match metadata {
            Ok(_) if !is_link => at = next,
            Ok(_) if links < LINKS_MAX => {
                links += 1;
                let Ok(target) = fs::read_link(&next) else { break };
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                let mut ahead = parts(&target);
                ahead.append(&mut rest);
                rest = ahead;
            }
            Ok(_) | Err(_) => break,
        }
    }
    folders
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    };
    path.components().filter_map(name).collect()
}
