// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Writes the file of an image.
//!
//! ```text
//! "WPI1"  u32 zero  16 bytes id
//! the blocks, as they were sealed, one after the other
//! the manifest, as it was sealed
//! each block: u32 length
//! what people are told, in JSON
//! "WPE1"  u32 blocks  u64 start of the manifest, of the lengths, of the JSON  u32 zero
//! 16 bytes: BLAKE3 of the first 24 bytes, the lengths, the JSON and the line above
//! ```
//!
//! Numbers are big-endian. Blocks and manifest prove themselves when they are opened with the key;
//! the digest at the end is against damage to the rest.

use std::fs::File;
use std::io::Write;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, FlockOperation};
use whimbrel_model::units::Bytes;
use whimbrel_pages::image::{BLOCK_BYTES_MAX, ImageId, Manifest, Seal, SealedBlock};

use crate::about::{ABOUT_BYTES_MAX, About};
use crate::error::{Damage, StoreError};
use crate::files::{Dir, check_space};
use crate::folder::{IMAGE, unfinished_image};

/// Blocks of one image. Those of 1 MiB, as most are, would make 4 TiB.
const BLOCKS_MAX: usize = 1 << 22;

/// A manifest of about 80 million pages.
const MANIFEST_BYTES_MAX: u64 = 2 << 30;

/// A block with its header and its seal.
const SEALED_BYTES_MAX: usize = BLOCK_BYTES_MAX + 64;

/// After so many bytes they are sent to the disk, and we look whether the space is wanted back.
const STEP_BYTES: u64 = 8 << 20;

const MAGIC: &[u8; 8] = b"WPI1\0\0\0\0";
const HEADER_BYTES: usize = 24;
const END_MAGIC: &[u8; 4] = b"WPE1";
const FIELDS_BYTES: usize = 4 + 4 + 3 * 8 + 4;
const DIGEST_BYTES: usize = 16;
const END_BYTES: usize = FIELDS_BYTES + DIGEST_BYTES;

/// An image that is being written. Dropping it unfinished removes it.
pub struct ImageFile {
    dir: Dir,
    id: ImageId,
    /// None once nothing more may be written.
    file: Option<File>,
    lengths: Vec<u32>,
    length: u64,
    bytes_max: u64,
    /// How far the file was sent to the disk.
    step_at: u64,
}

impl ImageFile {
    pub(crate) fn create(
        dir: Dir,
        id: ImageId,
        bytes_max: u64,
    ) -> Result<Option<Self>, StoreError> {
        let name = unfinished_image(id);
        if let Some(left) = dir.open(&name)? {
            // Its writer holds a lock. If there is none, it died, and its key with it.
            if lock(&left).is_err() {
                return Err(StoreError::Busy { path: dir.path_of(&name) });
            }
            dir.remove(&name)?;
        }
        let Some(file) = dir.create(&name)? else { return Ok(None) };
        lock(&file).map_err(|_| StoreError::Busy { path: dir.path_of(&name) })?;
        let mut image = Self {
            dir,
            id,
            file: Some(file),
            lengths: Vec::new(),
            length: 0,
            bytes_max,
            step_at: 0,
        };
        image.append(&[&MAGIC[..], &id.0].concat())?;
        Ok(Some(image))
    }

    /// Appends a block. If that fails the image is given up, and its space is free again.
    pub fn write(&mut self, block: &SealedBlock) -> Result<(), StoreError> {
        assert_eq!(block.number as usize, self.lengths.len(), "blocks come in order");
        if self.lengths.len() == BLOCKS_MAX {
            self.give_up();
            return Err(StoreError::TooManyParts { path: self.path() });
        }
        self.append(&block.bytes)?;
        self.lengths.push(u32::try_from(block.bytes.len()).expect("blocks are short"));
        self.step()
    }

    /// Returns whether less than half of what the image may take is taken.
    pub fn has_plenty_of_room(&self) -> bool {
        self.length < self.bytes_max / 2
    }

    /// Makes the image durable and puts it in the place of the one before. This waits for the disk.
    ///
    /// Of `about`, the image, its pages and its bytes are filled in here.
    pub fn finish(
        mut self,
        manifest: &Manifest,
        seal: &Seal,
        about: &About,
    ) -> Result<(), StoreError> {
        assert!(manifest.id() == self.id && seal.id() == self.id, "an image has one id");
        let sealed = manifest.seal(seal);
        if sealed.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(StoreError::TooManyParts { path: self.path() });
        }
        let manifest_at = self.length;
        self.append(&sealed)?;
        let pages = manifest.entries().len() as u64;
        let end = self.end(manifest_at, pages, about);
        self.append(&end)?;
        let (name, path) = (unfinished_image(self.id), self.path());
        let file = self.file.as_ref().ok_or(StoreError::GivenUp { path: path.clone() })?;
        file.sync_data().map_err(StoreError::io("make durable", path))?;
        self.dir.rename(&name, IMAGE)?;
        self.file = None;
        Ok(())
    }

    /// Returns everything after the manifest.
    fn end(&self, manifest_at: u64, pages: u64, about: &About) -> Vec<u8> {
        let mut end: Vec<u8> = self.lengths.iter().flat_map(|bytes| bytes.to_be_bytes()).collect();
        let lengths_at = self.length;
        let about_at = lengths_at + end.len() as u64;
        // Its length in bytes is that of the file, and is not written down.
        let about = About { image: self.id, pages, bytes: 0, ..about.clone() };
        end.extend_from_slice(&about.to_bytes());
        let blocks = u32::try_from(self.lengths.len()).expect("blocks are limited");
        let ends = Ends { blocks, manifest_at, lengths_at, about_at };
        let header = [&MAGIC[..], &self.id.0].concat();
        let fields = ends.fields();
        let digest = digest(&header, &end, &fields);
        end.extend_from_slice(&fields);
        end.extend_from_slice(&digest);
        end
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path();
        let file = self.file.as_mut().ok_or(StoreError::GivenUp { path: path.clone() })?;
        let length = self.length + bytes.len() as u64;
        let written = if length > self.bytes_max {
            let (needed, bytes_max) = (Bytes(length), Bytes(self.bytes_max));
            Err(StoreError::TooLarge { path, needed, bytes_max })
        } else {
            file.write_all(bytes).map_err(StoreError::io("write", path))
        };
        match written {
            Ok(()) => self.length = length,
            Err(_) => self.give_up(),
        }
        written
    }

    /// Every so often, has the disk begin to write what we have, so that `finish` waits less and
    /// the guest's neighbours keep their page cache; and gives up if the space is needed.
    fn step(&mut self) -> Result<(), StoreError> {
        let Some(file) = self.file.as_ref().filter(|_| self.length >= self.step_at + STEP_BYTES)
        else {
            return Ok(());
        };
        let from = self.step_at.saturating_sub(STEP_BYTES);
        let advised = NonZeroU64::new(self.length - from);
        // Advice; a file system that does not take it is only slower at the end.
        let _ = rustix::fs::fadvise(file, from, advised, Advice::DontNeed);
        self.step_at = self.length;
        let checked = self.check_space(file);
        if checked.is_err() {
            self.give_up();
        }
        checked
    }

    fn check_space(&self, file: &File) -> Result<(), StoreError> {
        let io = |errno: rustix::io::Errno| StoreError::io("look at", self.path())(errno.into());
        if rustix::fs::fstat(file).map_err(io)?.st_nlink == 0 {
            return Err(StoreError::GivenUp { path: self.path() });
        }
        check_space(file, self.path())
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path_of(&unfinished_image(self.id))
    }

    fn give_up(&mut self) {
        // Only what we still have locked is ours to remove: the name may be another's by now.
        let Some(file) = self.file.take() else { return };
        let is_ours = rustix::fs::fstat(&file).is_ok_and(|stat| stat.st_nlink > 0);
        if is_ours && let Err(error) = self.dir.remove(&unfinished_image(self.id)) {
            tracing::warn!(%error, "an unfinished memory image is left to the sweep");
        }
    }
}

impl Drop for ImageFile {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl std::fmt::Debug for ImageFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageFile")
            .field("id", &self.id)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

fn lock(file: &File) -> rustix::io::Result<()> {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)
}

/// What the end of the file says.
#[derive(Clone, Copy)]
struct Ends {
    blocks: u32,
    manifest_at: u64,
    lengths_at: u64,
    about_at: u64,
}

impl Ends {
    fn fields(self) -> Vec<u8> {
        let mut fields = END_MAGIC.to_vec();
        fields.extend_from_slice(&self.blocks.to_be_bytes());
        for at in [self.manifest_at, self.lengths_at, self.about_at] {
            fields.extend_from_slice(&at.to_be_bytes());
        }
        fields.extend_from_slice(&[0; 4]);
        fields
    }

    /// Reads the fields of a file of `length` bytes; none if its parts cannot lie so.
    fn from_fields(fields: &[u8; FIELDS_BYTES], length: u64) -> Option<Self> {
        let number = |at: usize| {
            u64::from_be_bytes(fields[at..at + 8].try_into().expect("eight bytes were cut out"))
        };
        let blocks = u32::from_be_bytes(fields[4..8].try_into().expect("four bytes"));
        let ends =
            Self { blocks, manifest_at: number(8), lengths_at: number(16), about_at: number(24) };
        let is_marked = &fields[..4] == END_MAGIC && fields[32..] == [0; 4];
        let about_end = length.checked_sub(END_BYTES as u64)?;
        let parts = [HEADER_BYTES as u64, ends.manifest_at, ends.lengths_at, ends.about_at];
        let is_possible = parts.is_sorted()
            && ends.about_at <= about_end
            && ends.blocks as usize <= BLOCKS_MAX
            && ends.lengths_at - ends.manifest_at <= MANIFEST_BYTES_MAX
            && ends.about_at - ends.lengths_at == u64::from(ends.blocks) * 4
            && about_end - ends.about_at <= ABOUT_BYTES_MAX as u64;
        (is_marked && is_possible).then_some(ends)
    }
}

fn digest(header: &[u8], lengths_and_about: &[u8], fields: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut hasher = blake3::Hasher::new();
    for part in [header, lengths_and_about, fields] {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes().first_chunk().expect("a digest has 32 bytes")
}

/// A finished image, looked at from outside: everything that is not sealed.
pub(crate) struct Outside {
    pub(crate) about: About,
    /// Where each block begins, and where the last one ends.
    pub(crate) offsets: Vec<u64>,
    manifest_bytes: usize,
}

impl Outside {
    pub(crate) fn read(file: &File) -> Result<Self, Damage> {
        let length = file.metadata().map_err(|_| Damage::Image)?.len();
        let read =
            |at: u64, bytes: &mut [u8]| file.read_exact_at(bytes, at).map_err(|_| Damage::Image);
        let end_at = length.checked_sub(END_BYTES as u64).ok_or(Damage::Image)?;
        let mut header = [0; HEADER_BYTES];
        let (mut fields, mut expected) = ([0; FIELDS_BYTES], [0; DIGEST_BYTES]);
        read(0, &mut header)?;
        read(end_at, &mut fields)?;
        read(end_at + FIELDS_BYTES as u64, &mut expected)?;
        let ends = Ends::from_fields(&fields, length).ok_or(Damage::Image)?;
        let number = |bytes: u64| usize::try_from(bytes).map_err(|_| Damage::Image);
        let mut rest = vec![0; number(end_at - ends.lengths_at)?];
        read(ends.lengths_at, &mut rest)?;
        if !header.starts_with(MAGIC) || digest(&header, &rest, &fields) != expected {
            return Err(Damage::Image);
        }
        let (lengths, about) = rest.split_at(ends.blocks as usize * 4);
        let about = About::from_bytes(about, length).ok_or(Damage::Image)?;
        let manifest_bytes = number(ends.lengths_at - ends.manifest_at)?;
        let offsets = offsets(lengths, ends.manifest_at).ok_or(Damage::Image)?;
        if header[MAGIC.len()..] != about.image.0 {
            return Err(Damage::Image);
        }
        Ok(Self { about, offsets, manifest_bytes })
    }

    pub(crate) fn read_manifest(&self, file: &File, seal: &Seal) -> Result<Manifest, Damage> {
        let mut sealed = vec![0; self.manifest_bytes];
        let at = self.offsets.last().expect("there is always an end");
        file.read_exact_at(&mut sealed, *at).map_err(|_| Damage::Image)?;
        Ok(Manifest::open(seal, &sealed)?)
    }
}

fn offsets(lengths: &[u8], end: u64) -> Option<Vec<u64>> {
    let mut offsets = Vec::with_capacity(lengths.len() / 4 + 1);
    let mut at = HEADER_BYTES as u64;
    offsets.push(at);
    for length in lengths.chunks_exact(4) {
        let length = u32::from_be_bytes(length.try_into().expect("four bytes were cut out"));
        if length as usize > SEALED_BYTES_MAX {
            return None;
        }
        at += u64::from(length);
        offsets.push(at);
    }
    (at == end).then_some(offsets)
}
