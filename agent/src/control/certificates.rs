//! The certificate of the control interface and the root of its clients'. Their files are read again
//! and again, so that what is renewed or revoked counts for the next connection.

use std::{
    fmt,
    path::Path,
    sync::{Arc, RwLock},
};

use jiff::{SignedDuration, Timestamp};
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

use super::{Error, validity::Validity};
use crate::{
    config::{Tls, read_regular},
    lock::Shared,
};

/// The keys of the pipeline file that name the files.
const CERTIFICATE: &str = "control.tls.certificate";
const KEY: &str = "control.tls.key";
const CLIENT_CA: &str = "control.tls.client_ca";
/// The most bytes of one of them.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How long before its end it is told that a certificate has to be renewed; of one that lasts for
/// days alone, when this part of its time is left.
const ENDING_TIME: SignedDuration = SignedDuration::from_hours(7 * 24);
const ENDING_PART: i32 = 5;
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
    /// Of the certificate, and of those between it and its root, the one that ends first.
    validity: Option<Validity>,
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
            *self.current.writing() = found;
        }
        Ok(is_new)
    }

    /// What takes the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current().config)
    }

    /// That the certificate ends soon, or has ended, in words, and whether it has.
    pub(super) fn ending(&self, now: Timestamp) -> Option<(String, bool)> {
        let Validity { from, until } = self.current().validity?;
        let left = until.duration_since(now);
        if left > ENDING_TIME.min(until.duration_since(from) / ENDING_PART) {
            return None;
        }
        let has_ended = left.is_negative();
        let path = self.files.certificate.display();
        let (ends, clients) = match has_ended {
            true => ("has ended", "clients refuse it"),
            false => ("ends", "from then on clients refuse it"),
        };
        Some((
            format!(
                "the certificate of `{CERTIFICATE}` ({path}) {ends} at {until:.0}, {clients}: renew it; \
                 what is in its files is read again within seconds"
            ),
            has_ended,
        ))
    }

    /// The file of the key, with the key of the pipeline file that names it.
    pub(super) fn key_file(&self) -> (&'static str, &Path) {
        (KEY, &self.files.key)
    }

    /// Whether clients have to bring a certificate.
    pub(super) const fn asks(&self) -> bool {
        self.files.client_ca.is_some()
    }

    fn current(&self) -> Current {
        self.current.reading().clone()
    }
}

fn read(files: &Tls) -> Result<Current, Error> {
    let mut digest = Sha256::new();
    let mut file = |key, path: &Path| {
        let pem = read_regular(path, FILE_BYTES_MAX).map_err(|error| failed(key, path, &error))?;
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
    let validities = chain.iter().filter_map(|certificate| Validity::of(certificate));
    let validity = validities.min_by_key(|validity| validity.until);
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| failed(KEY, &files.key, &format!("it is no key in PEM: {error}")))?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        failed(KEY, &files.key, &format!("{error}; it is to be the certificate's"))
    })?;
    config.alpn_protocols.push(PROTOCOL.to_vec());
    Ok(Current { config: Arc::new(config), digest: digest.finalize().into(), validity })
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::validity::tests::certificate, *};

    #[test]
    fn the_end_of_a_certificate_is_told_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let files = Tls {
            certificate: folder.path().join("certificate.pem"),
            key: folder.path().join("key.pem"),
            client_ca: None,
        };
        let at = |time: &str| format!("{time}T00:00:01Z").parse::<Timestamp>().unwrap();
        for (from, until, quiet, told) in [
            ((2026, 1, 1), (2027, 1, 1), "2026-12-24", "2026-12-25"),
            ((2026, 1, 1), (2026, 1, 11), "2026-01-08", "2026-01-09"),
        ] {
            let ([pem, key], _) = certificate(from, until);
            fs::write(&files.certificate, pem).unwrap();
            fs::write(&files.key, key).unwrap();
            let read = Certificates::read(&files).unwrap();
            assert_eq!(read.ending(at(quiet)), None);
            let (message, has_ended) = read.ending(at(told)).unwrap();
            let (year, month, day) = until;
            let end = format!("ends at {year}-{month:02}-{day:02}T00:00:00Z");
            assert!(message.contains(&end) && !has_ended, "{message}");
            let (message, has_ended) = read.ending(at("2027-01-01")).unwrap();
            assert!(message.contains("has ended") && has_ended, "{message}");
        }
    }
}
