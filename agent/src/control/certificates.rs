//! The certificate of the control interface and the root of its clients'. Their files are read again
//! and again, so that what is renewed or revoked counts for the next connection.

use std::{
    fmt, fs,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use sha2::{Digest, Sha256};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};

use super::{Error, access::lock_read};
use crate::config::Tls;

/// The keys of the pipeline file that name the files.
const CERTIFICATE: &str = "control.tls.certificate";
const KEY: &str = "control.tls.key";
const CLIENT_CA: &str = "control.tls.client_ca";
/// What clients and server agree to speak.
const PROTOCOL: &[u8] = b"h2";

/// The certificate and the root of clients', as they were when they were last found to be sound.
pub(super) struct Certificates {
    files: Tls,
    current: RwLock<Current>,
}

#[derive(Clone)]
struct Current {
    config: Arc<ServerConfig>,
    /// Of all files.
    digest: [u8; 32],
}

impl Certificates {
    /// Reads the files, and checks that they fit.
    pub(super) fn read(files: &Tls) -> Result<Self, Error> {
        let current = RwLock::new(read(files)?);
        Ok(Self { files: files.clone(), current })
    }

    /// Reads the files again; says whether they are others than before. What was there stays in force
    /// until they are sound.
    pub(super) fn refresh(&self) -> Result<bool, Error> {
        let found = read(&self.files)?;
        let is_new = found.digest != self.current().digest;
        if is_new {
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = found;
        }
        Ok(is_new)
    }

    /// What takes the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current().config)
    }

    fn current(&self) -> Current {
        lock_read(&self.current).clone()
    }
}

fn read(files: &Tls) -> Result<Current, Error> {
    let mut digest = Sha256::new();
    let mut file = |key, path: &Path| {
        let pem = fs::read(path).map_err(|error| failed(key, path, &error))?;
        digest.update(pem.len().to_be_bytes());
        digest.update(&pem);
        Ok(pem)
    };
    let certificate = file(CERTIFICATE, &files.certificate)?;
    let key = file(KEY, &files.key)?;
    let root = files
        .client_ca
        .as_ref()
        .map(|path| Ok::<_, Error>((path, file(CLIENT_CA, path)?)))
        .transpose()?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(CERTIFICATE, &files.certificate, &error))?;
    let builder = match root {
        None => builder.with_no_client_auth(),
        Some((path, root)) => {
            let mut roots = RootCertStore::empty();
            for root in certificates(CLIENT_CA, path, &root)? {
                roots.add(root).map_err(|error| failed(CLIENT_CA, path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots),
                Arc::new(ring::default_provider()),
            );
            let verifier = verifier.build().map_err(|error| failed(CLIENT_CA, path, &error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = certificates(CERTIFICATE, &files.certificate, &certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| failed(KEY, &files.key, &format!("it is no key in PEM: {error}")))?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        failed(KEY, &files.key, &format!("{error}; it is to be the certificate's"))
    })?;
    config.alpn_protocols.push(PROTOCOL.to_vec());
    Ok(Current { config: Arc::new(config), digest: digest.finalize().into() })
}

fn failed(key: &'static str, path: &Path, reason: &dyn fmt::Display) -> Error {
    Error::File { key, path: path.to_owned(), reason: reason.to_string() }
}

/// The certificates of a file, at least one.
fn certificates(
    key: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(failed(key, path, &"there is no certificate in PEM in it"))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(failed(key, path, &format!("it is not PEM: {error}"))),
    }
}
