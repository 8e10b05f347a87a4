//! Who may use the control service.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use sha2::{Digest, Sha256};
use tonic::{Request, Status};

use super::Error;

/// The fewest bytes of a token, so that it can't be guessed.
const TOKEN_BYTES_MIN: usize = 16;

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

    /// Whether there is a token.
    pub(super) const fn asks(&self) -> bool {
        self.0.is_some()
    }

    /// Reads the file again; says whether the token is another than before. What was there stays in
    /// force until the file is sound.
    pub(super) fn refresh(&self) -> Result<bool, Error> {
        let Some(token) = &self.0 else { return Ok(false) };
        let found = read(token.key, &token.file)?;
        let mut digest = token.digest.write().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut *digest, found) != found)
    }

    /// Lets a request pass, or refuses it.
    pub(super) fn check(&self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(token) = &self.0 else { return Ok(request) };
        let brought = request.metadata().get("authorization").and_then(|value| {
            let brought = value.to_str().ok()?.strip_prefix("Bearer ")?;
            Some(<[u8; 32]>::from(Sha256::digest(brought)))
        });
        match brought == Some(*lock_read(&token.digest)) {
            true => Ok(request),
            false => Err(Status::unauthenticated(format!(
                "bring the token of `{}` as `authorization: Bearer <token>`",
                token.key
            ))),
        }
    }
}

pub(super) fn lock_read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn read(key: &'static str, path: &Path) -> Result<[u8; 32], Error> {
    let failed = |reason| Error::File { key, path: path.to_owned(), reason };
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let token = text.trim();
    if token.len() < TOKEN_BYTES_MIN {
        return Err(failed(format!("a token has at least {TOKEN_BYTES_MIN} characters")));
    }
    Ok(Sha256::digest(token).into())
}
