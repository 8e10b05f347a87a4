//! Who may use the control service.

use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

use sha2::{Digest, Sha256};
use tonic::{Request, Status};

use super::Error;
use crate::{config::read_regular, lock::Shared};

/// The fewest bytes of a token, so that it can't be guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// How many of them are different at least.
const TOKEN_KINDS_MIN: usize = 6;
/// The most bytes of its file, so that not just any file is one.
const FILE_BYTES_MAX: u64 = 4_096;

/// The bit of a file's mode that lets those read it who are neither its owner nor of its group.
const READABLE_BY_OTHERS: u32 = 0o004;

/// Lets those pass who bring the token, or everyone if there is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Access(Option<Arc<Token>>);

#[derive(Debug)]
struct Token {
    /// The key of the pipeline file that names the file.
    key: &'static str,
    file: PathBuf,
    /// The digest, so that comparing it tells nothing by how long it takes.
    digest: RwLock<[u8; 32]>,
}

impl Access {
    /// Reads the token from its file, which `key` of the pipeline file names.
    pub(super) fn read(key: &'static str, file: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = file else { return Ok(Self::default()) };
        let digest = RwLock::new(read(key, path)?);
        Ok(Self(Some(Arc::new(Token { key, file: path.to_owned(), digest }))))
    }

    /// The file of the token, with the key of the pipeline file that names it.
    pub(super) fn file(&self) -> Option<(&'static str, &Path)> {
        self.0.as_ref().map(|token| (token.key, token.file.as_path()))
    }

    /// Whether there is a token.
    pub(super) const fn asks(&self) -> bool {
        self.0.is_some()
    }

    /// Reads the file again; says whether the token is another than before. What was there stays in
    /// force until the file is sound.
    pub(super) fn refresh(&self) -> Result<bool, Error> {
        let Some(token) = &self.0 else { return Ok(false) };
        let found = read(token.key, &token.file)?;
        let mut digest = token.digest.writing();
        Ok(std::mem::replace(&mut *digest, found) != found)
    }

    /// Lets a request pass, or refuses it.
    pub(super) fn check(&self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(token) = &self.0 else { return Ok(request) };
        let brought = request.metadata().get("authorization").and_then(|value| {
            let brought = value.to_str().ok()?.strip_prefix("Bearer ")?;
            Some(<[u8; 32]>::from(Sha256::digest(brought)))
        });
        match brought == Some(*token.digest.reading()) {
            true => Ok(request),
            false => Err(Status::unauthenticated(format!(
                "bring the token of `{}` as `authorization: Bearer <token>`",
                token.key
            ))),
        }
    }
}

fn read(key: &'static str, path: &Path) -> Result<[u8; 32], Error> {
    let failed = |reason| Error::File { key, path: path.to_owned(), reason };
    let content = read_regular(path, FILE_BYTES_MAX).map_err(|error| failed(error.to_string()))?;
    let text = str::from_utf8(&content)
        .map_err(|_| failed("it is not text: write the token into it, and nothing else".into()))?;
    let token = text.trim();
    if token.len() < TOKEN_BYTES_MIN {
        return Err(failed(format!(
            "a token has at least {TOKEN_BYTES_MIN} bytes: make one with `openssl rand -hex 32`"
        )));
    }
    let kinds: BTreeSet<u8> = token.bytes().collect();
    if kinds.len() < TOKEN_KINDS_MIN {
        return Err(failed(format!(
            "a token of {} different characters is soon guessed: make one with `openssl rand -hex 32`",
            kinds.len()
        )));
    }
    Ok(Sha256::digest(token).into())
}

/// That everybody on this machine may read what is secret, in words, if so.
pub(super) fn open_to_all((key, path): (&'static str, &Path)) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    (mode & READABLE_BY_OTHERS != 0).then(|| {
        let path = path.display();
        format!(
            "everybody on this machine may read the secret of `{key}`: `chmod o= {path}` (of a \
             Kubernetes secret set `defaultMode: 0440`)"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[test]
    fn a_token_comes_from_a_small_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let read = || match Access::read("control.token_file", Some(&path)) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        for (content, expected) in [
            (&b"a token that nobody guesses\n"[..], ""),
            (b"short\n", "a token has at least 16 bytes"),
            (b"aaaaaaaabbbbbbbb", "a token of 2 different characters is soon guessed"),
            (b"\xff\xfe0123456789abcdef", "it is not text"),
            (&[b'x'; 5_000], "it is larger than 4096 bytes"),
        ] {
            fs::write(&path, content).unwrap();
            let told = read();
            assert!(told.contains(expected) && told.is_empty() == expected.is_empty(), "{told}");
        }
        fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(read().contains("it is not a file"), "a pipe would keep the agent waiting");
    }
}
