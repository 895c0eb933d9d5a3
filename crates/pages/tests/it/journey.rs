// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Both ends of a stream with a link between them that may be cut anywhere.

mod shelves;

use std::collections::{BTreeMap, HashSet, VecDeque};

use proptest::prelude::*;
use whimbrel_pages::codec::{Codec, Packer, Unpacker};
use whimbrel_pages::digest::PageDigest;
use whimbrel_pages::frame::{Frame, FrameReader};
use whimbrel_pages::image::{Census, ImageId, ImageKey, ImageWriter, Manifest, Seal};
use whimbrel_pages::parts::{PartDigests, Parts};
use whimbrel_pages::receiver::{ReceiveError, Receiver};
use whimbrel_pages::sender::{Counts, Sender, SenderConfig};
use whimbrel_pages::shelf::{MemoryShelf, Shelf, SlotLost};
use whimbrel_pages::split::{PAGE_BYTES, Page, Piece, Place};
use whimbrel_pages::window::WINDOW_BYTES_MAX;

use self::shelves::{Digests, Disk, ImageShelf, LossyShelf};
use crate::streams::{Format, Qemu, Xen, recorded};

/// Numbers that look random, from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % below as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.roll(256)).unwrap()
    }
}

/// How a journey goes.
#[derive(Clone, Debug)]
struct Weather {
    format: Format,
    seed: u64,
    slots: u32,
    recent_pages_max: u32,
    codec: Codec,
    window_bytes: u64,
    /// Of 1000 steps, so many cut the link.
    cuts_permille: usize,
    /// Of 1000 steps, so many find the engine idle.
    idle_permille: usize,
    /// Of 100 pages the shelf is asked for, so many are lost.
    loss_percent: usize,
    /// Connections that have joined the first.
    joined: usize,
}

impl Weather {
    fn fair(format: Format) -> Self {
        Self {
            format,
            seed: 1,
            slots: 10_000,
            recent_pages_max: 1000,
            codec: Codec::Lz4,
            window_bytes: WINDOW_BYTES_MAX,
            cuts_permille: 0,
            idle_permille: 0,
            loss_percent: 0,
            joined: 0,
        }
    }
}

/// What a connection has under way to the target.
#[derive(Default)]
struct Link {
    bytes: VecDeque<u8>,
    reader: FrameReader,
}

/// Two carriers and their connections.
struct Journey {
    sender: Sender,
    receiver: Receiver,
    /// Only batches travel on any but the first.
    to_target: Vec<Link>,
    to_source: VecDeque<u8>,
    source_reader: FrameReader,
    packer: Packer,
    /// Rebuilt bytes the target engine has not taken yet.
    waiting: VecDeque<u8>,
    rebuilt: Vec<u8>,
    /// Bytes handed out, and where in them pages lie that were compared with a digest on the way.
    handed_out: usize,
    compared: Vec<(u32, PageDigest)>,
    cuts: usize,
}

impl Journey {
    fn new(weather: &Weather, base: &[(Place, Page)]) -> Self {
        let mut sender = Sender::new(SenderConfig {
            split: weather.format.splitter(),
            codec: weather.codec,
            slots: weather.slots,
            recent_pages_max: weather.recent_pages_max,
            is_kept: false,
        });
        sender.set_window(weather.window_bytes);
        sender.hold(base.iter().map(|(place, page)| (*place, PageDigest::of(page))));
        let mut shelf = MemoryShelf::new(weather.slots);
        for (slot, (_, page)) in (0..weather.slots).zip(base) {
            shelf.put(slot, page);
        }
        let dice = Dice(weather.seed ^ 77);
        let shelf = LossyShelf { shelf, dice, loss_percent: weather.loss_percent };
        let mut journey = Self::of(sender, Box::new(shelf));
        journey.join(weather.joined);
        journey
    }

    fn of(sender: Sender, shelf: Box<dyn Shelf>) -> Self {
        Self {
            sender,
            receiver: Receiver::new(shelf),
            to_target: vec![Link::default()],
            to_source: VecDeque::new(),
            source_reader: FrameReader::default(),
            packer: Packer::default(),
            waiting: VecDeque::new(),
            rebuilt: Vec::new(),
            handed_out: 0,
            compared: Vec::new(),
            cuts: 0,
        }
    }

    /// Brings `stream` over, in steps whose order the dice choose. Panics if it gets stuck.
    fn run(&mut self, mut stream: &[u8], weather: &Weather) -> Result<Counts, ReceiveError> {
        let mut dice = Dice(weather.seed);
        let mut is_finished = false;
        let mut steps_without_progress = 0;
        while !self.sender.is_done() {
            let before = (self.rebuilt.len(), stream.len(), self.cuts);
            match dice.roll(8) {
                0 if stream.is_empty() && !is_finished => {
                    self.sender.finish();
                    is_finished = true;
                }
                0 | 1 if !is_finished => {
                    let size = self.sender.room().min(1 + dice.roll(60_000)).min(stream.len());
                    let (chunk, rest) = stream.split_at(size);
                    self.sender.push(chunk);
                    stream = rest;
                    if dice.roll(1000) < weather.idle_permille {
                        self.sender.flush();
                    }
                }
                2 => self.pack_elsewhere(&mut dice),
                3 => self.deal(&mut dice),
                4 | 5 => {
                    let link = dice.roll(self.to_target.len());
                    let count = dice.roll(self.to_target[link].bytes.len() + 1);
                    self.deliver_to_target(link, count)?;
                }
                6 => {
                    let count = dice.roll(self.waiting.len() + 1);
                    self.rebuilt.extend(self.waiting.drain(..count));
                    self.receiver.on_accepted(count as u64);
                }
                _ => {
                    self.collect_replies();
                    self.deliver_to_source(dice.roll(self.to_source.len() + 1));
                }
            }
            if dice.roll(1000) < weather.cuts_permille && self.cuts < 40 {
                self.cut();
            }
            let is_progress = before != (self.rebuilt.len(), stream.len(), self.cuts);
            steps_without_progress = if is_progress { 0 } else { steps_without_progress + 1 };
            assert!(steps_without_progress < 2000, "stuck: {:?} {:?}", self.sender, self.receiver);
        }
        Ok(self.sender.counts())
    }

    /// Some batches are packed by other cores, and come back in another order.
    fn pack_elsewhere(&mut self, dice: &mut Dice) {
        let mut jobs: Vec<_> = std::iter::from_fn(|| self.sender.take_job()).take(3).collect();
        while !jobs.is_empty() {
            let packed = jobs.swap_remove(dice.roll(jobs.len())).run(&mut self.packer);
            self.sender.on_packed(packed);
        }
    }

    fn join(&mut self, connections: usize) {
        for _ in 0..connections {
            self.to_target.push(Link::default());
            self.receiver.on_join();
        }
    }

    /// Hands to each connection what the dice give it.
    fn deal(&mut self, dice: &mut Dice) {
        loop {
            let link = dice.roll(self.to_target.len());
            let bytes = if link == 0 { self.sender.poll_frame() } else { self.sender.poll_batch() };
            match bytes {
                Some(bytes) => self.to_target[link].bytes.extend(bytes.iter()),
                None if link == 0 => return,
                None => {}
            }
        }
    }

    fn deliver_to_target(&mut self, link: usize, count: usize) -> Result<(), ReceiveError> {
        let Link { bytes, reader } = &mut self.to_target[link];
        reader.push(&bytes.drain(..count).collect::<Vec<_>>());
        while let Some(frame) = self.to_target[link].reader.next_frame().unwrap() {
            let bytes = self.receiver.on_frame(frame)?;
            self.hand_out(bytes);
            while let Some(bytes) = self.receiver.poll_early()? {
                self.hand_out(bytes);
            }
        }
        Ok(())
    }

    fn hand_out(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        for (at, digest) in self.receiver.take_compared() {
            let page = bytes[at as usize..].first_chunk().unwrap();
            assert_eq!(PageDigest::of(page), digest, "what was compared is the page");
            self.compared.push((u32::try_from(self.handed_out).unwrap() + at, digest));
        }
        self.handed_out += bytes.len();
        self.waiting.extend(bytes);
    }

    fn collect_replies(&mut self) {
        while let Some(reply) = self.receiver.poll_reply() {
            self.to_source.extend(reply.encode().iter());
        }
    }

    fn deliver_to_source(&mut self, count: usize) {
        let bytes: Vec<u8> = self.to_source.drain(..count).collect();
        self.source_reader.push(&bytes);
        while let Some(frame) = self.source_reader.next_frame().unwrap() {
            self.sender.on_frame(frame).unwrap();
        }
    }

    /// One connection is lost, and with it all: everything under way is gone, in both directions.
    fn cut(&mut self) {
        self.cuts += 1;
        self.to_target.iter_mut().for_each(|link| *link = Link::default());
        self.to_source.clear();
        self.source_reader = FrameReader::default();
        self.sender.on_reconnect();
        let resume = self.receiver.on_reconnect();
        self.to_source.extend(resume.encode().iter());
        if self.to_target.len() > 1 {
            self.receiver.on_join();
        }
    }
}

/// Brings a stream over and checks that it is the same one.
fn check(stream: &[u8], weather: &Weather, base: &[(Place, Page)]) -> Counts {
    let mut journey = Journey::new(weather, base);
    let counts =
        journey.run(stream, weather).unwrap_or_else(|error| panic!("{error}: {weather:?}"));
    assert!(journey.rebuilt == stream, "the rebuilt stream is the stream: {weather:?}");
    assert!(journey.receiver.is_verified());
    assert_eq!(counts.stream_bytes, stream.len() as u64);
    counts
}

/// A page that packs to about a third, like those of real guests.
fn page(content: usize) -> Page {
    let mut dice = Dice(content as u64);
    std::array::from_fn(|index| if index % 3 == 0 { dice.byte() } else { b'w' })
}

/// A guest's life in `rounds`: pages stay, change a little, change fully, are copied, become zero.
fn guest_stream(seed: u64, pages: usize, rounds: usize) -> Vec<u8> {
    let mut dice = Dice(seed);
    let length = (pages * PAGE_BYTES) as u64;
    let mut stream = Qemu::new().ram(&[(b"pc.ram", length), (b"rom", 4096)]).end_section();
    let mut memory: Vec<Page> = (0..pages).map(page).collect();
    for round in 0..rounds {
        stream = stream.part().named_page(b"rom", 0, &page(1_000_000 + round));
        stream = stream.word(0x08).name(b"pc.ram").raw(&memory[0]);
        for index in 1..pages {
            if round > 0 && dice.roll(3) > 0 {
                continue;
            }
            match dice.roll(6) {
                0 => memory[index] = page(dice.roll(1 << 30)),
                1 | 2 => memory[index][dice.roll(PAGE_BYTES)] ^= 1,
                3 => memory[index] = memory[dice.roll(pages)],
                4 => memory[index] = [0; PAGE_BYTES],
                _ => {}
            }
            let address = (index * PAGE_BYTES) as u64;
            stream = match memory[index] == [0; PAGE_BYTES] {
                true => stream.zero(address),
                false => stream.page(address, &memory[index]),
            };
        }
        stream = stream.end_section();
    }
    stream.raw(&[4]).raw(&page(5)).0
}

#[test]
fn recorded_streams_arrive_in_any_weather() {
    for name in ["pc", "churn"] {
        let stream = recorded(name);
        for seed in 0..6 {
            let weather = Weather {
                seed,
                codec: [Codec::Raw, Codec::Lz4, Codec::Zstd(1)][usize::try_from(seed % 3).unwrap()],
                window_bytes: 1 << (17 + seed),
                cuts_permille: 10,
                idle_permille: 100,
                ..Weather::fair(Format::Qemu)
            };
            check(&stream, &weather, &[]);
        }
    }
}

/// Every way to travel is taken, and each saves what it should.
#[test]
fn pages_travel_as_cheaply_as_they_can() {
    let stream = guest_stream(1, 500, 4);
    let counts = check(&stream, &Weather::fair(Format::Qemu), &[]);
    let Counts { new_pages, same_pages, delta_pages, fill_pages, .. } = counts;
    assert!(
        new_pages > 500 && same_pages > 150 && delta_pages > 20 && fill_pages > 50,
        "{counts:?}"
    );
    let opaque = check(&stream, &Weather::fair(Format::Opaque), &[]);
    assert!(counts.plain_bytes * 10 < opaque.plain_bytes * 8, "{counts:?} {opaque:?}");
    assert_eq!(counts.repeat_bytes, 0);
}

/// Pages that resemble each other, on a shelf too small for them, with bytes that change and change
/// back: a delta must be made against what the target has in that very slot, not against what it
/// had there once, nor against the page of another place.
#[test]
fn a_delta_is_made_against_what_the_target_has() {
    let mut dice = Dice(9);
    let mut memory = [page(1); 40];
    let mut stream = Qemu::new().ram(&[(b"pc.ram", 40 * 4096)]).end_section().part();
    for _ in 0..1500 {
        let index = dice.roll(memory.len());
        memory[index][dice.roll(4) * 1000] ^= 1 << dice.roll(2);
        stream = stream.named_page(b"pc.ram", (index * PAGE_BYTES) as u64, &memory[index]);
    }
    let stream = stream.end_section().0;
    for slots in [3, 20, 1000] {
        for recent_pages_max in [2, 10, 1000] {
            let weather = Weather { slots, recent_pages_max, ..Weather::fair(Format::Qemu) };
            assert!(check(&stream, &weather, &[]).delta_pages > 2, "{weather:?}");
        }
    }
}

/// What lies on the guest's disk does not travel; a block that has changed since costs a question,
/// many of them end the asking, and neither costs a byte of the stream.
#[test]
fn what_lies_on_the_disk_does_not_travel() {
    let blocks: Vec<Page> = (0..1000).map(page).collect();
    let mut stream = Qemu::new().ram(&[(b"pc.ram", 1000 * 4096)]).end_section().part();
    for (index, block) in blocks.iter().enumerate() {
        stream = stream.named_page(b"pc.ram", (index * PAGE_BYTES) as u64, block);
    }
    let stream = stream.end_section().0;
    let weather = Weather { cuts_permille: 5, ..Weather::fair(Format::Qemu) };
    let journey = |changed: usize| {
        let fresh = Journey::new(&weather, &[]);
        let (mut sender, mut disk) = (fresh.sender, blocks.clone());
        let known = blocks.iter().zip(0..).map(|(page, block)| (PageDigest::of(page), block));
        sender.hold_blocks(Box::new(Digests(known.collect())));
        disk.iter_mut().step_by(1000 / changed.max(1)).take(changed).for_each(|b| b[0] ^= 1);
        let shelf = Box::new(Disk { shelf: Box::new(MemoryShelf::new(4000)), blocks: disk });
        let mut journey = Journey::of(sender, shelf);
        let counts = journey.run(&stream, &weather).unwrap();
        assert!(journey.rebuilt == stream, "{changed} changed");
        counts
    };
    let counts = journey(0);
    assert_eq!((counts.block_pages, counts.new_pages), (1000, 0));
    assert!(counts.plain_bytes < 40_000, "{counts:?}");
    let counts = journey(5);
    assert_eq!((counts.block_pages, counts.new_pages), (1000, 0));
    assert!(counts.repeat_bytes > 5 * 4096, "{counts:?}");
    let counts = journey(500);
    assert!(counts.block_pages < 1000 && counts.new_pages > 0, "{counts:?}");
}

/// A window that becomes smaller than what an open batch holds closes it, or nothing would.
#[test]
fn a_shrinking_window_does_not_hold_bytes_back() {
    let mut journey = Journey::new(&Weather::fair(Format::Opaque), &[]);
    journey.sender.push(&[1; 200_000]);
    assert!(journey.sender.poll_frame().is_none(), "the batch is open");
    journey.sender.set_window(0);
    assert_eq!(journey.sender.room(), 0);
    assert!(journey.sender.poll_frame().is_some());
}

/// A guest that comes back: what the shelf holds from its last visit is not sent, and a damaged
/// part of it is asked for.
#[test]
fn a_guest_that_comes_back_brings_only_what_changed() {
    let first: Vec<(Place, Page)> = (0..2000)
        .map(|index| (Place { block: 0, page_index: u32::try_from(index).unwrap() }, page(index)))
        .collect();
    let mut stream = Qemu::new().ram(&[(b"pc.ram", 2000 * 4096)]).end_section().part();
    stream = stream.word(8).name(b"pc.ram").raw(&page(0));
    for index in 1..2000 {
        let content = if index % 50 == 0 { index + 100_000 } else { index };
        stream = stream.page((index * PAGE_BYTES) as u64, &page(content));
    }
    let stream = stream.end_section().0;
    let weather = Weather { codec: Codec::Zstd(1), ..Weather::fair(Format::Qemu) };
    let counts = check(&stream, &weather, &first);
    assert_eq!((counts.new_pages, counts.same_pages), (39, 1961));
    assert!(counts.plain_bytes < 39 * 4096 + 1000, "the others cost next to nothing: {counts:?}");
    assert!(counts.frame_bytes < counts.packed_bytes + 1000, "{counts:?}");

    let damaged = Weather { loss_percent: 2, ..weather };
    let again = check(&stream, &damaged, &first);
    assert!(again.repeat_bytes > 20 * 4096, "lost pages were asked for: {again:?}");

    // Fewer slots than pages: the first ones are held, and nothing is mistaken for another.
    let small = Weather { slots: 700, ..Weather::fair(Format::Qemu) };
    assert!(check(&stream, &small, &first).same_pages > 200);
}

/// Digests of the parts of what the target holds, by slot.
struct KnownParts(Vec<PartDigests>);

impl Parts for KnownParts {
    fn of_slot(&mut self, slot: u32) -> Option<PartDigests> {
        self.0.get(slot as usize).copied()
    }
}

/// What changed in part travels in part, also when it changes again; and where a digest does not
/// tell a change, the page is asked for.
#[test]
fn what_changed_in_part_travels_in_part() {
    let mut memory: Vec<Page> = (0..1000).map(page).collect();
    let places = (0..).map(|page_index| Place { block: 0, page_index });
    let first: Vec<(Place, Page)> = places.zip(memory.iter().copied()).collect();
    let mut dice = Dice(11);
    let mut stream = Qemu::new().ram(&[(b"pc.ram", 1000 * 4096)]).end_section().part();
    for _ in 0..1500 {
        let index = dice.roll(memory.len());
        let at = dice.roll(PAGE_BYTES - 8);
        memory[index][at..at + 8].copy_from_slice(&page(at)[..8]);
        stream = stream.named_page(b"pc.ram", (index * PAGE_BYTES) as u64, &memory[index]);
    }
    let stream = stream.end_section().0;
    // Fewer slots than the image has, as many, one more, and many more.
    for (slots, lies) in [(600, 0), (1000, 0), (1001, 0), (3000, 0), (3000, 40)] {
        let weather = Weather {
            slots,
            cuts_permille: 5,
            loss_percent: if lies > 0 { 1 } else { 0 },
            ..Weather::fair(Format::Qemu)
        };
        let mut known: Vec<_> = first.iter().map(|(_, page)| PartDigests::of(page)).collect();
        for (digests, page) in known.iter_mut().zip(&memory).take(lies) {
            *digests = PartDigests::of(page);
        }
        let mut journey = Journey::new(&weather, &first);
        journey.sender.hold_parts(Box::new(KnownParts(known)));
        let counts = journey.run(&stream, &weather).unwrap();
        assert!(journey.rebuilt == stream, "{weather:?}");
        assert!(counts.delta_pages > if slots < 1000 { 400 } else { 900 }, "{counts:?}");
        if slots >= 1000 {
            assert_eq!(counts.new_pages, 0, "{counts:?}");
            assert_eq!(counts.new_pages + counts.delta_pages + counts.same_pages, 1500);
            assert!(counts.plain_bytes < counts.delta_pages * 700, "{counts:?}");
        }
        assert!(lies == 0 || counts.repeat_bytes > 20 * 4096, "they were asked for: {counts:?}");
    }
}

/// A cut costs what was under way, and no more.
#[test]
fn a_cut_costs_no_more_than_the_window() {
    let stream = guest_stream(2, 2000, 1);
    let weather = Weather { window_bytes: 256 << 10, ..Weather::fair(Format::Qemu) };
    let mut journey = Journey::new(&weather, &[]);
    let mut at = 0;
    let mut cuts = 0;
    while at < stream.len() {
        let size = journey.sender.room().min(stream.len() - at);
        journey.sender.push(&stream[at..at + size]);
        at += size;
        while let Some(bytes) = journey.sender.poll_frame() {
            journey.to_target[0].bytes.extend(bytes.iter());
        }
        if cuts < 5 && at > (cuts + 1) * stream.len() / 6 {
            cuts += 1;
            journey.cut();
        }
        let under_way = journey.to_target[0].bytes.len();
        journey.deliver_to_target(0, under_way).unwrap();
        journey.receiver.on_accepted(journey.waiting.len() as u64);
        journey.rebuilt.extend(journey.waiting.drain(..));
        journey.collect_replies();
        journey.deliver_to_source(journey.to_source.len());
    }
    journey.run(&[], &weather).unwrap();
    assert!(journey.rebuilt == stream);
    let counts = journey.sender.counts();
    assert_eq!(journey.cuts, 5);
    assert!(counts.repeat_bytes <= 5 * (256 << 10), "{counts:?}");
}

/// A shelf that gives a wrong page is found out before the engine sees a byte of it.
#[test]
fn a_wrong_page_never_reaches_the_engine() {
    struct Liar(MemoryShelf);
    impl Shelf for Liar {
        fn slots(&self) -> u32 {
            self.0.slots()
        }
        fn put(&mut self, slot: u32, page: &Page) {
            self.0.put(slot, page);
        }
        fn get(&mut self, slot: u32, page: &mut Page) -> Result<(), SlotLost> {
            self.0.get(slot, page)?;
            page[4000] ^= 1;
            Ok(())
        }
    }
    let stream = guest_stream(3, 500, 2);
    let weather = Weather::fair(Format::Qemu);
    let mut journey = Journey::new(&weather, &[]);
    journey.receiver = Receiver::new(Box::new(Liar(MemoryShelf::new(weather.slots))));
    let error = journey.run(&stream, &weather).unwrap_err();
    let ReceiveError::Differs { from, to, .. } = error else { panic!("{error:?}") };
    let handed_out = journey.rebuilt.len() + journey.waiting.len();
    assert_eq!(from, handed_out as u64, "it says where");
    assert!(to > from && stream.starts_with(&journey.rebuilt));
}

/// Engines answer each other: a byte that is pushed and flushed arrives without any further byte,
/// even with the window full. Only the beginning of a page waits for the rest of it.
#[test]
fn what_is_flushed_arrives() {
    let stream = guest_stream(4, 60, 1);
    let weather = Weather::fair(Format::Qemu);
    for step in [1, 7, 4096, 5000] {
        let mut journey = Journey::new(&weather, &[]);
        let (mut pushed, mut arrived) = (0, Vec::new());
        for chunk in stream.chunks(step).take(300) {
            journey.sender.push(chunk);
            pushed += chunk.len();
            journey.sender.flush();
            let before = arrived.len();
            while let Some(bytes) = journey.sender.poll_frame() {
                journey.to_target[0].reader.push(&bytes);
                while let Some(frame) = journey.to_target[0].reader.next_frame().unwrap() {
                    arrived.extend(journey.receiver.on_frame(frame).unwrap());
                }
            }
            assert!(stream.starts_with(&arrived), "what went in came out");
            let mut splitter = Format::Qemu.splitter();
            splitter.push(&stream[..pushed], &mut |_| {});
            let held_bytes = match splitter.is_within_page() {
                true => PAGE_BYTES - splitter.missing_bytes(),
                false => 0,
            };
            // The page's head waits with it.
            assert!((held_bytes..=held_bytes + 8).contains(&(pushed - arrived.len())));
            journey.receiver.on_accepted((arrived.len() - before) as u64);
            if let Some(ack) = journey.receiver.poll_reply() {
                assert!(matches!(ack, Frame::Ack { .. }));
                journey.sender.on_frame(ack).unwrap();
            }
        }
    }
}

/// With a page store behind the sender, every page can be found in what it was given.
#[test]
fn a_page_store_finds_every_page() {
    let stream = guest_stream(5, 300, 3);
    let weather = Weather::fair(Format::Qemu);
    let mut journey = Journey::new(&weather, &[]);
    journey.sender = Sender::new(SenderConfig {
        split: Format::Qemu.splitter(),
        codec: Codec::Zstd(1),
        slots: 1000,
        recent_pages_max: 100,
        is_kept: true,
    });
    journey.run(&stream, &weather).unwrap();
    let mut expected = Vec::new();
    let mut splitter = Format::Qemu.splitter();
    splitter.push(&stream, &mut |piece| {
        if let Piece::Page { place, page, .. } = piece {
            expected.push((place, *page));
        }
    });
    let mut unpacker = Unpacker::default();
    let (mut plain, mut in_plain) = (Vec::new(), 0);
    let mut expected = expected.into_iter();
    while let Some(kept) = journey.sender.poll_kept() {
        unpacker.unpack(kept.packing, &kept.packed, kept.plain_bytes, &mut plain).unwrap();
        for page in kept.pages {
            let (place, content) = expected.next().unwrap();
            assert_eq!((page.place, page.digest), (place, PageDigest::of(&content)));
            let at = page.stream_at as usize;
            assert!(kept.stream[at..at + PAGE_BYTES] == content);
            if let Some(at) = page.plain_at {
                in_plain += 1;
                assert!(plain[at as usize..][..PAGE_BYTES] == content);
            }
        }
    }
    assert_eq!(expected.next(), None);
    assert_eq!(in_plain, journey.sender.counts().new_pages);
}

/// There and back: what a host kept when the guest left is all it needs when the guest returns as
/// it was; and where the image is damaged, pages are asked for again, never used.
#[test]
fn an_image_brings_a_guest_back() {
    let (there, image) = (guest_stream(6, 300, 3), ImageId([6; 16]));
    let weather = Weather::fair(Format::Qemu);
    let mut journey = Journey::new(&weather, &[]);
    journey.sender = Sender::new(SenderConfig {
        split: Format::Qemu.splitter(),
        codec: Codec::Zstd(1),
        slots: 1000,
        recent_pages_max: 100,
        is_kept: true,
    });
    journey.run(&there, &weather).unwrap();
    let mut writer = ImageWriter::new(Seal::new(&ImageKey::new([7; 32]), image));
    let kept = std::iter::from_fn(|| journey.sender.poll_kept());
    let mut blocks: Vec<_> = kept.flat_map(|kept| writer.push(&kept)).collect();
    let (last, manifest, seal) = writer.finish();
    blocks.extend(last);
    assert!(blocks.iter().zip(0..).all(|(block, number)| block.number == number));
    let manifest = Manifest::open(&seal, &manifest.seal(&seal)).unwrap();

    // The target has counted the same pages.
    let mut census = Census::new(Format::Qemu.splitter());
    journey.rebuilt.chunks(1000).for_each(|bytes| census.push(bytes, &[]));
    assert_eq!(census.name(image), manifest.name());
    assert!(census.held().eq(manifest.held()));
    census.push(&[0x28; 8], &[]);
    assert_eq!(census.name(image), manifest.name(), "devices are no pages");

    // The guest as it was at the end: the last version of every page.
    let mut memory = BTreeMap::new();
    Format::Qemu.splitter().push(&there, &mut |piece| {
        if let Piece::Page { place, page, .. } = piece {
            memory.insert(place, *page);
        }
    });
    assert_eq!(manifest.entries().len(), memory.len());
    let mut back = Qemu::new().ram(&[(b"pc.ram", 300 * 4096), (b"rom", 4096)]).end_section().part();
    for (place, page) in &memory {
        let name = [&b"pc.ram"[..], b"rom"][usize::from(place.block)];
        back = back.named_page(name, u64::from(place.page_index) * 4096, page);
    }
    let back = back.end_section().0;

    for damaged in [0, 3] {
        let mut blocks: Vec<_> = blocks.iter().map(|block| block.bytes.clone()).collect();
        for block in blocks.iter_mut().take(damaged) {
            let middle = block.len() / 2;
            block[middle] ^= 1;
        }
        let mut journey = Journey::new(&weather, &[]);
        journey.sender.hold(manifest.held());
        journey.receiver = Receiver::new(Box::new(ImageShelf {
            seal: Seal::new(&ImageKey::new([7; 32]), image),
            manifest: manifest.clone(),
            blocks,
            newer: MemoryShelf::new(weather.slots),
            is_newer: HashSet::new(),
        }));
        let counts = journey.run(&back, &weather).unwrap();
        assert!(journey.rebuilt == back);
        // What was compared on the way is counted without being digested anew.
        assert_eq!(journey.compared.len() < memory.len(), damaged > 0);
        assert!(!journey.compared.is_empty());
        census = Census::new(Format::Qemu.splitter());
        census.push(&back, &journey.compared);
        assert_eq!(census.name(image), manifest.name());
        assert_eq!((counts.new_pages, counts.same_pages), (0, memory.len() as u64), "{counts:?}");
        assert_eq!(counts.repeat_bytes > 0, damaged > 0, "{counts:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// decode(encode(x)) == x: guests, in any weather.
    #[test]
    fn guests_arrive(
        seed in any::<u64>(),
        slots in prop_oneof![Just(0_u32), Just(7), Just(100), Just(5000)],
        recent_pages_max in prop_oneof![Just(0_u32), Just(5), Just(500)],
        window_bits in 17_u32..24,
        cuts_permille in 0_usize..30,
        idle_permille in 0_usize..500,
        loss_percent in prop_oneof![Just(0_usize), Just(1), Just(10)],
        codec in prop_oneof![Just(Codec::Raw), Just(Codec::Lz4), Just(Codec::Zstd(1))],
        joined in 0_usize..4,
    ) {
        let stream = guest_stream(seed, 150, 4);
        let weather = Weather {
            format: Format::Qemu, seed, slots, recent_pages_max, codec,
            window_bytes: 1 << window_bits, cuts_permille, idle_permille, loss_percent, joined,
        };
        check(&stream, &weather, &[]);
    }

    /// And anything at all: bytes that begin like a stream, are one with damage, or are none.
    #[test]
    fn any_bytes_arrive(
        seed in any::<u64>(),
        noise in prop::collection::vec(any::<u8>(), 0..3000),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        kind in 0..4,
    ) {
        let (format, mut stream) = match kind {
            0 => (Format::Qemu, guest_stream(seed, 20, 2)),
            1 => (Format::Xen, Xen::new().pages(&[1, 2, 3]).pages(&[2, 1]).record(0, &noise).0),
            2 => (Format::Qemu, Qemu::new().ram(&[(b"r", 8192)]).raw(&noise).0),
            _ => (Format::Opaque, Vec::new()),
        };
        stream.extend(&noise);
        for (index, byte) in damage {
            if !stream.is_empty() {
                let index = index.index(stream.len());
                stream[index] = byte;
            }
        }
        let weather = Weather {
            seed, cuts_permille: 5, idle_permille: 50, slots: 30, ..Weather::fair(format)
        };
        check(&stream, &weather, &[]);
    }
}
