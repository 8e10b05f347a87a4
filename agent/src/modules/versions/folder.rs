//! A private folder of modules, whose files are replaced whole.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use tracing::warn;

use super::{Error, INDEX, index};
use crate::{guest::Digest, private::PrivateFolder};

/// How the files of modules end.
pub(super) const SUFFIX: &str = "wasm";

/// The folder of an application's versions.
#[derive(Debug)]
pub(super) struct Folder(PrivateFolder);

impl Folder {
    /// Opens the folder, and makes it if it isn't there. Files of this user's that others can write,
    /// which a volume's driver may have caused, are closed to them: what may have been changed is
    /// what modules do, and they are never trusted.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let refused = |reason: String| Error::Folder { folder: path.to_owned(), reason };
        let (folder, _) = PrivateFolder::open(path).map_err(refused)?;
        let folder = Self(folder);
        folder.close_files()?;
        // Where it has just been made, it must outlive a crash as its files do.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = std::fs::File::open(parent.unwrap_or(Path::new(".")));
        parent.and_then(|parent| parent.sync_all()).map_err(|error| refused(error.to_string()))?;
        Ok(folder)
    }

    fn close_files(&self) -> Result<(), Error> {
        let own = |name: &&String| *name == INDEX || module(name).is_some();
        for name in self.names()?.iter().filter(own) {
            match self.0.close_file(name) {
                Ok(false) => {}
                Ok(true) => {
                    let path = self.path(name);
                    warn!(path = %path.display(), "others could write this file until now");
                }
                Err(source) => {
                    let path = self.path(name);
                    return Err(Error::Failed { action: "close to others", path, source });
                }
            }
        }
        Ok(())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// The content of a file of at most `bytes_max` bytes, if it is there.
    pub(super) fn read(&self, name: &str, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.0.read(name)? else { return Ok(None) };
        let mut content = Vec::new();
        file.take(bytes_max.saturating_add(1)).read_to_end(&mut content)?;
        match content.len() as u64 <= bytes_max {
            true => Ok(Some(content)),
            false => Err(io::Error::other(format!("it is larger than {bytes_max} bytes"))),
        }
    }

    /// Gives a file a new content: after a crash it has all of it, or the one before.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        self.0.replace(name, |file| file.write_all(content)).map_err(|source| Error::Failed {
            action: "write",
            path: self.path(name),
            source,
        })
    }

    /// Deletes a file; one that is gone is as good.
    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        self.0.remove(name).map_err(|source| Error::Failed {
            action: "delete",
            path: self.path(name),
            source,
        })
    }

    /// The modules in it, by what their files' names say.
    pub(super) fn modules(&self) -> Result<BTreeSet<Digest>, Error> {
        Ok(self.names()?.iter().filter_map(|name| module(name)).collect())
    }

    fn names(&self) -> Result<Vec<String>, Error> {
        let failed = |source| Error::Failed { action: "list", path: self.path(""), source };
        self.0.names().map_err(failed)
    }
}

/// The module that a file of this name has.
fn module(name: &str) -> Option<Digest> {
    let (stem, suffix) = name.rsplit_once('.')?;
    index::digest(stem).filter(|_| suffix == SUFFIX)
}
