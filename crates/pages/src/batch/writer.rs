// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Writes the records of a batch, joining neighbours of one kind.

use super::{BATCH_RECORDS_BYTES_MAX, BATCH_STREAM_BYTES_MAX, Expected, PAGE_CHECK_BYTES, record};
use crate::digest::PageDigest;
use crate::split::Page;
use crate::varint;

/// More than any piece of a stream adds to the records: a jump and a record of its own.
const RECORD_BYTES_MAX: usize = 64;

/// The record that may still grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Open {
    #[default]
    None,
    Bytes {
        count: u64,
    },
    Fill {
        count: u64,
        byte: u8,
    },
    New {
        count: u32,
        headed: bool,
        slot: Option<u32>,
    },
    Same {
        count: u32,
        headed: bool,
        slot: u32,
    },
}

/// A batch that is being written.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    records: Vec<u8>,
    data: Vec<u8>,
    /// The stretch of the stream it stands for.
    stream: Vec<u8>,
    open: Open,
    expected: Expected,
}

/// A batch that was written.
#[derive(Debug)]
pub(crate) struct Written {
    /// Records, then data.
    pub(crate) plain: Vec<u8>,
    pub(crate) records_bytes: usize,
    pub(crate) stream: Vec<u8>,
}

impl Writer {
    pub(crate) fn stream_bytes(&self) -> usize {
        self.stream.len()
    }

    pub(crate) fn data_bytes(&self) -> usize {
        self.data.len()
    }

    /// Returns whether a piece of so many bytes still fits.
    pub(crate) fn has_room(&self, stream_bytes: usize) -> bool {
        self.stream.len() + stream_bytes <= BATCH_STREAM_BYTES_MAX
            && self.records.len() + RECORD_BYTES_MAX <= BATCH_RECORDS_BYTES_MAX
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.stream.extend_from_slice(bytes);
        self.data.extend_from_slice(bytes);
        match &mut self.open {
            Open::Bytes { count } => *count += bytes.len() as u64,
            _ => self.begin(Open::Bytes { count: bytes.len() as u64 }),
        }
    }

    pub(crate) fn fill(&mut self, head: u64, byte: u8) {
        self.head(Some(head));
        self.stream.push(byte);
        match &mut self.open {
            Open::Fill { count, byte: current } if *current == byte => *count += 1,
            _ => self.begin(Open::Fill { count: 1, byte }),
        }
    }

    /// Returns where in the data the page lies.
    pub(crate) fn new_page(&mut self, head: Option<u64>, page: &Page, slot: Option<u32>) -> usize {
        let is_headed = self.head(head);
        self.stream.extend_from_slice(page);
        let at = self.data.len();
        self.data.extend_from_slice(page);
        match &mut self.open {
            Open::New { count, headed, slot: first }
                if *headed == is_headed && first.map(|first| first + *count) == slot =>
            {
                *count += 1;
            }
            _ => self.begin(Open::New { count: 1, headed: is_headed, slot }),
        }
        at
    }

    pub(crate) fn same_page(&mut self, head: Option<u64>, page: &Page, slot: u32) {
        let is_headed = self.head(head);
        self.stream.extend_from_slice(page);
        match &mut self.open {
            Open::Same { count, headed, slot: first }
                if *headed == is_headed && *first + *count == slot =>
            {
                *count += 1;
            }
            _ => self.begin(Open::Same { count: 1, headed: is_headed, slot }),
        }
    }

    pub(crate) fn delta_page(&mut self, head: Option<u64>, page: &Page, slot: u32, patch: &[u8]) {
        let is_headed = self.head(head);
        self.begin(Open::None);
        self.stream.extend_from_slice(page);
        self.data.extend_from_slice(patch);
        self.kind(record::DELTA, is_headed, false);
        self.slot(slot, 1);
        varint::put(&mut self.records, patch.len() as u64);
    }

    /// A page by the changed parts of what is in slot `from`; it goes `to` another one.
    pub(crate) fn patched_page(
        &mut self,
        head: Option<u64>,
        page: &Page,
        (from, to): (u32, Option<u32>),
        patch: &[u8],
        digest: PageDigest,
    ) {
        let is_headed = self.head(head);
        self.begin(Open::None);
        self.stream.extend_from_slice(page);
        self.data.extend_from_slice(patch);
        self.kind(record::PARTS, is_headed, to.is_some());
        self.slot(from, 1);
        varint::put(&mut self.records, patch.len() as u64);
        if let Some(to) = to {
            self.slot(to, 1);
            // The next page that is patched most likely lies beside this one.
            self.expected.slot = from + 1;
        }
        self.records.extend_from_slice(&digest.0[..PAGE_CHECK_BYTES]);
    }

    /// A page by a block of the guest's disks; it goes into `slot`, too.
    pub(crate) fn block_page(
        &mut self,
        head: Option<u64>,
        page: &Page,
        (block, slot): (u32, Option<u32>),
        digest: PageDigest,
    ) {
        let is_headed = self.head(head);
        self.begin(Open::None);
        self.stream.extend_from_slice(page);
        self.kind(record::BLOCK, is_headed, slot.is_some());
        let difference = i64::from(block) - i64::from(self.expected.block);
        varint::put(&mut self.records, varint::fold(difference));
        self.expected.block = block.saturating_add(1);
        if let Some(slot) = slot {
            self.slot(slot, 1);
        }
        self.records.extend_from_slice(&digest.0[..PAGE_CHECK_BYTES]);
    }

    /// Returns the batch, and is empty again.
    pub(crate) fn finish(&mut self) -> Written {
        self.begin(Open::None);
        self.expected = Expected::default();
        let records_bytes = self.records.len();
        let mut plain = Vec::with_capacity(records_bytes + self.data.len());
        plain.append(&mut self.records);
        plain.append(&mut self.data);
        let stream = std::mem::take(&mut self.stream);
        Written { plain, records_bytes, stream }
    }

    /// Puts the head into the stream, with a jump where it is not the expected one.
    fn head(&mut self, head: Option<u64>) -> bool {
        let Some(head) = head else { return false };
        let expected = self.expected.next_head();
        if head != expected {
            self.begin(Open::None);
            self.records.push(record::JUMP);
            let jump = head.wrapping_sub(expected).cast_signed();
            varint::put(&mut self.records, varint::fold(jump));
            self.expected.head = head;
            self.expected.next_head();
        }
        self.stream.extend_from_slice(&head.to_be_bytes());
        true
    }

    /// Writes the record that was open, and opens the next one.
    fn begin(&mut self, next: Open) {
        match std::mem::replace(&mut self.open, next) {
            Open::None => {}
            Open::Bytes { count } => {
                self.records.push(record::BYTES);
                varint::put(&mut self.records, count);
            }
            Open::Fill { count, byte } => {
                self.records.push(record::FILL);
                varint::put(&mut self.records, count);
                self.records.push(byte);
            }
            Open::New { count, headed, slot } => {
                self.kind(record::NEW, headed, slot.is_some());
                varint::put(&mut self.records, count.into());
                if let Some(slot) = slot {
                    self.slot(slot, count);
                }
            }
            Open::Same { count, headed, slot } => {
                self.kind(record::SAME, headed, false);
                varint::put(&mut self.records, count.into());
                self.slot(slot, count);
            }
        }
    }

    fn kind(&mut self, kind: u8, headed: bool, kept: bool) {
        let headed = if headed { record::HEADED } else { 0 };
        let kept = if kept { record::KEPT } else { 0 };
        self.records.push(kind | headed | kept);
    }

    fn slot(&mut self, slot: u32, count: u32) {
        let difference = i64::from(slot) - i64::from(self.expected.slot);
        varint::put(&mut self.records, varint::fold(difference));
        self.expected.slot = slot + count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::PAGE_BYTES;

    /// Golden bytes, as the table in the module above describes them.
    #[test]
    fn records_are_short() {
        let mut writer = Writer::default();
        let page = [7; PAGE_BYTES];
        writer.bytes(b"QEVM");
        for index in 0..300 {
            writer.fill(0x1022 + index * 4096, 0);
        }
        for index in 0..3 {
            writer.same_page(
                Some(0x0200_0028 + index * 4096),
                &page,
                40 + u32::try_from(index).unwrap(),
            );
        }
        writer.new_page(None, &page, Some(43));
        writer.new_page(None, &page, None);
        writer.delta_page(Some(0x0200_3028), &page, 44, b"patch");
        writer.patched_page(None, &page, (45, Some(50)), b"parts", PageDigest([9; 16]));
        writer.patched_page(None, &page, (46, None), b"parts", PageDigest([8; 16]));
        writer.block_page(Some(0x0200_4028), &page, (1000, Some(47)), PageDigest([7; 16]));
        writer.block_page(None, &page, (1001, None), PageDigest([6; 16]));
        let written = writer.finish();
        let (records, data) = written.plain.split_at(written.records_bytes);
        #[rustfmt::skip]
        assert_eq!(records, [
            1, 4,
            2, 0xc4, 0x40,                      // 0 to 0x1022
            3, 0xac, 0x02, 0,
            2, 0x8c, 0xc0, 0xe9, 0x1e,          // 0x12d022 to 0x2000028
            0x15, 3, 80,
            0x24, 1, 0,
            4, 1,
            0x16, 0, 5,
            0x27, 0, 5, 8, 9, 9, 9, 9, 9, 9, 9, 9,
            7, 0, 5, 8, 8, 8, 8, 8, 8, 8, 8,
            0x38, 0xd0, 0x0f, 0, 7, 7, 7, 7, 7, 7, 7, 7,
            8, 0, 6, 6, 6, 6, 6, 6, 6, 6,
        ]);
        assert_eq!(data.len(), 4 + 2 * PAGE_BYTES + 3 * 5);
        assert_eq!(written.stream.len(), 4 + 300 * 9 + 5 * 8 + 10 * PAGE_BYTES);
        assert_eq!(writer.finish().plain, [], "the next batch begins empty");
    }
}
