// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The target's end of a stream: frames in, the exact bytes the source's engine wrote out.
//!
//! No byte of a batch is handed out before the whole batch has been compared with the digest the
//! source took of the stream up to there. So a page that is wrong for whatever reason (a damaged
//! file, a bug in a codec or in this crate) ends the attempt and never reaches an engine.
//!
//! ```text
//! batch n --> unpack, rebuild --> pages missing? -- again --> supply, batch n once more
//!                             `-> digest equal?  -- yes ----> bytes to the engine, ack
//!                                                `- no -----> `Differs`: the attempt is over
//! ```
//!
//! Batches may be dealt to several connections, and then overtake each other: those that come
//! before their turn wait for it here. On one connection that is a mistake.

mod early;

use crate::batch::{self, BatchError, Overrides, Read};
use crate::codec::{UnpackError, Unpacker};
use crate::digest::PageDigest;
use crate::frame::{AGAIN_PAGES_MAX, Batch, CHECK_BYTES, Frame};
use crate::shelf::Shelf;
use crate::split::PAGE_BYTES;
use crate::window::WINDOW_BYTES_MAX;
use early::Early;

pub use early::EARLY_BATCHES_MAX;

/// Bytes that may wait for the engine here. More means that the source ignores its window.
pub const WAITING_BYTES_MAX: u64 = WINDOW_BYTES_MAX + (2 << 20);

/// Times a batch may be asked for again: a shelf that loses pages it was just given is of no use.
pub const AGAIN_MAX: u32 = 16;

/// Why a stream was given up. The attempt must end; the engine has not seen a wrong byte.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    #[error("batch {found} came where batch {expected} was due")]
    OutOfOrder { expected: u64, found: u64 },
    #[error("batch {batch} could not be unpacked")]
    Unpack {
        batch: u64,
        #[source]
        source: UnpackError,
    },
    #[error("batch {batch} could not be read")]
    Batch {
        batch: u64,
        #[source]
        source: BatchError,
    },
    #[error("the stream differs from the source's in batch {batch}, between bytes {from} and {to}")]
    Differs { batch: u64, from: u64, to: u64 },
    #[error(
        "the source's stream has {expected_bytes} bytes in {expected_batches} batches, \
         and {bytes} in {batches} came"
    )]
    EndsEarly { expected_bytes: u64, bytes: u64, expected_batches: u64, batches: u64 },
    #[error("{waiting_bytes} bytes wait for the engine, more than any window allows")]
    WindowIgnored { waiting_bytes: u64 },
    #[error("pages of batch {batch} were lost {AGAIN_MAX} times")]
    ShelfUseless { batch: u64 },
    #[error("a frame came that only a target sends, or that was not asked for")]
    Unexpected,
}

/// What the source said of the whole stream.
#[derive(Clone, Copy, Debug)]
struct End {
    batches: u64,
    stream_bytes: u64,
    digest: [u8; 32],
}

/// Rebuilds a stream. See the module.
pub struct Receiver {
    shelf: Box<dyn Shelf>,
    unpacker: Unpacker,
    plain: Vec<u8>,
    compared: Vec<(u32, PageDigest)>,
    hasher: blake3::Hasher,
    /// The batch that is due.
    next: u64,
    /// Bytes handed out.
    stream_bytes: u64,
    /// Bytes the engine has taken.
    accepted_bytes: u64,
    /// Pages of the due batch that the source supplied.
    overrides: Overrides,
    /// How often pages of the due batch were asked for; later batches are dropped meanwhile.
    asked: u32,
    /// Pages asked for and not yet supplied.
    awaited: usize,
    /// Other connections have joined the first: batches may overtake each other, and the end them.
    is_joined: bool,
    early: Early,
    held_end: Option<End>,
    ended: bool,
    is_done_sent: bool,
    is_stopped: bool,
    ack_due: bool,
    replies: Vec<Frame>,
}

impl Receiver {
    pub fn new(shelf: Box<dyn Shelf>) -> Self {
        Self {
            shelf,
            unpacker: Unpacker::default(),
            plain: Vec::new(),
            compared: Vec::new(),
            hasher: blake3::Hasher::new(),
            next: 0,
            stream_bytes: 0,
            accepted_bytes: 0,
            overrides: Overrides::new(),
            asked: 0,
            awaited: 0,
            is_joined: false,
            early: Early::default(),
            held_end: None,
            ended: false,
            is_done_sent: false,
            is_stopped: false,
            ack_due: false,
            replies: Vec::new(),
        }
    }

    /// Another connection has joined the first, until [`Receiver::on_reconnect`]. Everything but
    /// batches still comes on the first.
    pub fn on_join(&mut self) {
        self.is_joined = true;
    }

    /// Returns whether there is more than one connection.
    pub fn is_joined(&self) -> bool {
        self.is_joined
    }

    /// Takes a frame of the source and returns the bytes for the engine, in order. The caller
    /// writes them and says with [`Receiver::on_accepted`] how far it came. With several
    /// connections there may be more, in [`Receiver::poll_early`].
    pub fn on_frame(&mut self, frame: Frame) -> Result<Vec<u8>, ReceiveError> {
        match frame {
            Frame::Batch(_) | Frame::Supply { .. } | Frame::End { .. } if self.is_stopped => {
                Ok(Vec::new())
            }
            Frame::Batch(batch) if self.is_joined && batch.number > self.next => {
                self.on_early(batch).map(|()| Vec::new())
            }
            Frame::Batch(batch) => self.on_batch(&batch),
            Frame::Supply { batch, pages } => {
                // An answer to a question from before the connection was cut may come twice.
                if batch == self.next && self.asked > 0 && pages.len() <= self.awaited {
                    self.awaited -= pages.len();
                    self.overrides.extend(pages);
                } else if batch >= self.next {
                    return Err(ReceiveError::Unexpected);
                }
                Ok(Vec::new())
            }
            Frame::End { batches, stream_bytes, digest } => {
                self.on_end(End { batches, stream_bytes, digest }).map(|()| Vec::new())
            }
            Frame::Ack { .. }
            | Frame::Again { .. }
            | Frame::Resume { .. }
            | Frame::Done { .. }
            | Frame::Stop
            | Frame::Ping { .. }
            | Frame::Pong { .. } => Err(ReceiveError::Unexpected),
        }
    }

    /// Returns the bytes of a batch that came before its turn, if that is now. To be called after
    /// each frame until it returns none.
    pub fn poll_early(&mut self) -> Result<Option<Vec<u8>>, ReceiveError> {
        if self.is_stopped {
            self.early.clear();
            return Ok(None);
        }
        if let Some(batch) = self.early.take(self.next) {
            return self.on_batch(&batch).map(Some);
        }
        if let Some(end) = self.held_end.take_if(|end| end.batches <= self.next) {
            self.on_end(end)?;
        }
        Ok(None)
    }

    /// Returns the digests of those pages of what was handed out last that were compared with one
    /// on the way, and where in it they lie: whoever wants digests need not take these anew.
    pub fn take_compared(&mut self) -> Vec<(u32, PageDigest)> {
        std::mem::take(&mut self.compared)
    }

    /// The engine wants no more: what still comes is dropped, and the source told.
    pub fn stop(&mut self) {
        if !self.is_stopped {
            self.is_stopped = true;
            self.replies.push(Frame::Stop);
        }
    }

    /// The engine has taken `bytes` more of what was handed out.
    pub fn on_accepted(&mut self, bytes: u64) {
        self.accepted_bytes += bytes;
        assert!(self.accepted_bytes <= self.stream_bytes, "an engine cannot take more than it got");
        self.ack_due = true;
    }

    /// Says where to go on, as the first frame of a connection that replaces a cut one.
    /// What was half received is forgotten; the caller uses a new [`crate::frame::FrameReader`].
    pub fn on_reconnect(&mut self) -> Frame {
        self.replies.clear();
        self.overrides.clear();
        self.early.clear();
        (self.is_joined, self.held_end) = (false, None);
        (self.asked, self.awaited, self.is_done_sent, self.ack_due) = (0, 0, false, false);
        if self.is_stopped {
            self.replies.push(Frame::Stop);
        }
        Frame::Resume { next: self.next, accepted_bytes: self.accepted_bytes }
    }

    /// Returns the next frame for the source. Acknowledgements are joined until they are asked for.
    pub fn poll_reply(&mut self) -> Option<Frame> {
        if !self.replies.is_empty() {
            return Some(self.replies.remove(0));
        }
        if std::mem::take(&mut self.ack_due) {
            return Some(Frame::Ack { next: self.next, accepted_bytes: self.accepted_bytes });
        }
        if self.is_done() && !self.is_done_sent {
            self.is_done_sent = true;
            return Some(Frame::Done { stream_bytes: self.stream_bytes });
        }
        None
    }

    /// Returns whether the stream has ended and its digest is the source's.
    pub fn is_verified(&self) -> bool {
        self.ended
    }

    /// Returns whether the engine has taken everything, and that is what the source sent.
    pub fn is_done(&self) -> bool {
        self.is_verified() && self.accepted_bytes == self.stream_bytes
    }

    /// Returns the BLAKE3 of what was handed out.
    pub fn digest(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    /// Returns the bytes handed out so far.
    pub fn stream_bytes(&self) -> u64 {
        self.stream_bytes
    }

    fn on_batch(&mut self, batch: &Batch) -> Result<Vec<u8>, ReceiveError> {
        let number = batch.number;
        // A repeat after a reconnection, or what was under way while pages are asked for.
        let is_repeat = number < self.next;
        let is_early = number > self.next && self.asked > 0;
        if is_repeat || is_early || (number == self.next && self.awaited > 0) {
            return Ok(Vec::new());
        }
        if number != self.next || self.ended {
            return Err(ReceiveError::OutOfOrder { expected: self.next, found: number });
        }
        self.check_window(batch)?;
        let read = self.read(batch)?;
        if !read.missing.is_empty() {
            return self.ask_again(number, read.missing).map(|()| Vec::new());
        }
        self.accept(batch, read)
    }

    fn check_window(&self, batch: &Batch) -> Result<(), ReceiveError> {
        let waiting_bytes = self.stream_bytes - self.accepted_bytes
            + self.early.stream_bytes()
            + u64::from(batch.stream_bytes);
        match waiting_bytes {
            0..=WAITING_BYTES_MAX => Ok(()),
            _ => Err(ReceiveError::WindowIgnored { waiting_bytes }),
        }
    }

    /// Keeps a batch that has overtaken the one that is due.
    fn on_early(&mut self, batch: Batch) -> Result<(), ReceiveError> {
        let (expected, found) = (self.next, batch.number);
        let is_behind_end = self.held_end.is_some_and(|end| found >= end.batches);
        self.check_window(&batch)?;
        if self.ended || is_behind_end || !self.early.put(batch, expected) {
            return Err(ReceiveError::OutOfOrder { expected, found });
        }
        Ok(())
    }

    fn read(&mut self, batch: &Batch) -> Result<Read, ReceiveError> {
        let number = batch.number;
        let plain_bytes = batch.records_bytes as usize + batch.data_bytes as usize;
        self.unpacker
            .unpack(batch.packing, &batch.packed, plain_bytes, &mut self.plain)
            .map_err(|source| ReceiveError::Unpack { batch: number, source })?;
        let (records, data) = self.plain.split_at(batch.records_bytes as usize);
        let stream_bytes = batch.stream_bytes as usize;
        batch::decode(records, data, stream_bytes, &mut *self.shelf, &self.overrides)
            .map_err(|source| ReceiveError::Batch { batch: number, source })
    }

    fn ask_again(&mut self, batch: u64, missing: Vec<u32>) -> Result<(), ReceiveError> {
        if self.asked == AGAIN_MAX {
            return Err(ReceiveError::ShelfUseless { batch });
        }
        self.asked += 1;
        self.awaited = missing.len();
        assert!(missing.len() <= AGAIN_PAGES_MAX, "a batch has no more pages");
        self.replies.push(Frame::Again { batch, offsets: missing });
        Ok(())
    }

    /// Compares the stretch with the source's digest; only then is anything done with it.
    fn accept(&mut self, batch: &Batch, read: Read) -> Result<Vec<u8>, ReceiveError> {
        self.hasher.update(&read.stream);
        let from = self.stream_bytes;
        let to = from + read.stream.len() as u64;
        if self.hasher.finalize().as_bytes()[..CHECK_BYTES] != batch.check {
            return Err(ReceiveError::Differs { batch: batch.number, from, to });
        }
        for (slot, at) in read.puts {
            let page = read.stream[at as usize..][..PAGE_BYTES].try_into();
            self.shelf.put(slot, page.expect("the reader put a whole page there"));
        }
        self.compared = read.compared;
        self.overrides.clear();
        self.asked = 0;
        self.next += 1;
        self.stream_bytes = to;
        self.ack_due = true;
        Ok(read.stream)
    }

    fn on_end(&mut self, end: End) -> Result<(), ReceiveError> {
        if self.asked > 0 {
            return Ok(()); // It comes again, after the batch we asked for.
        }
        let (batches, bytes) = (self.next, self.stream_bytes);
        if self.is_joined && end.batches > batches {
            if let Some(found) = self.early.last().filter(|last| *last >= end.batches) {
                return Err(ReceiveError::OutOfOrder { expected: batches, found });
            }
            self.held_end = Some(end);
            return Ok(());
        }
        if (end.batches, end.stream_bytes) != (batches, bytes) {
            return Err(ReceiveError::EndsEarly {
                expected_bytes: end.stream_bytes,
                bytes,
                expected_batches: end.batches,
                batches,
            });
        }
        if *self.hasher.finalize().as_bytes() != end.digest {
            return Err(ReceiveError::Differs { batch: batches, from: 0, to: bytes });
        }
        self.ended = true;
        Ok(())
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver")
            .field("next", &self.next)
            .field("stream_bytes", &self.stream_bytes)
            .field("accepted_bytes", &self.accepted_bytes)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
