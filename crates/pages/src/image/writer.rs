// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Writes an image as a by-product of a migration.
//!
//! Batches are sealed as they travelled: packing them cost nothing more. Pages that travelled as
//! *same* or *delta* are not in their batch; unless the image has the same page for the same place
//! already, they are collected into blocks of their own, packed by the cheap codec or not at all.

use std::collections::HashMap;

use super::{Entry, Location, Manifest, Seal};
use crate::codec::{Codec, Packer, Packing};
use crate::digest::PageDigest;
use crate::sender::Kept;
use crate::split::{PAGE_BYTES, Place};

/// Pages in a block of our own.
const OWN_BLOCK_PAGES: usize = 64;

/// A block to be appended to the image; its number is its position.
#[derive(Debug, PartialEq, Eq)]
pub struct SealedBlock {
    pub number: u32,
    pub bytes: Vec<u8>,
}

/// Writes one image. See the module.
#[derive(Debug)]
pub struct ImageWriter {
    seal: Seal,
    packer: Packer,
    /// Of the blocks of our own.
    codec: Codec,
    next: u32,
    pages: HashMap<Place, (PageDigest, Location)>,
    /// Pages of a block of our own that is not full yet.
    own: Vec<u8>,
    own_pages: Vec<(Place, PageDigest)>,
}

impl ImageWriter {
    /// The seal's key must be new: it seals this image, and nothing else.
    pub fn new(seal: Seal) -> Self {
        Self {
            seal,
            packer: Packer::default(),
            codec: Codec::Lz4,
            next: 0,
            pages: HashMap::new(),
            own: Vec::new(),
            own_pages: Vec::new(),
        }
    }

    /// Sets what the blocks to come are packed by that no batch was packed for.
    pub fn set_codec(&mut self, codec: Codec) {
        self.codec = codec;
    }

    /// Takes a batch of the sender and returns the blocks it makes, in order.
    pub fn push(&mut self, kept: &Kept) -> Vec<SealedBlock> {
        let mut blocks = Vec::new();
        let batch = self.next;
        if kept.pages.iter().any(|page| page.plain_at.is_some()) {
            blocks.push(self.block(kept.packing, kept.plain_bytes, &kept.packed));
        }
        for page in &kept.pages {
            if let Some(offset) = page.plain_at {
                // An older version may wait in the block of our own.
                self.forget_own(page.place);
                let location = Location { block: batch, offset };
                self.pages.insert(page.place, (page.digest, location));
            } else if self.pages.get(&page.place).is_none_or(|(held, _)| *held != page.digest) {
                self.forget_own(page.place);
                self.pages.remove(&page.place);
                let at = page.stream_at as usize;
                self.own.extend_from_slice(&kept.stream[at..at + PAGE_BYTES]);
                self.own_pages.push((page.place, page.digest));
                if self.own_pages.len() == OWN_BLOCK_PAGES {
                    blocks.extend(self.close_own());
                }
            }
        }
        blocks
    }

    /// Returns the last block, if there is one to write, and the manifest, to be sealed after it.
    pub fn finish(mut self) -> (Option<SealedBlock>, Manifest, Seal) {
        let last = self.close_own();
        let entry = |(place, (digest, location))| Entry { place, digest, location };
        let entries = self.pages.into_iter().map(entry).collect();
        (last, Manifest::new(self.seal.id(), entries), self.seal)
    }

    fn block(&mut self, packing: Packing, plain_bytes: usize, packed: &[u8]) -> SealedBlock {
        let number = self.next;
        self.next = number.checked_add(1).expect("an image has fewer than 2^32 blocks");
        let bytes = self.seal.seal_block(number.into(), packing, plain_bytes, packed);
        SealedBlock { number, bytes }
    }

    fn forget_own(&mut self, place: Place) {
        if let Some(index) = self.own_pages.iter().position(|(own, _)| *own == place) {
            self.own_pages.remove(index);
            self.own.drain(index * PAGE_BYTES..(index + 1) * PAGE_BYTES);
        }
    }

    fn close_own(&mut self) -> Option<SealedBlock> {
        if self.own_pages.is_empty() {
            return None;
        }
        for (index, (place, digest)) in self.own_pages.drain(..).enumerate() {
            let offset = u32::try_from(index * PAGE_BYTES).expect("a block is short");
            let location = Location { block: self.next, offset };
            self.pages.insert(place, (digest, location));
        }
        let (packing, packed) = self.packer.pack(self.codec, &self.own);
        let plain_bytes = std::mem::take(&mut self.own).len();
        Some(self.block(packing, plain_bytes, &packed))
    }
}
