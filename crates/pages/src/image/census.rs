// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What the target knows of the image at the source: the same places and digests, counted by itself
//! from the stream it rebuilds. So no manifest has to travel; when the guest returns, the two hosts
//! compare names.

use std::collections::BTreeMap;

use super::manifest::name_of;
use super::{ImageId, ManifestName};
use crate::digest::PageDigest;
use crate::parts::PartDigests;
use crate::split::{Piece, Place, Split};

/// Counts the pages of a stream.
pub struct Census {
    split: Box<dyn Split>,
    pages: BTreeMap<Place, Counted>,
    parts: Vec<(u32, PartDigests)>,
}

#[derive(Clone, Copy)]
struct Counted {
    digest: PageDigest,
    /// In the order in which the places came first.
    number: u32,
}

impl Census {
    /// The splitter is of the kind the source used.
    pub fn new(split: Box<dyn Split>) -> Self {
        Self { split, pages: BTreeMap::new(), parts: Vec::new() }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.split.push(bytes, &mut |piece| {
            if let Piece::Page { place, page, .. } = piece {
                let digest = PageDigest::of(page);
                let next = u32::try_from(self.pages.len()).expect("a guest has fewer pages");
                let counted = Counted { digest, number: next };
                let counted = self.pages.entry(place).or_insert(counted);
                counted.digest = digest;
                self.parts.push((counted.number, PartDigests::of(page)));
            }
        });
    }

    /// Returns the digests of the parts of what has come since the last call, each with the number
    /// of its page: the pages are numbered as they come, one that comes again keeps its number.
    pub fn take_parts(&mut self) -> impl Iterator<Item = (u32, PartDigests)> + '_ {
        self.parts.drain(..)
    }

    /// Returns those numbers in the order of [`Census::held`].
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.pages.values().map(|counted| counted.number)
    }

    /// Returns the name of the manifest that the source has, if it kept an image with this id. They
    /// differ only if either of them is wrong; the image is then of no use.
    pub fn name(&self, id: ImageId) -> ManifestName {
        name_of(id, self.held())
    }

    /// Returns what [`crate::sender::Sender::hold`] wants when the guest returns.
    pub fn held(&self) -> impl Iterator<Item = (Place, PageDigest)> + '_ {
        self.pages.iter().map(|(place, counted)| (*place, counted.digest))
    }
}

impl std::fmt::Debug for Census {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Census").field("pages", &self.pages.len()).finish_non_exhaustive()
    }
}
