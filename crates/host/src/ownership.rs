// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The ownership file of a guest: what this host last promised about it, durably.
//!
//! The file takes one record after the other and answers with the newest. Its one duty is never
//! to answer with an *older* record than one it once reported as written: a source that forgot
//! having ceded would resume a guest that runs elsewhere. So what it cannot be certain of, it
//! calls in doubt.
//!
//! # Shape
//!
//! Two slots of 4096 bytes, used in turn: record number *n* goes to slot *n* mod 2. A slot is
//! eight sectors of 512 bytes, and **each sector is a whole copy of the record** ([`copy`]), with
//! its number and a checksum. A slot is written with one `pwrite` and one `fdatasync`.
//!
//! # What can be known from a damaged slot
//!
//! A crash in the middle of a write leaves each sector old, new or broken. A disk that goes bad
//! breaks sectors that were fine. With one copy a slot, the two look alike: a broken slot may have
//! held a record that was never acknowledged (the other slot is the answer) or one that was (the
//! other slot is *older*). The copies tell them apart:
//!
//! - A record was acknowledged only after **all eight** copies of it were durable. So one intact
//!   copy of the slot's *earlier* record proves that the write after it never completed.
//! - One intact copy of the *later* record is that record. If it was not acknowledged, nobody has
//!   acted on it yet, and going on with it is as if the crash had come a moment later.
//! - A slot without any intact copy proves nothing: **in doubt**, whatever the other slot says.
//! - Anything a crash cannot leave (records that do not follow each other, a wrong length, copies
//!   that contradict each other, an old sector in the slot that was finished earlier): in doubt.
//!
//! So a torn write never needs a person, up to seven broken sectors of a slot are survived, and
//! no damage at all leads to an older answer.
//!
//! # Durable before it answers
//!
//! [`OwnershipFile::open`] writes the newest record again, to all copies, and syncs it before it
//! answers. What it read may have come from the page cache of a write whose sync failed or never
//! happened: an answer that the next power cut takes back is as bad as an older one. This also
//! mends copies that were broken or torn.
//!
//! When a write or its sync fails, nobody knows what the disk holds, and asking again does not
//! help: after a failed sync, Linux may drop the data and report success the next time. The file
//! is *poisoned*: in this process nobody reads or writes it any more, also not by opening it again.
//!
//! The blocks are allocated when the file is created, so a full disk cannot stop a record.

mod copy;
mod medium;
mod slots;

use slots::{SlotError, Slots};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use whimbrel_model::problem::{Kind, Remedy};

pub use copy::RECORD_BYTES_MAX;

/// An ownership file that this process holds, with the record that is certain to be the newest.
#[derive(Debug)]
pub struct OwnershipFile {
    path: PathBuf,
    slots: Slots<File>,
}

/// Why the ownership file did not answer, or did not take a record.
#[derive(Debug, thiserror::Error)]
pub enum OwnershipError {
    /// Who owns the guest is not known: never acted on, only explained by `recover`.
    #[error("the ownership file `{}` is damaged: {details}", .path.display())]
    InDoubt { path: PathBuf, details: String },
    /// An earlier write may or may not be on the disk. Only a restarted daemon may read it again.
    #[error(
        "the ownership file `{}` could not be written, and decides nothing until the daemon is \
         restarted",
        .path.display()
    )]
    Poisoned { path: PathBuf },
    #[error(
        "the ownership file `{}` was written by a newer Whimbrel (version {version})",
        .path.display()
    )]
    Newer { path: PathBuf, version: u16 },
    #[error("the ownership file `{}` is in use by another process", .path.display())]
    InUse { path: PathBuf },
    #[error("the ownership file `{}` exists already", .path.display())]
    Exists { path: PathBuf },
    #[error("there is no ownership file `{}`", .path.display())]
    Missing { path: PathBuf },
    #[error(
        "a record of {length} bytes is too long for the ownership file `{}`, which takes \
         {RECORD_BYTES_MAX}",
        .path.display()
    )]
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
    /// Creates the file with its first record. The name appears only when all of it is durable.
    pub fn create(path: &Path, record: &[u8]) -> Result<Self, OwnershipError> {
        Self::create_with(path, record, |new| medium::link_durably(new, path))
    }

    /// Puts a new file in the place of one in doubt, on an operator's word. At every moment there
    /// is one or the other by that name; the old one is also kept as `ownership.replaced-…`, for
    /// those who want to know what happened.
    pub fn replace(path: &Path, record: &[u8]) -> Result<Self, OwnershipError> {
        Self::create_with(path, record, |new| {
            medium::keep_aside(path)?;
            medium::rename_durably(new, path)
        })
    }

    fn create_with(
        path: &Path,
        record: &[u8],
        name: impl FnOnce(&Path) -> Result<(), OwnershipError>,
    ) -> Result<Self, OwnershipError> {
        check_length(path, record)?;
        let (temporary, file) = medium::create_temporary(path)?;
        let slots = Slots::create(file, record).map_err(|error| of(path, error));
        let created = slots.and_then(|slots| {
            name(&temporary)?;
            Ok(Self { path: path.to_owned(), slots })
        });
        let _ = std::fs::remove_file(&temporary); // Named otherwise by now, or void.
        created
    }

    /// Opens the file, finds the newest record, and makes it durable before it can be read.
    pub fn open(path: &Path) -> Result<Self, OwnershipError> {
        let file = medium::open(path)?;
        let slots = Slots::open(file).map_err(|error| of(path, error))?;
        Ok(Self { path: path.to_owned(), slots })
    }

    /// Returns the newest record.
    pub fn read(&self) -> Result<&[u8], OwnershipError> {
        self.slots.read().map_err(|error| of(&self.path, error))
    }

    /// Writes the next record. When it returns, the record is durable; when it fails, nobody
    /// knows, and the file is poisoned.
    pub fn write(&mut self, record: &[u8]) -> Result<(), OwnershipError> {
        check_length(&self.path, record)?;
        self.slots.write(record).map_err(|error| of(&self.path, error))
    }

    /// Returns how many copies were found broken, and mended, when the file was opened. More
    /// than none without a crash before it: the disk is going bad.
    pub fn copies_mended(&self) -> usize {
        self.slots.copies_mended()
    }
}

fn check_length(path: &Path, record: &[u8]) -> Result<(), OwnershipError> {
    match record.len() {
        length if length > RECORD_BYTES_MAX => {
            Err(OwnershipError::TooLong { path: path.to_owned(), length })
        }
        _ => Ok(()),
    }
}

/// Names the file that an error is about.
fn of(path: &Path, error: SlotError) -> OwnershipError {
    let path = path.to_owned();
    match error {
        SlotError::InDoubt { details } => OwnershipError::InDoubt { path, details },
        SlotError::Poisoned => OwnershipError::Poisoned { path },
        SlotError::Newer { version } => OwnershipError::Newer { path, version },
        SlotError::Io { action, source } => OwnershipError::Io { action, path, source },
    }
}

impl OwnershipError {
    /// Whether there simply is no such file: this host never heard of the guest.
    pub fn is_missing(&self) -> bool {
        matches!(self, OwnershipError::Missing { .. })
    }
}

impl Remedy for OwnershipError {
    fn code(&self) -> &'static str {
        match self {
            OwnershipError::InDoubt { .. } => "ownership/in-doubt",
            OwnershipError::Poisoned { .. } => "ownership/not-durable",
            OwnershipError::Newer { .. } => "ownership/newer",
            OwnershipError::InUse { .. } => "ownership/in-use",
            OwnershipError::Exists { .. } => "ownership/exists",
            OwnershipError::Missing { .. } => "ownership/missing",
            OwnershipError::TooLong { .. } => "ownership/record-too-long",
            OwnershipError::Io { .. } => "ownership/unusable",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            // A write that failed may be on the disk all the same.
            OwnershipError::InDoubt { .. }
            | OwnershipError::Poisoned { .. }
            | OwnershipError::Io { .. } => Kind::InDoubt,
            OwnershipError::Newer { .. }
            | OwnershipError::InUse { .. }
            | OwnershipError::Exists { .. }
            | OwnershipError::Missing { .. }
            | OwnershipError::TooLong { .. } => Kind::Refused,
        }
    }

    fn remedy(&self) -> String {
        match self {
            OwnershipError::InDoubt { .. } => {
                "run `whimbrel recover` with the guest's name: it shows what each host knows".into()
            }
            OwnershipError::Poisoned { path } | OwnershipError::Io { path, .. } => format!(
                "look for errors of the disk under `{}` with `dmesg`, then restart the daemon",
                path.display()
            ),
            OwnershipError::Newer { .. } => "install the newer Whimbrel again".into(),
            OwnershipError::InUse { .. } => "stop the other daemon".into(),
            OwnershipError::Exists { .. } => {
                "the guest is known here already: see `whimbrel list`".into()
            }
            OwnershipError::Missing { .. } => {
                "this host does not know the guest: look on the others with `whimbrel list \
                 --all-hosts`"
                    .into()
            }
            OwnershipError::TooLong { .. } => "report this as a bug".into(),
        }
    }
}

#[cfg(test)]
mod tests;
