// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Decides for each page how it travels, and writes the batches.

use std::collections::VecDeque;

use super::index::Index;
use super::recent::Recent;
use super::{Counts, KeptPage};
use crate::batch::{Writer, Written};
use crate::blocks::{self, Blocks};
use crate::digest::PageDigest;
use crate::parts::{PARTS, Parts};
use crate::patch;
use crate::split::{PAGE_BYTES, Page, Piece, Place};

/// Batches close when they have so much data: larger ones pack hardly better and delay more.
const DATA_BYTES_TARGET: usize = 256 << 10;

/// And not before they have so much, unless the input idles: smaller ones pack badly.
const DATA_BYTES_TARGET_MIN: usize = 64 << 10;

/// Pages that are not sent cost no data, but the target still has to rebuild them all at once.
const STREAM_BYTES_TARGET: usize = 512 << 10;

/// A delta must be so much smaller than the packed page would be, as its bytes pack worse.
const DELTA_GAIN: f64 = 0.6;

/// Parts pack nearly as well as pages do, so most of a page is already worth it.
const CHANGED_PARTS_MAX: usize = PARTS * 3 / 4;

/// A batch that is complete.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) written: Written,
    pub(super) pages: Vec<KeptPage>,
}

pub(super) struct Encoder {
    writer: Writer,
    pages: Vec<KeptPage>,
    closed: VecDeque<Closed>,
    index: Index,
    recent: Recent,
    /// Of the pages in the target's image.
    parts: Option<Box<dyn Parts>>,
    blocks: blocks::Known,
    patch: Vec<u8>,
    data_bytes_target: usize,
    stream_bytes_target: usize,
    /// What batches were packed to lately, as a part of their plain length.
    packed_ratio: f64,
    counts: Counts,
}

impl Encoder {
    pub(super) fn new(slots: u32, recent_pages_max: u32, window_bytes: u64) -> Self {
        let mut encoder = Self {
            writer: Writer::default(),
            pages: Vec::new(),
            closed: VecDeque::new(),
            index: Index::new(slots),
            recent: Recent::new(recent_pages_max),
            parts: None,
            blocks: blocks::Known::default(),
            patch: Vec::new(),
            data_bytes_target: 0,
            stream_bytes_target: 0,
            packed_ratio: 0.4,
            counts: Counts::default(),
        };
        encoder.set_window(window_bytes);
        encoder
    }

    /// Several batches must fit into the window, or the link idles between two of them.
    pub(super) fn set_window(&mut self, window_bytes: u64) {
        let quarter = usize::try_from(window_bytes / 4).unwrap_or(usize::MAX);
        self.data_bytes_target = quarter.clamp(DATA_BYTES_TARGET_MIN, DATA_BYTES_TARGET);
        self.stream_bytes_target = quarter.clamp(DATA_BYTES_TARGET_MIN, STREAM_BYTES_TARGET);
    }

    pub(super) fn hold(&mut self, pages: impl IntoIterator<Item = (Place, PageDigest)>) {
        self.index.hold(pages);
    }

    pub(super) fn set_parts(&mut self, parts: Box<dyn Parts>) {
        self.parts = Some(parts);
    }

    pub(super) fn set_blocks(&mut self, blocks: Box<dyn Blocks>) {
        self.blocks.set(blocks);
    }

    /// The target had to ask for so many pages: of its disks, more often than not.
    pub(super) fn on_asked(&mut self, count: u64) {
        if self.counts.block_pages > 0 {
            self.blocks.on_wrong(count);
        }
    }

    /// Learns how well batches pack.
    pub(super) fn on_packed(&mut self, plain_bytes: usize, packed_bytes: usize) {
        if plain_bytes >= DATA_BYTES_TARGET_MIN / 2 {
            let ratio = packed_bytes as f64 / plain_bytes as f64;
            self.packed_ratio += (ratio - self.packed_ratio) / 8.0;
        }
    }

    pub(super) fn counts(&self, rest: Counts) -> Counts {
        let Counts { new_pages, same_pages, delta_pages, block_pages, fill_pages, .. } =
            self.counts;
        Counts { new_pages, same_pages, delta_pages, block_pages, fill_pages, ..rest }
    }

    pub(super) fn poll_closed(&mut self) -> Option<Closed> {
        self.closed.pop_front()
    }

    /// Closes the open batch, if there is anything in it.
    pub(super) fn close(&mut self) {
        if self.writer.stream_bytes() > 0 {
            let written = self.writer.finish();
            let mut pages = std::mem::take(&mut self.pages);
            // The records, which stand before the data, are only now as long as they will be.
            let records_bytes = u32::try_from(written.records_bytes).expect("batches are short");
            for plain_at in pages.iter_mut().filter_map(|page| page.plain_at.as_mut()) {
                *plain_at += records_bytes;
            }
            self.closed.push_back(Closed { written, pages });
        }
    }

    pub(super) fn piece(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Bytes(bytes) => {
                for chunk in bytes.chunks(DATA_BYTES_TARGET_MIN) {
                    self.make_room(chunk.len());
                    self.writer.bytes(chunk);
                    self.close_if_full();
                }
            }
            Piece::Fill { head, byte } => {
                self.make_room(piece.stream_bytes());
                self.counts.fill_pages += 1;
                self.writer.fill(head, byte);
                self.close_if_full();
            }
            Piece::Page { head, place, page } => {
                self.make_room(piece.stream_bytes());
                self.page(head, place, page);
                self.close_if_full();
            }
        }
    }

    fn make_room(&mut self, stream_bytes: usize) {
        if !self.writer.has_room(stream_bytes) {
            self.close();
        }
    }

    fn close_if_full(&mut self) {
        if self.writer.data_bytes() >= self.data_bytes_target
            || self.writer.stream_bytes() >= self.stream_bytes_target
        {
            self.close();
        }
    }

    fn page(&mut self, head: Option<u64>, place: Place, page: &Page) {
        let digest = PageDigest::of(page);
        let own = self.index.slot_of(place);
        let plain_at = if let Some(slot) = self.index.find(own, digest) {
            self.counts.same_pages += 1;
            self.writer.same_page(head, page, slot);
            None
        } else if let Some(block) = self.blocks.find(digest) {
            self.counts.block_pages += 1;
            let slot = self.put(place, own, page, digest);
            self.writer.block_page(head, page, (block, slot), digest);
            None
        } else if let Some(slot) = own.filter(|&slot| self.patch(slot, page)) {
            self.counts.delta_pages += 1;
            self.index.set(slot, digest);
            self.recent.put(slot, page);
            self.writer.delta_page(head, page, slot, &self.patch);
            None
        } else if let Some(from) = self.patch_parts(place, page) {
            self.counts.delta_pages += 1;
            let to = self.put(place, own, page, digest);
            self.writer.patched_page(head, page, (from, to), &self.patch, digest);
            None
        } else {
            self.counts.new_pages += 1;
            let slot = self.put(place, own, page, digest);
            Some(self.writer.new_page(head, page, slot))
        };
        let stream_at = self.writer.stream_bytes() - PAGE_BYTES;
        self.pages.push(KeptPage {
            place,
            digest,
            plain_at: plain_at.map(|at| u32::try_from(at).expect("batches are short")),
            stream_at: u32::try_from(stream_at).expect("batches are short"),
        });
    }

    /// Puts a page on the shelf: what is in the image stays there. Returns where.
    fn put(
        &mut self,
        place: Place,
        own: Option<u32>,
        page: &Page,
        digest: PageDigest,
    ) -> Option<u32> {
        let own = own.filter(|&slot| self.index.is_free(slot));
        let slot = own.or_else(|| self.index.allot(place))?;
        self.index.set(slot, digest);
        // Pages that come again will come once more; of the others nobody knows.
        match own {
            Some(slot) => self.recent.put(slot, page),
            None => self.recent.forget(slot),
        }
        Some(slot)
    }

    /// Makes a patch against what the target holds for this place, if it pays.
    fn patch(&mut self, slot: u32, page: &Page) -> bool {
        let Some(old) = self.recent.get(slot) else { return false };
        let packed_bytes = PAGE_BYTES as f64 * self.packed_ratio;
        #[expect(clippy::cast_possible_truncation, reason = "less than a page")]
        #[expect(clippy::cast_sign_loss, reason = "neither factor is negative")]
        let bytes_max = (packed_bytes * DELTA_GAIN) as usize;
        self.patch.clear();
        patch::make(old, page, bytes_max, &mut self.patch)
    }

    /// Makes a patch against the page in the target's image, of which only digests are known, and
    /// returns that page's slot.
    fn patch_parts(&mut self, place: Place, page: &Page) -> Option<u32> {
        let parts = self.parts.as_mut()?;
        let slot = self.index.image_slot_of(place)?;
        let old = parts.of_slot(slot)?;
        self.patch.clear();
        old.patch(page, CHANGED_PARTS_MAX, &mut self.patch).then_some(slot)
    }
}
