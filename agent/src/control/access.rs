//! Who may use the control service.

use std::{fs, path::Path};

use sha2::{Digest, Sha256};
use tonic::{
    Request, Status,
    transport::{Certificate, Identity, ServerTlsConfig},
};

use super::Error;
use crate::config::Tls;

/// The fewest bytes of a token, so that it can't be guessed.
const TOKEN_BYTES_MIN: usize = 16;

/// Lets those pass who bring the token, or everyone if there is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    /// The digest, so that comparing it tells nothing by how long it takes.
    token: Option<[u8; 32]>,
}

impl Access {
    /// Reads the token from its file.
    pub(super) fn read(file: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = file else { return Ok(Self::default()) };
        let failed =
            |reason| Error::File { key: "control.token_file", path: path.to_owned(), reason };
        let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let token = text.trim();
        if token.len() < TOKEN_BYTES_MIN {
            return Err(failed(format!("a token has at least {TOKEN_BYTES_MIN} characters")));
        }
        Ok(Self { token: Some(Sha256::digest(token).into()) })
    }

    /// Lets a request pass, or refuses it.
    pub(super) fn check(&self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(token) = self.token else { return Ok(request) };
        let brought = request.metadata().get("authorization").and_then(|value| {
            let brought = value.to_str().ok()?.strip_prefix("Bearer ")?;
            Some(<[u8; 32]>::from(Sha256::digest(brought)))
        });
        match brought == Some(token) {
            true => Ok(request),
            false => Err(Status::unauthenticated(
                "bring the token of `control.token_file` as `authorization: Bearer <token>`",
            )),
        }
    }
}

/// Reads the files of the certificate, and checks that they fit.
pub(super) fn tls(files: &Tls) -> Result<ServerTlsConfig, Error> {
    let read = |key, path: &Path| {
        let failed = |reason: String| Error::File { key, path: path.to_owned(), reason };
        let pem = fs::read(path).map_err(|error| failed(error.to_string()))?;
        match pem.windows(11).any(|window| window == b"-----BEGIN ") {
            true => Ok(pem),
            false => Err(failed("it is not PEM".to_owned())),
        }
    };
    let certificate = read("control.tls.certificate", &files.certificate)?;
    let key = read("control.tls.key", &files.key)?;
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
    Ok(match &files.client_ca {
        Some(path) => {
            tls.client_ca_root(Certificate::from_pem(read("control.tls.client_ca", path)?))
        }
        None => tls,
    })
}
