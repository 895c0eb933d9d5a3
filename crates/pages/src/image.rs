// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The memory image a host keeps of a guest that has left, so that little travels when it returns.
//!
//! An image is a row of **blocks** (packed pages, mostly the batches as they travelled) and a
//! **manifest**: which page of the guest lies where, and what its digest is. All of it is sealed
//! with a key that leaves with the guest: the host that keeps the image cannot open it until the
//! guest brings the key back, and when the guest is destroyed, its key is.
//!
//! Sealed means AES-256-GCM, by `ring`: it is in the house already (TLS), it uses the processor's
//! AES where there is one, and its time does not depend on the key. GCM breaks if a nonce is used
//! twice, so the rule is: **one key, one image, written once**. Nonces are counters (what is
//! sealed, and its number); a writer that was interrupted throws the image away and takes a new
//! key.
//!
//! What was altered, cut off, or belongs to another image or another number does not open. What
//! opens is still compared with its page's digest. So a page is either right or lost, and lost
//! pages are asked for again.

mod census;
mod manifest;
mod writer;

pub use census::Census;
pub use manifest::{ENTRIES_MAX, Entry, Location, Manifest, ManifestError, ManifestName};
pub use writer::{ImageWriter, SealedBlock};

use std::ops::Range;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::batch::{BATCH_DATA_BYTES_MAX, BATCH_RECORDS_BYTES_MAX};
use crate::codec::{Packing, UnpackError, Unpacker};
use crate::digest::PageDigest;
use crate::split::{PAGE_BYTES, Page};

/// The plain bytes of one block; a batch fits.
pub const BLOCK_BYTES_MAX: usize = BATCH_RECORDS_BYTES_MAX + BATCH_DATA_BYTES_MAX;

/// What sealing adds.
const TAG_BYTES: usize = 16;

const BLOCK_MAGIC: &[u8; 4] = b"WPB1";
const BLOCK_HEADER_BYTES: usize = 4 + 1 + 3 + 8 + 4 + 4;

/// Which image: as unique as the handoff it was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageId(pub [u8; 16]);

/// The key of one image. Whoever has it can read the guest's memory.
#[derive(Clone, PartialEq, Eq)]
pub struct ImageKey(zeroize::Zeroizing<[u8; 32]>);

impl ImageKey {
    /// Takes 32 random bytes, drawn for this image and never used for another.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes.into())
    }

    /// Returns the bytes, to travel with the guest.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for ImageKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ImageKey(not shown)")
    }
}

/// Why a part of an image was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    #[error("block {number} of the image is cut off, or is none")]
    Malformed { number: u64 },
    #[error("block {number} of the image was altered, or was sealed with another key")]
    NotOurs { number: u64 },
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error("the page at {offset} is not the one the manifest names")]
    WrongPage { offset: u32 },
}

/// What a nonce was used for; with the number it makes every nonce different.
#[derive(Clone, Copy, Debug)]
enum Domain {
    Block = 1,
    Manifest = 2,
}

/// Seals and opens the parts of one image.
pub struct Seal {
    key: LessSafeKey,
    id: ImageId,
}

impl Seal {
    pub fn new(key: &ImageKey, id: ImageId) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key.bytes()).expect("the key has 32 bytes");
        Self { key: LessSafeKey::new(key), id }
    }

    pub fn id(&self) -> ImageId {
        self.id
    }

    /// Returns a block of the image. Each number is used once.
    pub fn seal_block(
        &self,
        number: u64,
        packing: Packing,
        plain_bytes: usize,
        packed: &[u8],
    ) -> Vec<u8> {
        assert!(plain_bytes <= BLOCK_BYTES_MAX, "a block is no longer than a batch");
        let length = |bytes: usize| u32::try_from(bytes).expect("blocks are short").to_be_bytes();
        let mut block = Vec::with_capacity(BLOCK_HEADER_BYTES + packed.len() + TAG_BYTES);
        block.extend_from_slice(BLOCK_MAGIC);
        block.extend_from_slice(&[packing.tag(), 0, 0, 0]);
        block.extend_from_slice(&number.to_be_bytes());
        block.extend_from_slice(&length(plain_bytes));
        block.extend_from_slice(&length(packed.len() + TAG_BYTES));
        let header = block.clone();
        block.extend_from_slice(packed);
        self.seal(Domain::Block, number, &header, &mut block, BLOCK_HEADER_BYTES);
        block
    }

    /// Opens block `number`: all of `block`, as it was sealed. It is opened where it is.
    pub fn open_block(
        &self,
        number: u64,
        mut block: Vec<u8>,
        unpacker: &mut Unpacker,
    ) -> Result<OpenBlock, BlockError> {
        let wrong = BlockError::Malformed { number };
        let (header, sealed) = block.split_at_mut_checked(BLOCK_HEADER_BYTES).ok_or(wrong)?;
        let field = |from: usize| {
            let bytes = header[from..from + 4].try_into().expect("four bytes were cut out");
            u32::from_be_bytes(bytes) as usize
        };
        let packing = Packing::from_tag(header[4]).ok_or(wrong)?;
        let (plain_bytes, sealed_bytes) = (field(16), field(20));
        let is_ours = &header[..4] == BLOCK_MAGIC && header[8..16] == number.to_be_bytes();
        if !is_ours || sealed_bytes != sealed.len() || plain_bytes > BLOCK_BYTES_MAX {
            return Err(wrong);
        }
        let opened = self.open(Domain::Block, number, header, sealed);
        let packed = opened.ok_or(BlockError::NotOurs { number })?;
        if packing == Packing::Raw && packed.len() == plain_bytes {
            let plain = BLOCK_HEADER_BYTES..BLOCK_HEADER_BYTES + plain_bytes;
            return Ok(OpenBlock { bytes: block, plain });
        }
        let mut bytes = Vec::new();
        unpacker.unpack(packing, packed, plain_bytes, &mut bytes)?;
        Ok(OpenBlock { plain: 0..bytes.len(), bytes })
    }

    /// Seals `bytes` from `start` on, in place, and appends the tag.
    fn seal(&self, domain: Domain, number: u64, aad: &[u8], bytes: &mut Vec<u8>, start: usize) {
        let (nonce, aad) = (nonce(domain, number), self.aad(aad));
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, aad, &mut bytes[start..])
            .expect("a block is shorter than the limit of the cipher");
        bytes.extend_from_slice(tag.as_ref());
    }

    /// Opens `bytes` in place; none if they are not what was sealed.
    fn open<'a>(
        &self,
        domain: Domain,
        number: u64,
        aad: &[u8],
        bytes: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        let (nonce, aad) = (nonce(domain, number), self.aad(aad));
        self.key.open_in_place(nonce, aad, bytes).ok().map(|plain| &*plain)
    }

    fn aad(&self, header: &[u8]) -> Aad<Vec<u8>> {
        Aad::from([&self.id.0[..], header].concat())
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal").field("id", &self.id).finish_non_exhaustive()
    }
}

fn nonce(domain: Domain, number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[0] = domain as u8;
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// A block that was opened.
#[derive(Debug)]
pub struct OpenBlock {
    bytes: Vec<u8>,
    /// Where in them the pages are.
    plain: Range<usize>,
}

impl OpenBlock {
    /// Returns how much memory it takes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Returns its memory, to read another block into.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Returns the page at `offset`, if it is the one with this digest.
    pub fn page(&self, offset: u32, digest: PageDigest) -> Result<&Page, BlockError> {
        let rest = self.bytes[self.plain.clone()].get(offset as usize..);
        let page: Option<&Page> = rest.and_then(|rest| rest.first_chunk::<PAGE_BYTES>());
        page.filter(|page| PageDigest::of(page) == digest).ok_or(BlockError::WrongPage { offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(key: u8, id: u8) -> Seal {
        Seal::new(&ImageKey::new([key; 32]), ImageId([id; 16]))
    }

    /// A block opens under its own key, image and number, and every altered bit is noticed.
    #[test]
    fn only_an_untouched_block_opens() {
        let page = [7; PAGE_BYTES];
        let digest = PageDigest::of(&page);
        let block = seal(1, 1).seal_block(5, Packing::Raw, PAGE_BYTES, &page);
        let mut unpacker = Unpacker::default();
        let open = seal(1, 1).open_block(5, block.clone(), &mut unpacker).unwrap();
        assert_eq!(open.page(0, digest).unwrap(), &page);
        assert_eq!(open.page(0, PageDigest([0; 16])), Err(BlockError::WrongPage { offset: 0 }));
        assert_eq!(open.page(1, digest), Err(BlockError::WrongPage { offset: 1 }));
        assert_eq!(
            open.page(u32::MAX, digest).unwrap_err(),
            BlockError::WrongPage { offset: u32::MAX }
        );
        let is_refused = |seal: &Seal, number, block: &[u8]| {
            seal.open_block(number, block.to_vec(), &mut Unpacker::default()).is_err()
        };
        assert!(is_refused(&seal(2, 1), 5, &block), "another key");
        assert!(is_refused(&seal(1, 2), 5, &block), "another image");
        assert!(is_refused(&seal(1, 1), 6, &block), "another number");
        for index in 0..block.len() {
            let mut altered = block.clone();
            altered[index] ^= 1 << (index % 8);
            assert!(is_refused(&seal(1, 1), 5, &altered), "byte {index} was altered");
        }
        for length in [0, 3, BLOCK_HEADER_BYTES, block.len() - 1] {
            assert!(is_refused(&seal(1, 1), 5, &block[..length]), "cut to {length}");
        }
        assert!(is_refused(&seal(1, 1), 5, &[&block[..], &[0]].concat()), "a byte too long");
    }

    /// What lies on the disk shows nothing of the guest, and no two blocks are sealed alike.
    #[test]
    fn a_sealed_block_shows_nothing() {
        let page = [7; PAGE_BYTES];
        let one = seal(1, 1).seal_block(1, Packing::Raw, PAGE_BYTES, &page);
        let two = seal(1, 1).seal_block(2, Packing::Raw, PAGE_BYTES, &page);
        assert!(one[BLOCK_HEADER_BYTES..] != two[BLOCK_HEADER_BYTES..]);
        assert!(!one.windows(8).any(|window| window == &page[..8]));
        assert_eq!(format!("{:?}", ImageKey::new([9; 32])), "ImageKey(not shown)");
    }
}
