// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What the target knows of the image at the source: the same places and digests, counted by itself
//! from the stream it rebuilds. So no manifest has to travel; when the guest returns, the two hosts
//! compare names.

use std::collections::BTreeMap;

use super::manifest::name_of;
use super::{ImageId, ManifestName};
use crate::digest::PageDigest;
use crate::split::{Piece, Place, Split};

/// Counts the pages of a stream.
pub struct Census {
    split: Box<dyn Split>,
    pages: BTreeMap<Place, PageDigest>,
}

impl Census {
    /// The splitter is of the kind the source used.
    pub fn new(split: Box<dyn Split>) -> Self {
        Self { split, pages: BTreeMap::new() }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.split.push(bytes, &mut |piece| {
            if let Piece::Page { place, page, .. } = piece {
                self.pages.insert(place, PageDigest::of(page));
            }
        });
    }

    /// Returns the name of the manifest that the source has, if it kept an image with this id. They
    /// differ where the source's engine paused within a page; the image is then of no use.
    pub fn name(&self, id: ImageId) -> ManifestName {
        name_of(id, self.held())
    }

    /// Returns what [`crate::sender::Sender::hold`] wants when the guest returns.
    pub fn held(&self) -> impl Iterator<Item = (Place, PageDigest)> + '_ {
        self.pages.iter().map(|(place, digest)| (*place, *digest))
    }
}

impl std::fmt::Debug for Census {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Census").field("pages", &self.pages.len()).finish_non_exhaustive()
    }
}
