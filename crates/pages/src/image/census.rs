// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What the target knows of the image at the source: the same places and digests, counted by itself
//! from the stream it rebuilds. So no manifest has to travel; when the guest returns, the two hosts
//! compare names.

use std::collections::{BTreeMap, VecDeque};

use super::manifest::name_of;
use super::{ImageId, ManifestName};
use crate::digest::PageDigest;
use crate::parts::PartDigests;
use crate::split::{PAGE_BYTES, Piece, Place, Split};

/// Counts the pages of a stream.
pub struct Census {
    split: Box<dyn Split>,
    pages: BTreeMap<Place, Counted>,
    /// Digests that are known already, by where in the stream their pages lie.
    compared: VecDeque<(u64, PageDigest)>,
    pushed_bytes: u64,
    split_bytes: u64,
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
        Self {
            split,
            pages: BTreeMap::new(),
            compared: VecDeque::new(),
            pushed_bytes: 0,
            split_bytes: 0,
            parts: Vec::new(),
        }
    }

    /// Takes the next bytes of the stream, and the digests of those of its pages that were compared
    /// with one already: where in these bytes they lie, rising.
    pub fn push(&mut self, bytes: &[u8], compared: &[(u32, PageDigest)]) {
        let before = self.pushed_bytes;
        self.compared
            .extend(compared.iter().map(|(at, digest)| (before + u64::from(*at), *digest)));
        self.pushed_bytes += bytes.len() as u64;
        self.split.push(bytes, &mut |piece| {
            self.split_bytes += piece.stream_bytes() as u64;
            if let Piece::Page { place, page, .. } = piece {
                let at = self.split_bytes - PAGE_BYTES as u64;
                let digest = known(&mut self.compared, at).unwrap_or_else(|| PageDigest::of(page));
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

/// Returns what is known of the page at `at`, and forgets what is of pages before it.
fn known(compared: &mut VecDeque<(u64, PageDigest)>, at: u64) -> Option<PageDigest> {
    while compared.pop_front_if(|(page_at, _)| *page_at < at).is_some() {}
    compared.pop_front_if(|(page_at, _)| *page_at == at).map(|(_, digest)| digest)
}

impl std::fmt::Debug for Census {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Census").field("pages", &self.pages.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u8) -> PageDigest {
        PageDigest([number; 16])
    }

    /// Digests are found where their pages are, and those of no page are passed over.
    #[test]
    fn what_was_compared_is_found_by_its_place() {
        let mut compared: VecDeque<_> =
            [(10, digest(1)), (4106, digest(2)), (9000, digest(3))].into();
        assert_eq!(known(&mut compared, 2), None);
        assert_eq!(known(&mut compared, 10), Some(digest(1)));
        assert_eq!(known(&mut compared, 8202), None);
        assert_eq!(known(&mut compared, 9000), Some(digest(3)));
        assert_eq!(known(&mut compared, 9000), None);
    }
}
