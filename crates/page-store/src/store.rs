// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! All that a host keeps, of all guests.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use whimbrel_model::id::{GuestId, GuestName};
use whimbrel_pages::image::ImageId;

use crate::error::StoreError;
use crate::files::{Dir, remove_empty};
use crate::folder::{Folder, HeldSummary, KeptImage};
use crate::policy::{self, Candidate, Policy, Space, Why};

/// The page store of a host. See the crate for what lies where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageStore {
    root: PathBuf,
}

/// What is kept of one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub guest: GuestId,
    pub image: Option<KeptImage>,
    /// None also where it is damaged.
    pub held: Option<HeldSummary>,
    /// What is being written, or was left.
    pub unfinished_bytes: u64,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.image.is_none() && self.held.is_none() && self.unfinished_bytes == 0
    }
}

/// What a sweep dropped, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub guest: GuestId,
    /// Known where an image could be read.
    pub guest_name: Option<GuestName>,
    /// Or only what was known of an image elsewhere.
    pub is_image: bool,
    pub bytes: u64,
    pub why: Why,
}

/// How large a new image may be, and what went for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    pub bytes_max: u64,
    pub dropped: Vec<Dropped>,
}

impl PageStore {
    /// Nothing is created until something is kept.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn folder(&self, guest: GuestId) -> Folder {
        Folder::open(self.root.join(guest.to_string()))
    }

    /// Returns what is kept of one guest; none if nothing is.
    pub fn entry(&self, guest: GuestId) -> Result<Option<Entry>, StoreError> {
        let folder = self.folder(guest);
        let held = match folder.held_summary() {
            Err(StoreError::Damaged { .. }) => None,
            held => held?,
        };
        let unfinished_bytes = folder.unfinished()?.iter().map(|file| file.bytes).sum();
        let entry = Entry { guest, image: folder.kept_image()?, held, unfinished_bytes };
        Ok(Some(entry).filter(|entry| !entry.is_empty()))
    }

    /// Returns what is kept, by guest. Folders that are not ours are left out.
    pub fn list(&self) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        for guest in self.guests()? {
            let entry = self.entry(guest);
            entries.extend(entry.unwrap_or_else(|error| {
                let error = whimbrel_model::problem::chain(&error);
                tracing::warn!(%guest, %error, "what is kept of a guest's memory is not listed");
                None
            }));
        }
        Ok(entries)
    }

    /// Drops what has expired, what is too much, and what nobody writes any more: unfinished files
    /// of handoffs that are not alive. One that cannot be dropped does not keep the others.
    pub fn sweep(
        &self,
        now: SystemTime,
        policy: &Policy,
        is_alive: impl Fn(ImageId) -> bool,
    ) -> Result<Vec<Dropped>, StoreError> {
        let now_unix_ms = unix_ms(now);
        let mut dropped = Vec::new();
        for guest in self.guests()? {
            let swept = self.sweep_one(guest, now_unix_ms, policy, &is_alive);
            dropped.extend(swept.unwrap_or_else(|error| self.left(guest, &error)));
        }
        let entries = self.list()?;
        let (images, unfinished_bytes) = images(&entries);
        let candidates: Vec<_> = images.iter().map(|(_, image)| candidate(image)).collect();
        let whys =
            policy::choose(now_unix_ms, policy, self.space()?, &candidates, unfinished_bytes);
        for ((guest, image), why) in images.into_iter().zip(whys) {
            let Some(why) = why else { continue };
            let gone = self.drop_image(guest, image, why);
            dropped.extend(gone.map(|one| vec![one]).unwrap_or_else(|e| self.left(guest, &e)));
        }
        Ok(dropped)
    }

    /// Returns how large an image that begins now may be. Where the file system is nearly full,
    /// the oldest are dropped for it; elsewhere they stay until it is finished.
    pub fn room_for_image(&self, policy: &Policy) -> Result<Room, StoreError> {
        let entries = self.list()?;
        let (mut images, unfinished_bytes) = images(&entries);
        images.sort_by_key(|(_, image)| image.created_unix_ms);
        let lengths: Vec<_> = images.iter().map(|(_, image)| image.bytes).collect();
        let (count, bytes_max) =
            policy::make_room(policy, self.space()?, &lengths, unfinished_bytes);
        let dropped = images[..count].iter();
        let dropped =
            dropped.map(|(guest, image)| self.drop_image(*guest, image, Why::SpaceNeeded));
        Ok(Room { bytes_max, dropped: dropped.collect::<Result<_, _>>()? })
    }

    /// Returns the space of the file system the store is on, or will be.
    pub fn space(&self) -> Result<Space, StoreError> {
        let parent = self.root.parent().unwrap_or(&self.root);
        let place = if self.root.exists() { &self.root } else { parent };
        let stat = rustix::fs::statvfs(place);
        let io = StoreError::io("look at", place);
        stat.map(|stat| Space::of(&stat)).map_err(|errno| io(errno.into()))
    }

    fn guests(&self) -> Result<Vec<GuestId>, StoreError> {
        let Some(dir) = Dir::find(&self.root)? else { return Ok(Vec::new()) };
        let names = dir.names()?;
        let parse =
            |name: &String| name.parse().ok().filter(|guest: &GuestId| guest.to_string() == *name);
        let mut guests: Vec<GuestId> = names.iter().filter_map(parse).collect();
        guests.sort();
        Ok(guests)
    }

    /// What concerns one guest alone: unfinished files, and what was known of an image elsewhere
    /// that has expired by now, as here.
    fn sweep_one(
        &self,
        guest: GuestId,
        now_unix_ms: u64,
        policy: &Policy,
        is_alive: &impl Fn(ImageId) -> bool,
    ) -> Result<Vec<Dropped>, StoreError> {
        let folder = self.folder(guest);
        let mut dropped = Vec::new();
        for file in folder.unfinished()? {
            if !is_alive(file.id) {
                folder.remove(&file.name)?;
                let (bytes, why) = (file.bytes, Why::Unfinished);
                dropped.push(Dropped {
                    guest,
                    guest_name: None,
                    is_image: file.is_image,
                    bytes,
                    why,
                });
            }
        }
        let why = match folder.held_summary() {
            Ok(held) => held
                .filter(|held| policy.is_expired(now_unix_ms, held.saved_unix_ms))
                .map(|held| (held.bytes, Why::Expired)),
            Err(StoreError::Damaged { .. }) => Some((0, Why::Damaged)),
            Err(error) => return Err(error),
        };
        if let Some((bytes, why)) = why {
            folder.drop_held()?;
            dropped.push(Dropped { guest, guest_name: None, is_image: false, bytes, why });
        }
        remove_empty(folder.path())?;
        Ok(dropped)
    }

    fn drop_image(
        &self,
        guest: GuestId,
        image: &KeptImage,
        why: Why,
    ) -> Result<Dropped, StoreError> {
        self.folder(guest).drop_image()?;
        let guest_name = image.about.as_ref().map(|about| about.guest.clone());
        Ok(Dropped { guest, guest_name, is_image: true, bytes: image.bytes, why })
    }

    fn left(&self, guest: GuestId, error: &StoreError) -> Vec<Dropped> {
        let error = whimbrel_model::problem::chain(error);
        tracing::warn!(%guest, %error, "what is kept of a guest's memory could not be dropped");
        Vec::new()
    }
}

fn images(entries: &[Entry]) -> (Vec<(GuestId, &KeptImage)>, u64) {
    let images = entries.iter().filter_map(|e| Some((e.guest, e.image.as_ref()?)));
    (images.collect(), entries.iter().map(|entry| entry.unfinished_bytes).sum())
}

fn candidate(image: &KeptImage) -> Candidate {
    let is_damaged = image.about.is_none();
    Candidate { created_unix_ms: image.created_unix_ms, bytes: image.bytes, is_damaged }
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
