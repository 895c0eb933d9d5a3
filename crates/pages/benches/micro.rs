// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a core does per second: `cargo bench -p whimbrel-pages`. The pages are made here, a third
//! noise and the rest text, so that figures of two machines can be compared. Noise in every third
//! byte is the worst that can happen to lz4; real memory treats it twice as well.

use divan::Bencher;
use divan::counter::BytesCount;
use whimbrel_pages::codec::{Codec, Packer, Unpacker};
use whimbrel_pages::digest::PageDigest;
use whimbrel_pages::frame::FrameReader;
use whimbrel_pages::image::{ImageId, ImageKey, Seal};
use whimbrel_pages::receiver::Receiver;
use whimbrel_pages::sender::{Sender, SenderConfig};
use whimbrel_pages::shelf::MemoryShelf;
use whimbrel_pages::split::{PAGE_BYTES, Page, QemuSplit, Split};
use whimbrel_pages::window::WINDOW_BYTES_MAX;

const PAGES: u64 = 2048;
const BATCH_BYTES: usize = 256 << 10;

fn main() {
    divan::main();
}

fn page(content: u64) -> Page {
    let mut noise = content.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    std::array::from_fn(|index| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if index % 3 == 0 { noise.to_le_bytes()[7] } else { b"a page of a guest"[index % 17] }
    })
}

/// One pass over 8 MiB. With `change`, every page differs in one word.
fn stream(change: u8) -> Vec<u8> {
    let mut stream = b"QEVM\0\0\0\x03\x07\0\0\0\x02pc".to_vec();
    stream.extend(b"\x01\0\0\0\x02\x03ram\0\0\0\0\0\0\0\x04");
    let length = PAGES * PAGE_BYTES as u64;
    stream.extend((length | 4).to_be_bytes());
    stream.extend(b"\x06pc.ram");
    stream.extend(length.to_be_bytes());
    pass(&mut stream, 0, change);
    stream
}

/// A further pass, in which every page is named anew.
fn pass(stream: &mut Vec<u8>, first: u64, change: u8) {
    for index in first..PAGES {
        stream.extend(((index * PAGE_BYTES as u64) | 8).to_be_bytes());
        stream.extend(b"\x06pc.ram");
        let mut page = page(index);
        page[2000] ^= change;
        stream.extend(page);
    }
}

fn sender(split: Box<dyn Split>, codec: Codec) -> Sender {
    let slots = u32::try_from(PAGES).expect("there are few pages");
    let config = SenderConfig { split, codec, slots, recent_pages_max: slots, is_kept: false };
    let mut sender = Sender::new(config);
    sender.set_window(WINDOW_BYTES_MAX);
    sender
}

fn run(sender: &mut Sender, receiver: &mut Receiver, stream: &[u8]) {
    let mut reader = FrameReader::default();
    for chunk in stream.chunks(64 << 10) {
        sender.push(chunk);
        while let Some(bytes) = sender.poll_frame() {
            reader.push(&bytes);
            while let Some(frame) = reader.next_frame().expect("our own frames are right") {
                let bytes = receiver.on_frame(frame).expect("our own batches are right");
                receiver.on_accepted(bytes.len() as u64);
                divan::black_box(bytes);
            }
        }
        while let Some(reply) = receiver.poll_reply() {
            sender.on_frame(reply).expect("our own replies are right");
        }
    }
}

fn receiver() -> Receiver {
    Receiver::new(Box::new(MemoryShelf::new(u32::try_from(PAGES).expect("as above"))))
}

#[divan::bench]
fn parse(bencher: Bencher<'_, '_>) {
    let stream = stream(0);
    bencher.counter(BytesCount::new(stream.len())).bench(|| {
        let mut splitter = QemuSplit::default();
        for chunk in stream.chunks(64 << 10) {
            splitter.push(chunk, &mut |piece| {
                divan::black_box(piece);
            });
        }
    });
}

#[divan::bench]
fn digest_of_pages(bencher: Bencher<'_, '_>) {
    let pages: Vec<Page> = (0..64).map(page).collect();
    bencher
        .counter(BytesCount::new(pages.len() * PAGE_BYTES))
        .bench(|| pages.iter().map(|page| PageDigest::of(page).0[0]).fold(0, |a, b| a ^ b));
}

#[divan::bench]
fn digest_of_the_stream(bencher: Bencher<'_, '_>) {
    let bytes: Vec<u8> = (0..64).flat_map(page).collect();
    let mut hasher = blake3::Hasher::new();
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
        hasher.update(&bytes);
        hasher.finalize()
    });
}

const CODECS: [Codec; 4] = [Codec::Raw, Codec::Lz4, Codec::Zstd(1), Codec::Zstd(3)];

#[divan::bench(args = CODECS)]
fn pack(bencher: Bencher<'_, '_>, codec: Codec) {
    let plain: Vec<u8> = (0..64).flat_map(page).collect();
    assert_eq!(plain.len(), BATCH_BYTES);
    let mut packer = Packer::default();
    bencher.counter(BytesCount::new(plain.len())).bench_local(|| packer.pack(codec, &plain));
}

#[divan::bench(args = CODECS)]
fn unpack(bencher: Bencher<'_, '_>, codec: Codec) {
    let plain: Vec<u8> = (0..64).flat_map(page).collect();
    let (packing, packed) = Packer::default().pack(codec, &plain);
    let (mut unpacker, mut back) = (Unpacker::default(), Vec::new());
    bencher
        .counter(BytesCount::new(plain.len()))
        .bench_local(|| unpacker.unpack(packing, &packed, plain.len(), &mut back));
}

/// Both ends on one core: the sum of what the two hosts do.
#[divan::bench(args = CODECS)]
fn first_visit(bencher: Bencher<'_, '_>, codec: Codec) {
    let stream = stream(0);
    bencher
        .counter(BytesCount::new(stream.len()))
        .with_inputs(|| (sender(Box::new(QemuSplit::default()), codec), receiver()))
        .bench_local_values(|(mut sender, mut receiver)| run(&mut sender, &mut receiver, &stream));
}

/// Every page comes again: as it was, or with one word changed.
#[divan::bench(args = [0, 1])]
fn sent_again(bencher: Bencher<'_, '_>, change: u8) {
    let first = stream(0);
    let mut again = Vec::new();
    pass(&mut again, 0, 2);
    let mut third = Vec::new();
    pass(&mut third, 0, 2 + change);
    bencher
        .counter(BytesCount::new(third.len()))
        .with_inputs(|| {
            let mut ends = (sender(Box::new(QemuSplit::default()), Codec::Lz4), receiver());
            run(&mut ends.0, &mut ends.1, &first);
            run(&mut ends.0, &mut ends.1, &again);
            ends
        })
        .bench_local_values(|(mut sender, mut receiver)| run(&mut sender, &mut receiver, &third));
}

#[divan::bench]
fn seal_a_block(bencher: Bencher<'_, '_>) {
    let packed: Vec<u8> = (0..32).flat_map(page).collect();
    let seal = Seal::new(&ImageKey::new([1; 32]), ImageId([1; 16]));
    let packing = Packer::default().pack(Codec::Raw, &packed).0;
    bencher
        .counter(BytesCount::new(packed.len()))
        .bench(|| seal.seal_block(0, packing, packed.len(), &packed));
}
