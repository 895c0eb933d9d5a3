// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The bytes of the files beside an image: magic, version, fields, CRC-32C of all before it.

use super::{By, Claim, OwnerRecord};
use crate::bytes::{Reader, Writer};
use crate::message::EPOCH_MAX;
use crate::record::RecordError;

/// Size of an owner record.
pub const OWNER_BYTES: usize = 128;
/// Size of a claim.
pub const CLAIM_BYTES: usize = 96;

const OWNER_MAGIC: [u8; 8] = *b"wb-owner";
const CLAIM_MAGIC: [u8; 8] = *b"wb-claim";
const VERSION: u8 = 1;
const CRC_BYTES: usize = 4;

/// Why a file beside an image was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskRecordError {
    #[error("it has {length} bytes instead of {expected}")]
    Length { length: usize, expected: usize },
    #[error("its checksum does not match its content")]
    Checksum,
    #[error("it is a file of another kind")]
    Magic,
    #[error("it has version {found}, and this program knows version {VERSION}")]
    Version { found: u8 },
    #[error("its content makes no sense")]
    Content(#[from] RecordError),
}

impl OwnerRecord {
    /// Returns the file's bytes.
    pub fn encode(&self) -> [u8; OWNER_BYTES] {
        let mut out = Writer::<OWNER_BYTES>::new();
        out.bytes(&OWNER_MAGIC);
        out.u8(VERSION);
        out.bytes(self.guest.0.as_bytes());
        out.bytes(&self.owner.0);
        out.epoch(self.epoch);
        match self.by {
            By::Source { handoff, run } => {
                out.u8(1);
                out.bytes(handoff.0.as_bytes());
                out.run(run);
            }
            By::Owner => out.u8(2),
        }
        seal(out.finish())
    }

    /// Reads a file back; refuses everything that `encode` would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, DiskRecordError> {
        let mut input = open::<OWNER_BYTES>(bytes, OWNER_MAGIC)?;
        let (guest, owner, epoch) = (input.guest(), input.host(), input.epoch());
        let by = match input.u8() {
            1 => By::Source { handoff: input.handoff_id(), run: input.run()? },
            2 => By::Owner,
            value => return Err(RecordError::Value { field: "writer", value }.into()),
        };
        let record = Self { guest, owner, epoch, by };
        finish(&input, epoch)?;
        Ok(record)
    }
}

impl Claim {
    /// Returns the file's bytes.
    pub fn encode(&self) -> [u8; CLAIM_BYTES] {
        let mut out = Writer::<CLAIM_BYTES>::new();
        out.bytes(&CLAIM_MAGIC);
        out.u8(VERSION);
        out.bytes(self.guest.0.as_bytes());
        out.bytes(&self.host.0);
        out.epoch(self.epoch);
        seal(out.finish())
    }

    /// Reads a file back; refuses everything that `encode` would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, DiskRecordError> {
        let mut input = open::<CLAIM_BYTES>(bytes, CLAIM_MAGIC)?;
        let (guest, host, epoch) = (input.guest(), input.host(), input.epoch());
        finish(&input, epoch)?;
        Ok(Self { guest, epoch, host })
    }
}

fn seal<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    let (content, crc) = bytes.split_at_mut(N - CRC_BYTES);
    crc.copy_from_slice(&crc32c::crc32c(content).to_le_bytes());
    bytes
}

fn open<const N: usize>(bytes: &[u8], magic: [u8; 8]) -> Result<Reader<'_>, DiskRecordError> {
    if bytes.len() != N {
        return Err(DiskRecordError::Length { length: bytes.len(), expected: N });
    }
    let (content, crc) = bytes.split_at(N - CRC_BYTES);
    if crc32c::crc32c(content).to_le_bytes() != crc {
        return Err(DiskRecordError::Checksum);
    }
    let mut input = Reader::new(content);
    if input.array() != magic {
        return Err(DiskRecordError::Magic);
    }
    match input.u8() {
        VERSION => Ok(input),
        found => Err(DiskRecordError::Version { found }),
    }
}

fn finish(input: &Reader<'_>, epoch: whimbrel_model::id::Epoch) -> Result<(), DiskRecordError> {
    if !input.rest_is_zero() || epoch > EPOCH_MAX {
        let what = "bytes after its end are not zero, or its epoch is beyond all use";
        return Err(RecordError::Contradiction { what }.into());
    }
    Ok(())
}
