// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Frames: what travels between the two carriers, over an ordered and authenticated connection.
//!
//! ```text
//! u16 "WP"   u8 version 1   u8 kind   u32 body bytes   u32 crc32c of all other bytes   body
//! ```
//!
//! All numbers are big-endian. The crc is no protection against people (the connection is), it
//! finds our own mistakes early.
//!
//! | kind | from | body |
//! | --- | --- | --- |
//! | 1 batch | source | u64 number, u32 bytes of stream, records, data, u8 packing, check, packed |
//! | 2 supply | source | u64 batch, u16 count, count x (u32 offset, 4096 bytes) |
//! | 3 end | source | u64 batches, u64 stream bytes, 32 bytes of digest |
//! | 4 ack | target | u64 next batch, u64 accepted bytes |
//! | 5 again | target | u64 batch, u16 count, count x u32 offset |
//! | 6 resume | target | u64 next batch, u64 accepted bytes |
//! | 7 done | target | u64 stream bytes |
//! | 8 stop | target | nothing: its engine wants no more |
//! | 9 ping | either | u64 of the sender's choice |
//! | 10 pong | either | the same, as an answer |
//!
//! The check in a batch is the first 8 bytes of the BLAKE3 of the whole stream up to the end of
//! that batch. A connection that replaces a cut one begins with the target's `resume`.
//!
//! Streams in both directions share a connection: what only a source sends belongs to one of them,
//! what only a target sends to the other.

use bytes::{BufMut, Bytes, BytesMut};

use crate::batch::{BATCH_DATA_BYTES_MAX, BATCH_RECORDS_BYTES_MAX, BATCH_STREAM_BYTES_MAX};
use crate::codec::Packing;
use crate::split::{PAGE_BYTES, Page};

/// Pages that may be asked for at once.
pub const AGAIN_PAGES_MAX: usize = BATCH_STREAM_BYTES_MAX / PAGE_BYTES;

/// Pages in one `supply`.
pub const SUPPLY_PAGES_MAX: usize = 64;

/// The body of a frame.
pub const FRAME_BODY_BYTES_MAX: usize =
    BATCH_HEADER_BYTES + BATCH_RECORDS_BYTES_MAX + BATCH_DATA_BYTES_MAX;

const MAGIC: u16 = u16::from_be_bytes(*b"WP");
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 12;
const BATCH_HEADER_BYTES: usize = 8 + 4 + 4 + 4 + 1 + CHECK_BYTES;

/// How much of the stream's digest stands in a batch.
pub const CHECK_BYTES: usize = 8;

/// A packed batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub number: u64,
    /// At most [`BATCH_STREAM_BYTES_MAX`].
    pub stream_bytes: u32,
    /// At most [`BATCH_RECORDS_BYTES_MAX`].
    pub records_bytes: u32,
    /// At most [`BATCH_DATA_BYTES_MAX`].
    pub data_bytes: u32,
    pub packing: Packing,
    pub check: [u8; CHECK_BYTES],
    pub packed: Bytes,
}

/// See the module for what they mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Batch(Batch),
    Supply { batch: u64, pages: Vec<(u32, Box<Page>)> },
    End { batches: u64, stream_bytes: u64, digest: [u8; 32] },
    Ack { next: u64, accepted_bytes: u64 },
    Again { batch: u64, offsets: Vec<u32> },
    Resume { next: u64, accepted_bytes: u64 },
    Done { stream_bytes: u64 },
    Stop,
    Ping { number: u64 },
    Pong { number: u64 },
}

/// Why a frame was refused. The connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame begins with {found:#06x}, which is not ours")]
    BadMagic { found: u16 },
    #[error("a frame has version {found}, and this program knows {VERSION}")]
    UnknownVersion { found: u8 },
    #[error("a frame has the unknown kind {kind}")]
    UnknownKind { kind: u8 },
    #[error("a frame of kind {kind} has {body_bytes} bytes, which is too long")]
    TooLong { kind: u8, body_bytes: u32 },
    #[error("a frame of kind {kind} was damaged on its way")]
    BadCrc { kind: u8 },
    #[error("a frame of kind {kind} has an impossible body of {body_bytes} bytes")]
    BadBody { kind: u8, body_bytes: usize },
}

impl Frame {
    fn kind(&self) -> u8 {
        match self {
            Frame::Batch(_) => 1,
            Frame::Supply { .. } => 2,
            Frame::End { .. } => 3,
            Frame::Ack { .. } => 4,
            Frame::Again { .. } => 5,
            Frame::Resume { .. } => 6,
            Frame::Done { .. } => 7,
            Frame::Stop => 8,
            Frame::Ping { .. } => 9,
            Frame::Pong { .. } => 10,
        }
    }

    /// Returns the bytes of the frame.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_BYTES + self.body_bytes_hint());
        out.put_u16(MAGIC);
        out.put_u8(VERSION);
        out.put_u8(self.kind());
        out.put_u64(0);
        self.put_body(&mut out);
        let body_bytes = u32::try_from(out.len() - HEADER_BYTES).expect("frames are short");
        out[4..8].copy_from_slice(&body_bytes.to_be_bytes());
        let crc = crc(&out[..8], &out[HEADER_BYTES..]);
        out[8..12].copy_from_slice(&crc.to_be_bytes());
        out.freeze()
    }

    fn body_bytes_hint(&self) -> usize {
        match self {
            Frame::Batch(batch) => BATCH_HEADER_BYTES + batch.packed.len(),
            Frame::Supply { pages, .. } => 10 + pages.len() * (4 + PAGE_BYTES),
            Frame::Again { offsets, .. } => 10 + offsets.len() * 4,
            _ => 48,
        }
    }

    fn put_body(&self, out: &mut BytesMut) {
        match self {
            Frame::Batch(batch) => {
                out.put_u64(batch.number);
                out.put_u32(batch.stream_bytes);
                out.put_u32(batch.records_bytes);
                out.put_u32(batch.data_bytes);
                out.put_u8(batch.packing.tag());
                out.put_slice(&batch.check);
                out.put_slice(&batch.packed);
            }
            Frame::Supply { batch, pages } => {
                out.put_u64(*batch);
                put_count(out, pages.len(), SUPPLY_PAGES_MAX);
                for (offset, page) in pages {
                    out.put_u32(*offset);
                    out.put_slice(&page[..]);
                }
            }
            Frame::End { batches, stream_bytes, digest } => {
                out.put_u64(*batches);
                out.put_u64(*stream_bytes);
                out.put_slice(digest);
            }
            Frame::Ack { next, accepted_bytes } | Frame::Resume { next, accepted_bytes } => {
                out.put_u64(*next);
                out.put_u64(*accepted_bytes);
            }
            Frame::Again { batch, offsets } => {
                out.put_u64(*batch);
                put_count(out, offsets.len(), AGAIN_PAGES_MAX);
                for offset in offsets {
                    out.put_u32(*offset);
                }
            }
            Frame::Done { stream_bytes } => out.put_u64(*stream_bytes),
            Frame::Stop => {}
            Frame::Ping { number } | Frame::Pong { number } => out.put_u64(*number),
        }
    }
}

fn put_count(out: &mut BytesMut, count: usize, count_max: usize) {
    assert!(count <= count_max, "the sender splits long lists");
    out.put_u16(u16::try_from(count).expect("the limits fit 16 bits"));
}

fn crc(header: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), body)
}

/// Finds the frames in what a connection gives.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    /// Takes bytes of the connection. Call [`FrameReader::next_frame`] until it has no more: only
    /// then is what this holds bounded, by one frame and one call's bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns where to read bytes of the connection to, as [`FrameReader::push`] would.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Returns the next frame that is complete. After an error the connection must be closed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let mut fields = &header[..];
        match take::<2>(&mut fields).map(u16::from_be_bytes) {
            Some(MAGIC) => {}
            found => return Err(FrameError::BadMagic { found: found.unwrap_or(0) }),
        }
        let [version, kind] = take(&mut fields).expect("the header has twelve bytes");
        if version != VERSION {
            return Err(FrameError::UnknownVersion { found: version });
        }
        let body_bytes = take(&mut fields).map(u32::from_be_bytes).expect("as above");
        let expected = take(&mut fields).map(u32::from_be_bytes).expect("as above");
        let body_bytes_max = match kind {
            1 => FRAME_BODY_BYTES_MAX,
            2 => 10 + SUPPLY_PAGES_MAX * (4 + PAGE_BYTES),
            3..=4 | 6..=10 => 48,
            5 => 10 + AGAIN_PAGES_MAX * 4,
            _ => return Err(FrameError::UnknownKind { kind }),
        };
        if body_bytes as usize > body_bytes_max {
            return Err(FrameError::TooLong { kind, body_bytes });
        }
        let length = HEADER_BYTES + body_bytes as usize;
        if self.buffer.len() < length {
            self.buffer.reserve(length - self.buffer.len());
            return Ok(None);
        }
        let frame = self.buffer.split_to(length).freeze();
        if crc(&frame[..8], &frame[HEADER_BYTES..]) != expected {
            return Err(FrameError::BadCrc { kind });
        }
        let body = frame.slice(HEADER_BYTES..);
        let body_bytes = body.len();
        decode(kind, &body).map(Some).ok_or(FrameError::BadBody { kind, body_bytes })
    }
}

fn decode(kind: u8, body: &Bytes) -> Option<Frame> {
    let mut rest = &body[..];
    let input = &mut rest;
    let frame = match kind {
        1 => return decode_batch(body),
        2 => {
            let batch = be64(input)?;
            let count = count(input, SUPPLY_PAGES_MAX)?;
            let page = |input: &mut &[u8]| Some((be32(input)?, Box::new(take(input)?)));
            let pages = (0..count).map(|_| page(input)).collect::<Option<_>>()?;
            Frame::Supply { batch, pages }
        }
        3 => Frame::End { batches: be64(input)?, stream_bytes: be64(input)?, digest: take(input)? },
        4 => Frame::Ack { next: be64(input)?, accepted_bytes: be64(input)? },
        5 => {
            let batch = be64(input)?;
            let count = count(input, AGAIN_PAGES_MAX)?;
            let offsets = (0..count).map(|_| be32(input)).collect::<Option<_>>()?;
            Frame::Again { batch, offsets }
        }
        6 => Frame::Resume { next: be64(input)?, accepted_bytes: be64(input)? },
        7 => Frame::Done { stream_bytes: be64(input)? },
        8 => Frame::Stop,
        9 => Frame::Ping { number: be64(input)? },
        10 => Frame::Pong { number: be64(input)? },
        _ => return None,
    };
    input.is_empty().then_some(frame)
}

fn decode_batch(body: &Bytes) -> Option<Frame> {
    let mut rest = &body[..];
    let input = &mut rest;
    let number = be64(input)?;
    let stream_bytes = be32(input).filter(|&n| n as usize <= BATCH_STREAM_BYTES_MAX)?;
    let records_bytes = be32(input).filter(|&n| n as usize <= BATCH_RECORDS_BYTES_MAX)?;
    let data_bytes = be32(input).filter(|&n| n as usize <= BATCH_DATA_BYTES_MAX)?;
    let [tag] = take(input)?;
    let packing = Packing::from_tag(tag)?;
    let check = take(input)?;
    let packed = body.slice(body.len() - input.len()..);
    if packed.len() > records_bytes as usize + data_bytes as usize {
        return None; // What does not get smaller travels raw.
    }
    Some(Frame::Batch(Batch {
        number,
        stream_bytes,
        records_bytes,
        data_bytes,
        packing,
        check,
        packed,
    }))
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(*taken)
}

fn be32(input: &mut &[u8]) -> Option<u32> {
    take(input).map(u32::from_be_bytes)
}

fn be64(input: &mut &[u8]) -> Option<u64> {
    take(input).map(u64::from_be_bytes)
}

fn count(input: &mut &[u8], count_max: usize) -> Option<usize> {
    take(input).map(u16::from_be_bytes).map(usize::from).filter(|&count| count <= count_max)
}
