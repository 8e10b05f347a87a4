//! Compiled code on disk, so that a module is compiled once and not at every start.
//!
//! Compiled code is run as it is: whoever can write such a file can run anything in this process.
//! So it is taken only from a folder and files that belong to this process's user and that nobody
//! else can write, and only if its content has the digest that was written with it (which finds
//! damage by the disk, not malice).

#![allow(unsafe_code, reason = "wasmtime can't check compiled code, so taking it is unsafe")]

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
    time::SystemTime,
};

use sha2::{Digest as _, Sha256};
use wasmtime::{Engine, component::Component};

use super::{Digest, Error};
use crate::private::{Found, PrivateFolder};

const SUFFIX: &str = "cwasm";
const DIGEST_BYTES: usize = 32;

/// What wasmtime's compiler made, as far as is known: nobody but this process's user could change it
/// since.
#[derive(Debug)]
pub(super) struct Compiled(Vec<u8>);

impl Compiled {
    /// What the compiler has just returned, in this process or in one that it started.
    pub(super) const fn by_compiler(code: Vec<u8>) -> Self {
        Self(code)
    }

    /// Makes it ready to be run. Fails if it is for another machine, engine or configuration.
    pub(super) fn component(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: it is either what `by_compiler` was given, which came from wasmtime's compiler
        // through this process's memory and a pipe of its own, or what `read` found: the content of
        // a file that belongs to this process's user and that nobody else can write, as the folder
        // around it, with the digest that `store` computed.
        unsafe { Component::deserialize(engine, &self.0) }
    }
}

/// A folder of compiled code.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PrivateFolder,
    bytes_max: u64,
    /// What code compiled here can run on: engine version, its configuration, processor.
    compatibility: String,
}

impl Cache {
    /// Opens the folder, and makes it if it isn't there. What is in one that others could write is
    /// deleted.
    pub(super) fn open(folder: &Path, bytes_max: u64, compatibility: u64) -> Result<Self, Error> {
        let failed = |reason: String| Error::Cache { folder: folder.to_owned(), reason };
        let (private, found) = PrivateFolder::open(folder).map_err(failed)?;
        let compatibility = format!("{compatibility:016x}");
        let cache = Self { folder: private, bytes_max, compatibility };
        if found == Found::Writable {
            cache.clear().map_err(|error| {
                failed(format!("others could write it, and it can't be emptied: {error}"))
            })?;
        }
        Ok(cache)
    }

    /// The code of a module, if it is there. What is damaged is as good as not there.
    pub(super) fn load(&self, engine: &Engine, digest: &Digest) -> Option<Component> {
        let name = self.name(digest);
        let refused = |reason: String| {
            let path = self.folder.path(&name);
            tracing::warn!(path = %path.display(), reason, "compiled code was refused, compiling again");
        };
        match self.read(&name) {
            Ok(Some(code)) => code.component(engine).map_err(|e| refused(e.to_string())).ok(),
            Ok(None) => None,
            Err(error) => {
                refused(error.to_string());
                None
            }
        }
    }

    /// Keeps the code of a module. A failure costs a compilation later, so it is only logged.
    pub(super) fn store(&self, digest: &Digest, code: &Compiled) {
        let name = self.name(digest);
        let write = |file: &mut fs::File| {
            file.write_all(&Sha256::digest(&code.0))?;
            file.write_all(&code.0)
        };
        let kept = self.folder.replace(&name, write).and_then(|()| self.evict(&name));
        if let Err(error) = kept {
            let path = self.folder.path(&name);
            tracing::warn!(path = %path.display(), %error, "compiled code was not kept");
        }
    }

    fn name(&self, digest: &Digest) -> String {
        format!("{digest}-{}.{SUFFIX}", self.compatibility)
    }

    fn read(&self, name: &str) -> io::Result<Option<Compiled>> {
        self.folder.check()?;
        let Some(mut file) = self.folder.read(name)? else { return Ok(None) };
        let mut digest = [0; DIGEST_BYTES];
        file.read_exact(&mut digest)?;
        let mut code = Vec::new();
        file.read_to_end(&mut code)?;
        match Sha256::digest(&code)[..] == digest {
            true => Ok(Some(Compiled(code))),
            false => Err(io::Error::other("it is damaged")),
        }
    }

    /// Deletes the oldest code until all that is in the folder keeps to its limit; `newest` stays.
    fn evict(&self, newest: &str) -> io::Result<()> {
        let (mut bytes, mut files) = (0, Vec::new());
        for name in self.folder.names()? {
            let metadata = fs::symlink_metadata(self.folder.path(&name))?;
            bytes += metadata.len();
            if is_code(&name) && name != newest {
                let age = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push((age, metadata.len(), name));
            }
        }
        files.sort();
        for (_, size, name) in files {
            if bytes <= self.bytes_max {
                break;
            }
            self.folder.remove(&name)?;
            bytes -= size;
        }
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        let names = self.folder.names()?;
        names.iter().filter(|name| is_code(name)).try_for_each(|name| self.folder.remove(name))
    }
}

fn is_code(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, suffix)| suffix == SUFFIX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn engine() -> Engine {
        Engine::default()
    }

    fn code(engine: &Engine) -> Compiled {
        Compiled::by_compiler(engine.precompile_component(b"\0asm\x0d\0\x01\0").unwrap())
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
        cache.store(&digest(), &code(&engine));
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
        cache.store(&digest(), &code(&engine));
        let path = cache.folder.path(&cache.name(&digest()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(cache.load(&engine, &digest()).is_none());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(cache.load(&engine, &digest()).is_some());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(cache.load(&engine, &digest()).is_none());
        // It is emptied: whoever could write it may have given one module the code of another.
        let cache = Cache::open(folder.path(), 1 << 30, 1).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        cache.store(&digest(), &code(&engine));
        assert!(cache.load(&engine, &digest()).is_some());
    }

    #[test]
    fn what_a_kill_left_over_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(folder.path(), 1 << 30, 1).unwrap();
        cache.store(&digest(), &code(&engine));
        let half = folder.path().join(format!(".new-{}", cache.name(&digest())));
        fs::write(&half, "half").unwrap();
        let cache = Cache::open(folder.path(), 1 << 30, 1).unwrap();
        assert!(!half.exists() && cache.load(&engine, &digest()).is_some());
    }

    #[test]
    fn damage_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(folder.path(), 1 << 30, 1).unwrap();
        cache.store(&digest(), &code(&engine));
        let path = cache.folder.path(&cache.name(&digest()));
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
        cache.store(&Digest::of(b"first"), &code(&engine));
        cache.store(&Digest::of(b"second"), &code(&engine));
        assert!(cache.load(&engine, &Digest::of(b"first")).is_none());
        assert!(cache.load(&engine, &Digest::of(b"second")).is_some());
    }
}
