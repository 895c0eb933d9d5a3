// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The manifest of an image: which page lies where, and what its digest is.
//!
//! The host that keeps the image has it sealed beside the blocks. The host the guest went to has
//! counted the same pages itself ([`super::Census`]), and has the key. When the guest returns, its
//! host says which pages it knows of ([`ManifestName`]: 48 bytes); if they are the same, both ends
//! number them alike, and that is all they have to agree on.
//!
//! ```text
//! "WPM1"  u32 segments  u64 entries                     then each segment: u32 length, sealed
//! a segment, opened, is a row of entries:
//!     varint place - place before - 1, folded varint block - block before, varint offset,
//!     16 bytes of digest
//! ```
//!
//! Places only ever rise, so no page is in it twice.

use super::{BLOCK_BYTES_MAX, Domain, ImageId, Seal, TAG_BYTES};
use crate::batch::SLOTS_MAX;
use crate::digest::PageDigest;
use crate::split::{PAGE_BYTES, Place};
use crate::varint;

/// Pages in one manifest.
pub const ENTRIES_MAX: u64 = SLOTS_MAX as u64;

/// Entries in one segment.
const SEGMENT_ENTRIES: usize = 1 << 15;

/// No entry is longer: three numbers and a digest.
const ENTRY_BYTES_MAX: usize = 10 + 10 + 5 + 16;

/// And none is shorter.
const ENTRY_BYTES_MIN: usize = 1 + 1 + 1 + 16;

const MAGIC: &[u8; 4] = b"WPM1";
const HEADER_BYTES: usize = 4 + 4 + 8;

/// Where a page lies in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub block: u32,
    /// In the plain bytes of the block.
    pub offset: u32,
}

/// A page of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub place: Place,
    pub digest: PageDigest,
    pub location: Location,
}

/// What an image holds, in the order of places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    id: ImageId,
    entries: Vec<Entry>,
}

/// Names a manifest by its content: equal names, equal pages in equal slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ManifestName {
    pub id: ImageId,
    pub digest: [u8; 32],
}

impl ManifestName {
    pub fn to_bytes(self) -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[..16].copy_from_slice(&self.id.0);
        bytes[16..].copy_from_slice(&self.digest);
        bytes
    }

    pub fn from_bytes(bytes: &[u8; 48]) -> Self {
        let (id, digest) = bytes.split_at(16);
        let wrong = "48 bytes are 16 and 32";
        Self { id: ImageId(id.try_into().expect(wrong)), digest: digest.try_into().expect(wrong) }
    }
}

/// Locations are left out: where the pages lie concerns only the host that keeps them.
pub(super) fn name_of(
    id: ImageId,
    pages: impl Iterator<Item = (Place, PageDigest)>,
) -> ManifestName {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&id.0);
    for (place, digest) in pages {
        hasher.update(&number(place).to_be_bytes());
        hasher.update(&digest.0);
    }
    ManifestName { id, digest: *hasher.finalize().as_bytes() }
}

/// Why a manifest was not used. The image is of no use without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest is cut off, or is none")]
    Malformed,
    #[error("the manifest has {entries} entries, and at most {ENTRIES_MAX} are allowed")]
    TooMany { entries: u64 },
    #[error("segment {segment} of the manifest was altered, or was sealed with another key")]
    NotOurs { segment: u32 },
    #[error("segment {segment} of the manifest has impossible entries")]
    BadEntry { segment: u32 },
}

impl Manifest {
    /// Takes the pages of an image in any order; of two for one place, the later one counts.
    pub fn new(id: ImageId, mut entries: Vec<Entry>) -> Self {
        // The sort is stable, so the last of equals is the latest; it is kept.
        entries.sort_by_key(|entry| entry.place);
        entries.reverse();
        entries.dedup_by_key(|entry| entry.place);
        entries.reverse();
        assert!(entries.len() as u64 <= ENTRIES_MAX, "a guest has no more pages");
        Self { id, entries }
    }

    pub fn id(&self) -> ImageId {
        self.id
    }

    /// The pages; the n-th one has slot n on the shelf.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns what [`crate::sender::Sender::hold`] wants.
    pub fn held(&self) -> impl Iterator<Item = (Place, PageDigest)> + '_ {
        self.entries.iter().map(|entry| (entry.place, entry.digest))
    }

    pub fn name(&self) -> ManifestName {
        name_of(self.id, self.held())
    }

    /// Returns the manifest as it is kept. A key seals one manifest, once.
    pub fn seal(&self, seal: &Seal) -> Vec<u8> {
        assert_eq!(self.id, seal.id(), "a manifest is sealed with its image");
        let segments = self.entries.chunks(SEGMENT_ENTRIES);
        let count = u32::try_from(segments.len()).expect("the entries are limited");
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(&(self.entries.len() as u64).to_be_bytes());
        let header = out.clone();
        for (number, entries) in (0_u64..).zip(segments) {
            let mut segment = Vec::new();
            put_segment(entries, &mut segment);
            seal.seal(Domain::Manifest, number, &header, &mut segment, 0);
            let length = u32::try_from(segment.len()).expect("segments are short");
            out.extend_from_slice(&length.to_be_bytes());
            out.append(&mut segment);
        }
        out
    }

    /// Opens a manifest that was kept.
    pub fn open(seal: &Seal, bytes: &[u8]) -> Result<Self, ManifestError> {
        let wrong = ManifestError::Malformed;
        let (header, mut rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(wrong)?;
        if &header[..4] != MAGIC {
            return Err(wrong);
        }
        let segments = u32::from_be_bytes(header[4..8].try_into().expect("four bytes"));
        let count = u64::from_be_bytes(header[8..].try_into().expect("eight bytes"));
        if count > ENTRIES_MAX {
            return Err(ManifestError::TooMany { entries: count });
        }
        if u64::from(segments) != count.div_ceil(SEGMENT_ENTRIES as u64) {
            return Err(wrong);
        }
        // Nothing is allocated for entries that cannot be there.
        let count = usize::try_from(count).map_err(|_| wrong)?;
        if count > rest.len() / ENTRY_BYTES_MIN {
            return Err(wrong);
        }
        let mut entries = Vec::with_capacity(count);
        for segment in 0..segments {
            let (length, after) = rest.split_first_chunk::<4>().ok_or(wrong)?;
            let length = u32::from_be_bytes(*length) as usize;
            if length > SEGMENT_ENTRIES * ENTRY_BYTES_MAX + TAG_BYTES {
                return Err(wrong);
            }
            let (sealed, after) = after.split_at_checked(length).ok_or(wrong)?;
            rest = after;
            let mut sealed = sealed.to_vec();
            let plain = seal.open(Domain::Manifest, segment.into(), header, &mut sealed);
            let mut plain = plain.ok_or(ManifestError::NotOurs { segment })?;
            let in_segment = SEGMENT_ENTRIES.min(count - entries.len());
            take_segment(&mut plain, in_segment, &mut entries)
                .filter(|()| plain.is_empty())
                .ok_or(ManifestError::BadEntry { segment })?;
        }
        if !rest.is_empty() {
            return Err(wrong);
        }
        Ok(Self { id: seal.id(), entries })
    }
}

fn number(place: Place) -> u64 {
    u64::from(place.block) << 32 | u64::from(place.page_index)
}

/// Each segment begins from nothing, so the digest and the segments are made of the same bytes.
fn put_segment(entries: &[Entry], out: &mut Vec<u8>) {
    let (mut place_next, mut block_before) = (0, 0);
    for entry in entries {
        varint::put(out, number(entry.place) - place_next);
        varint::put(out, varint::fold(i64::from(entry.location.block) - block_before));
        varint::put(out, entry.location.offset.into());
        out.extend_from_slice(&entry.digest.0);
        place_next = number(entry.place) + 1;
        block_before = entry.location.block.into();
    }
}

fn take_segment(input: &mut &[u8], count: usize, entries: &mut Vec<Entry>) -> Option<()> {
    let (mut place_next, mut block_before) = (0_u64, 0_i64);
    for _ in 0..count {
        let place = place_next.checked_add(varint::take(input)?)?;
        let block = block_before.checked_add(varint::unfold(varint::take(input)?))?;
        let offset = varint::take(input)?;
        let (digest, rest) = input.split_first_chunk()?;
        *input = rest;
        if offset > (BLOCK_BYTES_MAX - PAGE_BYTES) as u64 {
            return None;
        }
        let entry = Entry {
            place: Place {
                block: u16::try_from(place >> 32).ok()?,
                page_index: u32::try_from(place & u64::from(u32::MAX)).ok()?,
            },
            digest: PageDigest(*digest),
            location: Location {
                block: u32::try_from(block).ok()?,
                offset: u32::try_from(offset).ok()?,
            },
        };
        if entries.last().is_some_and(|last| last.place >= entry.place) {
            return None;
        }
        entries.push(entry);
        (place_next, block_before) = (place + 1, block);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ImageKey;

    fn seal(key: u8) -> Seal {
        Seal::new(&ImageKey::new([key; 32]), ImageId([1; 16]))
    }

    fn entry(block: u16, page_index: u32, content: u32) -> Entry {
        let mut digest = [0; 16];
        digest[..4].copy_from_slice(&content.to_le_bytes());
        Entry {
            place: Place { block, page_index },
            digest: PageDigest(digest),
            location: Location { block: content % 1000, offset: content % 60 * 4096 },
        }
    }

    /// A manifest comes back as it was, whatever order its pages came in, and a later page replaces
    /// an earlier one.
    #[test]
    fn a_manifest_comes_back() {
        for count in [0, 1, 5, 32_768, 32_769, 70_000] {
            let pages = (0..count).map(|n| entry(u16::from(n % 3 == 0), (n * 7919) % 100_003, n));
            let manifest = Manifest::new(ImageId([1; 16]), pages.collect());
            assert_eq!(manifest.entries().len(), count as usize);
            let kept = manifest.seal(&seal(1));
            let back = Manifest::open(&seal(1), &kept).unwrap();
            assert!(back == manifest);
            assert_eq!(back.name(), manifest.name());
            assert_eq!(ManifestName::from_bytes(&manifest.name().to_bytes()), manifest.name());
            assert!(kept.len() <= 200 + 26 * count as usize, "{} for {count}", kept.len());
        }
        let twice = vec![entry(0, 5, 1), entry(0, 4, 2), entry(0, 5, 3)];
        let manifest = Manifest::new(ImageId([1; 16]), twice);
        assert_eq!(manifest.entries(), [entry(0, 4, 2), entry(0, 5, 3)]);
        let other = Manifest::new(ImageId([1; 16]), vec![entry(0, 4, 2), entry(0, 5, 4)]);
        assert_ne!(manifest.name(), other.name());
    }

    /// Every altered bit is noticed, and so are cuts, other keys and exchanged segments.
    #[test]
    fn only_an_untouched_manifest_opens() {
        let manifest = Manifest::new(ImageId([1; 16]), (0..40).map(|n| entry(0, n, n)).collect());
        let kept = manifest.seal(&seal(1));
        assert!(Manifest::open(&seal(2), &kept).is_err());
        for index in 0..kept.len() {
            let mut altered = kept.clone();
            altered[index] ^= 1 << (index % 8);
            assert!(Manifest::open(&seal(1), &altered).is_err(), "byte {index} was altered");
            assert!(Manifest::open(&seal(1), &kept[..index]).is_err(), "cut to {index}");
        }
        let long = Manifest::new(ImageId([1; 16]), (0..70_000).map(|n| entry(0, n, n)).collect());
        let kept = long.seal(&seal(1));
        let first =
            HEADER_BYTES + 4 + u32::from_be_bytes(kept[16..20].try_into().unwrap()) as usize;
        let second = 4 + u32::from_be_bytes(kept[first..first + 4].try_into().unwrap()) as usize;
        let exchanged = [
            &kept[..HEADER_BYTES],
            &kept[first..first + second],
            &kept[HEADER_BYTES..first],
            &kept[first + second..],
        ];
        let error = Manifest::open(&seal(1), &exchanged.concat()).unwrap_err();
        assert_eq!(error, ManifestError::NotOurs { segment: 0 });
    }
}
