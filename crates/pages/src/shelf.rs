// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What the target holds of a guest's pages: numbered slots with a page each.
//!
//! A shelf may live in memory, or in files with the image of an earlier visit underneath. It may
//! lose pages (they are asked for again), but it must never give a wrong one: files are sealed
//! ([`crate::image`]), and every batch is compared with the source's digest before use.

use crate::digest::PageDigest;
use crate::split::Page;

/// The slot is empty, or what it held is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shelf does not hold this page any more")]
pub struct SlotLost;

/// Holds pages at the target; see the module for what is expected.
pub trait Shelf: Send {
    /// Returns how many slots there are; constant, and agreed with the source.
    fn slots(&self) -> u32;

    /// Puts a page into a slot below [`Shelf::slots`]. If that fails the slot is lost, no more.
    fn put(&mut self, slot: u32, page: &Page);

    /// Reads what was last put into a slot below [`Shelf::slots`].
    fn get(&mut self, slot: u32, page: &mut Page) -> Result<(), SlotLost>;

    /// Returns the digest that [`Shelf::get`] compares a page of this slot with, if it does.
    fn compares(&self, _slot: u32) -> Option<PageDigest> {
        None
    }

    /// Returns how many blocks of the guest's disks can be read here; see [`crate::blocks`].
    fn blocks(&self) -> u32 {
        0
    }

    /// Reads whatever a block below [`Shelf::blocks`] holds now.
    fn block(&mut self, _block: u32, _page: &mut Page) -> Result<(), SlotLost> {
        Err(SlotLost)
    }
}

/// A shelf without slots, for streams nobody looks into.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoShelf;

impl Shelf for NoShelf {
    fn slots(&self) -> u32 {
        0
    }

    fn put(&mut self, _slot: u32, _page: &Page) {}

    fn get(&mut self, _slot: u32, _page: &mut Page) -> Result<(), SlotLost> {
        Err(SlotLost)
    }
}

/// A shelf in memory. It takes the memory of a page when the slot is first used.
#[derive(Debug, Default)]
pub struct MemoryShelf {
    pages: Vec<Option<Box<Page>>>,
    slots: u32,
}

impl MemoryShelf {
    pub fn new(slots: u32) -> Self {
        Self { pages: Vec::new(), slots }
    }

    /// Forgets what is in a slot, as a damaged file would.
    pub fn lose(&mut self, slot: u32) {
        if let Some(page) = self.pages.get_mut(slot as usize) {
            *page = None;
        }
    }
}

impl Shelf for MemoryShelf {
    fn slots(&self) -> u32 {
        self.slots
    }

    fn put(&mut self, slot: u32, page: &Page) {
        assert!(slot < self.slots, "the reader checks slots");
        let index = slot as usize;
        if index >= self.pages.len() {
            self.pages.resize(index + 1, None);
        }
        match &mut self.pages[index] {
            Some(held) => **held = *page,
            empty => *empty = Some(Box::new(*page)),
        }
    }

    fn get(&mut self, slot: u32, page: &mut Page) -> Result<(), SlotLost> {
        let held = self.pages.get(slot as usize).and_then(Option::as_ref).ok_or(SlotLost)?;
        *page = **held;
        Ok(())
    }
}
