//! Folders that belong to this process's user and that nobody else can enter.
//!
//! What is kept in one may be trusted as far as its user is: nobody else could put it there, unless
//! the folder was found open, which is told.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// How files begin that are not finished.
const TEMPORARY: &str = ".new-";
/// Group or others may do anything.
const OTHERS: u32 = 0o077;
/// Group or others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A folder of this user's that nobody else can enter.
#[derive(Debug)]
pub struct PrivateFolder {
    path: PathBuf,
    /// Whom the files of this process belong to.
    user: u32,
}

/// What a folder was like before it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// As it should be, or it was made just now.
    Private,
    /// Others could write it until now.
    Writable,
}

impl PrivateFolder {
    /// Opens the folder, and makes it if it isn't there. One of this user's own that others can
    /// enter, which a volume's driver may have caused, is closed to them; what is not finished is
    /// deleted. The error says what is wrong, and what to do.
    pub fn open(path: &Path) -> Result<(Self, Found), String> {
        let access = |error: io::Error| format!("{error}; give a folder that can be written");
        make(path).map_err(access)?;
        let metadata = fs::symlink_metadata(path).map_err(access)?;
        if !metadata.is_dir() {
            return Err("it is not a folder itself; links are not followed".to_owned());
        }
        let user = own_user(path).map_err(access)?;
        let folder = Self { path: path.to_owned(), user };
        let found = folder.close(&metadata)?;
        if let Err(error) = folder.remove_temporary() {
            let path = path.display();
            tracing::warn!(%path, %error, "what a killed process had not finished stays");
        }
        Ok((folder, found))
    }

    /// Closes it to others, if it isn't.
    fn close(&self, metadata: &Metadata) -> Result<Found, String> {
        self.own(metadata).map_err(|why| {
            format!(
                "{why}; have its owner or root `chown {}` it, or give another `state.directory`",
                self.user
            )
        })?;
        let mode = metadata.mode() & 0o777;
        if mode & OTHERS == 0 {
            return Ok(Found::Private);
        }
        fs::set_permissions(&self.path, Permissions::from_mode(0o700)).map_err(|error| {
            format!("others can enter it (mode {mode:o}), and it can't be closed: {error}")
        })?;
        if mode & WRITABLE_BY_OTHERS == 0 {
            return Ok(Found::Private);
        }
        let path = self.path.display();
        tracing::warn!(
            %path,
            mode = format!("{mode:o}"),
            "others could write this folder until now; it was made private"
        );
        Ok(Found::Writable)
    }

    /// Where a file of this name is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a file that is one of this user's own and that nobody else can write; `None` if it
    /// isn't there. Links are not followed.
    pub fn read(&self, name: &str) -> io::Result<Option<File>> {
        let path = self.path(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err(io::Error::other("it is not a file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let file = File::open(&path)?;
        self.private(&file.metadata()?).map_err(io::Error::other)?;
        Ok(Some(file))
    }

    /// Gives a file a new content by `write`: after a crash it has all of it, or the one before.
    pub fn replace(
        &self,
        name: &str,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let temporary = self.path(&format!("{TEMPORARY}{name}"));
        let written = private_file(&temporary)
            .and_then(|mut file| {
                write(&mut file)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, self.path(name)))
            .and_then(|()| self.sync());
        if written.is_err() {
            // What is left over is deleted by the next write or start.
            drop(fs::remove_file(&temporary));
        }
        written
    }

    /// Deletes a file; one that is gone is as good.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        remove_if_there(&self.path(name))
    }

    /// The names of all that is in it.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name()));
        // What isn't UTF-8 was not written here.
        names.filter_map(|name| name.map(|name| name.into_string().ok()).transpose()).collect()
    }

    /// Makes the names in it outlive a crash.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Closes a file of this user's own to others, if they can write it; says whether they could.
    pub fn close_file(&self, name: &str) -> io::Result<bool> {
        let path = self.path(name);
        let metadata = fs::symlink_metadata(&path)?;
        let mode = metadata.mode() & 0o777;
        let is_open =
            metadata.is_file() && self.own(&metadata).is_ok() && mode & WRITABLE_BY_OTHERS != 0;
        if is_open {
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        }
        Ok(is_open)
    }

    /// Fails with the reason if others can write it by now.
    pub fn check(&self) -> io::Result<()> {
        self.private(&fs::symlink_metadata(&self.path)?).map_err(io::Error::other)
    }

    fn private(&self, metadata: &Metadata) -> Result<(), String> {
        self.own(metadata)?;
        match metadata.mode() & WRITABLE_BY_OTHERS {
            0 => Ok(()),
            _ => Err(format!("others can write it (mode {:o})", metadata.mode() & 0o777)),
        }
    }

    fn own(&self, metadata: &Metadata) -> Result<(), String> {
        match metadata.uid() {
            user if user == self.user => Ok(()),
            user => Err(format!("it belongs to user {user}, not {}", self.user)),
        }
    }

    fn remove_temporary(&self) -> io::Result<()> {
        let names = self.names()?;
        let unfinished = names.iter().filter(|name| name.starts_with(TEMPORARY));
        unfinished.clone().try_for_each(|name| self.remove(name))?;
        match unfinished.count() {
            0 => {}
            files => {
                let path = self.path.display();
                tracing::info!(%path, files, "deleted what a killed process had not finished");
            }
        }
        Ok(())
    }
}

/// Makes a folder, and those above it that are missing, for this user alone.
pub fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a file for this user alone, in the place of one that was not finished.
fn private_file(path: &Path) -> io::Result<File> {
    remove_if_there(path)?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The user that a file made by this process belongs to.
fn own_user(folder: &Path) -> io::Result<u32> {
    static PROBES: AtomicU64 = AtomicU64::new(0);
    let number = PROBES.fetch_add(1, Ordering::Relaxed);
    let probe = folder.join(format!("{TEMPORARY}probe-{}-{number}", std::process::id()));
    let user = private_file(&probe).and_then(|file| Ok(file.metadata()?.uid()));
    remove_if_there(&probe)?;
    user
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_folder_is_made_private_and_an_open_one_closed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("above/folder");
        assert_eq!(PrivateFolder::open(&path).unwrap().1, Found::Private);
        assert_eq!([mode(&path), mode(path.parent().unwrap())], [0o700; 2]);
        for (open, found) in [(0o755, Found::Private), (0o770, Found::Writable)] {
            chmod(&path, open);
            assert_eq!(PrivateFolder::open(&path).unwrap().1, found);
            assert_eq!(mode(&path), 0o700);
        }
        // Somebody else's are shown by root alone.
        if std::os::unix::fs::chown(&path, Some(65_531), None).is_ok() {
            let refused = PrivateFolder::open(&path).unwrap_err();
            assert!(refused.contains("belongs to user 65531"), "{refused}");
            assert!(refused.contains("`chown 0` it") && !refused.contains("chmod"), "{refused}");
        }
    }

    #[test]
    fn what_is_no_folder_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (root.path().join("folder"), root.path().join("elsewhere"));
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(PrivateFolder::open(&path).unwrap_err().contains("links are not followed"));
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        PrivateFolder::open(&path).unwrap_err();
    }

    /// Whatever a kill leaves over, under whatever process id.
    #[test]
    fn leftovers_are_swept_and_hurt_nobody() {
        let root = tempfile::tempdir().unwrap();
        let own = format!("{TEMPORARY}probe-{}", std::process::id());
        let numbers = (0..200).map(|number| format!("{own}-{number}"));
        for name in numbers.chain([".new-probe-1-0".to_owned(), ".new-module".to_owned()]) {
            fs::write(root.path().join(name), "half").unwrap();
        }
        fs::write(root.path().join("whole"), "whole").unwrap();
        let (folder, _) = PrivateFolder::open(root.path()).unwrap();
        assert_eq!(folder.names().unwrap(), ["whole"]);
    }

    #[test]
    fn files_are_replaced_whole_and_read_only_if_private() {
        let root = tempfile::tempdir().unwrap();
        let (folder, _) = PrivateFolder::open(root.path()).unwrap();
        assert!(folder.read("file").unwrap().is_none());
        folder.replace("file", |file| file.write_all(b"first")).unwrap();
        let failed = |file: &mut File| {
            file.write_all(b"second")?;
            Err(io::Error::other("the disk is full"))
        };
        folder.replace("file", failed).unwrap_err();
        assert_eq!(io::read_to_string(folder.read("file").unwrap().unwrap()).unwrap(), "first");
        assert_eq!(folder.names().unwrap(), ["file"]);
        assert_eq!(mode(&folder.path("file")), 0o600);
        chmod(&folder.path("file"), 0o620);
        let refused = folder.read("file").unwrap_err().to_string();
        assert!(refused.contains("others can write it (mode 620)"), "{refused}");
        assert!(folder.close_file("file").unwrap() && !folder.close_file("file").unwrap());
        assert!(folder.read("file").unwrap().is_some());
        symlink(folder.path("file"), folder.path("link")).unwrap();
        assert!(folder.read("link").unwrap_err().to_string().contains("not a file"));
        folder.remove("file").unwrap();
        folder.remove("file").unwrap();
        assert!(folder.read("file").unwrap().is_none());
    }
}
