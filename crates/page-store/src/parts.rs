// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Beside what is known of an image elsewhere: the digests of the parts of its pages.
//!
//! ```text
//! "WPP2"  u32 zero  16 bytes id of the image
//! 256 bytes for each page, in the order in which the pages came
//! u32 for each page, in the order of `held`: which of those are its
//! ```
//!
//! Numbers are big-endian. Nothing proves the file, and nothing has to: a wrong digest costs a
//! question on the wire. It is written while the guest comes, a few bytes for every page, and read
//! where a page has changed when the guest leaves.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use whimbrel_pages::image::ImageId;
use whimbrel_pages::parts::{PART_DIGESTS_BYTES, PartDigests, Parts};

use crate::error::StoreError;
use crate::files::{Dir, check_space};
use crate::folder::{PARTS, unfinished_parts};

const MAGIC: &[u8; 8] = b"WPP2\0\0\0\0";
const HEADER_BYTES: usize = 24;
const NUMBER_BYTES: usize = 4;

/// Pages that are written at a time.
const CHUNK_PAGES: usize = 1024;

/// The file while it is written. Dropping it unfinished removes it.
pub struct PartsFile {
    dir: Dir,
    id: ImageId,
    file: File,
    /// Of the pages from `chunk_from` on, not written yet.
    chunk: Vec<u8>,
    chunk_from: u64,
    is_finished: bool,
}

impl PartsFile {
    pub(crate) fn begin(dir: Dir, id: ImageId, file: File) -> Result<Self, StoreError> {
        let parts = Self { dir, id, file, chunk: Vec::new(), chunk_from: 0, is_finished: false };
        parts.write(&header(id), 0)?;
        Ok(parts)
    }

    /// Puts the digests of page `number`: of the next one, or of one that has come again.
    pub fn put(&mut self, number: u32, digests: PartDigests) -> Result<(), StoreError> {
        let bytes = digests.to_bytes();
        let chunk_next = self.chunk_from + (self.chunk.len() / PART_DIGESTS_BYTES) as u64;
        let number = u64::from(number);
        assert!(number <= chunk_next, "pages are numbered as they come");
        if number < self.chunk_from {
            return self.write(&bytes, offset(number));
        }
        let at = usize::try_from(number - self.chunk_from).expect("a chunk is short");
        let at = at * PART_DIGESTS_BYTES;
        match self.chunk.get_mut(at..at + PART_DIGESTS_BYTES) {
            Some(place) => place.copy_from_slice(&bytes),
            None => self.chunk.extend_from_slice(&bytes),
        }
        if self.chunk.len() < CHUNK_PAGES * PART_DIGESTS_BYTES {
            return Ok(());
        }
        self.write_chunk()?;
        check_space(&self.file, self.path())
    }

    /// Finishes the file, with the numbers of the pages in the order in which they are held.
    pub fn finish(mut self, numbers: impl Iterator<Item = u32>) -> Result<(), StoreError> {
        self.write_chunk()?;
        let numbers: Vec<u8> = numbers.flat_map(u32::to_be_bytes).collect();
        self.write(&numbers, offset(self.chunk_from))?;
        self.file.sync_data().map_err(StoreError::io("make durable", self.path()))?;
        self.dir.rename(&unfinished_parts(self.id), PARTS)?;
        self.is_finished = true;
        Ok(())
    }

    fn write_chunk(&mut self) -> Result<(), StoreError> {
        self.write(&self.chunk, offset(self.chunk_from))?;
        self.chunk_from += (self.chunk.len() / PART_DIGESTS_BYTES) as u64;
        self.chunk.clear();
        Ok(())
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), StoreError> {
        self.file.write_all_at(bytes, at).map_err(StoreError::io("write", self.path()))
    }

    fn path(&self) -> PathBuf {
        self.dir.path_of(&unfinished_parts(self.id))
    }
}

impl Drop for PartsFile {
    fn drop(&mut self) {
        let name = unfinished_parts(self.id);
        if !self.is_finished
            && let Err(error) = self.dir.remove(&name)
        {
            tracing::warn!(%error, "an unfinished list of parts is left to the sweep");
        }
    }
}

/// The finished file.
#[derive(Debug)]
pub struct HeldParts {
    file: File,
    pages: u32,
}

impl HeldParts {
    /// None if the file is of another image, or of another number of pages.
    pub(crate) fn open(file: File, id: ImageId, pages: u32) -> Option<Self> {
        let mut found = [0; HEADER_BYTES];
        file.read_exact_at(&mut found, 0).ok()?;
        let length = offset(pages.into()) + u64::from(pages) * NUMBER_BYTES as u64;
        let is_it = found == header(id) && file.metadata().ok()?.len() == length;
        is_it.then_some(Self { file, pages })
    }
}

impl Parts for HeldParts {
    fn of_slot(&mut self, slot: u32) -> Option<PartDigests> {
        if slot >= self.pages {
            return None;
        }
        let mut number = [0; NUMBER_BYTES];
        let numbers = offset(self.pages.into());
        let at = numbers + u64::from(slot) * NUMBER_BYTES as u64;
        self.file.read_exact_at(&mut number, at).ok()?;
        let number = u32::from_be_bytes(number);
        let mut digests = [0; PART_DIGESTS_BYTES];
        self.file.read_exact_at(&mut digests, offset(number.into())).ok()?;
        Some(PartDigests::from_bytes(&digests))
    }
}

fn header(id: ImageId) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header[MAGIC.len()..].copy_from_slice(&id.0);
    header
}

/// Returns where the digests of page `number` lie.
fn offset(number: u64) -> u64 {
    HEADER_BYTES as u64 + number * PART_DIGESTS_BYTES as u64
}
