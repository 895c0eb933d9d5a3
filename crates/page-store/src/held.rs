// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What the host a guest went to knows of the image at the host it came from.
//!
//! ```text
//! "WPH1"  48 bytes name  32 bytes key  32 bytes keeper  u64 pages
//! each page: u16 block  u32 page index  16 bytes of digest
//! 32 bytes: BLAKE3 of all before
//! ```
//!
//! Numbers are big-endian. Places only ever rise, so no page is in it twice. The file holds the key
//! of the image, in the clear: whoever reads it here could as well read the guest's memory, which
//! is here, too.

use std::io::{self, Read, Write};

use whimbrel_model::id::HostId;
use whimbrel_pages::digest::PageDigest;
use whimbrel_pages::image::{ENTRIES_MAX, ImageKey, ManifestName};
use whimbrel_pages::split::Place;
use zeroize::Zeroizing;

const MAGIC: &[u8; 4] = b"WPH1";
pub(crate) const HEADER_BYTES: usize = 4 + 48 + 32 + 32 + 8;
const PAGE_BYTES: usize = 2 + 4 + 16;
const DIGEST_BYTES: usize = 32;

/// Pages that are written or read at a time.
const CHUNK_PAGES: usize = 2048;

/// What is known of an image at another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub name: ManifestName,
    pub key: ImageKey,
    /// The host that has the image.
    pub keeper: HostId,
    /// The n-th page lies in slot n of that host's shelf.
    pub pages: Vec<(Place, PageDigest)>,
}

/// Why a file was not taken for what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeldError {
    #[error("it is no list of held pages, or of another version")]
    NoList,
    #[error("it has {found} bytes, and its {pages} pages take {expected}")]
    WrongLength { found: u64, pages: u64, expected: u64 },
    #[error("it lists {pages} pages, and at most {ENTRIES_MAX} are allowed")]
    TooMany { pages: u64 },
    #[error("its pages are not in order")]
    NotInOrder,
    #[error("it was altered")]
    Altered,
    #[error("it could not be read to its end")]
    CutOff,
}

/// The beginning of the file; what stands in it is not proven until the rest has been read.
pub(crate) struct Header {
    name: ManifestName,
    key: ImageKey,
    keeper: HostId,
    pub(crate) pages: u64,
}

impl Header {
    pub(crate) fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeldError> {
        let (magic, rest) = bytes.split_first_chunk().expect("four bytes");
        let (name, rest) = rest.split_first_chunk().expect("48 bytes");
        let (key, rest) = rest.split_first_chunk().expect("32 bytes");
        let (keeper, pages) = rest.split_first_chunk().expect("32 bytes");
        if magic != MAGIC {
            return Err(HeldError::NoList);
        }
        let pages = u64::from_be_bytes(pages.try_into().expect("eight bytes"));
        if pages > ENTRIES_MAX {
            return Err(HeldError::TooMany { pages });
        }
        let name = ManifestName::from_bytes(name);
        Ok(Self { name, key: ImageKey::new(*key), keeper: HostId(*keeper), pages })
    }

    pub(crate) fn keeper(&self) -> HostId {
        self.keeper
    }

    pub(crate) fn name(&self) -> ManifestName {
        self.name
    }

    fn file_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + self.pages * PAGE_BYTES as u64 + DIGEST_BYTES as u64
    }
}

impl Held {
    /// Reads what [`Held::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HeldError> {
        Self::read(bytes, bytes.len() as u64)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes).expect("memory takes everything");
        bytes
    }

    /// Reads a file of `length` bytes. Nothing is allocated for pages that cannot be in it.
    pub(crate) fn read(mut input: impl Read, length: u64) -> Result<Self, HeldError> {
        let mut header = Zeroizing::new([0; HEADER_BYTES]);
        input.read_exact(&mut *header).map_err(|_| HeldError::CutOff)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&*header);
        let header = Header::from_bytes(&header)?;
        if header.file_bytes() != length {
            let (pages, expected) = (header.pages, header.file_bytes());
            return Err(HeldError::WrongLength { found: length, pages, expected });
        }
        let count = usize::try_from(header.pages).map_err(|_| HeldError::CutOff)?;
        let mut pages: Vec<(Place, PageDigest)> = Vec::with_capacity(count);
        let mut chunk = vec![0; CHUNK_PAGES.min(count) * PAGE_BYTES];
        while pages.len() < count {
            let chunk = &mut chunk[..CHUNK_PAGES.min(count - pages.len()) * PAGE_BYTES];
            input.read_exact(chunk).map_err(|_| HeldError::CutOff)?;
            hasher.update(chunk);
            for page in chunk.chunks_exact(PAGE_BYTES) {
                let page = take_page(page.try_into().expect("a page's bytes were cut out"));
                if pages.last().is_some_and(|last| last.0 >= page.0) {
                    return Err(HeldError::NotInOrder);
                }
                pages.push(page);
            }
        }
        let mut digest = [0; DIGEST_BYTES];
        input.read_exact(&mut digest).map_err(|_| HeldError::CutOff)?;
        if *hasher.finalize().as_bytes() != digest {
            return Err(HeldError::Altered);
        }
        let Header { name, key, keeper, .. } = header;
        Ok(Self { name, key, keeper, pages })
    }

    pub(crate) fn write(&self, mut output: impl Write) -> io::Result<()> {
        assert!(self.pages.is_sorted_by(|one, next| one.0 < next.0), "a census is in order");
        let mut header = Zeroizing::new([0; HEADER_BYTES]);
        let parts: [&[u8]; 5] = [
            MAGIC,
            &self.name.to_bytes(),
            self.key.bytes(),
            &self.keeper.0,
            &(self.pages.len() as u64).to_be_bytes(),
        ];
        let mut rest = &mut header[..];
        for part in parts {
            rest.write_all(part)?;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&*header);
        output.write_all(&*header)?;
        let mut chunk = Vec::with_capacity(CHUNK_PAGES.min(self.pages.len()) * PAGE_BYTES);
        for pages in self.pages.chunks(CHUNK_PAGES) {
            chunk.clear();
            for (place, digest) in pages {
                chunk.extend_from_slice(&place.block.to_be_bytes());
                chunk.extend_from_slice(&place.page_index.to_be_bytes());
                chunk.extend_from_slice(&digest.0);
            }
            hasher.update(&chunk);
            output.write_all(&chunk)?;
        }
        output.write_all(hasher.finalize().as_bytes())
    }
}

fn take_page(bytes: &[u8; PAGE_BYTES]) -> (Place, PageDigest) {
    let (block, rest) = bytes.split_first_chunk().expect("two bytes");
    let (page_index, digest) = rest.split_first_chunk().expect("four bytes");
    let place =
        Place { block: u16::from_be_bytes(*block), page_index: u32::from_be_bytes(*page_index) };
    (place, PageDigest(digest.try_into().expect("sixteen bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use whimbrel_pages::image::ImageId;

    fn held(count: u32) -> Held {
        let page = |n: u32| {
            let place = Place { block: u16::from(n > count / 2), page_index: n * 3 };
            (place, PageDigest([n.to_le_bytes()[0]; 16]))
        };
        Held {
            name: ManifestName { id: ImageId([1; 16]), digest: [2; 32] },
            key: ImageKey::new([3; 32]),
            keeper: HostId([4; 32]),
            pages: (0..count).map(page).collect(),
        }
    }

    /// With the digest put right, so that what is behind it is tested.
    fn with_digest(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.truncate(bytes.len() - DIGEST_BYTES);
        let digest = blake3::hash(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        bytes
    }

    /// A list comes back as it was, also where it is longer than a chunk.
    #[test]
    fn a_list_comes_back() {
        for count in [0, 1, 7, 2047, 2048, 2049, 10_000] {
            let held = held(count);
            let bytes = held.to_bytes();
            assert_eq!(bytes.len(), 156 + 22 * count as usize);
            assert!(Held::from_bytes(&bytes) == Ok(held), "{count}");
        }
    }

    /// Every altered bit is noticed, and so is every cut and every byte too many.
    #[test]
    fn only_an_untouched_list_is_read() {
        let bytes = held(5).to_bytes();
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut altered = bytes.clone();
                altered[index] ^= 1 << bit;
                assert!(Held::from_bytes(&altered).is_err(), "bit {bit} of byte {index}");
            }
            assert!(Held::from_bytes(&bytes[..index]).is_err(), "cut to {index}");
        }
        assert!(Held::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    }

    /// A list with a true digest is still checked: its length, its order, its count, its version.
    #[test]
    fn a_list_that_cannot_be_is_refused() {
        let bytes = held(5).to_bytes();
        let check = |bytes: Vec<u8>, expected: &HeldError| {
            assert_eq!(&Held::from_bytes(&with_digest(bytes)).unwrap_err(), expected);
        };
        let mut many = bytes.clone();
        many[116..124].copy_from_slice(&u64::MAX.to_be_bytes());
        check(many, &HeldError::TooMany { pages: u64::MAX });
        let mut more = bytes.clone();
        more[116..124].copy_from_slice(&(1_u64 << 30).to_be_bytes());
        let expected = 156 + (22 << 30);
        check(more, &HeldError::WrongLength { found: 266, pages: 1 << 30, expected });
        let mut twice = bytes.clone();
        twice.copy_within(HEADER_BYTES..HEADER_BYTES + PAGE_BYTES, HEADER_BYTES + PAGE_BYTES);
        check(twice, &HeldError::NotInOrder);
        let mut later = bytes.clone();
        later[3] = b'2';
        check(later, &HeldError::NoList);
        assert_eq!(Held::from_bytes(&[]), Err(HeldError::CutOff));
    }

    proptest! {
        /// Any bytes are refused or are what would be written again.
        #[test]
        fn what_is_read_is_what_was_written(
            from in 0..300_usize,
            noise in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = held(6).to_bytes();
            let from = from.min(bytes.len());
            let end = (from + noise.len()).min(bytes.len());
            bytes.splice(from..end, noise);
            let bytes = if bytes.len() > DIGEST_BYTES { with_digest(bytes) } else { bytes };
            if let Ok(held) = Held::from_bytes(&bytes) {
                prop_assert!(held.to_bytes() == bytes);
            }
        }
    }
}
