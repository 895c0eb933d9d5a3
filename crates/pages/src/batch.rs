// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A batch: a stretch of the stream as records.
//!
//! A batch is a list of records and the data they use up in order; both together (the *plain*
//! bytes) are packed by one codec. Numbers are varints.
//!
//! | record | fields | gives |
//! | --- | --- | --- |
//! | 1 bytes | count | `count` bytes of data |
//! | 2 jump | folded difference | nothing; the next head is that much larger than expected |
//! | 3 fill | count, byte | `count` times: the head, then the byte |
//! | 4 new | count, \[slot\] | `count` pages of data; put on the shelf if there is a slot |
//! | 5 same | count, slot | `count` pages from the shelf, from that slot on |
//! | 6 delta | slot, length | the page in that slot, patched by `length` bytes, and put back |
//! | 7 parts | slot, length, \[slot\], 8 bytes | the page in the first slot, patched |
//! | 8 block | block, \[slot\], 8 bytes | a block of the guest's disks |
//!
//! What 7 gives takes `length` bytes of data. What 7 and 8 give is put into the last slot, if there
//! is one. If its digest does not begin with the 8 bytes, it is asked for.
//!
//! In 4 to 8, bit 4 of the record's first byte says that each page has a head before it, and in 4,
//! 7 and 8 bit 5 says that there is a slot to put it. A head is the one before plus 4096; both
//! begin at 0 in every batch. A slot is written as the folded difference to the slot after the one
//! used last; the second slot of 7 does not count as one. A block is written in the same way.
//!
//! The **shelf** is what the target holds: numbered slots with a page each. The source decides what
//! is put where and when it is thrown away, so the two sides cannot disagree about a policy.

mod reader;
mod writer;

pub(crate) use reader::{Overrides, Read, decode};
pub(crate) use writer::{Writer, Written};

use crate::split::PAGE_BYTES;

/// Bytes of the stream in one batch.
pub const BATCH_STREAM_BYTES_MAX: usize = 1 << 20;

/// Bytes of records in one batch.
pub const BATCH_RECORDS_BYTES_MAX: usize = 128 << 10;

/// Bytes of data in one batch.
pub const BATCH_DATA_BYTES_MAX: usize = BATCH_STREAM_BYTES_MAX;

/// Slots a shelf may have: 4 TiB of pages.
pub const SLOTS_MAX: u32 = 1 << 30;

/// How much of the digest of a page travels with it that is patched, or read from a disk.
const PAGE_CHECK_BYTES: usize = 8;

mod record {
    pub(super) const BYTES: u8 = 1;
    pub(super) const JUMP: u8 = 2;
    pub(super) const FILL: u8 = 3;
    pub(super) const NEW: u8 = 4;
    pub(super) const SAME: u8 = 5;
    pub(super) const DELTA: u8 = 6;
    pub(super) const PARTS: u8 = 7;
    pub(super) const BLOCK: u8 = 8;
    pub(super) const KIND: u8 = 0x0f;
    pub(super) const HEADED: u8 = 0x10;
    pub(super) const KEPT: u8 = 0x20;
}

/// Why a batch was refused. All of these are bugs, or a peer that is not what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("its records break off")]
    CutOff,
    #[error("a record has the unknown kind {kind:#04x}")]
    UnknownRecord { kind: u8 },
    #[error("a record counts nothing")]
    Empty,
    #[error("its records use more data than there is")]
    DataMissing,
    #[error("its records leave {data_bytes} bytes of data unused")]
    DataLeft { data_bytes: usize },
    #[error("its records give more than the {stream_bytes} bytes they should")]
    TooLong { stream_bytes: usize },
    #[error("its records give {found} bytes instead of {stream_bytes}")]
    TooShort { stream_bytes: usize, found: usize },
    #[error("a record names a slot outside of the shelf of {slots} slots")]
    NoSuchSlot { slots: u32 },
    #[error("a record names a block behind the {blocks} of the guest's disks")]
    NoSuchBlock { blocks: u32 },
    #[error(transparent)]
    Patch(#[from] crate::patch::PatchError),
}

/// The numbers both sides count on while they go through a batch.
#[derive(Clone, Copy, Debug, Default)]
struct Expected {
    head: u64,
    slot: u32,
    block: u32,
}

impl Expected {
    fn next_head(&mut self) -> u64 {
        let head = self.head;
        self.head = head.wrapping_add(PAGE_BYTES as u64);
        head
    }
}
