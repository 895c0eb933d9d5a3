// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Rebuilds a stretch of the stream from the records of a batch.
//!
//! Nothing reaches the shelf while a batch is read: what it puts there is a list that the receiver
//! carries out when the stretch has proven to be right. So a batch can be read again.

use std::collections::HashMap;

use super::{BATCH_STREAM_BYTES_MAX, BatchError, Expected, PAGE_CHECK_BYTES, SLOTS_MAX, record};
use crate::digest::PageDigest;
use crate::patch;
use crate::shelf::{Shelf, SlotLost};
use crate::split::{PAGE_BYTES, Page};
use crate::varint;

/// Pages the source has sent after all, by where in the batch's stretch of the stream they lie.
pub(crate) type Overrides = HashMap<u32, Box<Page>>;

/// What reading a batch gave.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// The stretch of the stream; meaningless while pages are missing.
    pub(crate) stream: Vec<u8>,
    /// Where in it pages are missing that the shelf has lost.
    pub(crate) missing: Vec<u32>,
    /// What to put on the shelf: the slot, and where in the stretch the page lies. In order.
    pub(crate) puts: Vec<(u32, u32)>,
    /// Pages that were compared with a digest on the way: where in the stretch they lie, rising.
    pub(crate) compared: Vec<(u32, PageDigest)>,
}

/// Reads a batch of exactly `stream_bytes`, which the caller has checked against the limit.
pub(crate) fn decode(
    records: &[u8],
    data: &[u8],
    stream_bytes: usize,
    shelf: &mut dyn Shelf,
    overrides: &Overrides,
) -> Result<Read, BatchError> {
    assert!(stream_bytes <= BATCH_STREAM_BYTES_MAX, "the caller checks the length of a batch");
    let slots = shelf.slots().min(SLOTS_MAX);
    let mut reader = Reader {
        data,
        stream_bytes,
        slots,
        shelf,
        overrides,
        read: Read { stream: Vec::with_capacity(stream_bytes), ..Read::default() },
        written: HashMap::new(),
        expected: Expected::default(),
    };
    let mut records = records;
    while !records.is_empty() {
        reader.record(&mut records)?;
    }
    let found = reader.read.stream.len();
    match reader.data.len() {
        0 if found == stream_bytes => Ok(reader.read),
        0 => Err(BatchError::TooShort { stream_bytes, found }),
        data_bytes => Err(BatchError::DataLeft { data_bytes }),
    }
}

struct Reader<'a> {
    /// The data not yet used up.
    data: &'a [u8],
    stream_bytes: usize,
    slots: u32,
    shelf: &'a mut dyn Shelf,
    overrides: &'a Overrides,
    read: Read,
    /// What this batch puts into a slot, by where in the stretch it lies: newer than the shelf.
    written: HashMap<u32, u32>,
    expected: Expected,
}

impl Reader<'_> {
    fn record(&mut self, records: &mut &[u8]) -> Result<(), BatchError> {
        let kind = records[0];
        *records = &records[1..];
        let is_headed = kind & record::HEADED != 0;
        let is_kept = kind & record::KEPT != 0;
        let mut number = || varint::take(records).ok_or(BatchError::CutOff);
        match kind & record::KIND {
            record::BYTES if kind == record::BYTES => {
                let bytes = self.data(number()?)?;
                self.room(1, bytes.len())?;
                self.read.stream.extend_from_slice(bytes);
            }
            record::JUMP if kind == record::JUMP => {
                let jump = varint::unfold(number()?).cast_unsigned();
                self.expected.head = self.expected.head.wrapping_add(jump);
            }
            record::FILL if kind == record::FILL => {
                let count = number()?;
                let (&byte, rest) = records.split_first().ok_or(BatchError::CutOff)?;
                *records = rest;
                for _ in 0..self.room(count, 9)? {
                    self.head(true);
                    self.read.stream.push(byte);
                }
            }
            record::NEW => {
                let count = number()?;
                let slot = if is_kept { Some(number()?) } else { None };
                self.new_pages(count, is_headed, slot)?;
            }
            record::SAME if !is_kept => {
                let (count, slot) = (number()?, number()?);
                self.same_pages(count, is_headed, slot)?;
            }
            record::DELTA if !is_kept => {
                let (slot, patch_bytes) = (number()?, number()?);
                self.delta_page(is_headed, slot, patch_bytes)?;
            }
            record::PARTS => {
                let (slot, patch_bytes) = (number()?, number()?);
                let to = if is_kept { Some(number()?) } else { None };
                let (check, rest) = records.split_first_chunk().ok_or(BatchError::CutOff)?;
                *records = rest;
                self.patched_page(is_headed, (slot, to), patch_bytes, *check)?;
            }
            record::BLOCK => {
                let block = number()?;
                let to = if is_kept { Some(number()?) } else { None };
                let (check, rest) = records.split_first_chunk().ok_or(BatchError::CutOff)?;
                *records = rest;
                self.block_page(is_headed, (block, to), *check)?;
            }
            _ => return Err(BatchError::UnknownRecord { kind }),
        }
        Ok(())
    }

    fn new_pages(&mut self, count: u64, headed: bool, slot: Option<u64>) -> Result<(), BatchError> {
        let count = self.room(count, page_bytes(headed))?;
        let first = slot.map(|slot| self.slot(slot, count)).transpose()?;
        for index in 0..count {
            let page = self.data(PAGE_BYTES as u64)?;
            self.head(headed);
            let at = self.at();
            self.read.stream.extend_from_slice(page);
            if let Some(first) = first {
                self.put(first + index, at);
            }
        }
        Ok(())
    }

    fn same_pages(&mut self, count: u64, headed: bool, slot: u64) -> Result<(), BatchError> {
        let count = self.room(count, page_bytes(headed))?;
        let first = self.slot(slot, count)?;
        for slot in first..first + count {
            self.head(headed);
            let at = self.at();
            if let Some(page) = self.overrides.get(&at) {
                // The shelf has lost it; now it has it again.
                self.read.stream.extend_from_slice(&page[..]);
                self.put(slot, at);
                continue;
            }
            self.same_page(slot, at);
        }
        Ok(())
    }

    /// Appends what is in a slot, without a detour: of a guest that returns most pages come here.
    fn same_page(&mut self, slot: u32, at: u32) {
        if let Some(&written) = self.written.get(&slot) {
            let from = written as usize;
            return self.read.stream.extend_from_within(from..from + PAGE_BYTES);
        }
        self.read.stream.resize(at as usize + PAGE_BYTES, 0);
        let page = self.read.stream.last_chunk_mut().expect("a page was appended");
        match self.shelf.get(slot, page) {
            Ok(()) => {
                let digest = self.shelf.compares(slot);
                self.read.compared.extend(digest.map(|digest| (at, digest)));
            }
            Err(SlotLost) => self.read.missing.push(at),
        }
    }

    fn delta_page(&mut self, headed: bool, slot: u64, patch: u64) -> Result<(), BatchError> {
        self.room(1, page_bytes(headed))?;
        let slot = self.slot(slot, 1)?;
        let patch = self.data(patch)?;
        self.head(headed);
        let at = self.at();
        let page = match self.overrides.get(&at) {
            Some(page) => Some(**page),
            None => self.page(slot),
        };
        self.missing_if(page.is_none(), at);
        let mut page = page.unwrap_or([0; PAGE_BYTES]);
        // With an override the patch changes nothing: it says what is there already.
        patch::apply(patch, &mut page)?;
        self.read.stream.extend_from_slice(&page);
        self.put(slot, at);
        Ok(())
    }

    fn patched_page(
        &mut self,
        headed: bool,
        (from, to): (u64, Option<u64>),
        patch: u64,
        check: [u8; PAGE_CHECK_BYTES],
    ) -> Result<(), BatchError> {
        self.room(1, page_bytes(headed))?;
        let from = self.slot(from, 1)?;
        let next = self.expected.slot;
        let to = to.map(|to| self.slot(to, 1)).transpose()?;
        self.expected.slot = next;
        let patch = self.data(patch)?;
        self.head(headed);
        let at = self.at();
        let page = match self.overrides.get(&at) {
            Some(page) => Some(**page),
            None => self.patched(from, patch)?.filter(|page| self.is_it(page, check, at)),
        };
        self.missing_if(page.is_none(), at);
        self.read.stream.extend_from_slice(&page.unwrap_or([0; PAGE_BYTES]));
        if let Some(to) = to {
            self.put(to, at);
        }
        Ok(())
    }

    fn block_page(
        &mut self,
        headed: bool,
        (block, to): (u64, Option<u64>),
        check: [u8; PAGE_CHECK_BYTES],
    ) -> Result<(), BatchError> {
        self.room(1, page_bytes(headed))?;
        let block = self.block(block)?;
        let to = to.map(|to| self.slot(to, 1)).transpose()?;
        self.head(headed);
        let at = self.at();
        let mut page = [0; PAGE_BYTES];
        let is_there = match self.overrides.get(&at) {
            Some(supplied) => {
                page = **supplied;
                true
            }
            None => self.shelf.block(block, &mut page).is_ok() && self.is_it(&page, check, at),
        };
        self.missing_if(!is_there, at);
        self.read.stream.extend_from_slice(&page);
        if let Some(to) = to {
            self.put(to, at);
        }
        Ok(())
    }

    /// Whether this is the page that is meant.
    fn is_it(&mut self, page: &Page, check: [u8; PAGE_CHECK_BYTES], at: u32) -> bool {
        let digest = PageDigest::of(page);
        let is_it = digest.0.starts_with(&check);
        if is_it {
            self.read.compared.push((at, digest));
        }
        is_it
    }

    fn block(&mut self, folded: u64) -> Result<u32, BatchError> {
        let blocks = self.shelf.blocks();
        let block = i64::from(self.expected.block).checked_add(varint::unfold(folded));
        let block = block.and_then(|block| u32::try_from(block).ok());
        let block =
            block.filter(|&block| block < blocks).ok_or(BatchError::NoSuchBlock { blocks })?;
        self.expected.block = block.saturating_add(1);
        Ok(block)
    }

    fn patched(&mut self, slot: u32, patch: &[u8]) -> Result<Option<Page>, BatchError> {
        let Some(mut page) = self.page(slot) else { return Ok(None) };
        patch::apply(patch, &mut page)?;
        Ok(Some(page))
    }

    /// Returns what is in a slot, as this batch sees it.
    fn page(&mut self, slot: u32) -> Option<Page> {
        if let Some(&at) = self.written.get(&slot) {
            let at = at as usize;
            return self.read.stream[at..at + PAGE_BYTES].try_into().ok();
        }
        let mut page = [0; PAGE_BYTES];
        match self.shelf.get(slot, &mut page) {
            Ok(()) => Some(page),
            Err(SlotLost) => None,
        }
    }

    fn put(&mut self, slot: u32, at: u32) {
        self.read.puts.push((slot, at));
        self.written.insert(slot, at);
    }

    fn missing_if(&mut self, is_missing: bool, at: u32) {
        if is_missing {
            self.read.missing.push(at);
        }
    }

    fn head(&mut self, headed: bool) {
        if headed {
            let head = self.expected.next_head();
            self.read.stream.extend_from_slice(&head.to_be_bytes());
        }
    }

    /// Checks that `count` times `bytes` still fit into the stretch.
    fn room(&self, count: u64, bytes: usize) -> Result<u32, BatchError> {
        if count == 0 || bytes == 0 {
            return Err(BatchError::Empty);
        }
        let left = self.stream_bytes - self.read.stream.len();
        u32::try_from(count)
            .ok()
            .filter(|&count| u64::from(count) * bytes as u64 <= left as u64)
            .ok_or(BatchError::TooLong { stream_bytes: self.stream_bytes })
    }

    fn data<'a>(&mut self, count: u64) -> Result<&'a [u8], BatchError>
    where
        Self: 'a,
    {
        let count = usize::try_from(count).map_err(|_| BatchError::DataMissing)?;
        let (taken, rest) = self.data.split_at_checked(count).ok_or(BatchError::DataMissing)?;
        self.data = rest;
        Ok(taken)
    }

    fn slot(&mut self, folded: u64, count: u32) -> Result<u32, BatchError> {
        let wrong = BatchError::NoSuchSlot { slots: self.slots };
        let slot =
            i64::from(self.expected.slot).checked_add(varint::unfold(folded)).ok_or(wrong)?;
        let first = u32::try_from(slot).map_err(|_| wrong)?;
        let after = first.checked_add(count).filter(|&after| after <= self.slots).ok_or(wrong)?;
        self.expected.slot = after;
        Ok(first)
    }

    /// Returns how far the stretch has been rebuilt.
    fn at(&self) -> u32 {
        u32::try_from(self.read.stream.len()).expect("a batch is shorter than 4 GiB")
    }
}

fn page_bytes(headed: bool) -> usize {
    PAGE_BYTES + if headed { 8 } else { 0 }
}
