// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Who a host is: a self-signed certificate and its key, made at the first start and kept.
//!
//! The certificate says nothing that is believed (its name and dates are decoration): a host *is*
//! the SHA-256 of its certificate, and its peers have pinned exactly that. Losing the key means
//! pairing again.

use crate::{tls, words};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use whimbrel_model::id::HostId;
use whimbrel_model::problem::{Kind, Remedy};

const CERTIFICATE_FILE: &str = "cert.pem";
const KEY_FILE: &str = "key.pem";

/// This host's certificate and the key that proves it.
#[derive(Debug)]
pub struct Identity {
    id: HostId,
    credentials: Arc<SingleCertAndKey>,
}

/// Why a host does not know who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("failed to {action} `{}`", .path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{}` is not what this program wrote: {reason}", .path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("`{}` exists and `{}` does not", .present.display(), .missing.display())]
    Half { present: PathBuf, missing: PathBuf },
    #[error("failed to make a certificate")]
    Generate(#[source] rcgen::Error),
}

impl Remedy for IdentityError {
    fn code(&self) -> &'static str {
        match self {
            IdentityError::File { .. } => "identity/file",
            IdentityError::Malformed { .. } => "identity/malformed",
            IdentityError::Half { .. } => "identity/half",
            IdentityError::Generate(_) => "identity/generate",
        }
    }

    fn kind(&self) -> Kind {
        Kind::Refused
    }

    fn remedy(&self) -> String {
        match self {
            IdentityError::File { path, .. } => {
                format!("let the daemon's user read and write `{}`", path.display())
            }
            IdentityError::Malformed { path, .. } | IdentityError::Half { present: path, .. } => {
                format!(
                    "restore both files beside `{}` from a backup, or remove both and pair this \
                     host again",
                    path.display()
                )
            }
            IdentityError::Generate(_) => "report this as a bug of Whimbrel".to_owned(),
        }
    }
}

impl Identity {
    /// Reads the identity in `directory`, or makes one at the first start.
    pub fn load_or_create(directory: &Path) -> Result<Self, IdentityError> {
        let (certificate, key) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
        match (certificate.exists(), key.exists()) {
            (true, true) => Self::load(directory),
            // The key is written first, so a key alone is a first start that was cut short.
            (false, _) => Self::create(directory),
            (true, false) => Err(IdentityError::Half { present: certificate, missing: key }),
        }
    }

    /// Reads the identity in `directory`.
    pub fn load(directory: &Path) -> Result<Self, IdentityError> {
        let path = directory.join(CERTIFICATE_FILE);
        let certificate = CertificateDer::from_pem_slice(&read(&path)?)
            .map_err(|e| IdentityError::Malformed { path, reason: e.to_string() })?;
        let path = directory.join(KEY_FILE);
        let key = PrivateKeyDer::from_pem_slice(&read(&path)?)
            .map_err(|e| IdentityError::Malformed { path: path.clone(), reason: e.to_string() })?;
        Self::join(certificate, key)
            .map_err(|e| IdentityError::Malformed { path, reason: e.to_string() })
    }

    /// Makes an identity that is kept nowhere, for tests.
    pub fn generate() -> Result<Self, IdentityError> {
        let (certificate, key) = make()?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("rcgen writes PKCS #8");
        Ok(Self::join(certificate.der().clone(), key).expect("the key was made for it"))
    }

    /// Puts certificate and key together, if they belong together.
    pub fn join(
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let id = host_id_of(&certificate);
        let certified = CertifiedKey::from_der(vec![certificate], key, &tls::provider())?;
        Ok(Self { id, credentials: Arc::new(SingleCertAndKey::from(certified)) })
    }

    fn create(directory: &Path) -> Result<Self, IdentityError> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(
            |source| IdentityError::File { action: "create", path: directory.to_owned(), source },
        )?;
        let (certificate, key) = make()?;
        write(&directory.join(KEY_FILE), &key.serialize_pem(), 0o600)?;
        write(&directory.join(CERTIFICATE_FILE), &certificate.pem(), 0o644)?;
        Self::load(directory)
    }

    pub fn id(&self) -> HostId {
        self.id
    }

    /// The fingerprint as people compare it.
    pub fn words(&self) -> String {
        words::of_host(self.id)
    }

    pub(crate) fn credentials(&self) -> Arc<SingleCertAndKey> {
        self.credentials.clone()
    }
}

/// Returns who the owner of a certificate is.
pub fn host_id_of(certificate: &[u8]) -> HostId {
    HostId(Sha256::digest(certificate).into())
}

fn make() -> Result<(rcgen::Certificate, KeyPair), IdentityError> {
    let key = KeyPair::generate().map_err(IdentityError::Generate)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "whimbrel host");
    let certificate = params.self_signed(&key).map_err(IdentityError::Generate)?;
    Ok((certificate, key))
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    std::fs::read(path).map_err(|source| IdentityError::File {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

/// Writes a file that is there completely or not at all.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), IdentityError> {
    let fresh = path.with_extension("new");
    let written = (|| {
        let _ = std::fs::remove_file(&fresh);
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    })();
    written.map_err(|source| IdentityError::File { action: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// The identity is made once, the key is for its owner only, and it survives a first start
    /// that was cut short.
    #[test]
    fn an_identity_is_made_once_and_kept() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("identity");
        let first = Identity::load_or_create(&directory).unwrap();
        let second = Identity::load_or_create(&directory).unwrap();
        assert_eq!(first.id(), second.id());
        let mode = std::fs::metadata(directory.join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        std::fs::remove_file(directory.join(CERTIFICATE_FILE)).unwrap();
        let third = Identity::load_or_create(&directory).unwrap();
        assert_ne!(first.id(), third.id());

        std::fs::remove_file(directory.join(KEY_FILE)).unwrap();
        let half = Identity::load_or_create(&directory).unwrap_err();
        assert_eq!(half.code(), "identity/half");
    }
}
