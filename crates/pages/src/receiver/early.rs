// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Batches that came before their turn, because they travelled on another connection.

use std::collections::BTreeMap;

use super::WAITING_BYTES_MAX;
use crate::frame::Batch;

/// How far a batch may be ahead of the one that is due. Senders see to it.
pub const EARLY_BATCHES_MAX: u64 = 4096;

/// Packed, like this, they may take as much as what waits for the engine.
const EARLY_PACKED_BYTES_MAX: u64 = WAITING_BYTES_MAX;

/// See the module. What waits here is bounded, in number, bytes and packed bytes.
#[derive(Debug, Default)]
pub(super) struct Early {
    batches: BTreeMap<u64, Batch>,
    stream_bytes: u64,
    packed_bytes: u64,
}

impl Early {
    /// Returns how many bytes of the stream wait here.
    pub(super) fn stream_bytes(&self) -> u64 {
        self.stream_bytes
    }

    /// Keeps a batch until its turn; a second copy is dropped. Returns whether there was room.
    pub(super) fn put(&mut self, batch: Batch, next: u64) -> bool {
        if self.batches.contains_key(&batch.number) {
            return true;
        }
        let packed_bytes = self.packed_bytes + batch.packed.len() as u64;
        if batch.number - next >= EARLY_BATCHES_MAX || packed_bytes > EARLY_PACKED_BYTES_MAX {
            return false;
        }
        self.packed_bytes = packed_bytes;
        self.stream_bytes += u64::from(batch.stream_bytes);
        self.batches.insert(batch.number, batch);
        true
    }

    /// Returns the batch whose turn it is, if it is here.
    pub(super) fn take(&mut self, next: u64) -> Option<Batch> {
        let batch = self.batches.remove(&next)?;
        self.packed_bytes -= batch.packed.len() as u64;
        self.stream_bytes -= u64::from(batch.stream_bytes);
        Some(batch)
    }

    /// Returns the last of them.
    pub(super) fn last(&self) -> Option<u64> {
        self.batches.last_key_value().map(|(number, _)| *number)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
