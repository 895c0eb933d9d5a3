// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Shelves that are not what a target would like.

use std::collections::BTreeMap;

use whimbrel_pages::blocks::Blocks;
use whimbrel_pages::digest::PageDigest;
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
