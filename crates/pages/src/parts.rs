// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A short digest of each part of a page.
//!
//! The host a guest came to knows what the image at its last host holds, but by digests alone: it
//! has no earlier version of a page to make a difference to. With a digest for each cache line of
//! the page it still knows where the page was changed, as `rsync` does, and sends only those parts.
//!
//! The digests are CRC-32C, which every processor computes as fast as it reads. One in four
//! thousand million changed parts will look as if it was not, and a guest could make such parts on
//! purpose. So what is patched this way is compared with the digest of the page, and asked for if
//! it differs: a wrong digest here costs a question, and what is under way behind it, once more.
//! Digests of two bytes were tried: of a return of 12 MB, 3 MB travelled twice.

use crate::split::{PAGE_BYTES, Page};
use crate::varint;

/// The bytes of a part: a cache line.
pub const PART_BYTES: usize = 64;

/// Parts of a page.
pub const PARTS: usize = PAGE_BYTES / PART_BYTES;

/// All digests of a page, as they are kept.
pub const PART_DIGESTS_BYTES: usize = PARTS * DIGEST_BYTES;
const DIGEST_BYTES: usize = 4;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartDigests([u32; PARTS]);

/// Where the digests of a page in the target's image are found.
pub trait Parts: Send {
    /// Returns those of the page in this slot, if they are known.
    fn of_slot(&mut self, slot: u32) -> Option<PartDigests>;
}

impl PartDigests {
    pub fn of(page: &Page) -> Self {
        let (parts, _) = page.as_chunks::<PART_BYTES>();
        let mut digests = [0; PARTS];
        for (digest, part) in digests.iter_mut().zip(parts) {
            *digest = crc32c::crc32c(part);
        }
        Self(digests)
    }

    pub fn to_bytes(self) -> [u8; PART_DIGESTS_BYTES] {
        let mut bytes = [0; PART_DIGESTS_BYTES];
        for (bytes, digest) in bytes.as_chunks_mut().0.iter_mut().zip(self.0) {
            *bytes = digest.to_be_bytes();
        }
        bytes
    }

    pub fn from_bytes(bytes: &[u8; PART_DIGESTS_BYTES]) -> Self {
        let (bytes, _) = bytes.as_chunks();
        Self(std::array::from_fn(|part| u32::from_be_bytes(bytes[part])))
    }

    /// Appends the patch that makes `new` of the page these are the digests of, unless more than
    /// `parts_max` parts differ: then nothing is appended, and false returned.
    pub(crate) fn patch(&self, new: &Page, parts_max: usize, patch: &mut Vec<u8>) -> bool {
        let digests = Self::of(new);
        let differs = |part: &usize| self.0[*part] != digests.0[*part];
        if (0..PARTS).filter(differs).count() > parts_max {
            return false;
        }
        let mut from = 0;
        let mut part = 0;
        while let Some(first) = (part..PARTS).find(differs) {
            let end = (first..PARTS).find(|part| !differs(part)).unwrap_or(PARTS);
            varint::put(patch, ((first - from) * PART_BYTES) as u64);
            varint::put(patch, ((end - first) * PART_BYTES) as u64);
            patch.extend_from_slice(&new[first * PART_BYTES..end * PART_BYTES]);
            (from, part) = (end, end);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch;
    use proptest::prelude::*;

    proptest! {
        /// A patch turns the page whose digests are known into the new one, wherever the digests
        /// tell the two apart, and takes no more parts than it may.
        #[test]
        fn digests_are_enough_to_make_a_patch(
            changes in prop::collection::vec((0..PAGE_BYTES, any::<u8>()), 0..12),
            parts_max in 0..=PARTS,
        ) {
            let old: Page = std::array::from_fn(|index| u8::try_from(index % 251).unwrap());
            let mut new = old;
            for (index, byte) in changes {
                new[index] = byte;
            }
            let (known, digests) = (PartDigests::of(&old), PartDigests::of(&new));
            prop_assert_eq!(PartDigests::from_bytes(&known.to_bytes()), known);
            let is_told = |part: &usize| known.0[*part] != digests.0[*part];
            let told: Vec<_> = (0..PARTS).filter(is_told).collect();
            let mut bytes = Vec::new();
            prop_assert_eq!(known.patch(&new, parts_max, &mut bytes), told.len() <= parts_max);
            if told.len() > parts_max {
                prop_assert!(bytes.is_empty());
            } else {
                let mut page = old;
                patch::apply(&bytes, &mut page).unwrap();
                for part in 0..PARTS {
                    let range = part * PART_BYTES..(part + 1) * PART_BYTES;
                    let expected = if told.contains(&part) { &new } else { &old };
                    prop_assert!(page[range.clone()] == expected[range]);
                }
            }
        }
    }

    /// A question for every few thousand changed parts would cost more than they save.
    #[test]
    fn hardly_a_change_is_overlooked() {
        let mut page = [0; PAGE_BYTES];
        let mut overlooked = 0;
        for version in 1..=1000_u64 {
            let before = PartDigests::of(&page);
            for (part, bytes) in page.as_chunks_mut::<PART_BYTES>().0.iter_mut().enumerate() {
                bytes[8..16].copy_from_slice(&(version * 1000 + part as u64).to_le_bytes());
            }
            let after = PartDigests::of(&page);
            overlooked += before.0.iter().zip(after.0).filter(|(old, new)| *old == new).count();
        }
        assert_eq!(overlooked, 0, "of 64000");
    }

    /// Golden bytes: neighbours are one change, and what stays is skipped.
    #[test]
    fn changed_parts_are_listed() {
        let old = [7; PAGE_BYTES];
        let mut new = old;
        new[64] = 1;
        new[300] = 2;
        new[383] = 3;
        new[384] = 4;
        let mut patch = vec![];
        assert!(PartDigests::of(&old).patch(&new, 4, &mut patch));
        let parts = [&[64, 64][..], &new[64..128], &[0x80, 1, 0xc0, 1], &new[256..448]];
        assert_eq!(patch, parts.concat());
    }
}
