// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! One copy of a record: the bytes of a sector.
//!
//! ```text
//!  0  magic     "WBow"
//!  4  version   u16, 1
//!  6  place     u8, which sector of the file this is (a sector that ended up elsewhere is broken)
//!  7  zero
//!  8  number    u64, of the record
//! 16  file      u64, drawn when the file was created (a sector of another file is no answer)
//! 24  length    u16, of the record
//! 26  zero
//! 28  checksum  u32, CRC-32C of the other 508 bytes
//! 32  record    480 bytes, zero after its end
//! ```
//! All numbers are little-endian.

pub(super) const SECTOR_BYTES: usize = 512;
pub(super) const COPIES: usize = 8;
pub(super) const SLOT_BYTES: usize = SECTOR_BYTES * COPIES;

const HEADER_BYTES: usize = 32;
/// Longest record, in bytes: with its header it fills the smallest sector of a disk.
pub const RECORD_BYTES_MAX: usize = SECTOR_BYTES - HEADER_BYTES;

const MAGIC: [u8; 4] = *b"WBow";
const VERSION: u16 = 1;
const CHECKSUM: std::ops::Range<usize> = 28..32;

/// A record and its place in the file's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    pub(super) number: u64,
    pub(super) file: u64,
    pub(super) record: Vec<u8>,
}

/// What a sector turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sector {
    Intact(Numbered),
    Broken,
    /// Intact, and of a version that this program does not know.
    Newer(u16),
}

impl Numbered {
    /// Returns the slot that this record goes to.
    pub(super) fn slot(&self) -> usize {
        usize::from(self.number % 2 == 1)
    }

    /// Returns the whole slot: eight copies.
    pub(super) fn encode(&self) -> Box<[u8; SLOT_BYTES]> {
        let mut slot = Box::new([0; SLOT_BYTES]);
        let first = self.slot() * COPIES;
        for (index, sector) in slot.chunks_exact_mut(SECTOR_BYTES).enumerate() {
            self.encode_sector(first + index, sector);
        }
        slot
    }

    fn encode_sector(&self, place: usize, sector: &mut [u8]) {
        let length = u16::try_from(self.record.len()).expect("the length was checked");
        sector[0..4].copy_from_slice(&MAGIC);
        sector[4..6].copy_from_slice(&VERSION.to_le_bytes());
        sector[6] = u8::try_from(place).expect("a file has sixteen sectors");
        sector[8..16].copy_from_slice(&self.number.to_le_bytes());
        sector[16..24].copy_from_slice(&self.file.to_le_bytes());
        sector[24..26].copy_from_slice(&length.to_le_bytes());
        sector[HEADER_BYTES..][..self.record.len()].copy_from_slice(&self.record);
        let sum = checksum(sector);
        sector[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Reads the sector at `place` of the file.
pub(super) fn decode_sector(place: usize, sector: &[u8]) -> Sector {
    let word = |at: usize| u64::from_le_bytes(sector[at..at + 8].try_into().expect("8 bytes"));
    let half = |at: usize| u16::from_le_bytes([sector[at], sector[at + 1]]);
    let stored = u32::from_le_bytes(sector[CHECKSUM].try_into().expect("4 bytes"));
    if sector[0..4] != MAGIC || checksum(sector) != stored {
        return Sector::Broken;
    }
    if half(4) != VERSION {
        return Sector::Newer(half(4));
    }
    let length = usize::from(half(24));
    let numbered = Numbered {
        number: word(8),
        file: word(16),
        record: match sector[HEADER_BYTES..].get(..length) {
            Some(record) => record.to_vec(),
            None => return Sector::Broken,
        },
    };
    if usize::from(sector[6]) != place || numbered.slot() != place / COPIES {
        return Sector::Broken;
    }
    Sector::Intact(numbered)
}

fn checksum(sector: &[u8]) -> u32 {
    let before = crc32c::crc32c(&sector[..CHECKSUM.start]);
    crc32c::crc32c_append(before, &sector[CHECKSUM.end..])
}
