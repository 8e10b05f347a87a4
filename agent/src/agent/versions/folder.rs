//! A private folder whose files are replaced whole.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{Error, index};
use crate::guest::Digest;

/// How the files of modules end.
pub(super) const SUFFIX: &str = "wasm";
/// How files begin that are not finished.
const TEMPORARY: &str = ".new-";
/// Group or others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A folder that belongs to this process's user and that nobody else can write.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Whom the files of this process belong to.
    user: u32,
}

impl Folder {
    /// Opens the folder, and makes it if it isn't there.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let refused = |reason: String| Error::Folder { folder: path.to_owned(), reason };
        let access =
            |error: io::Error| refused(format!("{error}; give a folder that can be written"));
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(access)?;
        let metadata = fs::symlink_metadata(path).map_err(access)?;
        if !metadata.is_dir() {
            return Err(refused("it is not a folder itself; links are not followed".to_owned()));
        }
        let folder = Self { path: path.to_owned(), user: own_user(path).map_err(access)? };
        folder.private(&metadata).map_err(|why| refused(format!("{why}; `chmod 700` it")))?;
        // Where it has just been made, it must outlive a crash as its files do.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync(parent.unwrap_or(Path::new("."))).map_err(access)?;
        Ok(folder)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The content of a file of at most `bytes_max` bytes, if it is there.
    pub(super) fn read(&self, name: &str, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err(io::Error::other("it is not a file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let file = File::open(&path)?;
        let metadata = file.metadata()?;
        self.private(&metadata).map_err(io::Error::other)?;
        let mut content = Vec::new();
        file.take(bytes_max.saturating_add(1)).read_to_end(&mut content)?;
        match content.len() as u64 <= bytes_max {
            true => Ok(Some(content)),
            false => Err(io::Error::other(format!("it is larger than {bytes_max} bytes"))),
        }
    }

    /// Gives a file a new content: after a crash it has all of it, or the one before.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let (path, temporary) = (self.path(name), self.path(&format!("{TEMPORARY}{name}")));
        let written = private_file(&temporary)
            .and_then(|mut file| {
                file.write_all(content)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| sync(&self.path));
        written.map_err(|source| {
            // What is left over is deleted by the next write or start.
            drop(fs::remove_file(&temporary));
            Error::Failed { action: "write", path, source }
        })
    }

    /// Deletes a file; one that is gone is as good.
    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name);
        remove_if_there(&path).map_err(|source| Error::Failed { action: "delete", path, source })
    }

    /// Deletes what was not finished.
    pub(super) fn remove_temporary(&self) -> Result<(), Error> {
        let unfinished = |name: &String| name.starts_with(TEMPORARY);
        self.names()?.iter().filter(|name| unfinished(name)).try_for_each(|name| self.remove(name))
    }

    /// The modules in it, by what their files' names say.
    pub(super) fn modules(&self) -> Result<BTreeSet<Digest>, Error> {
        let digest = |name: &String| {
            let (stem, suffix) = name.rsplit_once('.')?;
            index::digest(stem).filter(|_| suffix == SUFFIX)
        };
        Ok(self.names()?.iter().filter_map(digest).collect())
    }

    fn names(&self) -> Result<Vec<String>, Error> {
        let names = || -> io::Result<Vec<String>> {
            let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name()));
            // What isn't UTF-8 was not written here.
            names.filter_map(|name| name.map(|name| name.into_string().ok()).transpose()).collect()
        };
        names().map_err(|source| Error::Failed { action: "list", path: self.path.clone(), source })
    }

    fn private(&self, metadata: &Metadata) -> Result<(), String> {
        if metadata.uid() != self.user {
            return Err(format!("it belongs to user {}, not {}", metadata.uid(), self.user));
        }
        match metadata.mode() & WRITABLE_BY_OTHERS {
            0 => Ok(()),
            _ => Err(format!("others can write it (mode {:o})", metadata.mode() & 0o777)),
        }
    }
}

/// Makes a file for this user only, in the place of one that was not finished.
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
    let probe = folder.join(format!("{TEMPORARY}probe"));
    let user = private_file(&probe).and_then(|file| Ok(file.metadata()?.uid()));
    remove_if_there(&probe)?;
    user
}

/// Makes the names in a folder outlive a crash.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
