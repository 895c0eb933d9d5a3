// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The ownership file of a guest: what this host last promised about it, durably.

use std::io;
use std::path::{Path, PathBuf};
use whimbrel_model::problem::{Kind, Remedy};

/// Longest record, in bytes: with its header it fits the smallest sector of a disk.
pub const RECORD_BYTES_MAX: usize = 480;

/// An ownership file that this process holds, with the record that is certain to be the newest.
#[derive(Debug)]
pub struct OwnershipFile {
    path: PathBuf,
}

/// Why the ownership file did not answer, or did not take a record.
#[derive(Debug, thiserror::Error)]
pub enum OwnershipError {
    /// Who owns the guest is not known: never acted on, only explained by `recover`.
    #[error("the ownership file `{}` is damaged: {details}", .path.display())]
    InDoubt { path: PathBuf, details: String },
    /// An earlier write may or may not be on the disk. Only a restarted daemon may read it again.
    #[error("the ownership file `{}` could not be written earlier, and decides nothing until the daemon was restarted", .path.display())]
    Poisoned { path: PathBuf },
    #[error("the ownership file `{}` is in use by another process", .path.display())]
    InUse { path: PathBuf },
    #[error("a record of {length} bytes is too long for the ownership file `{}`, which takes {RECORD_BYTES_MAX}", .path.display())]
    TooLong { path: PathBuf, length: usize },
    #[error("failed to {action} the ownership file `{}`", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl OwnershipFile {
    /// Creates the file with its first record. Nothing is there before all of it is durable.
    pub fn create(path: &Path, record: &[u8]) -> Result<Self, OwnershipError> {
        let _ = record;
        Err(unsupported(path))
    }

    /// Opens the file and makes sure that what it answers is durable. A file that is not there is
    /// [`Io`](OwnershipError::Io) with kind `NotFound`: see [`OwnershipError::is_missing`].
    pub fn open(path: &Path) -> Result<Self, OwnershipError> {
        Err(unsupported(path))
    }

    /// Replaces a file in doubt by a new one, on an operator's word. The old file is kept beside
    /// it, as `ownership.replaced-N`.
    pub fn replace(path: &Path, record: &[u8]) -> Result<Self, OwnershipError> {
        let _ = record;
        Err(unsupported(path))
    }

    /// Returns the newest record.
    pub fn read(&self) -> Result<&[u8], OwnershipError> {
        Err(unsupported(&self.path))
    }

    /// Writes the next record. When it returns, the record is durable; when it fails, nobody knows,
    /// and the file is poisoned.
    pub fn write(&mut self, record: &[u8]) -> Result<(), OwnershipError> {
        let _ = record;
        Err(unsupported(&self.path))
    }
}

fn unsupported(path: &Path) -> OwnershipError {
    let source = io::Error::from(io::ErrorKind::Unsupported);
    OwnershipError::Io { action: "use", path: path.to_owned(), source }
}

impl OwnershipError {
    /// Whether there simply is no such file: this host never heard of the guest.
    pub fn is_missing(&self) -> bool {
        matches!(self, OwnershipError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl Remedy for OwnershipError {
    fn code(&self) -> &'static str {
        match self {
            OwnershipError::InDoubt { .. } => "ownership/in-doubt",
            OwnershipError::Poisoned { .. } => "ownership/not-durable",
            OwnershipError::InUse { .. } => "ownership/in-use",
            OwnershipError::TooLong { .. } => "ownership/record-too-long",
            OwnershipError::Io { .. } => "ownership/unusable",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            OwnershipError::InDoubt { .. } | OwnershipError::Poisoned { .. } => Kind::InDoubt,
            _ => Kind::Failed,
        }
    }

    fn remedy(&self) -> String {
        match self {
            OwnershipError::InDoubt { .. } => {
                "run `whimbrel recover` with the guest's name: it shows what each host knows".into()
            }
            OwnershipError::Poisoned { path } => format!(
                "check the disk under `{}` (`dmesg` shows its errors), then restart the daemon",
                path.display()
            ),
            OwnershipError::InUse { .. } => "stop the other daemon".into(),
            OwnershipError::TooLong { .. } => "report this as a bug".into(),
            OwnershipError::Io { path, .. } => {
                format!("make `{}` readable and writable for the daemon", path.display())
            }
        }
    }
}
