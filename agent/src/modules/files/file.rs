//! One module file: whether it is still, and whether its content is another one.

use std::{
    fs::{self, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{Change, News, Problem, RESTLESS_TIME_MAX, STILL, Watched};
use crate::{config::open_regular, guest::Digest};

/// A module file, and what is known of it.
pub(super) struct File {
    watched: Watched,
    /// The same path, from the root.
    path: PathBuf,
    bytes_max: u64,
    /// What it looked like last.
    looks: Option<Looks>,
    /// Since when it looks so.
    since: Instant,
    /// Since when it was looked at more often; `None` when what it looks like was dealt with.
    restless: Option<Instant>,
    /// What was told last, as long as it holds.
    told: Option<Trouble>,
}

/// What a file looks like without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Looks {
    Gone,
    /// It can't be looked at.
    Hidden(String),
    NoFile,
    There {
        device: u64,
        inode: u64,
        size: u64,
        modified: (i64, i64),
        /// Finds a writer that sets the other time back.
        changed: (i64, i64),
    },
}

/// Why a file can't be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    Gone,
    Unreadable(String),
    NoFile,
    TooLarge,
    Restless,
}

impl File {
    pub(super) fn new(watched: Watched, bytes_max: u64) -> io::Result<Self> {
        let path = std::path::absolute(&watched.path)?;
        let since = Instant::now();
        let (looks, restless, told) = (None, None, None);
        Ok(Self { watched, path, bytes_max, looks, since, restless, told })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is to be looked at again soon.
    pub(super) fn is_restless(&self) -> bool {
        self.restless.is_some()
    }

    /// Looks at it. Says what is new once it was still for [`STILL`].
    pub(super) fn look(&mut self, now: Instant) -> Option<News> {
        let looks = Looks::of(fs::metadata(&self.path));
        if self.looks.as_ref() != Some(&looks) {
            self.looks = Some(looks.clone());
            self.since = now;
            self.restless.get_or_insert(now);
        }
        let restless = self.restless?;
        if now.duration_since(self.since) < STILL {
            let is_too_long = now.duration_since(restless) >= RESTLESS_TIME_MAX;
            return is_too_long.then(|| self.trouble(Trouble::Restless)).flatten();
        }
        match self.read(&looks) {
            Ok(Some(module)) => {
                (self.restless, self.told) = (None, None);
                self.changed(module)
            }
            Ok(None) => {
                // It changed meanwhile, and must be still again.
                self.looks = None;
                None
            }
            Err(trouble) => {
                self.restless = None;
                if matches!(trouble, Trouble::Unreadable(_)) {
                    // That may pass without the file looking any different.
                    self.looks = None;
                }
                self.trouble(trouble)
            }
        }
    }

    /// The content of the file, unless it doesn't look like that any more.
    fn read(&self, looks: &Looks) -> Result<Option<Vec<u8>>, Trouble> {
        let size = match looks {
            Looks::Gone => return Err(Trouble::Gone),
            Looks::Hidden(reason) => return Err(Trouble::Unreadable(reason.clone())),
            Looks::NoFile => return Err(Trouble::NoFile),
            Looks::There { size, .. } if *size > self.bytes_max => return Err(Trouble::TooLarge),
            Looks::There { size, .. } => *size,
        };
        let read = || {
            let mut file = open_regular(&self.path)?;
            let mut module = Vec::new();
            let before = Looks::of(file.metadata());
            file.by_ref().take(self.bytes_max.saturating_add(1)).read_to_end(&mut module)?;
            let is_whole = before == *looks
                && Looks::of(file.metadata()) == *looks
                && module.len() as u64 == size;
            Ok(is_whole.then_some(module))
        };
        read().map_err(|error: io::Error| Trouble::Unreadable(error.to_string()))
    }

    fn changed(&mut self, module: Vec<u8>) -> Option<News> {
        let digest = Digest::of(&module);
        if self.watched.seen.replace(digest) == Some(digest) {
            return None;
        }
        let Watched { transforms, path, .. } = self.watched.clone();
        Some(News::Changed(Change { transforms, path, module, digest }))
    }

    /// Tells of a trouble, unless that was the last thing told.
    fn trouble(&mut self, trouble: Trouble) -> Option<News> {
        if self.told.as_ref() == Some(&trouble) {
            return None;
        }
        let path = self.watched.path.display();
        let what = match &trouble {
            Trouble::Gone => "is gone: put it back".to_owned(),
            Trouble::Unreadable(reason) => format!("can't be read: {reason}; make it readable"),
            Trouble::NoFile => "is not a file: put one there".to_owned(),
            Trouble::TooLarge => format!(
                "is larger than {} bytes: make it smaller, or raise `limits.module_bytes_max`",
                self.bytes_max
            ),
            Trouble::Restless => format!(
                "has not been still for {} ms within {} seconds: write it elsewhere and rename it",
                STILL.as_millis(),
                RESTLESS_TIME_MAX.as_secs()
            ),
        };
        let message = format!("the module file `{path}` {what}; the running module stays");
        self.told = Some(trouble);
        Some(News::Problem(Problem { transforms: self.watched.transforms.clone(), message }))
    }
}

impl Looks {
    fn of(metadata: io::Result<Metadata>) -> Self {
        match metadata {
            Ok(metadata) if metadata.is_file() => Self::There {
                device: metadata.dev(),
                inode: metadata.ino(),
                size: metadata.size(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            },
            Ok(_) => Self::NoFile,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Gone,
            Err(error) => Self::Hidden(error.to_string()),
        }
    }
}
