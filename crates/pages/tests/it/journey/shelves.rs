// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Shelves: some that are not what a target would like, and one as a host has it.

use std::collections::{BTreeMap, HashSet};

use whimbrel_pages::blocks::Blocks;
use whimbrel_pages::codec::Unpacker;
use whimbrel_pages::digest::PageDigest;
use whimbrel_pages::image::{Manifest, Seal};
use whimbrel_pages::shelf::{MemoryShelf, Shelf, SlotLost};
use whimbrel_pages::split::Page;

use super::Dice;

/// A shelf that loses every page with a certain chance.
pub(super) struct LossyShelf {
    pub(super) shelf: MemoryShelf,
    pub(super) dice: Dice,
    pub(super) loss_percent: usize,
}

impl Shelf for LossyShelf {
    fn slots(&self) -> u32 {
        self.shelf.slots()
    }

    fn put(&mut self, slot: u32, page: &Page) {
        self.shelf.put(slot, page);
    }

    fn get(&mut self, slot: u32, page: &mut Page) -> Result<(), SlotLost> {
        if self.dice.roll(100) < self.loss_percent {
            self.shelf.lose(slot);
        }
        self.shelf.get(slot, page)
    }
}

/// The guest's disk at the target, of which some blocks have changed lately.
pub(super) struct Disk {
    pub(super) shelf: Box<dyn Shelf>,
    pub(super) blocks: Vec<Page>,
}

impl Shelf for Disk {
    fn slots(&self) -> u32 {
        self.shelf.slots()
    }

    fn put(&mut self, slot: u32, page: &Page) {
        self.shelf.put(slot, page);
    }

    fn get(&mut self, slot: u32, page: &mut Page) -> Result<(), SlotLost> {
        self.shelf.get(slot, page)
    }

    fn blocks(&self) -> u32 {
        u32::try_from(self.blocks.len()).unwrap()
    }

    fn block(&mut self, block: u32, page: &mut Page) -> Result<(), SlotLost> {
        *page = self.blocks[block as usize];
        Ok(())
    }
}

/// What the source knows of it.
pub(super) struct Digests(pub(super) BTreeMap<PageDigest, u32>);

impl Blocks for Digests {
    fn find(&mut self, digest: PageDigest) -> Option<u32> {
        self.0.get(&digest).copied()
    }
}

/// A shelf over an image, as a host has it: blocks that are opened when a page is wanted.
pub(super) struct ImageShelf {
    pub(super) seal: Seal,
    pub(super) manifest: Manifest,
    pub(super) blocks: Vec<Vec<u8>>,
    pub(super) newer: MemoryShelf,
    pub(super) is_newer: HashSet<u32>,
}

impl Shelf for ImageShelf {
    fn slots(&self) -> u32 {
        self.newer.slots()
    }

    fn put(&mut self, slot: u32, page: &Page) {
        self.is_newer.insert(slot);
        self.newer.put(slot, page);
    }

    fn get(&mut self, slot: u32, page: &mut Page) -> Result<(), SlotLost> {
        if self.is_newer.contains(&slot) {
            return self.newer.get(slot, page);
        }
        let entry = self.manifest.entries().get(slot as usize).ok_or(SlotLost)?;
        let number = entry.location.block;
        let block = &self.blocks[number as usize];
        let open = self.seal.open_block(number.into(), block.to_vec(), &mut Unpacker::default());
        let open = open.map_err(|_| SlotLost)?;
        *page = *open.page(entry.location.offset, entry.digest).map_err(|_| SlotLost)?;
        Ok(())
    }

    fn compares(&self, slot: u32) -> Option<PageDigest> {
        let is_newer = self.is_newer.contains(&slot);
        let entry = self.manifest.entries().get(slot as usize).filter(|_| !is_newer);
        entry.map(|entry| entry.digest)
    }
}
