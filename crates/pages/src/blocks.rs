// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Blocks of the guest's disks that both hosts can read.
//!
//! Most of a guest's page cache equals blocks of its disks. Such a page travels as the number of
//! the block, and the target reads it there. Blocks have the length of a page; those of all disks
//! are numbered through, in the order in which the guest has its disks.
//!
//! The guest goes on writing, so whatever the source knows of a block may be wrong by the time the
//! target reads it: every reference carries the beginning of the page's digest, and a page that
//! differs is asked for.

use crate::digest::PageDigest;

/// Blocks that are numbered: 16 TiB of disks. What lies behind travels as pages.
pub const BLOCKS_MAX: u32 = u32::MAX;

/// What the source knows of the disks.
pub trait Blocks: Send {
    /// Returns a block that had this content when it was last looked at.
    fn find(&mut self, digest: PageDigest) -> Option<u32>;
}

/// References that are looked at before it is judged whether they pay.
const JUDGED_FROM: u64 = 512;

/// Of a hundred references, so many may be wrong: each costs a round trip, in which the link idles.
const WRONG_PERCENT_MAX: u64 = 2;

/// The source's knowledge, for as long as it pays.
#[derive(Default)]
pub(crate) struct Known {
    blocks: Option<Box<dyn Blocks>>,
    referred: u64,
    wrong: u64,
}

impl Known {
    pub(crate) fn set(&mut self, blocks: Box<dyn Blocks>) {
        self.blocks = Some(blocks);
    }

    pub(crate) fn find(&mut self, digest: PageDigest) -> Option<u32> {
        let block = self.blocks.as_mut()?.find(digest)?;
        self.referred += 1;
        Some(block)
    }

    /// The target had to ask for so many pages it could not read.
    pub(crate) fn on_wrong(&mut self, count: u64) {
        self.wrong += count;
        if self.wrong * 100 > self.referred.max(JUDGED_FROM) * WRONG_PERCENT_MAX {
            self.blocks = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct All;

    impl Blocks for All {
        fn find(&mut self, _digest: PageDigest) -> Option<u32> {
            Some(7)
        }
    }

    /// A disk that is rewritten all the time is soon no longer referred to; a few blocks that have
    /// changed do not matter.
    #[test]
    fn knowledge_that_is_old_is_given_up() {
        let mut known = Known::default();
        assert_eq!(known.find(PageDigest::default()), None);
        known.set(Box::new(All));
        for _ in 0..2000 {
            assert_eq!(known.find(PageDigest::default()), Some(7));
        }
        known.on_wrong(40);
        assert_eq!(known.find(PageDigest::default()), Some(7), "2 %");
        known.on_wrong(2);
        assert_eq!(known.find(PageDigest::default()), None);
    }
}
