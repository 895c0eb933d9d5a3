// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What is fuzzed: each target is a function of bytes that must not panic, nor take more memory
//! than a limit says. The same functions serve libFuzzer and the smoke run.

use std::collections::VecDeque;

use whimbrel_page_store::Held;
use whimbrel_pages::codec::{Codec, Packing, Unpacker};
use whimbrel_pages::frame::{Batch, Frame, FrameReader};
use whimbrel_pages::image::{ImageId, ImageKey, Manifest, Seal};
use whimbrel_pages::receiver::Receiver;
use whimbrel_pages::sender::{Sender, SenderConfig};
use whimbrel_pages::shelf::{MemoryShelf, Shelf, SlotLost};
use whimbrel_pages::split::{PAGE_BYTES, Page, Piece, QemuSplit, Split, XenSplit};

/// A target and its name, which is also that of its corpus.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 7] = [
    ("split_qemu", split_qemu),
    ("split_xen", split_xen),
    ("frames", frames),
    ("batch", batch),
    ("image", image),
    ("journey", journey),
    ("held", held),
];

pub fn split_qemu(data: &[u8]) {
    split(|| Box::new(QemuSplit::default()), data);
}

pub fn split_xen(data: &[u8]) {
    split(|| Box::new(XenSplit::default()), data);
}

/// The pieces are the stream; and however it is chunked, the boundary is the same. The first byte
/// says how.
fn split(splitter: impl Fn() -> Box<dyn Split>, data: &[u8]) {
    let Some((&chunk, stream)) = data.split_first() else { return };
    let (mut whole, mut cut) = (splitter(), splitter());
    let mut rebuilt = Vec::with_capacity(stream.len());
    whole.push(stream, &mut |piece| append(piece, &mut rebuilt));
    whole.flush(&mut |piece| append(piece, &mut rebuilt));
    assert!(rebuilt == stream);
    rebuilt.clear();
    for chunk in stream.chunks(usize::from(chunk) * 37 + 1) {
        cut.push(chunk, &mut |piece| append(piece, &mut rebuilt));
        assert!(cut.missing_bytes() <= PAGE_BYTES);
        if chunk[0] % 4 == 0 {
            cut.flush(&mut |piece| append(piece, &mut rebuilt));
        }
    }
    cut.flush(&mut |piece| append(piece, &mut rebuilt));
    assert!(rebuilt == stream);
    assert_eq!(whole.boundary(), cut.boundary());
    assert_eq!(whole.blocks(), cut.blocks());
}

fn append(piece: Piece<'_>, out: &mut Vec<u8>) {
    match piece {
        Piece::Bytes(bytes) => out.extend_from_slice(bytes),
        Piece::Page { head, page, .. } => {
            out.extend(head.iter().flat_map(|head| head.to_be_bytes()));
            out.extend_from_slice(page);
        }
        Piece::Fill { head, byte } => {
            out.extend_from_slice(&head.to_be_bytes());
            out.push(byte);
        }
    }
}

/// What a connection brings to the target: the crc is put right, or nothing would get past it.
pub fn frames(data: &[u8]) {
    let mut reader = FrameReader::default();
    let mut receiver = receiver();
    if data.len() % 2 == 1 {
        receiver.on_join();
    }
    let mut rest = data;
    while let Some((kind, body)) = rest.split_first() {
        let length = body.len().min(usize::from(body.first().copied().unwrap_or(0)) * 5);
        let (body, after) = body.split_at(length);
        rest = after;
        let mut frame = vec![b'W', b'P', 1, *kind % 9];
        frame.extend_from_slice(&(length as u32).to_be_bytes());
        let crc = crc32c(&[&frame, body].concat());
        frame.extend_from_slice(&crc.to_be_bytes());
        frame.extend_from_slice(body);
        reader.push(&frame);
        while let Ok(Some(frame)) = reader.next_frame() {
            if receiver.on_frame(frame).is_err() {
                return;
            }
            while let Ok(Some(_)) = receiver.poll_early() {}
            while receiver.poll_reply().is_some() {}
        }
    }
    let mut raw = FrameReader::default();
    raw.push(data);
    while let Ok(Some(_)) = raw.next_frame() {}
}

/// One batch, on a shelf that has some pages: two bytes of length, the records, the data.
pub fn batch(data: &[u8]) {
    let Some((lengths, rest)) = data.split_first_chunk::<4>() else { return };
    let records_bytes = usize::from(u16::from_be_bytes([lengths[0], lengths[1]])).min(rest.len());
    let packing = [Packing::Raw, Packing::Lz4, Packing::Zstd][usize::from(lengths[2]) % 3];
    let plain_bytes = if packing == Packing::Raw { rest.len() } else { 70_000 };
    let Ok(stream_bytes) = u32::try_from(rest.len() + usize::from(lengths[3]) * PAGE_BYTES) else {
        return;
    };
    let frame = Frame::Batch(Batch {
        number: 0,
        stream_bytes: stream_bytes.min(1 << 20),
        records_bytes: records_bytes as u32,
        data_bytes: plain_bytes.saturating_sub(records_bytes) as u32,
        packing,
        check: [0; 8],
        packed: rest.to_vec().into(),
    });
    let mut receiver = receiver();
    let _ = receiver.on_frame(frame);
    while receiver.poll_reply().is_some() {}
}

/// A kept image that somebody has altered: nothing opens, and nothing is allocated for it.
pub fn image(data: &[u8]) {
    let seal = Seal::new(&ImageKey::new([1; 32]), ImageId([2; 16]));
    assert!(seal.open_block(3, data.to_vec(), &mut Unpacker::default()).is_err());
    if let Ok(manifest) = Manifest::open(&seal, data) {
        assert_eq!(manifest.entries(), [], "only an empty one needs no seal");
    }
}

/// What a host knows of an image elsewhere, altered: with its digest put right, and as it is.
pub fn held(data: &[u8]) {
    let mut proven = data.to_vec();
    proven.extend_from_slice(blake3::hash(data).as_bytes());
    for bytes in [data, &proven] {
        if let Ok(held) = Held::from_bytes(bytes) {
            assert!(held.to_bytes() == bytes);
        }
    }
}

/// Any bytes arrive as they are, with cuts: the first bytes choose the weather.
pub fn journey(data: &[u8]) {
    let Some((weather, stream)) = data.split_first_chunk::<4>() else { return };
    let mut sender = Sender::new(SenderConfig {
        split: if weather[0] % 2 == 0 {
            Box::new(QemuSplit::default())
        } else {
            Box::new(XenSplit::default())
        },
        codec: [Codec::Raw, Codec::Lz4, Codec::Zstd(1)][usize::from(weather[1]) % 3],
        slots: 12,
        recent_pages_max: 4,
        is_kept: true,
    });
    let mut receiver = receiver();
    let mut rebuilt = Vec::new();
    let mut wire = [VecDeque::new(), VecDeque::new()];
    if weather[0] & 2 > 0 {
        receiver.on_join();
    }
    let mut rest = stream;
    for step in 0_usize.. {
        let (chunk, after) = rest.split_at(sender.room().min(rest.len()).min(3000));
        sender.push(chunk);
        rest = after;
        if step % (usize::from(weather[2]) + 1) == 0 {
            sender.flush();
        }
        if rest.is_empty() {
            sender.finish();
            break;
        }
        exchange(&mut sender, &mut receiver, &mut wire, &mut rebuilt, usize::from(weather[3]));
    }
    for _ in 0..1000 {
        if sender.is_done() {
            break;
        }
        exchange(&mut sender, &mut receiver, &mut wire, &mut rebuilt, 255);
    }
    assert!(sender.is_done() && receiver.is_verified());
    assert!(rebuilt == stream);
}

/// Some frames go over; if some do not, the link is cut, and all that was under way is lost. Where
/// another connection has joined, every other batch travels there and comes first.
fn exchange(
    sender: &mut Sender,
    receiver: &mut Receiver,
    wire: &mut [VecDeque<Frame>; 2],
    rebuilt: &mut Vec<u8>,
    frames: usize,
) {
    let is_joined = receiver.is_joined();
    let frame = |bytes: &[u8]| {
        let mut reader = FrameReader::default();
        reader.push(bytes);
        reader.next_frame().unwrap().unwrap()
    };
    while let Some(bytes) = sender.poll_frame() {
        wire[0].push_back(frame(&bytes));
        if is_joined {
            wire[1].extend(sender.poll_batch().map(|bytes| frame(&bytes)));
        }
    }
    for link in [1, 0] {
        let count = frames.min(wire[link].len());
        for frame in wire[link].drain(..count).collect::<Vec<_>>() {
            let mut bytes = Some(receiver.on_frame(frame).unwrap());
            while let Some(stream) = bytes {
                receiver.on_accepted(stream.len() as u64);
                rebuilt.extend(stream);
                bytes = receiver.poll_early().unwrap();
            }
        }
    }
    if wire.iter().any(|link| !link.is_empty()) {
        wire.iter_mut().for_each(VecDeque::clear);
        sender.on_reconnect();
        sender.on_frame(receiver.on_reconnect()).unwrap();
        if is_joined {
            receiver.on_join();
        }
    }
    while let Some(reply) = receiver.poll_reply() {
        sender.on_frame(reply).unwrap();
    }
}

fn receiver() -> Receiver {
    let mut shelf = MemoryShelf::new(12);
    for slot in 0..6 {
        shelf.put(slot, &[slot as u8; PAGE_BYTES]);
    }
    Receiver::new(Box::new(BesideDisk(shelf)))
}

/// A shelf beside a small disk, of which one block cannot be read.
struct BesideDisk(MemoryShelf);

impl Shelf for BesideDisk {
    fn slots(&self) -> u32 {
        self.0.slots()
    }

    fn put(&mut self, slot: u32, page: &Page) {
        self.0.put(slot, page);
    }

    fn get(&mut self, slot: u32, page: &mut Page) -> Result<(), SlotLost> {
        self.0.get(slot, page)
    }

    fn blocks(&self) -> u32 {
        5
    }

    fn block(&mut self, block: u32, page: &mut Page) -> Result<(), SlotLost> {
        page.fill(block as u8);
        if block == 3 { Err(SlotLost) } else { Ok(()) }
    }
}

/// The checksum of a frame, bit by bit: nobody is in a hurry here.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}
