// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Streams nobody should send, each with a name. None may panic, none may take more memory than a
//! limit says, and none may be taken for something it is not.
//!
//! Three kinds: what an engine writes (the splitter calls it opaque, and it still arrives exactly),
//! what a connection brings (the frame is refused), and what stands in a batch (the batch is
//! refused and nothing of it reaches the engine or the shelf).

use whimbrel_pages::batch::BatchError;
use whimbrel_pages::batch::{
    BATCH_DATA_BYTES_MAX, BATCH_RECORDS_BYTES_MAX, BATCH_STREAM_BYTES_MAX,
};
use whimbrel_pages::codec::Packing;
use whimbrel_pages::frame::{Batch, FRAME_BODY_BYTES_MAX, Frame, FrameError, FrameReader};
use whimbrel_pages::receiver::{EARLY_BATCHES_MAX, ReceiveError, Receiver, WAITING_BYTES_MAX};
use whimbrel_pages::sender::{SendError, Sender, SenderConfig};
use whimbrel_pages::shelf::MemoryShelf;
use whimbrel_pages::split::{BLOCKS_MAX, PAGE_BYTES};

use crate::streams::{Format, Qemu, Xen, split};

const PAGE: [u8; PAGE_BYTES] = [7; PAGE_BYTES];

fn ram() -> Qemu {
    Qemu::new().ram(&[(b"ram", 0x10_0000)]).end_section().part()
}

fn many_blocks() -> Qemu {
    let names: Vec<String> = (0..=BLOCKS_MAX).map(|index| format!("block{index}")).collect();
    let blocks: Vec<(&[u8], u64)> = names.iter().map(|name| (name.as_bytes(), 4096)).collect();
    Qemu::new().ram(&blocks)
}

/// A name, a part of the reason that is given, and the stream up to the fault.
type Case<S> = (&'static str, &'static str, S);

/// In what comes before the memory.
fn configuration_faults() -> Vec<Case<Qemu>> {
    vec![
        ("another magic", "begin as a QEMU", Qemu(b"QEVX\0\0\0\x03".to_vec())),
        ("an old version", "begin as a QEMU", Qemu(b"QEVM\0\0\0\x02".to_vec())),
        (
            "an endless configuration",
            "impossible length",
            Qemu(b"QEVM\0\0\0\x03\x07\xff\xff\xff\xff".to_vec()),
        ),
        (
            "an empty configuration",
            "impossible length",
            Qemu(b"QEVM\0\0\0\x03\x07\0\0\0\0".to_vec()),
        ),
        ("a subsection without name", "no name", Qemu::new().raw(&[5, 0])),
        (
            "an unknown subsection",
            "unknown subsection",
            Qemu::new().raw(&[5]).name(b"configuration/moon").raw(&[0; 4]),
        ),
        (
            "4 billion capabilities",
            "too many cap",
            Qemu::new()
                .raw(&[5])
                .name(b"configuration/capabilities")
                .raw(&[0, 0, 0, 1])
                .raw(&[0xff; 4]),
        ),
        (
            "huge pages everywhere",
            "4 KiB",
            Qemu::new()
                .raw(&[5])
                .name(b"configuration/target-page-bits")
                .raw(&[0, 0, 0, 1, 0, 0, 0, 64]),
        ),
    ]
}

/// In the sections and the list of blocks.
fn section_faults() -> Vec<Case<Qemu>> {
    let max = !0xfff;
    vec![
        ("an unknown section kind", "is over", Qemu::new().raw(&[0x55])),
        ("a section without name", "no name", Qemu::new().raw(&[1, 0, 0, 0, 2, 0])),
        ("another section first", "not `ram`", Qemu::new().section_start(7, b"dirty-bitmap", 1)),
        ("an unknown version of ram", "not `ram`", Qemu::new().section_start(2, b"ram", 5)),
        (
            "a second ram",
            "not `ram`",
            Qemu::new().ram(&[(b"ram", 4096)]).end_section().section_start(3, b"ram", 4),
        ),
        ("a part without start", "never began", Qemu::new().raw(&[2, 0, 0, 0, 9])),
        ("no memory at all", "unknown flags", Qemu::new().section_start(2, b"ram", 4).word(4)),
        (
            "blocks longer than all memory",
            "longer than announced",
            Qemu::new().section_start(2, b"ram", 4).word(0x1004).name(b"ram").word(0x2000),
        ),
        (
            "a block of 2^64 bytes",
            "too long",
            Qemu::new().section_start(2, b"ram", 4).word(max | 4).name(b"ram").word(max),
        ),
        ("the same block twice", "comes twice", Qemu::new().ram(&[(b"ram", 4096), (b"ram", 4096)])),
        (
            "a block without name",
            "no name",
            Qemu::new().section_start(2, b"ram", 4).word(0x1004).raw(&[0]),
        ),
        ("a thousand and more blocks", "too many blocks", many_blocks()),
        (
            "a second list of blocks",
            "unknown flags",
            Qemu::new().ram(&[(b"ram", 4096)]).word(0x1004),
        ),
    ]
}

/// In the pages.
fn page_faults() -> Vec<Case<Qemu>> {
    let max = !0xfff;
    vec![
        ("a page before any list", "outside", Qemu::new().section_start(2, b"ram", 4).word(0x28)),
        ("a page of no block", "outside", ram().page(0, &PAGE)),
        ("a page behind its block", "outside", ram().named_page(b"ram", 0x10_0000, &PAGE)),
        ("a page at the end of the address space", "outside", ram().named_page(b"ram", max, &PAGE)),
        ("a page of an unknown block", "never announced", ram().named_page(b"rom", 0, &PAGE)),
        ("a page of a block without name", "no name", ram().word(8).raw(&[0])),
        ("two kinds of page at once", "unknown flags", ram().word(0x0a)),
        ("a page that is also the end", "unknown flags", ram().word(0x18)),
        ("a hook of an RDMA engine", "unknown flags", ram().word(0x80)),
        ("an unknown flag", "unknown flags", ram().word(0x400)),
    ]
}

/// Engine streams: from the fault on everything is opaque, for the reason that is named.
#[test]
fn a_malformed_qemu_stream_is_opaque_from_the_fault_on() {
    let cases = [configuration_faults(), section_faults(), page_faults()].concat();
    for (name, reason, stream) in cases {
        let fault = stream.0.len();
        let stream = stream.raw(&[0x28; 3 * PAGE_BYTES]).0;
        let whole = split(Format::Qemu, &stream, &[usize::MAX]);
        let (offset, why) = whole.boundary.unwrap_or_else(|| panic!("{name}: no boundary"));
        assert!(why.contains(reason), "{name}: {why}");
        assert!(offset <= fault as u64 + 8, "{name}: the fault was missed until {offset}");
        assert_eq!(whole.pages, [], "{name}");
        assert_eq!(split(Format::Qemu, &stream, &[1]), whole, "{name}, byte by byte");
    }
}

/// Lengths that lead nowhere are no reason to wait or to take memory: the bytes pass.
#[test]
fn a_length_that_leads_nowhere_passes() {
    let cases = [
        ("an endless package", Qemu::new().raw(&[8, 0, 8, 0, 4]).raw(&[0xff; 4])),
        ("a long command", Qemu::new().raw(&[8, 0, 1, 0xff, 0xff])),
        ("an endless compressed page", ram().word(0x100).name(b"ram").raw(&[0xff; 4])),
        ("a long xbzrle page", ram().word(0x40).name(b"ram").raw(&[1, 0xff, 0xff])),
        ("a list of blocks without end", Qemu::new().section_start(2, b"ram", 4).word(!0xfff | 4)),
    ];
    for (name, stream) in cases {
        let stream = stream.raw(&[0; 20_000]).0;
        let found = split(Format::Qemu, &stream, &[700]);
        assert_eq!(found.pages, [], "{name}");
        assert_eq!(found.opaque_bytes, stream.len(), "{name}");
    }
}

#[test]
fn a_malformed_xen_stream_is_opaque_from_the_fault_on() {
    let headers = Xen::new().0.len();
    let with = |at: usize, byte: u8| {
        let mut stream = Xen::new();
        stream.0[at] ^= byte;
        stream
    };
    let count = |count: u32, bytes: u32| {
        let head = [1_u32.to_le_bytes(), bytes.to_le_bytes(), count.to_le_bytes(), [0; 4]];
        Xen::new().raw(&head.concat())
    };
    let cases: Vec<Case<Xen>> = vec![
        ("another xl header", "xl's header", with(20, 1)),
        ("another byte order", "xl's header", with(32, 5)),
        ("a big-endian libxl", "unknown version or option", with(75, 1)),
        ("an old libxl", "unknown version or option", with(71, 1)),
        ("no libxc where it should be", "libxc's part", with(headers - 40, 1)),
        ("a big-endian libxc", "unknown version or option", with(headers - 23, 1)),
        ("no frames", "impossible number", count(0, 8)),
        ("4 billion frames", "impossible number", count(u32::MAX, u32::MAX)),
        ("more pages than bytes", "impossible length", count(1, 16).raw(&[0; 8])),
        (
            "a frame of 2^52",
            "too large",
            count(1, 4112).raw(&[0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0]),
        ),
    ];
    for (name, reason, stream) in cases {
        let stream = stream.raw(&[0; 3 * PAGE_BYTES]).0;
        let whole = split(Format::Xen, &stream, &[usize::MAX]);
        let (_, why) = whole.boundary.unwrap_or_else(|| panic!("{name}: no boundary"));
        assert!(why.contains(reason), "{name}: {why}");
        assert_eq!(whole.pages, [], "{name}");
        assert_eq!(split(Format::Xen, &stream, &[1]), whole, "{name}, byte by byte");
    }
}

fn batch(records: &[u8], data: &[u8], stream_bytes: u32) -> Batch {
    Batch {
        number: 0,
        stream_bytes,
        records_bytes: u32::try_from(records.len()).unwrap(),
        data_bytes: u32::try_from(data.len()).unwrap(),
        packing: Packing::Raw,
        check: [0; 8],
        packed: [records, data].concat().into(),
    }
}

fn receiver() -> Receiver {
    Receiver::new(Box::new(MemoryShelf::new(10)))
}

/// A name, what is found, and the batch: records, data, bytes of the stream.
type BatchCase = (&'static str, BatchError, Vec<u8>, &'static [u8], u32);

/// A number that takes all of its bytes.
const LONG: [u8; 10] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];

fn record(kind: u8, fields: &[&[u8]]) -> Vec<u8> {
    [&[kind], &fields.concat()[..]].concat()
}

/// Records that are none.
fn record_faults() -> Vec<BatchCase> {
    vec![
        ("an unknown record", BatchError::UnknownRecord { kind: 9 }, vec![9], b"", 1),
        ("record zero", BatchError::UnknownRecord { kind: 0 }, vec![0], b"", 1),
        ("a flag too many", BatchError::UnknownRecord { kind: 0x41 }, vec![0x41, 1], b"a", 1),
        ("bytes with a head", BatchError::UnknownRecord { kind: 0x11 }, vec![0x11, 1], b"a", 1),
        ("a record that breaks off", BatchError::CutOff, vec![1, 0x80], b"", 1),
        ("a number that never ends", BatchError::CutOff, record(1, &[&[0xff; 11]]), b"", 1),
        ("a fill without byte", BatchError::CutOff, vec![3, 1], b"", 9),
        ("a record of nothing", BatchError::Empty, vec![1, 0], b"", 0),
        ("no pages", BatchError::Empty, vec![4, 0], b"", 0),
    ]
}

/// Records that do not fit what is announced.
fn length_faults() -> Vec<BatchCase> {
    vec![
        ("more bytes than data", BatchError::DataMissing, vec![1, 2], b"a", 2),
        ("2^64 bytes", BatchError::DataMissing, record(1, &[&LONG]), b"a", 1),
        ("data nobody uses", BatchError::DataLeft { data_bytes: 1 }, vec![1, 1], b"ab", 1),
        ("more than announced", BatchError::TooLong { stream_bytes: 1 }, vec![1, 2], b"ab", 1),
        (
            "a bomb of fills",
            BatchError::TooLong { stream_bytes: 9 },
            record(3, &[&LONG, &[0]]),
            b"",
            9,
        ),
        (
            "a bomb of pages",
            BatchError::TooLong { stream_bytes: 4096 },
            record(5, &[&LONG, &[0]]),
            b"",
            4096,
        ),
        (
            "less than announced",
            BatchError::TooShort { stream_bytes: 3, found: 1 },
            vec![1, 1],
            b"a",
            3,
        ),
        ("no records", BatchError::TooShort { stream_bytes: 3, found: 0 }, vec![], b"", 3),
    ]
}

/// Records that reach outside of the shelf.
fn slot_faults() -> Vec<BatchCase> {
    vec![
        (
            "a slot behind the shelf",
            BatchError::NoSuchSlot { slots: 10 },
            vec![5, 1, 20],
            b"",
            4096,
        ),
        ("a slot before the shelf", BatchError::NoSuchSlot { slots: 10 }, vec![5, 1, 1], b"", 4096),
        (
            "a slot of 2^63",
            BatchError::NoSuchSlot { slots: 10 },
            record(5, &[&[1], &LONG]),
            b"",
            4096,
        ),
        (
            "a run over the shelf's end",
            BatchError::NoSuchSlot { slots: 10 },
            vec![5, 2, 18],
            b"",
            8192,
        ),
        (
            "a block where there is no disk",
            BatchError::NoSuchBlock { blocks: 0 },
            record(8, &[&[0], &[0; 8]]),
            b"",
            4096,
        ),
        (
            "a block of 2^63",
            BatchError::NoSuchBlock { blocks: 0 },
            record(8, &[&LONG, &[0; 8]]),
            b"",
            4096,
        ),
        ("a block without digest", BatchError::CutOff, vec![8, 0, 1, 2], b"", 4096),
        (
            "a page kept outside",
            BatchError::NoSuchSlot { slots: 10 },
            vec![0x24, 1, 20],
            &PAGE,
            4096,
        ),
    ]
}

#[test]
fn a_malformed_batch_is_refused() {
    let cases = [record_faults(), length_faults(), slot_faults()].concat();
    for (name, expected, records, data, stream_bytes) in cases {
        let frame = Frame::Batch(batch(&records, data, stream_bytes));
        let error = receiver().on_frame(frame).unwrap_err();
        assert_eq!(error, ReceiveError::Batch { batch: 0, source: expected }, "{name}");
    }
}

/// A patch that leaves its page is refused, though the page it is for is there.
#[test]
fn a_malformed_patch_is_refused() {
    let first = blake3::hash(&PAGE);
    for patch in [&[0xff, 0x1f, 2, 1, 1][..], &[0x80, 0x20, 1, 1], &[0, 9, 1], &[1]] {
        let mut receiver = receiver();
        let mut one = batch(&[0x24, 1, 0], &PAGE, 4096);
        one.check.copy_from_slice(&first.as_bytes()[..8]);
        receiver.on_frame(Frame::Batch(one)).unwrap();
        let records = [6, 0, u8::try_from(patch.len()).unwrap()];
        let two = Batch { number: 1, ..batch(&records, patch, 4096) };
        let error = receiver.on_frame(Frame::Batch(two)).unwrap_err();
        let ReceiveError::Batch { source: BatchError::Patch(_), .. } = error else {
            panic!("{patch:?}: {error:?}");
        };
    }
}

/// What is well formed and still cannot be: each is named for what it is.
#[test]
fn an_impossible_sequence_is_refused() {
    let right = |number: u64, stream: &[u8]| {
        let mut batch = Batch { number, ..batch(&[1, 1], b"a", 1) };
        batch.check.copy_from_slice(&blake3::hash(stream).as_bytes()[..8]);
        Frame::Batch(batch)
    };
    let check = |name: &str, frames: Vec<Frame>, expected: ReceiveError| {
        let mut receiver = receiver();
        let (last, before) = frames.split_last().unwrap();
        for frame in before {
            receiver.on_frame(frame.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert_eq!(receiver.on_frame(last.clone()).unwrap_err(), expected, "{name}");
    };
    check("a gap", vec![right(1, b"a")], ReceiveError::OutOfOrder { expected: 0, found: 1 });
    let differs = ReceiveError::Differs { batch: 0, from: 0, to: 1 };
    check("another digest", vec![right(0, b"b")], differs);
    let end = |batches, stream_bytes, stream: &[u8]| Frame::End {
        batches,
        stream_bytes,
        digest: *blake3::hash(stream).as_bytes(),
    };
    let early =
        ReceiveError::EndsEarly { expected_bytes: 2, bytes: 1, expected_batches: 2, batches: 1 };
    check("an end too early", vec![right(0, b"a"), end(2, 2, b"aa")], early);
    let differs = ReceiveError::Differs { batch: 1, from: 0, to: 1 };
    check("another end", vec![right(0, b"a"), end(1, 1, b"b")], differs);
    let after = ReceiveError::OutOfOrder { expected: 1, found: 1 };
    check("more after the end", vec![right(0, b"a"), end(1, 1, b"a"), right(1, b"aa")], after);
    let supply = Frame::Supply { batch: 0, pages: vec![(0, Box::new(PAGE))] };
    check("pages nobody asked for", vec![supply], ReceiveError::Unexpected);
    let ack = Frame::Ack { next: 0, accepted_bytes: 0 };
    check("the target's own words", vec![ack], ReceiveError::Unexpected);
}

/// On several connections batches may overtake each other, and the end them; what cannot be is
/// refused all the same.
#[test]
fn an_impossible_order_is_refused() {
    let tiny = |number: u64| Frame::Batch(Batch { number, ..batch(&[1, 1], b"a", 1) });
    let end = |batches| Frame::End { batches, stream_bytes: batches, digest: [0; 32] };
    let check = |name: &str, frames: Vec<Frame>, expected: ReceiveError| {
        let mut receiver = receiver();
        receiver.on_join();
        let (last, before) = frames.split_last().unwrap();
        for frame in before {
            assert_eq!(receiver.on_frame(frame.clone()).unwrap(), b"", "{name}");
            assert_eq!(receiver.poll_early().unwrap(), None, "{name}");
        }
        assert_eq!(receiver.on_frame(last.clone()).unwrap_err(), expected, "{name}");
    };
    let out_of_order = |found| ReceiveError::OutOfOrder { expected: 0, found };
    let far = EARLY_BATCHES_MAX;
    check("far ahead", vec![tiny(1), tiny(far - 1), tiny(far)], out_of_order(far));
    check("the last number there is", vec![tiny(u64::MAX)], out_of_order(u64::MAX));
    check("behind the end", vec![end(2), tiny(2)], out_of_order(2));
    check("an end before what came", vec![tiny(1), tiny(2), end(2)], out_of_order(2));
    // What is refused by its bytes: of the stream, and packed.
    for (records, data, stream_bytes) in [
        (vec![0; 40], 1, u32::try_from(BATCH_STREAM_BYTES_MAX).unwrap()),
        (vec![0; 40], BATCH_STREAM_BYTES_MAX, 1),
    ] {
        let mut receiver = receiver();
        receiver.on_join();
        let wide = batch(&records, &vec![1; data], stream_bytes);
        let bytes = (1..100)
            .map(|number| receiver.on_frame(Frame::Batch(Batch { number, ..wide.clone() })))
            .take_while(Result::is_ok)
            .count()
            * BATCH_STREAM_BYTES_MAX;
        let bytes = u64::try_from(bytes).unwrap();
        assert!(bytes <= WAITING_BYTES_MAX && bytes > WAITING_BYTES_MAX / 2, "{bytes}");
    }
}

/// A source that ignores its window is stopped before its bytes fill the memory.
#[test]
fn a_flood_is_stopped() {
    let mut receiver = receiver();
    let mut hasher = blake3::Hasher::new();
    let data = vec![1; BATCH_STREAM_BYTES_MAX];
    let mut records = vec![1];
    records.extend([0x80, 0x80, 0x40]);
    for number in 0..100 {
        hasher.update(&data);
        let mut batch =
            Batch { number, ..batch(&records, &data, u32::try_from(data.len()).unwrap()) };
        batch.check.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        match receiver.on_frame(Frame::Batch(batch)) {
            Ok(bytes) => assert_eq!(bytes.len(), data.len()),
            Err(error) => {
                let waiting_bytes = receiver.stream_bytes() + data.len() as u64;
                assert!(waiting_bytes > WAITING_BYTES_MAX && waiting_bytes < 2 * WAITING_BYTES_MAX);
                assert_eq!(error, ReceiveError::WindowIgnored { waiting_bytes });
                return;
            }
        }
    }
    panic!("a hundred batches wait, and nobody said anything");
}

/// Returns what the reader says of a frame whose bytes were changed, with a correct crc.
fn refused(bytes: &[u8]) -> FrameError {
    let mut bytes = bytes.to_vec();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_be_bytes());
    let mut reader = FrameReader::default();
    reader.push(&bytes);
    reader.next_frame().unwrap_err()
}

#[test]
fn a_malformed_frame_is_refused() {
    let ack = Frame::Ack { next: 1, accepted_bytes: 2 }.encode().to_vec();
    let with = |at: usize, byte: u8| {
        let mut bytes = ack.clone();
        bytes[at] = byte;
        bytes
    };
    let resized = |frame: &[u8], length: usize| {
        let mut bytes = frame.to_vec();
        bytes.resize(12 + length, 0);
        bytes[4..8].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        bytes
    };
    assert_eq!(refused(&with(0, b'X')), FrameError::BadMagic { found: 0x5850 });
    assert_eq!(refused(&with(2, 2)), FrameError::UnknownVersion { found: 2 });
    assert_eq!(refused(&with(3, 0)), FrameError::UnknownKind { kind: 0 });
    assert_eq!(refused(&with(3, 99)), FrameError::UnknownKind { kind: 99 });
    let long = FrameError::TooLong { kind: 4, body_bytes: 0xff00_0010 };
    assert_eq!(refused(&with(4, 0xff)), long, "refused before its body comes");
    assert_eq!(refused(&resized(&ack, 15)), FrameError::BadBody { kind: 4, body_bytes: 15 });
    assert_eq!(refused(&resized(&ack, 17)), FrameError::BadBody { kind: 4, body_bytes: 17 });

    let again = Frame::Again { batch: 0, offsets: vec![1, 2] }.encode();
    let mut more = again.to_vec();
    more[20..22].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(refused(&more), FrameError::BadBody { kind: 5, body_bytes: 18 });

    // The lengths in a batch, each one over its limit; a packing nobody knows; a bomb by length.
    let batch = Frame::Batch(batch(&[1, 1], b"a", 1)).encode();
    let limits = [BATCH_STREAM_BYTES_MAX, BATCH_RECORDS_BYTES_MAX, BATCH_DATA_BYTES_MAX];
    for (field, limit) in limits.into_iter().enumerate() {
        let mut bytes = batch.to_vec();
        let over = u32::try_from(limit + 1).unwrap().to_be_bytes();
        bytes[20 + 4 * field..24 + 4 * field].copy_from_slice(&over);
        assert_eq!(refused(&bytes), FrameError::BadBody { kind: 1, body_bytes: batch.len() - 12 });
    }
    let mut bytes = batch.to_vec();
    bytes[32] = 4;
    assert_eq!(refused(&bytes), FrameError::BadBody { kind: 1, body_bytes: batch.len() - 12 });
    let body_bytes = batch.len() - 12 + 1;
    let longer = resized(&batch, body_bytes);
    assert_eq!(refused(&longer), FrameError::BadBody { kind: 1, body_bytes }, "more than plain");
    let body_bytes = FRAME_BODY_BYTES_MAX + 1;
    let mut bytes = batch.to_vec();
    bytes[4..8].copy_from_slice(&u32::try_from(body_bytes).unwrap().to_be_bytes());
    let mut reader = FrameReader::default();
    reader.push(&bytes);
    assert!(matches!(reader.next_frame(), Err(FrameError::TooLong { kind: 1, .. })));

    // Any flipped bit is noticed.
    for index in 0..batch.len() {
        let mut bytes = batch.to_vec();
        bytes[index] ^= 0x10;
        let mut reader = FrameReader::default();
        reader.push(&bytes);
        assert!(!matches!(reader.next_frame(), Ok(Some(_))), "byte {index}");
    }
}

/// A batch that claims to unpack to more than it does, or to less, is no batch; and no claim makes
/// the receiver take more than the limit.
#[test]
fn a_bomb_does_not_unpack() {
    let zeros = vec![0; 64 << 20];
    let bomb = zstd::bulk::compress(&zeros, 1).unwrap();
    let packed = Batch {
        packing: Packing::Zstd,
        records_bytes: 2,
        data_bytes: u32::try_from(BATCH_DATA_BYTES_MAX).unwrap(),
        packed: bomb.into(),
        ..batch(&[1, 1], b"a", 1)
    };
    for packing in [Packing::Zstd, Packing::Lz4] {
        let frame = Frame::Batch(Batch { packing, ..packed.clone() });
        let error = receiver().on_frame(frame).unwrap_err();
        assert!(matches!(error, ReceiveError::Unpack { batch: 0, .. }), "{packing:?}: {error:?}");
    }
}

/// The target's frames are foreign, too.
#[test]
fn a_malformed_target_is_refused() {
    let check = |name: &str, frame: Frame, expected: SendError| {
        let mut sender = Sender::new(SenderConfig {
            split: Format::Qemu.splitter(),
            codec: whimbrel_pages::codec::Codec::Raw,
            slots: 10,
            recent_pages_max: 10,
            is_kept: false,
        });
        sender.push(b"one");
        sender.flush();
        sender.poll_frame().unwrap();
        sender.push(b"two");
        sender.flush();
        assert_eq!(sender.on_frame(frame), Err(expected), "{name}");
        assert!(sender.poll_frame().is_some(), "{name}: and it goes on");
    };
    let ack = |next, accepted_bytes| Frame::Ack { next, accepted_bytes };
    let again = |batch, offset| Frame::Again { batch, offsets: vec![offset] };
    let no_batch = |next| SendError::NoSuchBatch { next, first: 0, end: 2 };
    check("a batch not sent yet", ack(2, 3), no_batch(2));
    check("a batch of the future", ack(u64::MAX, 0), no_batch(u64::MAX));
    let accepted_bytes = u64::MAX;
    let count = SendError::BadCount { accepted_bytes, before: 0, stream_bytes: 6 };
    check("more than there is", ack(1, accepted_bytes), count);
    check("again what was not sent", again(1, 0), no_batch(1));
    check("again half a page", again(0, 0), SendError::NoSuchPage { batch: 0, offset: 0 });
    let no_page = SendError::NoSuchPage { batch: 0, offset: u32::MAX };
    check("again what is far away", again(0, u32::MAX), no_page);
    let resume = Frame::Resume { next: 0, accepted_bytes: 0 };
    check("resume without a cut", resume, SendError::Unexpected);
    let early = SendError::DoneEarly { found: 6, stream_bytes: 6 };
    check("done before the end", Frame::Done { stream_bytes: 6 }, early);
    check("the source's own words", Frame::Batch(batch(&[], b"", 0)), SendError::Unexpected);
}
