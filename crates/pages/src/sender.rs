// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The source's end of a stream: the bytes of the engine in, frames out.
//!
//! ```text
//! push --> split --> same? delta? new? --> batch --> packed (here, or on another core) --> frame
//!                                            `--- kept until acknowledged, to be sent again ---'
//! ```
//!
//! Nothing here waits, and nothing reads a clock, so the caller keeps three promises: it pushes no
//! more than [`Sender::room`] says, it calls [`Sender::flush`] when the engine has written nothing
//! for a millisecond (the engines answer each other, and what they wait for may be in an open
//! batch), and it polls for frames after every call.
//!
//! Where one core's TLS is less than the link, batches may be dealt to other connections, too
//! ([`Sender::poll_batch`]): they are numbered, and the target puts them in order.

mod encoder;
mod index;
mod recent;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::batch::BATCH_STREAM_BYTES_MAX;
use crate::blocks::Blocks;
use crate::codec::{Codec, Packer, Packing};
use crate::digest::PageDigest;
use crate::frame::{AGAIN_PAGES_MAX, Batch, CHECK_BYTES, Frame, SUPPLY_PAGES_MAX};
use crate::parts::Parts;
use crate::receiver::EARLY_BATCHES_MAX;
use crate::split::{Boundary, PAGE_BYTES, Place, Split};
use crate::window::{WINDOW_BYTES_MAX, WINDOW_BYTES_MIN};
use encoder::{Closed, Encoder};

/// How a sender is set up.
pub struct SenderConfig {
    pub split: Box<dyn Split>,
    pub codec: Codec,
    /// The slots of the target's shelf; 0 if it has none.
    pub slots: u32,
    /// Pages kept here to make deltas against. They take 4 KiB each.
    pub recent_pages_max: u32,
    /// Keep what a page store needs; see [`Sender::poll_kept`].
    pub is_kept: bool,
}

/// How the pages travelled, and what it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub stream_bytes: u64,
    /// Frames that were handed out, repeats included.
    pub frame_bytes: u64,
    /// Of these, the repeats.
    pub repeat_bytes: u64,
    pub new_pages: u64,
    pub same_pages: u64,
    pub delta_pages: u64,
    /// Pages that the target read from the guest's disks.
    pub block_pages: u64,
    pub fill_pages: u64,
    /// Plain bytes of all packed batches, and what they were packed to.
    pub plain_bytes: u64,
    pub packed_bytes: u64,
}

/// Why the target's frames were refused. The connection must be closed, the attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("the target wants batch {next}, and those from {first} to {end} are here")]
    NoSuchBatch { next: u64, first: u64, end: u64 },
    #[error("the target accepted {accepted_bytes} bytes of {stream_bytes}, after {before}")]
    BadCount { accepted_bytes: u64, before: u64, stream_bytes: u64 },
    #[error("the target asks for a page at {offset} of batch {batch}, which has none there")]
    NoSuchPage { batch: u64, offset: u32 },
    #[error("the target says it has all {found} bytes, and there are {stream_bytes}")]
    DoneEarly { found: u64, stream_bytes: u64 },
    #[error("a frame came that only a source sends, or that was not asked for")]
    Unexpected,
}

/// A batch to be packed, here or on another core.
#[derive(Debug)]
pub struct Job {
    number: u64,
    codec: Codec,
    plain: Vec<u8>,
}

/// A packed batch on its way back to its sender.
#[derive(Debug)]
pub struct Packed {
    number: u64,
    plain_bytes: usize,
    packing: Packing,
    packed: Vec<u8>,
}

impl Job {
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Does the work.
    pub fn run(self, packer: &mut Packer) -> Packed {
        let (packing, packed) = packer.pack(self.codec, &self.plain);
        Packed { number: self.number, plain_bytes: self.plain.len(), packing, packed }
    }
}

impl Packed {
    /// Returns the plain and the packed length, for [`crate::codec::CodecRates::measure`].
    pub fn lengths(&self) -> (usize, usize) {
        (self.plain_bytes, self.packed.len())
    }
}

/// A batch as a page store wants it: packed already, and where the pages lie.
#[derive(Clone, Debug)]
pub struct Kept {
    pub batch: u64,
    pub packing: Packing,
    pub packed: Bytes,
    pub plain_bytes: usize,
    /// The stretch of the stream.
    pub stream: Bytes,
    pub pages: Vec<KeptPage>,
}

/// A page of a batch. Later ones replace earlier ones of the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptPage {
    pub place: Place,
    pub digest: PageDigest,
    /// Where it lies in the plain bytes; none if it travelled as *same* or *delta*.
    pub plain_at: Option<u32>,
    /// Where it lies in the stretch of the stream.
    pub stream_at: u32,
}

#[derive(Debug)]
enum Stage {
    Plain(Vec<u8>),
    /// A job is out.
    Packing,
    Frame(Bytes),
}

/// A closed batch, kept until the target has it.
#[derive(Debug)]
struct Sealed {
    stream: Bytes,
    records_bytes: u32,
    data_bytes: u32,
    check: [u8; CHECK_BYTES],
    pages: Vec<KeptPage>,
    is_sent: bool,
    stage: Stage,
}

/// How far the stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// All batches are closed; the end is to be sent, perhaps once more.
    EndDue {
        again: bool,
    },
    Ended,
    /// The target has compared everything.
    Done,
    /// The target's engine wants no more.
    Stopped,
}

/// See the module.
pub struct Sender {
    split: Box<dyn Split>,
    encoder: Encoder,
    codec: Codec,
    packer: Packer,
    is_kept: bool,
    hasher: blake3::Hasher,
    /// Batches the target does not have yet; the first has the number `first`.
    sealed: VecDeque<Sealed>,
    first: u64,
    /// The batch to be sent next.
    cursor: u64,
    window_bytes: u64,
    /// What may be under way packed, and what was: sent or about to be, and acknowledged.
    wire_window_bytes: u64,
    wire_bytes: u64,
    wire_acked_bytes: u64,
    pushed_bytes: u64,
    sealed_bytes: u64,
    accepted_bytes: u64,
    supplies: VecDeque<Frame>,
    /// The batch they belong to: it must not overtake them.
    asked: Option<u64>,
    /// By number, as other cores give batches back in any order.
    kept: BTreeMap<u64, Kept>,
    kept_next: u64,
    /// A connection was cut, and the target has not said where to go on.
    is_cut: bool,
    phase: Phase,
    counts: Counts,
}

impl Sender {
    pub fn new(config: SenderConfig) -> Self {
        let SenderConfig { split, codec, slots, recent_pages_max, is_kept } = config;
        Self {
            split,
            encoder: Encoder::new(slots, recent_pages_max, WINDOW_BYTES_MIN),
            codec,
            packer: Packer::default(),
            is_kept,
            hasher: blake3::Hasher::new(),
            sealed: VecDeque::new(),
            first: 0,
            cursor: 0,
            window_bytes: WINDOW_BYTES_MIN,
            wire_window_bytes: WINDOW_BYTES_MAX,
            wire_bytes: 0,
            wire_acked_bytes: 0,
            pushed_bytes: 0,
            sealed_bytes: 0,
            accepted_bytes: 0,
            supplies: VecDeque::new(),
            asked: None,
            kept: BTreeMap::new(),
            kept_next: 0,
            is_cut: false,
            phase: Phase::Open,
            counts: Counts::default(),
        }
    }

    /// Says what the shelf holds from an earlier visit: the n-th page lies in slot n. Both ends
    /// must have agreed on it (by the digest of the manifest) before the first byte is pushed.
    pub fn hold(&mut self, pages: impl IntoIterator<Item = (Place, PageDigest)>) {
        assert_eq!(self.pushed_bytes, 0, "what is held is agreed on before the stream begins");
        self.encoder.hold(pages);
    }

    /// Says where the digests of the parts of those pages are: what changed in part then travels
    /// in part.
    pub fn hold_parts(&mut self, parts: Box<dyn Parts>) {
        self.encoder.set_parts(parts);
    }

    /// Says what is known of the guest's disks, which the target can read, too.
    pub fn hold_blocks(&mut self, blocks: Box<dyn Blocks>) {
        self.encoder.set_blocks(blocks);
    }

    /// Returns how many bytes may be pushed now.
    pub fn room(&self) -> usize {
        if self.phase == Phase::Stopped || self.wire_under_way() >= self.wire_window_bytes {
            return 0;
        }
        let under_way = self.pushed_bytes - self.accepted_bytes;
        usize::try_from(self.window_bytes.saturating_sub(under_way)).unwrap_or(usize::MAX)
    }

    /// Sets the window, within its limits; see [`crate::window`].
    pub fn set_window(&mut self, window_bytes: u64) {
        self.window_bytes = window_bytes.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        self.encoder.set_window(self.window_bytes);
    }

    /// Sets how many bytes of frames may be under way, within the same limits. The other window
    /// follows how fast the stream is accepted; where a stretch that the target holds already is
    /// followed by one that it does not, that one would wait behind a slow link.
    pub fn set_wire_window(&mut self, window_bytes: u64) {
        self.wire_window_bytes = window_bytes.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
    }

    /// Returns the bytes of frames that the target has acknowledged, repeats left out.
    pub fn wire_acked_bytes(&self) -> u64 {
        self.wire_acked_bytes
    }

    fn wire_under_way(&self) -> u64 {
        self.wire_bytes - self.wire_acked_bytes
    }

    /// Sets the codec of the batches that are not packed yet; see [`crate::codec::choose`].
    pub fn set_codec(&mut self, codec: Codec) {
        self.codec = codec;
    }

    /// Takes what the engine wrote.
    pub fn push(&mut self, bytes: &[u8]) {
        assert_eq!(self.phase, Phase::Open, "a finished stream has no more bytes");
        self.pushed_bytes += bytes.len() as u64;
        self.split.push(bytes, &mut |piece| self.encoder.piece(piece));
        self.seal();
    }

    /// Closes the open batch: the engine has written nothing for a while. The beginning of a page
    /// waits for the rest: as opaque bytes it would be lost for an image.
    pub fn flush(&mut self) {
        if !self.split.is_within_page() {
            self.split.flush(&mut |piece| self.encoder.piece(piece));
        }
        self.encoder.close();
        self.seal();
    }

    /// The engine has closed its stream.
    pub fn finish(&mut self) {
        self.split.flush(&mut |piece| self.encoder.piece(piece));
        self.encoder.close();
        self.seal();
        assert_eq!(self.pushed_bytes, self.sealed_bytes, "every byte is in a batch");
        self.phase = Phase::EndDue { again: false };
    }

    /// Returns a batch to be packed elsewhere. Its frame waits for [`Sender::on_packed`]; batches
    /// nobody takes are packed by [`Sender::poll_frame`].
    pub fn take_job(&mut self) -> Option<Job> {
        let is_plain = |sealed: &Sealed| matches!(sealed.stage, Stage::Plain(_));
        let index = self.sealed.iter().position(is_plain)?;
        let sealed = &mut self.sealed[index];
        match std::mem::replace(&mut sealed.stage, Stage::Packing) {
            Stage::Plain(plain) => {
                Some(Job { number: self.first + index as u64, codec: self.codec, plain })
            }
            Stage::Packing | Stage::Frame(_) => unreachable!("a plain batch was found"),
        }
    }

    /// Takes a batch back.
    pub fn on_packed(&mut self, packed: Packed) {
        let number = packed.number;
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some(sealed) = index.and_then(|index| self.sealed.get_mut(index)) else { return };
        let Packed { plain_bytes, packing, packed, .. } = packed;
        self.encoder.on_packed(plain_bytes, packed.len());
        self.counts.plain_bytes += plain_bytes as u64;
        self.counts.packed_bytes += packed.len() as u64;
        let packed_bytes = packed.len();
        let frame = Frame::Batch(Batch {
            number,
            stream_bytes: u32::try_from(sealed.stream.len()).expect("batches are short"),
            records_bytes: sealed.records_bytes,
            data_bytes: sealed.data_bytes,
            packing,
            check: sealed.check,
            packed: packed.into(),
        })
        .encode();
        if self.is_kept {
            let kept = Kept {
                batch: number,
                packing,
                packed: frame.slice(frame.len() - packed_bytes..),
                plain_bytes,
                stream: sealed.stream.clone(),
                pages: std::mem::take(&mut sealed.pages),
            };
            self.kept.insert(number, kept);
        }
        self.wire_bytes += frame.len() as u64;
        sealed.stage = Stage::Frame(frame);
    }

    /// Returns the next bytes for the target.
    pub fn poll_frame(&mut self) -> Option<Bytes> {
        if self.is_cut || self.phase == Phase::Stopped {
            return None;
        }
        if let Some(supply) = self.supplies.pop_front() {
            let frame = supply.encode();
            self.counts.repeat_bytes += frame.len() as u64;
            self.counts.frame_bytes += frame.len() as u64;
            return Some(frame);
        }
        if self.cursor == self.end() && self.room() == 0 {
            // Nothing more may come in, so nothing more would ever close this batch.
            self.encoder.close();
            self.seal();
        }
        if self.cursor < self.end() {
            return self.next_batch();
        }
        if let Phase::EndDue { .. } = self.phase {
            self.phase = Phase::Ended;
            let digest = *self.hasher.finalize().as_bytes();
            let end = Frame::End { batches: self.end(), stream_bytes: self.sealed_bytes, digest };
            return Some(end.encode());
        }
        None
    }

    /// Returns the next bytes for the target that may travel on another connection than the first,
    /// and overtake what travels there: batches only.
    pub fn poll_batch(&mut self) -> Option<Bytes> {
        let is_silent = self.is_cut || self.phase == Phase::Stopped;
        if is_silent || self.cursor == self.end() || self.asked == Some(self.cursor) {
            return None;
        }
        self.next_batch()
    }

    /// Returns the next packed batch for the page store, if the sender keeps them. Each comes once,
    /// and in order.
    pub fn poll_kept(&mut self) -> Option<Kept> {
        let kept = self.kept.remove(&self.kept_next)?;
        self.kept_next += 1;
        Some(kept)
    }

    /// Takes a frame of the target.
    pub fn on_frame(&mut self, frame: Frame) -> Result<(), SendError> {
        match frame {
            Frame::Ack { .. } | Frame::Again { .. } | Frame::Done { .. } | Frame::Stop
                if self.is_cut =>
            {
                Err(SendError::Unexpected)
            }
            Frame::Stop => {
                self.phase = Phase::Stopped;
                Ok(())
            }
            Frame::Ack { .. } | Frame::Again { .. } if self.phase == Phase::Stopped => Ok(()),
            Frame::Ack { next, accepted_bytes } => self.on_ack(next, accepted_bytes),
            Frame::Again { batch, offsets } => self.on_again(batch, &offsets),
            Frame::Resume { next, accepted_bytes } if self.is_cut => {
                self.on_ack(next, accepted_bytes)?;
                self.cursor = next;
                self.is_cut = false;
                self.repeat_end();
                Ok(())
            }
            Frame::Done { stream_bytes } => {
                // On a new connection it may come before the end was repeated.
                let was_end_sent = match self.phase {
                    Phase::Ended | Phase::Done => true,
                    Phase::EndDue { again } => again,
                    Phase::Open | Phase::Stopped => false,
                };
                if !was_end_sent || stream_bytes != self.sealed_bytes {
                    let (found, stream_bytes) = (stream_bytes, self.sealed_bytes);
                    return Err(SendError::DoneEarly { found, stream_bytes });
                }
                self.phase = Phase::Done;
                Ok(())
            }
            Frame::Resume { .. }
            | Frame::Batch(_)
            | Frame::Supply { .. }
            | Frame::End { .. }
            | Frame::Ping { .. }
            | Frame::Pong { .. } => Err(SendError::Unexpected),
        }
    }

    /// The connection was cut. No frame comes until the target's `resume` on the next one.
    pub fn on_reconnect(&mut self) {
        self.is_cut = true;
        self.supplies.clear();
        self.asked = None;
    }

    /// Returns whether the target has compared the whole stream and its engine has taken it.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Returns whether the target's engine wants no more of the stream.
    pub fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// Returns the BLAKE3 of what is in closed batches; of everything, once it is finished.
    pub fn digest(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    /// Returns how many bytes the target's engine has taken.
    pub fn accepted_bytes(&self) -> u64 {
        self.accepted_bytes
    }

    pub fn counts(&self) -> Counts {
        Counts { stream_bytes: self.pushed_bytes, ..self.encoder.counts(self.counts) }
    }

    /// Returns where the stream became opaque, if it has.
    pub fn boundary(&self) -> Option<Boundary> {
        self.split.boundary()
    }

    /// Returns the number after the last closed batch.
    fn end(&self) -> u64 {
        self.first + self.sealed.len() as u64
    }

    /// Puts the batches the encoder has closed into the queue.
    fn seal(&mut self) {
        while let Some(Closed { written, pages }) = self.encoder.poll_closed() {
            self.hasher.update(&written.stream);
            self.sealed_bytes += written.stream.len() as u64;
            let digest = self.hasher.finalize();
            let check = digest.as_bytes()[..CHECK_BYTES].try_into().expect("a digest is longer");
            let data_bytes = written.plain.len() - written.records_bytes;
            debug_assert!(written.stream.len() <= BATCH_STREAM_BYTES_MAX);
            self.sealed.push_back(Sealed {
                stream: written.stream.into(),
                records_bytes: u32::try_from(written.records_bytes).expect("batches are short"),
                data_bytes: u32::try_from(data_bytes).expect("batches are short"),
                check,
                pages: if self.is_kept { pages } else { Vec::new() },
                is_sent: false,
                stage: Stage::Plain(written.plain),
            });
        }
    }

    fn next_batch(&mut self) -> Option<Bytes> {
        if self.cursor - self.first >= EARLY_BATCHES_MAX {
            return None; // It could overtake that many, and the target would have no place for it.
        }
        let index = usize::try_from(self.cursor - self.first).expect("the queue is short");
        if let Stage::Plain(plain) = &mut self.sealed[index].stage {
            let plain = std::mem::take(plain);
            self.sealed[index].stage = Stage::Packing;
            let job = Job { number: self.cursor, codec: self.codec, plain };
            let packed = job.run(&mut self.packer);
            self.on_packed(packed);
        }
        let sealed = &mut self.sealed[index];
        let Stage::Frame(frame) = &sealed.stage else { return None };
        let frame = frame.clone();
        self.counts.frame_bytes += frame.len() as u64;
        if std::mem::replace(&mut sealed.is_sent, true) {
            self.counts.repeat_bytes += frame.len() as u64;
        }
        self.asked.take_if(|asked| *asked == self.cursor);
        self.cursor += 1;
        Some(frame)
    }

    fn on_ack(&mut self, next: u64, accepted_bytes: u64) -> Result<(), SendError> {
        let (first, end) = (self.first, self.end());
        // Only what was sent can have arrived; on a new connection the cursor may be ahead of it.
        let sent_end =
            self.sealed.iter().take_while(|sealed| sealed.is_sent).count() as u64 + first;
        if next < first || next > sent_end {
            return Err(SendError::NoSuchBatch { next, first, end });
        }
        let before = self.accepted_bytes;
        if accepted_bytes < before || accepted_bytes > self.sealed_bytes {
            let stream_bytes = self.sealed_bytes;
            return Err(SendError::BadCount { accepted_bytes, before, stream_bytes });
        }
        self.accepted_bytes = accepted_bytes;
        for sealed in self.sealed.drain(..usize::try_from(next - first).expect("it is short")) {
            if let Stage::Frame(frame) = sealed.stage {
                self.wire_acked_bytes += frame.len() as u64;
            }
        }
        self.first = next;
        self.cursor = self.cursor.max(next);
        Ok(())
    }

    /// Queues the pages the target has lost, and goes back to the batch they are in.
    fn on_again(&mut self, batch: u64, offsets: &[u32]) -> Result<(), SendError> {
        let (first, end) = (self.first, self.end());
        if batch < first || batch >= self.cursor || offsets.len() > AGAIN_PAGES_MAX {
            return Err(SendError::NoSuchBatch { next: batch, first, end });
        }
        let index = usize::try_from(batch - first).expect("the queue is short");
        let stream = self.sealed[index].stream.clone();
        let page = |&offset: &u32| {
            let page = stream.get(offset as usize..).and_then(|rest| rest.get(..PAGE_BYTES));
            let page = page.ok_or(SendError::NoSuchPage { batch, offset })?;
            Ok((offset, Box::new(page.try_into().expect("a page was cut out"))))
        };
        for offsets in offsets.chunks(SUPPLY_PAGES_MAX) {
            let pages = offsets.iter().map(page).collect::<Result<_, _>>()?;
            self.supplies.push_back(Frame::Supply { batch, pages });
        }
        self.encoder.on_asked(offsets.len() as u64);
        self.cursor = batch;
        self.asked = Some(batch);
        self.repeat_end();
        Ok(())
    }

    /// The target may not have seen the end of the stream, or has dropped it.
    fn repeat_end(&mut self) {
        if self.phase == Phase::Ended {
            self.phase = Phase::EndDue { again: true };
        }
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender")
            .field("first", &self.first)
            .field("cursor", &self.cursor)
            .field("end", &self.end())
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}
