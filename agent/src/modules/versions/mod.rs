//! The versions of transforms that are kept on disk: a restart goes on with what was swapped in
//! last, and a rollback has something to go back to.
//!
//! In a private folder that one process has at a time:
//!
//! ```text
//! <digest>.wasm   a module, by its sha256; several transforms may run the same one
//! index.json      which transform ran which of them, newest first, and which content of its
//!                 module file was dealt with
//! ```
//!
//! A module is written before the index that names it and deleted after the index that no longer
//! does. So a kill at any moment leaves one index or the other, and at most files that no index
//! names, which the next start deletes.

mod folder;
mod index;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use tracing::warn;

pub(crate) use self::index::Kept;
use self::{
    folder::Folder,
    index::{Damage, INDEX_VERSION, Index},
};
use crate::{guest::Digest, lock::Held};

const INDEX: &str = "index.json";
/// No index is larger: a name has at most [`NAME_CHARACTERS_MAX`], and there are few versions.
const INDEX_BYTES_MAX: u64 = 64 << 20;
/// What is kept of a version's name.
const NAME_CHARACTERS_MAX: usize = 256;
/// How often the process may end while a content of a module file is swapped in.
const TRIES_MAX: u32 = 2;

/// The versions of all transforms of an application.
#[derive(Debug)]
pub(crate) struct Versions {
    folder: Folder,
    versions_max: usize,
    index: Mutex<Index>,
}

/// A version with its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// Which code it is.
    pub(crate) digest: Digest,
    /// The content of the module's file; it has that digest.
    pub(crate) module: Vec<u8>,
    /// What messages call it.
    pub(crate) name: String,
}

/// What a transform starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The module file of the pipeline: nothing ran before, or just that.
    File,
    /// The version that ran last; the module file was dealt with.
    Kept(Version),
    /// The version that ran last, and the module file is new and to be swapped in.
    KeptUntilSwap(Version),
    /// The module file, which is new: the version that ran last can't be used, for this reason.
    FileInstead(String),
}

/// The versions on disk can't be used, or there is none as asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Correct the folder.
    #[error("the folder `{folder}` can't hold the versions of modules: {reason}", folder = .folder.display())]
    Folder {
        /// Where.
        folder: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Delete the list of versions.
    #[error(
        "the list of versions `{path}` is damaged ({reason}): delete it, and every transform \
         starts with its module file again; what was swapped in since is to be swapped in anew",
        path = .path.display()
    )]
    Damaged {
        /// The list.
        path: PathBuf,
        /// How it was seen.
        reason: String,
    },
    /// Run the newer version of the agent.
    #[error(
        "the list of versions `{path}` has the format {found}, and this agent knows formats up to \
         {INDEX_VERSION}: run the newer agent that wrote it, or delete it, and every transform \
         starts with its module file again",
        path = .path.display()
    )]
    Newer {
        /// The list.
        path: PathBuf,
        /// The version of its format.
        found: u32,
    },
    /// Put the module back, or give that version up.
    #[error(
        "the module `{path}` (`{name}`) of transform `{transform}` can't be used: {reason}; put \
         the right file there, or delete it and start again: then this version is given up, and a \
         transform that ran it starts with its module file",
        path = .path.display()
    )]
    Module {
        /// Its file.
        path: PathBuf,
        /// The name it was swapped in by.
        name: String,
        /// Whose version it is.
        transform: String,
        /// How it was seen.
        reason: String,
    },
    /// Ask for one that is there.
    #[error("no version of transform `{transform}` begins with `{wanted}`; kept are {there}")]
    Unknown {
        /// Whose version was asked for.
        transform: String,
        /// How its digest should begin.
        wanted: String,
        /// What is there.
        there: String,
    },
    /// Give more digits.
    #[error(
        "several versions of transform `{transform}` begin with `{wanted}`; give more digits: kept \
         are {there}"
    )]
    Ambiguous {
        /// Whose version was asked for.
        transform: String,
        /// How its digest should begin.
        wanted: String,
        /// What is there.
        there: String,
    },
    /// Name a version, or swap.
    #[error("transform `{transform}` has no version before the running one; kept are {there}")]
    NoneBefore {
        /// Whose version was asked for.
        transform: String,
        /// What is there.
        there: String,
    },
    /// Look at permissions and free space.
    #[error("can't {action} `{path}`: {source}", path = .path.display())]
    Failed {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl Versions {
    /// Opens the folder, which is made if it isn't there, and deletes what a kill has left over.
    /// Of each transform the newest `versions_max` are kept (one at least, the running one
    /// included); with `transforms`, those of all others are given up.
    ///
    /// A version whose file was deleted is given up. If it was the running one, the transform's
    /// module file counts as not seen yet, so that it starts with that.
    pub(crate) fn open(
        folder: &Path,
        versions_max: usize,
        transforms: Option<&[&str]>,
    ) -> Result<Self, Error> {
        let folder = Folder::open(folder)?;
        let before = read_index(&folder)?;
        let mut index = before.clone();
        if let Some(names) = transforms {
            index.retain(names);
        }
        let files = folder.modules()?;
        for (transform, kept) in index.give_up_missing(&files) {
            let path = folder.path(&file_name(&kept.digest()));
            let (path, name) = (path.display(), &kept.name);
            warn!(transform, %path, name, "the file of a version is gone; the version is given up");
        }
        let versions_max = versions_max.max(1);
        index.shorten(versions_max);
        if index != before {
            folder.write(INDEX, &index.to_bytes())?;
        }
        delete_unnamed(&folder, &index)
            .unwrap_or_else(|error| warn!(%error, "files that are of no use any more stay"));
        Ok(Self { folder, versions_max, index: Mutex::new(index) })
    }

    /// What a transform starts with, given the content of its module file. What ran last goes on: if
    /// the file was never seen or has changed since it was last [handled](Self::handled), it is to be
    /// swapped in, so that the probation protects from it.
    pub(crate) fn choose(&self, transform: &str, file: &[u8]) -> Result<Choice, Error> {
        let file = Digest::of(file);
        let index = self.lock();
        let Some(running) = index.versions(transform).first() else { return Ok(Choice::File) };
        if running.digest() == file {
            return Ok(Choice::File);
        }
        let handled = index.handled(transform);
        if handled.is_none() {
            // The one that ran last was given up; nobody has asked for those before it.
            return Ok(Choice::FileInstead("its file is gone".to_owned()));
        }
        let is_new = handled != Some(file);
        match self.load(transform, running) {
            Ok(version) if is_new => Ok(Choice::KeptUntilSwap(version)),
            Ok(version) => Ok(Choice::Kept(version)),
            Err(Error::Module { reason, .. }) if is_new => Ok(Choice::FileInstead(reason)),
            // What was refused, taken back or left behind is not to come back by itself.
            Err(error) => Err(error),
        }
    }

    /// A kept version can't be used, though it is what was kept.
    pub(crate) fn unusable(&self, transform: &str, version: &Version, reason: String) -> Error {
        Error::Module {
            path: self.folder.path(&file_name(&version.digest)),
            name: version.name.clone(),
            transform: transform.to_owned(),
            reason,
        }
    }

    /// Remembers that a swap is begun with this content of a transform's module file. If the process
    /// ends before it was [handled](Self::handled), it is tried again, once.
    pub(crate) fn begin(&self, transform: &str, file: Digest) -> Result<(), Error> {
        self.change(|index| {
            let tries = index.tries(transform, file).saturating_add(1);
            index.set_tries(transform, file, tries);
        })
    }

    /// Whether a swap was begun with this content of a transform's module file, and never ended.
    pub(crate) fn is_undecided(&self, transform: &str, file: Digest) -> bool {
        self.lock().tried(transform) == Some(file)
    }

    /// If a swap that was [begun](Self::begin) does not end until the process does, that is no fault
    /// of the module's.
    pub(crate) fn postpone(&self, transform: &str, file: Digest) -> Result<(), Error> {
        self.change(|index| {
            if index.tried(transform) != Some(file) {
                return;
            }
            let tries = index.tries(transform, file).saturating_sub(1);
            index.set_tries(transform, file, tries);
        })
    }

    /// Takes this content of a transform's module file for [handled](Self::handled), if the process
    /// has ended too often while it was swapped in. Says whether that is so.
    pub(crate) fn give_up(&self, transform: &str, file: Digest) -> Result<bool, Error> {
        let is_deadly = self.lock().tries(transform, file) >= TRIES_MAX;
        if is_deadly {
            self.handled(transform, file)?;
        }
        Ok(is_deadly)
    }

    /// Remembers that this content of a transform's module file was dealt with, whatever came of
    /// it: only another one is taken for new by [`choose`](Self::choose).
    pub(crate) fn handled(&self, transform: &str, file: Digest) -> Result<(), Error> {
        self.change(|index| index.set_handled(transform, file))
    }

    /// Keeps a module as the running version of a transform: one that a swap brought, or one that
    /// a start chose. The running one until now is the first to roll back to, and the oldest make
    /// room. A module that is kept already moves to the front; the running one stays as it is.
    pub(crate) fn keep(
        &self,
        transform: &str,
        module: &[u8],
        name: &str,
        at_ms: i64,
    ) -> Result<(), Error> {
        let digest = Digest::of(module);
        let mut index = self.lock();
        if index.versions(transform).first().is_some_and(|running| running.digest() == digest) {
            return Ok(());
        }
        let name = name.chars().take(NAME_CHARACTERS_MAX).collect();
        let kept = Kept::new(digest, module.len() as u64, name, at_ms);
        // Also if it is there: what is in hand is sound, and the file may be damaged.
        self.folder.write(&file_name(&digest), module)?;
        let mut changed = index.clone();
        changed.run(transform, kept, self.versions_max);
        self.replace(&mut index, changed)
    }

    /// The versions of a transform, newest first; the first is the one that
    /// [`keep`](Self::keep) named last.
    pub(crate) fn list(&self, transform: &str) -> Vec<Kept> {
        self.lock().versions(transform).to_vec()
    }

    /// The version whose digest begins with the hexadecimal digits `wanted`; without any, the one
    /// before the running one.
    pub(crate) fn read(&self, transform: &str, wanted: Option<&str>) -> Result<Version, Error> {
        let index = self.lock();
        let kept = index.versions(transform);
        let transform = transform.to_owned();
        let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else {
            return match kept.get(1) {
                Some(before) => self.load(&transform, before),
                None => Err(Error::NoneBefore { transform, there: describe(kept) }),
            };
        };
        let digits = wanted.to_ascii_lowercase();
        let mut found = kept.iter().filter(|kept| kept.digest().to_string().starts_with(&digits));
        let wanted = wanted.to_owned();
        match (found.next(), found.next()) {
            (Some(one), None) => self.load(&transform, one),
            (None, _) => Err(Error::Unknown { transform, wanted, there: describe(kept) }),
            (Some(_), Some(_)) => {
                Err(Error::Ambiguous { transform, wanted, there: describe(kept) })
            }
        }
    }

    /// The code of a version, if it is what was kept.
    fn load(&self, transform: &str, kept: &Kept) -> Result<Version, Error> {
        let digest = kept.digest();
        let name = file_name(&digest);
        let bad = |reason: String| Error::Module {
            path: self.folder.path(&name),
            name: kept.name.clone(),
            transform: transform.to_owned(),
            reason,
        };
        let module = match self.folder.read(&name, kept.bytes) {
            Ok(Some(module)) => module,
            Ok(None) => return Err(bad("it is gone".to_owned())),
            Err(error) => return Err(bad(error.to_string())),
        };
        match Digest::of(&module) {
            found if found == digest => Ok(Version { digest, module, name: kept.name.clone() }),
            found => Err(bad(format!("it is damaged, its content has the digest {found}"))),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Index)) -> Result<(), Error> {
        let mut index = self.lock();
        let mut changed = index.clone();
        change(&mut changed);
        self.replace(&mut index, changed)
    }

    /// Puts another index in the place of `current`, on disk first, and deletes the modules that
    /// it does not name. If that fails, they are deleted after the next change or at a start.
    fn replace(&self, current: &mut Index, changed: Index) -> Result<(), Error> {
        if changed != *current {
            self.folder.write(INDEX, &changed.to_bytes())?;
            *current = changed;
            delete_unnamed(&self.folder, current).unwrap_or_else(|error| {
                warn!(%error, "a version that is of no use any more stays on disk");
            });
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // The index is replaced whole, so a panic can't leave it half changed.
        self.index.held()
    }
}

fn read_index(folder: &Folder) -> Result<Index, Error> {
    let path = folder.path(INDEX);
    let bytes = match folder.read(INDEX, INDEX_BYTES_MAX) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(Index::default()),
        Err(source) => return Err(Error::Failed { action: "read", path, source }),
    };
    Index::from_bytes(&bytes).map_err(|damage| match damage {
        Damage::Newer(found) => Error::Newer { path, found },
        Damage::Unreadable(reason) => Error::Damaged { path, reason },
    })
}

/// Deletes the modules that the index does not name.
fn delete_unnamed(folder: &Folder, index: &Index) -> Result<(), Error> {
    let (files, named) = (folder.modules()?, index.digests());
    files.difference(&named).try_for_each(|digest| folder.remove(&file_name(digest)))
}

fn file_name(digest: &Digest) -> String {
    format!("{digest}.{}", folder::SUFFIX)
}

/// The versions of a transform, for a message.
fn describe(versions: &[Kept]) -> String {
    let describe = |(place, kept): (usize, &Kept)| {
        let running = if place == 0 { ", running" } else { "" };
        format!("{:.12} (`{}`{running})", kept.digest().to_string(), kept.name)
    };
    match versions.is_empty() {
        true => "none".to_owned(),
        false => versions.iter().enumerate().map(describe).collect::<Vec<_>>().join(", "),
    }
}
