// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The bytes of a [`Record`]: a version, a tag, and fields of fixed size, numbers little-endian.
//!
//! Value 0 is never valid for a tag, so that a blank file is not a record; whatever is not in use
//! must be zero, so that each record has exactly one encoding.

use super::{BootId, Decline, Declined, Handoff, Identity, Record, Standing};
use crate::bytes::{Reader, Writer};
use crate::message::EPOCH_MAX;
use whimbrel_model::id::Epoch;

/// Size of an encoded record. Fits a slot of one disk sector with room for sequence and checksum.
pub const RECORD_BYTES_MAX: usize = 256;

const VERSION: u8 = 1;

/// Why bytes were not accepted as a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("an ownership record has {RECORD_BYTES_MAX} bytes, and these are {length}")]
    Length { length: usize },
    #[error("the ownership record has version {found}, and this program knows version {VERSION}")]
    Version { found: u8 },
    #[error("the ownership record has the unknown value {value} for its {field}")]
    Value { field: &'static str, value: u8 },
    #[error("the ownership record contradicts itself: {what}")]
    Contradiction { what: &'static str },
}

impl Record {
    /// Returns the record's bytes.
    pub fn encode(&self) -> [u8; RECORD_BYTES_MAX] {
        let mut out = Writer::<RECORD_BYTES_MAX>::new();
        out.u8(VERSION);
        out.bytes(self.identity.guest.0.as_bytes());
        out.bytes(&self.identity.host.0);
        out.bytes(&self.boot.0);
        out.epoch(self.consumed);
        match self.standing {
            Standing::Owned { epoch, mending } => {
                out.u8(1);
                out.epoch(epoch);
                out.run(mending);
            }
            Standing::Elsewhere { owner, epoch, declined } => {
                out.u8(2);
                out.bytes(&owner.0);
                out.epoch(epoch);
                match declined {
                    None => out.u8(1),
                    Some(Declined { handoff, how }) => {
                        out.u8(match how {
                            Decline::Refused => 2,
                            Decline::Returned => 3,
                        });
                        out.bytes(handoff.0.as_bytes());
                    }
                }
            }
            Standing::Offering { epoch, handoff, run } => out.moving(3, epoch, &handoff, run),
            Standing::Ceded { epoch, handoff, run } => out.moving(4, epoch, &handoff, run),
            Standing::Draining { handoff } => {
                out.u8(5);
                out.handoff(&handoff);
            }
            Standing::Receiving { owned, handoff } => {
                out.u8(6);
                out.epoch(owned);
                out.handoff(&handoff);
            }
            Standing::Taken { owned, handoff, run } => out.moving(7, owned, &handoff, run),
            Standing::Disputed { epoch, owner, newer } => {
                out.u8(8);
                out.epoch(epoch);
                out.bytes(&owner.0);
                out.epoch(newer);
            }
        }
        out.finish()
    }

    /// Reads a record back; refuses everything that `encode` would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() != RECORD_BYTES_MAX {
            return Err(RecordError::Length { length: bytes.len() });
        }
        let mut input = Reader::new(bytes);
        let version = input.u8();
        if version != VERSION {
            return Err(RecordError::Version { found: version });
        }
        let identity = Identity { guest: input.guest(), host: input.host() };
        let boot = BootId(input.array());
        let consumed = input.epoch();
        let standing = decode_standing(&mut input)?;
        if !input.rest_is_zero() {
            return Err(RecordError::Contradiction { what: "bytes after its end are not zero" });
        }
        let record = Self { identity, boot, consumed, standing };
        record.check()?;
        Ok(record)
    }

    /// Checks what the types alone cannot say.
    fn check(&self) -> Result<(), RecordError> {
        let contradiction = |what| Err(RecordError::Contradiction { what });
        let order = |owned: Epoch, handoff: &Handoff| owned < handoff.epoch;
        let peer = |handoff: &Handoff| handoff.peer != self.identity.host;
        let newest = match &self.standing {
            Standing::Owned { epoch, .. } => *epoch,
            Standing::Elsewhere { owner, .. } if *owner == self.identity.host => {
                return contradiction("another owner is this host");
            }
            Standing::Elsewhere { epoch, .. } => *epoch,
            Standing::Offering { epoch: owned, handoff, .. }
            | Standing::Ceded { epoch: owned, handoff, .. }
            | Standing::Receiving { owned, handoff }
            | Standing::Taken { owned, handoff, .. } => {
                if !order(*owned, handoff) {
                    return contradiction("the epoch on offer is not newer than the one held");
                }
                if !peer(handoff) {
                    return contradiction("the peer is this host");
                }
                handoff.epoch
            }
            Standing::Draining { handoff } if !peer(handoff) => {
                return contradiction("the peer is this host");
            }
            Standing::Draining { handoff } => handoff.epoch,
            Standing::Disputed { epoch, owner, newer } => {
                if *owner == self.identity.host || epoch > newer {
                    return contradiction("a dispute with nobody, or with an older epoch");
                }
                *newer
            }
        };
        if newest > self.consumed {
            return contradiction("an epoch is newer than the newest");
        }
        if self.consumed > EPOCH_MAX {
            return contradiction("its epoch is beyond all use");
        }
        Ok(())
    }
}

fn decode_standing(input: &mut Reader<'_>) -> Result<Standing, RecordError> {
    let tag = input.u8();
    Ok(match tag {
        1 => Standing::Owned { epoch: input.epoch(), mending: input.run()? },
        2 => {
            let (owner, epoch) = (input.host(), input.epoch());
            let declined = match input.u8() {
                1 => None,
                2 => Some(Declined { handoff: input.handoff_id(), how: Decline::Refused }),
                3 => Some(Declined { handoff: input.handoff_id(), how: Decline::Returned }),
                value => return Err(RecordError::Value { field: "declined handoff", value }),
            };
            Standing::Elsewhere { owner, epoch, declined }
        }
        3 => Standing::Offering {
            epoch: input.epoch(),
            handoff: input.handoff()?,
            run: input.run()?,
        },
        4 => Standing::Ceded { epoch: input.epoch(), handoff: input.handoff()?, run: input.run()? },
        5 => Standing::Draining { handoff: input.handoff()? },
        6 => Standing::Receiving { owned: input.epoch(), handoff: input.handoff()? },
        7 => Standing::Taken { owned: input.epoch(), handoff: input.handoff()?, run: input.run()? },
        8 => Standing::Disputed { epoch: input.epoch(), owner: input.host(), newer: input.epoch() },
        value => return Err(RecordError::Value { field: "standing", value }),
    })
}
