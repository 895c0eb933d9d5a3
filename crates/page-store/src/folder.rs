// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The folder of one guest.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use whimbrel_model::id::HostId;
use whimbrel_pages::image::{ImageId, ImageKey, ManifestName, Seal};
use zeroize::Zeroizing;

use crate::about::{About, hex, image_id};
use crate::error::{Damage, StoreError};
use crate::files::{Dir, remove_empty};
use crate::held::{HEADER_BYTES, Header, Held, HeldError};
use crate::image::{ImageFile, Outside};
use crate::parts::{HeldParts, PartsFile};
use crate::shelf::ImageShelf;

pub(crate) const IMAGE: &str = "image";
const HELD: &str = "held";
pub(crate) const PARTS: &str = "parts";
const UNFINISHED: &str = ".unfinished";

/// Times a folder is made again that a sweep removed, empty, before something was put into it.
const MAKE_ATTEMPTS: u32 = 8;

/// What this host keeps of one guest. Nothing is there until something is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
}

/// An image as it lies there. `about` is none if it is damaged, and so of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptImage {
    pub about: Option<About>,
    pub bytes: u64,
    pub created_unix_ms: u64,
}

/// What is known of an image elsewhere, without its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldSummary {
    pub name: ManifestName,
    pub keeper: HostId,
    pub pages: u64,
    /// When the guest came.
    pub saved_unix_ms: u64,
    /// Of the files here.
    pub bytes: u64,
}

/// A file that is being written, or was left.
pub(crate) struct Unfinished {
    pub(crate) name: String,
    pub(crate) id: ImageId,
    pub(crate) is_image: bool,
    pub(crate) bytes: u64,
}

impl Folder {
    pub fn open(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins an image. It lives under a temporary name until it is finished, and then takes the
    /// place of the one before. If it becomes larger than `bytes_max`, its writer fails.
    pub fn create_image(&self, id: ImageId, bytes_max: u64) -> Result<ImageFile, StoreError> {
        for _ in 0..MAKE_ATTEMPTS {
            if let Some(image) = ImageFile::create(Dir::make(&self.path)?, id, bytes_max)? {
                return Ok(image);
            }
        }
        Err(StoreError::Busy { path: self.path.join(unfinished_image(id)) })
    }

    /// Opens the image as a shelf: the manifest's pages, and then `spare_slots` in memory. Any
    /// error means that the caller goes on without it.
    pub fn open_image(
        &self,
        name: &ManifestName,
        key: &ImageKey,
        spare_slots: u32,
    ) -> Result<ImageShelf, StoreError> {
        let path = self.path.join(IMAGE);
        let file = self.open_plain(IMAGE)?.ok_or_else(|| self.no_image())?;
        let damaged = |source| StoreError::Damaged { path: path.clone(), source };
        let outside = Outside::read(&file).map_err(damaged)?;
        if outside.about.image != name.id {
            let (found, expected) = (outside.about.image, name.id);
            return Err(StoreError::OtherImage { path, found, expected });
        }
        let seal = Seal::new(key, name.id);
        let manifest = outside.read_manifest(&file, &seal).map_err(damaged)?;
        if manifest.name() != *name {
            return Err(StoreError::OtherPages { path });
        }
        Ok(ImageShelf::new(path, file, seal, outside, &manifest, spare_slots))
    }

    /// Removes the image, if there is one.
    pub fn drop_image(&self) -> Result<(), StoreError> {
        self.remove(IMAGE)
    }

    /// Returns what the image is of; none if there is no image.
    pub fn about_image(&self) -> Result<Option<About>, StoreError> {
        let Some(file) = self.open_plain(IMAGE)? else { return Ok(None) };
        let path = self.path.join(IMAGE);
        let outside = Outside::read(&file);
        let outside = outside.map_err(|source| StoreError::Damaged { path, source })?;
        Ok(Some(outside.about))
    }

    /// Returns the image, damaged or not.
    pub fn kept_image(&self) -> Result<Option<KeptImage>, StoreError> {
        let Some(file) = self.open_plain(IMAGE)? else { return Ok(None) };
        let (bytes, modified_unix_ms) = self.look_at(IMAGE, &file)?;
        let about = Outside::read(&file).ok().map(|outside| outside.about);
        let created_unix_ms = about.as_ref().map_or(modified_unix_ms, |a| a.created_unix_ms);
        Ok(Some(KeptImage { about, bytes, created_unix_ms }))
    }

    /// Keeps what is known of the image at another host, in place of what was known before.
    pub fn save_held(&self, held: &Held) -> Result<(), StoreError> {
        let temporary = format!("{HELD}-{}{UNFINISHED}", hex(held.name.id));
        let (dir, file) = self.create(&temporary)?;
        let io = |action| StoreError::io(action, dir.path_of(&temporary));
        let before = dir.open_for_writing(HELD)?;
        let written = held
            .write(&file)
            .and_then(|()| file.sync_all())
            .map_err(io("write"))
            .and_then(|()| dir.rename(&temporary, HELD));
        if written.is_err() {
            let _ = dir.remove(&temporary);
            return written;
        }
        if let Some(before) = before {
            erase(&before).map_err(StoreError::io("erase", dir.path_of(HELD)))?;
        }
        Ok(())
    }

    /// Returns what is known of the image at another host, if anything is.
    pub fn load_held(&self) -> Result<Option<Held>, StoreError> {
        let Some(file) = self.open_plain(HELD)? else { return Ok(None) };
        let (bytes, _) = self.look_at(HELD, &file)?;
        let damaged = |source| self.damaged(HELD, source);
        Held::read(&file, bytes).map(Some).map_err(damaged)
    }

    /// Returns the beginning of it, for people. It is not proven: only all of it is.
    pub fn held_summary(&self) -> Result<Option<HeldSummary>, StoreError> {
        let Some(file) = self.open_plain(HELD)? else { return Ok(None) };
        let (bytes, saved_unix_ms) = self.look_at(HELD, &file)?;
        let damaged = |source| self.damaged(HELD, source);
        let mut header = Zeroizing::new([0; HEADER_BYTES]);
        file.read_exact_at(&mut *header, 0).map_err(|_| damaged(HeldError::CutOff))?;
        let header = Header::from_bytes(&header).map_err(damaged)?;
        let (name, keeper, pages) = (header.name(), header.keeper(), header.pages);
        let parts = self.open_plain(PARTS)?;
        let parts_bytes = parts.map_or(Ok(0), |parts| Ok(self.look_at(PARTS, &parts)?.0))?;
        let bytes = bytes + parts_bytes;
        Ok(Some(HeldSummary { name, keeper, pages, saved_unix_ms, bytes }))
    }

    /// Begins the digests of the parts of those pages. They live under a temporary name until they
    /// are finished, and then belong to what is held of this image.
    pub fn create_parts(&self, id: ImageId) -> Result<PartsFile, StoreError> {
        let (dir, file) = self.create(&unfinished_parts(id))?;
        PartsFile::begin(dir, id, file)
    }

    /// Returns the digests of the parts of what is held; none if they are not there, or not of it.
    pub fn held_parts(&self, held: &Held) -> Result<Option<HeldParts>, StoreError> {
        let pages = u32::try_from(held.pages.len()).expect("a list has at most SLOTS_MAX pages");
        let file = self.open_plain(PARTS)?;
        Ok(file.and_then(|file| HeldParts::open(file, held.name.id, pages)))
    }

    /// Forgets it. With the key gone, the image at the other host can never be opened again.
    pub fn drop_held(&self) -> Result<(), StoreError> {
        let Some(dir) = Dir::find(&self.path)? else { return Ok(()) };
        // First, so that it is never left alone.
        dir.remove(PARTS)?;
        if let Some(file) = dir.open_for_writing(HELD)? {
            erase(&file).map_err(StoreError::io("erase", dir.path_of(HELD)))?;
        }
        self.remove(HELD)
    }

    /// Removes all that is kept of this guest, also what is being written: its writer fails.
    pub fn wipe(&self) -> Result<(), StoreError> {
        self.drop_held()?;
        let Some(dir) = Dir::find(&self.path)? else { return Ok(()) };
        for name in dir.names()? {
            dir.remove(&name)?;
        }
        dir.sync()?;
        remove_empty(&self.path)
    }

    pub(crate) fn unfinished(&self) -> Result<Vec<Unfinished>, StoreError> {
        let Some(dir) = Dir::find(&self.path)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for name in dir.names()? {
            let Some(id) = unfinished_id(&name) else { continue };
            let Some(file) = dir.open(&name)? else { continue };
            let (bytes, _) = self.look_at(&name, &file)?;
            found.push(Unfinished { is_image: name.starts_with(IMAGE), name, id, bytes });
        }
        Ok(found)
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), StoreError> {
        let Some(dir) = Dir::find(&self.path)? else { return Ok(()) };
        if dir.remove(name)? {
            dir.sync()?;
        }
        remove_empty(&self.path)
    }

    /// Creates a file of ours in the folder; one of this name that was left is removed.
    fn create(&self, name: &str) -> Result<(Dir, File), StoreError> {
        for _ in 0..MAKE_ATTEMPTS {
            let dir = Dir::make(&self.path)?;
            dir.remove(name)?;
            if let Some(file) = dir.create(name)? {
                return Ok((dir, file));
            }
        }
        Err(StoreError::Busy { path: self.path.join(name) })
    }

    fn open_plain(&self, name: &str) -> Result<Option<File>, StoreError> {
        Dir::find(&self.path)?.map_or(Ok(None), |dir| dir.open(name))
    }

    /// Returns the length of a file and when it was written, in milliseconds of unix time.
    fn look_at(&self, name: &str, file: &File) -> Result<(u64, u64), StoreError> {
        let io = StoreError::io("look at", self.path.join(name));
        let metadata = file.metadata().map_err(io)?;
        let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let unix_ms = modified.and_then(|age| u64::try_from(age.as_millis()).ok()).unwrap_or(0);
        Ok((metadata.len(), unix_ms))
    }

    fn no_image(&self) -> StoreError {
        StoreError::NoImage { path: self.path.clone() }
    }

    fn damaged(&self, name: &str, source: impl Into<Damage>) -> StoreError {
        StoreError::Damaged { path: self.path.join(name), source: source.into() }
    }
}

/// The name of an image that is not finished.
pub(crate) fn unfinished_image(id: ImageId) -> String {
    format!("{IMAGE}-{}{UNFINISHED}", hex(id))
}

/// The name of parts that are not finished.
pub(crate) fn unfinished_parts(id: ImageId) -> String {
    format!("{PARTS}-{}{UNFINISHED}", hex(id))
}

/// Reads the id in the name of an unfinished file.
fn unfinished_id(name: &str) -> Option<ImageId> {
    let name = name.strip_suffix(UNFINISHED)?;
    let id = [IMAGE, HELD, PARTS].into_iter().find_map(|kind| name.strip_prefix(kind))?;
    image_id(id.strip_prefix('-')?)
}

/// Overwrites the key. A disk may still have it somewhere; we do what a file system lets us.
fn erase(mut held: &File) -> io::Result<()> {
    held.write_all(&[0; HEADER_BYTES])?;
    held.sync_data()
}
