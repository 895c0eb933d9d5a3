// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a disk image itself says about its guest: the owner record and the claims beside it.

use std::io;
use std::path::{Path, PathBuf};
use whimbrel_model::guest::DiskSource;
use whimbrel_model::id::{Epoch, GuestId, HandoffId, HostId};

/// The place beside an image where its records are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    image: PathBuf,
}

/// Whether a disk has a place for records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beside {
    Place(Place),
    /// There is no "beside": two hosts can end in doubt about this disk. The plan says so.
    NoPlace(NoPlace),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    #[error("it is a block device")]
    BlockDevice,
    #[error("the engine reads it over the network by itself")]
    Network,
}

/// Who an image belongs to, as its record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub guest: GuestId,
    pub guest_name: String,
    pub host: HostId,
    pub host_name: String,
    pub epoch: Epoch,
    /// The handoff by which the epoch was taken; none: by a start.
    pub handoff: Option<HandoffId>,
    pub state: OwnerState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerState {
    /// The host has taken the guest.
    Held,
    /// The host before it has ceded the guest to this one, which may or may not have taken it yet.
    Ceded,
}

/// What the records beside an image say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Nothing: the image belongs to nobody yet.
    Nothing,
    Owner(Owner),
    /// A record of this very file, made under another path: the directory was moved, or the whole
    /// file system was cloned. It speaks of this image unless a person says otherwise.
    Moved {
        owner: Owner,
        recorded: PathBuf,
    },
    /// A record of another file: the image was copied, restored or replaced together with it.
    Copied {
        owner: Owner,
        recorded_inode: u64,
        inode: u64,
    },
    /// A record that cannot be read: in doubt, never "nobody".
    Damaged {
        path: PathBuf,
        reason: String,
    },
}

/// How taking an epoch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    Won,
    /// Somebody else has this epoch, or a later one.
    Lost(Claimant),
}

/// Who takes, or took, an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    pub guest: GuestId,
    pub host: HostId,
    pub host_name: String,
    pub epoch: Epoch,
    pub handoff: Option<HandoffId>,
}

/// What is kept with the record, so that the guest can be started when its host is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestPapers {
    pub guest: GuestId,
    pub epoch: Epoch,
    /// The guest file, TOML.
    pub definition: String,
    /// The passport, JSON, once there is one.
    pub passport: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("failed to {action} `{}`", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Place {
    /// Finds the place of a disk. Symbolic links to the image are followed; the place is beside
    /// the file itself, so that every host that sees the file sees the same place.
    pub fn of(disk: &DiskSource) -> Result<Beside, ClaimError> {
        match disk {
            DiskSource::Nfs(_) => Ok(Beside::NoPlace(NoPlace::Network)),
            DiskSource::Path(path) => Err(unsupported(path)),
        }
    }

    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Reads what the image says of itself.
    pub fn word(&self) -> Result<Word, ClaimError> {
        Err(unsupported(&self.image))
    }

    /// Takes an epoch, for which exactly one claimant can win. The same claimant wins again.
    pub fn claim(&self, claimant: &Claimant) -> Result<Claim, ClaimError> {
        let _ = claimant;
        Err(unsupported(&self.image))
    }

    /// Writes the owner record, durably and at once. Claims of earlier epochs are pruned.
    pub fn record(&self, owner: &Owner) -> Result<(), ClaimError> {
        let _ = owner;
        Err(unsupported(&self.image))
    }

    /// Removes the owner record of a guest that was forgotten, its claims and papers, if it is its.
    pub fn release(&self, guest: GuestId) -> Result<(), ClaimError> {
        let _ = guest;
        Err(unsupported(&self.image))
    }

    /// Keeps the guest's papers beside the image.
    pub fn keep_papers(&self, papers: &GuestPapers) -> Result<(), ClaimError> {
        let _ = papers;
        Err(unsupported(&self.image))
    }

    /// Reads the guest's papers, if they are there and intact.
    pub fn papers(&self) -> Result<Option<GuestPapers>, ClaimError> {
        Err(unsupported(&self.image))
    }
}

fn unsupported(path: &Path) -> ClaimError {
    let source = io::Error::from(io::ErrorKind::Unsupported);
    ClaimError::Io { action: "use", path: path.to_owned(), source }
}
