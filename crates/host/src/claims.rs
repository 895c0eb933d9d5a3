// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a disk image itself says about its guest: the owner record and the claims beside it.
//!
//! Hosts that see the same image see the same `.whimbrel/` beside it:
//!
//! ```text
//! /srv/guests/web1.img
//! /srv/guests/.whimbrel/web1.img.owner         who owns it: guest, host, epoch, handoff, state
//! /srv/guests/.whimbrel/web1.img.claim.42.17   who took epoch 17 (of the image with inode 42)
//! /srv/guests/.whimbrel/web1.img.guest         the guest's papers: definition and passport
//! /srv/guests/.whimbrel/web1.img.mark          left by a plan, for another host to find
//! ```
//!
//! - A **claim** can be won by exactly one host: the claimant writes a file of its own, makes it
//!   durable, and links it to the claim's name. Whether that worked is told by the file's link
//!   count, not by the answer to `link`, which NFS may repeat and then report wrongly.
//! - The **record** is replaced as a whole (written beside, synced, renamed, directory synced) by
//!   the host that won the claim. Claims before it are pruned only after that, so a host that comes
//!   too late meets either the claim or the later record.
//! - Every file carries its kind, version and checksum. A broken one means in doubt, never
//!   "nobody".
//! - The record knows the inode and the path of its image, and a claim the inode. So what was
//!   copied or restored along with its folder, or lies beside an image that was replaced, is not
//!   mistaken for a word about the new image: that one belongs to nobody yet.
//!
//! A host that takes several images of one guest claims them in the order of the guest's
//! definition, which is the same on every host: the first one decides.
//!
//! Symbolic links to the image are followed first; links inside `.whimbrel` are never followed.

mod folder;
mod format;
mod lock;
mod standing;

use folder::{Content, Folder};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use whimbrel_model::guest::DiskSource;
use whimbrel_model::id::{Epoch, GuestId, HandoffId, HostId};
use whimbrel_model::problem::{Kind, Remedy};
use whimbrel_model::run_state::RunState;

pub use format::PAPERS_BYTES_MAX;
pub use standing::{Standing, standing};

/// The folder beside the images.
pub const FOLDER: &str = ".whimbrel";

/// Longest file name of an image, in bytes, that leaves room for `.claim.`, an inode and an epoch.
pub const IMAGE_NAME_BYTES_MAX: usize = 255 - ".claim.".len() - 2 * 20 - ".".len();

/// What a mark is named, how long it is, and how long it is good: a copy of the folder has it, too.
const MARK: &str = ".mark";
const MARK_BYTES: usize = 32;
const MARK_AGE_MAX: Duration = Duration::from_secs(60);

/// The place beside an image where its records are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Without symbolic links.
    image: PathBuf,
    name: OsString,
    inode: u64,
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
    /// `run` is what the guest was when it stopped; none: it had no engine.
    Ceded { run: Option<RunState> },
}

/// What the records beside an image say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Nothing: the image belongs to nobody yet.
    Nothing,
    Owner(Owner),
    /// A record of this very file, made under another path: the folder was moved, or the whole
    /// file system was cloned. It speaks of this image unless a person says otherwise.
    Moved {
        owner: Owner,
        recorded: PathBuf,
    },
    /// A record of another file: the image was copied, restored or replaced beside it.
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
    #[error("there is no disk image `{}`",
        .path.display()
    )]
    NoImage { path: PathBuf },
    #[error("`{}` is neither a file nor a block device", .path.display())]
    NotAnImage { path: PathBuf },
    #[error(
        "the disk image `{}` has {links} names (hard links), and could be taken under each",
        .path.display()
    )]
    HardLinked { path: PathBuf, links: u64 },
    #[error(
        "the file name of the disk image `{}` has {length} bytes, and at most \
         {IMAGE_NAME_BYTES_MAX} are possible",
        .path.display()
    )]
    NameTooLong { path: PathBuf, length: usize },
    #[error("the record `{}` is damaged: {reason}", .path.display())]
    InDoubt { path: PathBuf, reason: String },
    #[error(
        "the disk image `{}` belongs to guest `{}` on `{}` since epoch {}",
        .image.display(), .owner.guest_name, .owner.host_name, .owner.epoch
    )]
    Superseded { image: PathBuf, owner: Box<Owner> },
    #[error("`{}` is a symbolic link, or not what Whimbrel puts there", .path.display())]
    NotOurs { path: PathBuf },
    #[error(
        "the file system of `{}` has no hard links, by which hosts could agree",
        .path.display()
    )]
    NoLinks { path: PathBuf },
    #[error(
        "the papers of guest `{guest}` have {bytes} bytes, and at most {PAPERS_BYTES_MAX} are \
         kept beside `{}`",
        .image.display()
    )]
    PapersTooLong { image: PathBuf, guest: GuestId, bytes: usize },
    #[error("failed to {action} `{}`", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Remedy for ClaimError {
    fn code(&self) -> &'static str {
        match self {
            ClaimError::NoImage { .. } => "disk/missing",
            ClaimError::NotAnImage { .. } => "disk/not-an-image",
            ClaimError::HardLinked { .. } => "disk/hard-linked",
            ClaimError::NameTooLong { .. } => "disk/name-too-long",
            ClaimError::InDoubt { .. } => "disk/record-damaged",
            ClaimError::Superseded { .. } => "disk/owned-elsewhere",
            ClaimError::NotOurs { .. } => "disk/folder-not-ours",
            ClaimError::NoLinks { .. } => "disk/no-hard-links",
            ClaimError::PapersTooLong { .. } => "disk/papers-too-long",
            ClaimError::Io { .. } => "disk/record-unusable",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            ClaimError::InDoubt { .. } => Kind::InDoubt,
            ClaimError::Io { .. } => Kind::Failed,
            _ => Kind::Refused,
        }
    }

    fn remedy(&self) -> String {
        match self {
            ClaimError::NoImage { .. } | ClaimError::NotAnImage { .. } => {
                "correct the disk's path in the guest file, or mount what should be there".into()
            }
            ClaimError::HardLinked { path, .. } => {
                format!(
                    "find the other names with `find -samefile {}` and remove them",
                    path.display()
                )
            }
            ClaimError::NameTooLong { .. } => "give the image a shorter name".into(),
            ClaimError::InDoubt { .. } => {
                "run `whimbrel recover` with the guest's name: it shows what each host knows".into()
            }
            ClaimError::Superseded { owner, .. } => format!(
                "use the guest on `{}`, or move it here from there with `whimbrel migrate {}`",
                owner.host_name, owner.guest_name
            ),
            ClaimError::NotOurs { path } => {
                format!("look at `{}`, and remove it if nothing needs it", path.display())
            }
            ClaimError::NoLinks { .. } => "keep the image on a file system with hard links".into(),
            ClaimError::PapersTooLong { .. } => "make the guest file shorter".into(),
            ClaimError::Io { path, .. } => format!(
                "let root write beside the image: on NFS export it with `no_root_squash`, else \
                 look at `ls -ld {}`",
                path.parent().unwrap_or(path).display()
            ),
        }
    }
}

impl Place {
    /// Finds the place of a disk: beside the file itself, links followed, so that every host that
    /// sees the file sees the same place.
    pub fn of(disk: &DiskSource) -> Result<Beside, ClaimError> {
        let path = match disk {
            DiskSource::Nfs(_) => return Ok(Beside::NoPlace(NoPlace::Network)),
            DiskSource::Path(path) => path,
        };
        let io = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => ClaimError::NoImage { path: path.clone() },
            _ => ClaimError::Io { action: "look at", path: path.clone(), source },
        };
        let image = path.canonicalize().map_err(io)?;
        let found = image.symlink_metadata().map_err(io)?;
        if found.file_type().is_block_device() {
            return Ok(Beside::NoPlace(NoPlace::BlockDevice));
        }
        let Some(name) = image.file_name().filter(|_| found.is_file()) else {
            return Err(ClaimError::NotAnImage { path: image });
        };
        if found.nlink() > 1 {
            return Err(ClaimError::HardLinked { path: image, links: found.nlink() });
        }
        if name.len() > IMAGE_NAME_BYTES_MAX {
            return Err(ClaimError::NameTooLong { length: name.len(), path: image });
        }
        Ok(Beside::Place(Place { name: name.to_owned(), inode: found.ino(), image }))
    }

    /// The image, without symbolic links.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Returns whether an engine, on whichever host, has the image open for writing.
    pub fn is_in_use(&self) -> Result<bool, ClaimError> {
        lock::is_held(&self.image).map_err(|source| ClaimError::Io {
            action: "look for locks on",
            path: self.image.clone(),
            source,
        })
    }

    /// Reads what the image says of itself.
    pub fn word(&self) -> Result<Word, ClaimError> {
        match Folder::find(self.parent())? {
            Some(folder) => self.word_in(&folder),
            None => Ok(Word::Nothing),
        }
    }

    /// Returns the claims that were taken, oldest first; none for one that cannot be read.
    pub fn claims(&self) -> Result<Vec<(Epoch, Option<Claimant>)>, ClaimError> {
        let Some(folder) = Folder::find(self.parent())? else { return Ok(Vec::new()) };
        let mut epochs = self.claimed(&folder)?;
        epochs.sort_unstable();
        let mut claims = Vec::new();
        for epoch in epochs {
            match self.read_claim(&folder, &self.claim_name(epoch)) {
                // It was pruned a moment ago.
                Ok(None) => {}
                Ok(Some(claimant)) => claims.push((epoch, Some(claimant))),
                Err(ClaimError::InDoubt { .. }) => claims.push((epoch, None)),
                Err(error) => return Err(error),
            }
        }
        Ok(claims)
    }

    /// Takes an epoch, for which exactly one claimant can win. The same claimant wins again. Once
    /// it has won, nobody else ever gets this epoch or one before it.
    pub fn claim(&self, claimant: &Claimant) -> Result<Claim, ClaimError> {
        let folder = Folder::make(self.parent())?;
        if let Some(winner) = self.later(&folder, claimant)? {
            return Ok(Claim::Lost(winner));
        }
        let name = self.claim_name(claimant.epoch);
        let mut is_taken = folder.create_exclusively(&name, &format::claim(claimant))?;
        if !is_taken && let Some(winner) = self.read_claim(&folder, &name)? {
            if !is_same(&winner, claimant) {
                return Ok(Claim::Lost(winner));
            }
            is_taken = true;
        }
        // This epoch may have been taken, recorded and pruned before: then the record is later.
        match self.later(&folder, claimant)? {
            Some(winner) => Ok(Claim::Lost(winner)),
            None if is_taken => Ok(Claim::Won),
            None => Err(in_doubt(&folder, &name, "it was removed a moment ago".into())),
        }
    }

    /// Writes the owner record, durably. Only who has won the claim of its epoch may, or who cedes
    /// the epoch to the host named in it. Claims of epochs before one that is held are pruned.
    pub fn record(&self, owner: &Owner) -> Result<(), ClaimError> {
        let folder = Folder::make(self.parent())?;
        match self.word_in(&folder)? {
            Word::Nothing | Word::Copied { .. } => {}
            Word::Owner(there) | Word::Moved { owner: there, .. } => {
                let is_later = there.epoch > owner.epoch
                    || there.epoch == owner.epoch
                        && there.host != owner.host
                        // Ceded to a host that did not win it.
                        && (there.state == OwnerState::Held || owner.state != OwnerState::Held);
                if is_later || there.guest != owner.guest {
                    let owner = Box::new(there);
                    return Err(ClaimError::Superseded { image: self.image.clone(), owner });
                }
            }
            // The claim says more than the record, and is whole.
            Word::Damaged { .. } if self.is_claimed_by(&folder, owner)? => {}
            Word::Damaged { path, reason } => return Err(ClaimError::InDoubt { path, reason }),
        }
        folder
            .replace(&self.name_with(".owner"), &format::owner(owner, &self.image, self.inode))?;
        match owner.state {
            OwnerState::Held => self.prune(&folder, Some(owner.epoch)),
            // A source that cedes has claimed nothing, and may not know of a rival's claim that
            // the target has to find.
            OwnerState::Ceded { .. } => Ok(()),
        }
    }

    /// Removes what is damaged, on an operator's word that nothing in it matters. What can be read
    /// stays, and decides.
    pub fn remove_damaged(&self) -> Result<(), ClaimError> {
        let Some(folder) = Folder::find(self.parent())? else { return Ok(()) };
        for (epoch, claimant) in self.claims()? {
            if claimant.is_none() {
                folder.remove(&self.claim_name(epoch))?;
            }
        }
        match self.word_in(&folder)? {
            Word::Damaged { .. } => folder.remove(&self.name_with(".owner")),
            _ => Ok(()),
        }
    }

    /// Removes the record of a guest that was forgotten, with its claims and papers; a record of
    /// another guest stays. The record goes last, so that a crash in between is repeated.
    pub fn release(&self, guest: GuestId) -> Result<(), ClaimError> {
        let Some(folder) = Folder::find(self.parent())? else { return Ok(()) };
        match self.word_in(&folder)? {
            Word::Owner(owner) | Word::Moved { owner, .. } if owner.guest == guest => {
                self.prune(&folder, None)?;
                folder.remove(&self.name_with(".guest"))?;
                folder.remove(&self.name_with(MARK))?;
                folder.remove(&self.name_with(".owner"))?;
                folder.remove_if_empty();
                Ok(())
            }
            Word::Damaged { path, reason } => Err(ClaimError::InDoubt { path, reason }),
            // It was claimed, and never recorded.
            Word::Nothing => self.release_claims(&folder, guest),
            Word::Owner(_) | Word::Moved { .. } | Word::Copied { .. } => Ok(()),
        }
    }

    /// Removes the claims of a guest for which no record was ever written.
    fn release_claims(&self, folder: &Folder, guest: GuestId) -> Result<(), ClaimError> {
        for epoch in self.claimed(folder)? {
            let name = self.claim_name(epoch);
            if self.read_claim(folder, &name)?.is_some_and(|claimant| claimant.guest == guest) {
                folder.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Keeps the guest's papers beside the image.
    pub fn keep_papers(&self, papers: &GuestPapers) -> Result<(), ClaimError> {
        let bytes = format::papers(papers);
        if bytes.len() > PAPERS_BYTES_MAX {
            return Err(ClaimError::PapersTooLong {
                image: self.image.clone(),
                guest: papers.guest,
                bytes: bytes.len(),
            });
        }
        Folder::make(self.parent())?.replace(&self.name_with(".guest"), &bytes)
    }

    /// Reads the guest's papers, if there are any.
    pub fn papers(&self) -> Result<Option<GuestPapers>, ClaimError> {
        let Some(folder) = Folder::find(self.parent())? else { return Ok(None) };
        let name = self.name_with(".guest");
        let read = match folder.read(&name, PAPERS_BYTES_MAX)? {
            Content::Missing => return Ok(None),
            Content::Bytes(bytes) => format::read_papers(&bytes),
            Content::TooLong => Err("it is too long".to_owned()),
        };
        read.map(Some).map_err(|reason| in_doubt(&folder, &name, reason))
    }

    /// Leaves a mark beside the image: who finds the same text there sees the same folder. A fresh
    /// one that is there already will do, for other plans may be looking for it just now.
    pub fn leave_mark(&self) -> Result<String, ClaimError> {
        let folder = Folder::make(self.parent())?;
        let name = self.name_with(MARK);
        if let Some(text) = read_mark(&folder, &name)?
            && folder.age(&name).is_some_and(|age| age < MARK_AGE_MAX)
        {
            return Ok(text);
        }
        let text = uuid::Uuid::new_v4().simple().to_string();
        folder.replace(&name, text.as_bytes())?;
        Ok(text)
    }

    /// Returns the mark beside the image, whoever has left it.
    pub fn mark(&self) -> Result<Option<String>, ClaimError> {
        match Folder::find(self.parent())? {
            Some(folder) => read_mark(&folder, &self.name_with(MARK)),
            None => Ok(None),
        }
    }

    fn is_claimed_by(&self, folder: &Folder, owner: &Owner) -> Result<bool, ClaimError> {
        let claim = self.read_claim(folder, &self.claim_name(owner.epoch))?;
        Ok(claim.is_some_and(|claim| claim.host == owner.host && claim.guest == owner.guest))
    }

    fn parent(&self) -> &Path {
        self.image.parent().expect("a file is in a directory")
    }

    fn name_with(&self, suffix: &str) -> OsString {
        let mut name = self.name.clone();
        name.push(suffix);
        name
    }

    fn claim_name(&self, epoch: Epoch) -> OsString {
        self.name_with(&format!(".claim.{}.{epoch}", self.inode))
    }

    fn word_in(&self, folder: &Folder) -> Result<Word, ClaimError> {
        let name = self.name_with(".owner");
        let read = match folder.read(&name, format::RECORD_BYTES_MAX)? {
            Content::Missing => return Ok(Word::Nothing),
            Content::Bytes(bytes) => format::read_owner(&bytes),
            Content::TooLong => Err("it is too long".to_owned()),
        };
        Ok(match read {
            Err(reason) => Word::Damaged { path: folder.path_of(&name), reason },
            Ok(format::Recorded { owner, inode, .. }) if inode != self.inode => {
                Word::Copied { owner, recorded_inode: inode, inode: self.inode }
            }
            Ok(format::Recorded { owner, image, .. }) if image != self.image.to_string_lossy() => {
                Word::Moved { owner, recorded: image.into() }
            }
            Ok(format::Recorded { owner, .. }) => Word::Owner(owner),
        })
    }

    /// Returns who has this epoch, or a later one, by the record or by a claim. An owner of
    /// another guest is later, whatever the numbers.
    fn later(&self, folder: &Folder, than: &Claimant) -> Result<Option<Claimant>, ClaimError> {
        let word = match self.word_in(folder)? {
            Word::Nothing | Word::Copied { .. } => None,
            Word::Owner(owner) | Word::Moved { owner, .. } => Some(owner),
            Word::Damaged { path, reason } => return Err(ClaimError::InDoubt { path, reason }),
        };
        if let Some(owner) = word {
            let is_ours = owner.host == than.host && owner.epoch == than.epoch;
            if owner.guest != than.guest || owner.epoch >= than.epoch && !is_ours {
                let Owner { guest, host, host_name, epoch, handoff, .. } = owner;
                return Ok(Some(Claimant { guest, host, host_name, epoch, handoff }));
            }
        }
        match self.claimed(folder)?.into_iter().max() {
            Some(epoch) if epoch > than.epoch => self.read_claim(folder, &self.claim_name(epoch)),
            _ => Ok(None),
        }
    }

    /// Returns the epochs that have a claim.
    fn claimed(&self, folder: &Folder) -> Result<Vec<Epoch>, ClaimError> {
        let prefix = self.name_with(&format!(".claim.{}.", self.inode));
        let names = folder.names()?;
        let epochs = names.iter().filter_map(|name| {
            let digits = name.as_bytes().strip_prefix(prefix.as_bytes())?;
            std::str::from_utf8(digits).ok()?.parse().ok().map(Epoch)
        });
        Ok(epochs.collect())
    }

    /// Reads a claim, unless it was pruned.
    fn read_claim(&self, folder: &Folder, name: &OsStr) -> Result<Option<Claimant>, ClaimError> {
        let read = match folder.read(name, format::RECORD_BYTES_MAX)? {
            Content::Missing => return Ok(None),
            Content::Bytes(bytes) => format::read_claim(&bytes),
            Content::TooLong => Err("it is too long".to_owned()),
        };
        read.map(Some).map_err(|reason| in_doubt(folder, name, reason))
    }

    /// Removes the claims before an epoch, or all of them, and what crashed writers left.
    fn prune(&self, folder: &Folder, before: Option<Epoch>) -> Result<(), ClaimError> {
        for epoch in self.claimed(folder)? {
            if before.is_none_or(|before| epoch < before) {
                folder.remove(&self.claim_name(epoch))?;
            }
        }
        folder.remove_leftovers();
        Ok(())
    }
}

fn read_mark(folder: &Folder, name: &OsStr) -> Result<Option<String>, ClaimError> {
    let text = match folder.read(name, MARK_BYTES)? {
        Content::Bytes(bytes) => String::from_utf8(bytes).ok(),
        Content::Missing | Content::TooLong => None,
    };
    let is_mark = |text: &String| {
        text.len() == MARK_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    Ok(text.filter(is_mark))
}

fn in_doubt(folder: &Folder, name: &OsStr, reason: String) -> ClaimError {
    ClaimError::InDoubt { path: folder.path_of(name), reason }
}

fn is_same(a: &Claimant, b: &Claimant) -> bool {
    (a.guest, a.host, a.epoch, a.handoff) == (b.guest, b.host, b.epoch, b.handoff)
}

#[cfg(test)]
mod tests;
