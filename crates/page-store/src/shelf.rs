// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! An image as a shelf: its pages are read from the file when they are asked for.
//!
//! Pages are asked for about in the order in which they were written, so a few opened blocks are
//! kept: one for each round of the migration that wrote the image is what it takes.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use whimbrel_pages::batch::SLOTS_MAX;
use whimbrel_pages::codec::Unpacker;
use whimbrel_pages::digest::PageDigest;
use whimbrel_pages::image::{Location, Manifest, OpenBlock, Seal};
use whimbrel_pages::shelf::{MemoryShelf, Shelf, SlotLost};
use whimbrel_pages::split::Page;

use crate::image::Outside;

/// Opened blocks that are kept, in bytes and in number.
const OPEN_BYTES_MAX: usize = 4 << 20;
const OPEN_BLOCKS_MAX: usize = 64;

/// The pages of an image in slots 0 to n - 1, and spare slots in memory.
///
/// It takes 24 bytes for each page of the image (6 MiB for a guest of 1 GiB), 8 for each block, and
/// up to 4 MiB of opened blocks.
pub struct ImageShelf {
    path: PathBuf,
    file: File,
    seal: Seal,
    /// Where each block begins, and where the last one ends.
    offsets: Vec<u64>,
    pages: Vec<(PageDigest, Location)>,
    spare: MemoryShelf,
    unpacker: Unpacker,
    /// The memory of a block that is no longer kept, for the next one.
    spent: Vec<u8>,
    /// Opened blocks, the one used last at the end.
    open: Vec<(u32, OpenBlock)>,
    open_bytes: usize,
    /// Blocks that cannot be opened, so that it is not tried for every page of theirs.
    lost: HashSet<u32>,
}

impl ImageShelf {
    pub(crate) fn new(
        path: PathBuf,
        file: File,
        seal: Seal,
        outside: Outside,
        manifest: &Manifest,
        spare_slots: u32,
    ) -> Self {
        let pages: Vec<_> =
            manifest.entries().iter().map(|entry| (entry.digest, entry.location)).collect();
        let held = u32::try_from(pages.len()).expect("a manifest has at most SLOTS_MAX entries");
        Self {
            path,
            file,
            seal,
            offsets: outside.offsets,
            pages,
            spare: MemoryShelf::new(spare_slots.min(SLOTS_MAX - held)),
            unpacker: Unpacker::default(),
            spent: Vec::new(),
            open: Vec::new(),
            open_bytes: 0,
            lost: HashSet::new(),
        }
    }

    /// Returns how many pages the image has.
    pub fn held_pages(&self) -> u32 {
        u32::try_from(self.pages.len()).expect("a manifest has at most SLOTS_MAX entries")
    }

    /// Returns a block, opened.
    fn block(&mut self, number: u32) -> Option<&OpenBlock> {
        if self.lost.contains(&number) {
            return None;
        }
        if let Some(index) = self.open.iter().rposition(|(open, _)| *open == number) {
            self.open[index..].rotate_left(1);
        } else {
            let Some(block) = self.open_block(number) else {
                tracing::warn!(image = %self.path.display(), block = number,
                    "a part of a memory image is damaged; its pages are asked for again");
                self.lost.insert(number);
                return None;
            };
            self.keep(number, block);
        }
        self.open.last().map(|(_, block)| block)
    }

    fn open_block(&mut self, number: u32) -> Option<OpenBlock> {
        let index = number as usize;
        let (from, end) = (*self.offsets.get(index)?, *self.offsets.get(index + 1)?);
        let mut sealed = std::mem::take(&mut self.spent);
        sealed.resize(usize::try_from(end - from).ok()?, 0);
        self.file.read_exact_at(&mut sealed, from).ok()?;
        self.seal.open_block(number.into(), sealed, &mut self.unpacker).ok()
    }

    fn keep(&mut self, number: u32, block: OpenBlock) {
        self.open_bytes += block.bytes();
        let mut surplus = 0;
        while self.open_bytes > OPEN_BYTES_MAX || self.open.len() - surplus >= OPEN_BLOCKS_MAX {
            let Some((_, oldest)) = self.open.get(surplus) else { break };
            self.open_bytes -= oldest.bytes();
            surplus += 1;
        }
        if let Some((_, oldest)) = self.open.drain(..surplus).next_back() {
            self.spent = oldest.into_bytes();
        }
        self.open.push((number, block));
    }

    /// Returns the bytes of the opened blocks that are kept.
    #[cfg(test)]
    pub(crate) fn open_bytes(&self) -> usize {
        assert_eq!(
            self.open_bytes,
            self.open.iter().map(|(_, block)| block.bytes()).sum::<usize>()
        );
        self.open_bytes
    }
}

impl Shelf for ImageShelf {
    fn slots(&self) -> u32 {
        self.held_pages() + self.spare.slots()
    }

    fn put(&mut self, slot: u32, page: &Page) {
        // The image is what both ends agreed on, and stays so.
        if let Some(slot) = slot.checked_sub(self.held_pages()) {
            self.spare.put(slot, page);
        }
    }

    fn get(&mut self, slot: u32, page: &mut Page) -> Result<(), SlotLost> {
        let Some(&(digest, location)) = self.pages.get(slot as usize) else {
            return self.spare.get(slot - self.held_pages(), page);
        };
        let block = self.block(location.block).ok_or(SlotLost)?;
        *page = *block.page(location.offset, digest).map_err(|_| SlotLost)?;
        Ok(())
    }

    fn compares(&self, slot: u32) -> Option<PageDigest> {
        self.pages.get(slot as usize).map(|(digest, _)| *digest)
    }
}

impl std::fmt::Debug for ImageShelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageShelf")
            .field("path", &self.path)
            .field("pages", &self.pages.len())
            .finish_non_exhaustive()
    }
}
