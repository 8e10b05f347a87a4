//! Compiled code on disk, so that a module is compiled once and not at every start.
//!
//! Compiled code is run as it is: whoever can write such a file can run anything in this process.
//! So it is taken only from a folder and files that belong to this process's user and that nobody
//! else can write, and only if its content has the digest that was written with it (which finds
//! damage by the disk, not malice).

#![allow(unsafe_code, reason = "wasmtime can't check compiled code, so taking it is unsafe")]

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use sha2::{Digest as _, Sha256};
use wasmtime::{Engine, component::Component};

use super::{Digest, Error};

const SUFFIX: &str = "cwasm";
const DIGEST_BYTES: usize = 32;
/// Group or others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A folder of compiled code.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    bytes_max: u64,
    /// Whom the files of this process belong to.
    user: u32,
    /// What code compiled here can run on: engine version, its configuration, processor.
    compatibility: String,
    temporary: AtomicU64,
}

impl Cache {
    /// Opens the folder, and makes it if it isn't there.
    pub(super) fn open(folder: &Path, bytes_max: u64, compatibility: u64) -> Result<Self, Error> {
        let failed = |reason: String| Error::Cache { folder: folder.to_owned(), reason };
        let access =
            |error: io::Error| failed(format!("{error}; give a folder that can be written"));
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(access)?;
        let cache = Self {
            folder: folder.to_owned(),
            bytes_max,
            user: own_user(folder).map_err(access)?,
            compatibility: format!("{compatibility:016x}"),
            temporary: AtomicU64::new(0),
        };
        let metadata = fs::symlink_metadata(folder).map_err(access)?;
        if !metadata.is_dir() {
            return Err(failed("it is not a folder itself; links are not followed".to_owned()));
        }
        cache.private(&metadata).map_err(|why| failed(format!("{why}; `chmod 700` it")))?;
        Ok(cache)
    }

    /// The code of a module, if it is there. What is damaged is as good as not there.
    pub(super) fn load(&self, engine: &Engine, digest: &Digest) -> Option<Component> {
        let path = self.path(digest);
        match self.read(&path) {
            Ok(Some(code)) => {
                // SAFETY: `read` gives only the content of a file that belongs to this process's
                // user and that nobody else can write, as the folder around it; its digest is
                // the one that `store` computed from what wasmtime's compiler returned.
                let component = unsafe { Component::deserialize(engine, code) };
                component.map_err(|error| refused(&path, &error.to_string())).ok()
            }
            Ok(None) => None,
            Err(error) => {
                refused(&path, &error.to_string());
                None
            }
        }
    }

    /// Keeps the code of a module. A failure costs a compilation later, so it is only logged.
    pub(super) fn store(&self, digest: &Digest, component: &Component) {
        let path = self.path(digest);
        let kept = component
            .serialize()
            .map_err(|error| io::Error::other(error.to_string()))
            .and_then(|code| self.write(&path, &code))
            .and_then(|()| self.evict(&path));
        if let Err(error) = kept {
            tracing::warn!(path = %path.display(), %error, "compiled code was not kept");
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{digest}-{}.{SUFFIX}", self.compatibility))
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

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.private(&fs::symlink_metadata(&self.folder)?).map_err(io::Error::other)?;
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err(io::Error::other("it is not a file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut file = File::open(path)?;
        self.private(&file.metadata()?).map_err(io::Error::other)?;
        let mut digest = [0; DIGEST_BYTES];
        file.read_exact(&mut digest)?;
        let mut code = Vec::new();
        file.read_to_end(&mut code)?;
        match Sha256::digest(&code)[..] == digest {
            true => Ok(Some(code)),
            false => Err(io::Error::other("it is damaged")),
        }
    }

    fn write(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = self.folder.join(format!(".{}-{number}", std::process::id()));
        let written = private_file(&temporary)
            .and_then(|mut file| {
                file.write_all(&Sha256::digest(code))?;
                file.write_all(code)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            drop(fs::remove_file(&temporary));
        }
        written
    }

    /// Deletes the oldest code until what is left keeps to its limit; `newest` stays.
    fn evict(&self, newest: &Path) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|suffix| suffix == SUFFIX) && path != newest {
                let metadata = fs::symlink_metadata(&path)?;
                let age = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push((age, metadata.len(), path));
            }
        }
        files.sort();
        let newest_bytes = fs::symlink_metadata(newest)?.len();
        let mut bytes = newest_bytes + files.iter().map(|(_, bytes, _)| bytes).sum::<u64>();
        for (_, size, path) in files {
            if bytes <= self.bytes_max {
                break;
            }
            fs::remove_file(path)?;
            bytes -= size;
        }
        Ok(())
    }
}

fn refused(path: &Path, reason: &str) {
    tracing::warn!(path = %path.display(), reason, "compiled code was refused, compiling again");
}

/// Makes a file that is not there yet, for this user only.
fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// The user that a file made by this process belongs to.
fn own_user(folder: &Path) -> io::Result<u32> {
    let probe =
        folder.join(format!(".{}-probe-{:?}", std::process::id(), std::thread::current().id()));
    let user = private_file(&probe).and_then(|file| Ok(file.metadata()?.uid()));
    fs::remove_file(&probe)?;
    user
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn engine() -> Engine {
        Engine::default()
    }

    fn component(engine: &Engine) -> Component {
        Component::new(engine, b"\0asm\x0d\0\x01\0").unwrap()
    }

    fn digest() -> Digest {
        Digest::of(b"module")
    }

    #[test]
    fn code_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(&folder.path().join("code"), 1 << 30, 1).unwrap();
        assert!(cache.load(&engine, &digest()).is_none());
        cache.store(&digest(), &component(&engine));
        assert!(cache.load(&engine, &digest()).is_some());
        let mode = fs::metadata(folder.path().join("code")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
        let other_engine = Cache::open(&folder.path().join("code"), 1 << 30, 2).unwrap();
        assert!(other_engine.load(&engine, &digest()).is_none());
    }

    #[test]
    fn what_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(folder.path(), 1 << 30, 1).unwrap();
        cache.store(&digest(), &component(&engine));
        let path = cache.path(&digest());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(cache.load(&engine, &digest()).is_none());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(cache.load(&engine, &digest()).is_some());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(cache.load(&engine, &digest()).is_none());
        let refused = Cache::open(folder.path(), 1 << 30, 1).unwrap_err().to_string();
        assert!(refused.contains("chmod 700"), "{refused}");
    }

    #[test]
    fn damage_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(folder.path(), 1 << 30, 1).unwrap();
        cache.store(&digest(), &component(&engine));
        let path = cache.path(&digest());
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(cache.load(&engine, &digest()).is_none());
        fs::write(&path, b"short").unwrap();
        assert!(cache.load(&engine, &digest()).is_none());
    }

    #[test]
    fn the_oldest_code_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(folder.path(), 1, 1).unwrap();
        cache.store(&Digest::of(b"first"), &component(&engine));
        cache.store(&Digest::of(b"second"), &component(&engine));
        assert!(cache.load(&engine, &Digest::of(b"first")).is_none());
        assert!(cache.load(&engine, &Digest::of(b"second")).is_some());
    }
}
