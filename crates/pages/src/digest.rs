// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a page is known by.

use crate::split::Page;

/// The first half of a page's BLAKE3.
///
/// A guest chooses what its pages contain, so the hash must be one that cannot be forged. 128 bits
/// make it infeasible to find a page for a given digest. Two pages of the same digest can be found
/// with 2^64 hashes; a guest that does so ends its own migrations, because the whole stream is
/// compared by all 256 bits. Half the length is what keeps the index below a hundredth of the
/// guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageDigest(pub [u8; 16]);

impl PageDigest {
    pub fn of(page: &Page) -> Self {
        let digest = blake3::hash(page);
        Self(*digest.as_bytes().first_chunk().expect("a digest has 32 bytes"))
    }
}
