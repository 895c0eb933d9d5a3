// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The splitters on streams as engines really write them.

use whimbrel_pages::split::{PAGE_BYTES, Place, XenTally};

use crate::streams::{Format, Qemu, RECORDED, Xen, recorded, split};

/// In a recorded stream all pages QEMU counted are found, and the opaque rest begins exactly where
/// the guest has stopped and its devices begin. The counts are those of `query-migrate`.
#[test]
fn every_page_of_a_recorded_stream_is_found() {
    let devices = "the part of the stream that has pages is over";
    let check = |name, normal: usize, duplicate: usize| {
        let stream = recorded(name);
        let found = split(Format::Qemu, &stream, &[usize::MAX]);
        assert_eq!(found.pages.len(), normal, "{name}");
        // The first page of each block has a name, so if it is zero it passes as bytes.
        assert!(found.fills <= duplicate && found.fills + 10 > duplicate, "{name} {}", found.fills);
        let (boundary, reason) = found.boundary.unwrap();
        assert_eq!(reason, devices, "{name}");
        // The end of `ram`, its footer, and then a section that comes whole: the timer.
        let before = &stream[..usize::try_from(boundary).unwrap()];
        assert!(before.ends_with(b"\0\0\0\0\0\0\0\x10\x7e\0\0\0\x02\x04"), "{name}");
        assert!(stream[before.len()..].starts_with(b"\0\0\0\0\x05timer"), "{name}");
    };
    check("pc", 111, 2067);
    check("q35", 119, 4107);
    check("churn", 305, 1969);
    check("postcopy-advised", 111, 2067);
    check("ignore-shared", 111, 2067);
}

/// However a stream is chunked, the same pages are found.
#[test]
fn chunks_do_not_matter() {
    for (name, _) in RECORDED {
        let stream = recorded(name);
        let whole = split(Format::Qemu, &stream, &[usize::MAX]);
        for chunks in [&[1][..], &[4096], &[4095, 4097, 3], &[8, 1, 4096, 100_000], &[65_536]] {
            assert_eq!(split(Format::Qemu, &stream, chunks), whole, "{name} {chunks:?}");
        }
    }
}

/// A flush in the middle of a page costs that page, and no other.
#[test]
fn after_a_flush_pages_are_found_again() {
    let stream = recorded("churn");
    let whole = split(Format::Qemu, &stream, &[usize::MAX]);
    for chunks in [&[50_000, 0][..], &[65_536, 0], &[100_001, 0]] {
        let found = split(Format::Qemu, &stream, chunks);
        assert_eq!(found.boundary, whole.boundary, "{chunks:?}");
        let flushes = stream.len() / chunks[0] + 1;
        assert!(found.pages.len() + flushes >= whole.pages.len(), "{chunks:?}");
        assert!(found.pages.len() < whole.pages.len(), "{chunks:?}: some page was cut");
    }
    let bytewise = split(Format::Qemu, &stream, &[1, 0]);
    assert_eq!((bytewise.pages.len(), bytewise.boundary), (0, whole.boundary));
}

/// What newer versions and other capabilities put between the pages is followed.
#[test]
fn what_stands_between_pages_is_followed() {
    let page = [7; PAGE_BYTES];
    let stream = Qemu::new()
        .raw(&[5])
        .name(b"configuration/capabilities")
        .raw(&[0, 0, 0, 1, 0, 0, 0, 2])
        .name(b"x-ignore-shared")
        .name(b"mapped-ram")
        .raw(&[5])
        .name(b"configuration/target-page-bits")
        .raw(&[0, 0, 0, 1, 0, 0, 0, 12])
        .raw(&[5])
        .name(b"configuration/uuid")
        .raw(&[0, 0, 0, 1])
        .raw(&[0xaa; 16])
        .raw(&[8, 0, 1, 0, 0])
        .raw(&[8, 0, 2, 0, 4, 0, 0, 0, 9])
        // Blocks of huge pages say so after their length; so does the last one.
        .section_start(2, b"ram", 4)
        .word(0x20_5004)
        .name(b"ram")
        .word(0x20_0000)
        .word(0x20_0000)
        .name(b"rom")
        .word(0x5000)
        .word(0x20_0000)
        .word(0x200)
        .end_section()
        .part()
        .named_page(b"ram", 0, &page)
        .page(0x1000, &page)
        .zero(0x2000)
        .word(0x3002)
        .name(b"rom")
        .raw(&[0])
        .word(0x4060)
        .raw(&[1, 0, 3])
        .raw(b"xbz")
        .word(0x0120)
        .raw(&[0, 0, 0, 5])
        .raw(b"zlib!")
        .word(0x1108)
        .raw(b"")
        .0;
    // 0x1108 is two kinds at once, which nothing writes: there the opaque rest begins.
    let found = split(Format::Qemu, &stream, &[usize::MAX]);
    let places = |block, page_index| Place { block, page_index };
    assert_eq!(found.pages, [places(0, 0), places(0, 1)]);
    assert_eq!(found.fills, 1);
    assert_eq!(found.boundary, Some((stream.len() as u64, "a page has unknown flags")));
}

/// In post-copy the devices travel in a package of known length, and pages follow it.
#[test]
fn pages_are_found_behind_a_post_copy_package() {
    let page = [7; PAGE_BYTES];
    let package = vec![4; 100_000];
    let stream = Qemu::new()
        .ram(&[(b"ram", 0x10_0000)])
        .end_section()
        .raw(&[8, 0, 8, 0, 4])
        .raw(&100_000_u32.to_be_bytes())
        .raw(&package)
        .part()
        .named_page(b"ram", 0x5000, &page)
        .page(0x9000, &page)
        .end_section()
        .raw(&[0])
        .0;
    let found = split(Format::Qemu, &stream, &[777]);
    assert_eq!(found.pages.len(), 2);
    assert_eq!(found.boundary.unwrap().0, stream.len() as u64);
}

/// A whole stream of `xl migrate`: pages inside libxc's part, and libxl's records after it.
#[test]
fn xen_streams_are_followed_to_their_end() {
    let stream = Xen::new()
        .record(0xe, b"static data")
        .record(0x8000_0001, b"optional")
        .pages(&[5, 6, 0xf000_0000_0000_0007, 8 | 0x1000_0000_0000_0000])
        .pages(&[0xe000_0000_0000_0000])
        .record(2, b"x86 pv info")
        .record(0, &[])
        .record(3, &[9; 70_001])
        .record(0, &[])
        .0;
    let whole = split(Format::Xen, &stream, &[usize::MAX]);
    let places = [5, 6, 8].map(|page_index| Place { block: 0, page_index });
    assert_eq!(whole.pages, places);
    assert_eq!(
        whole.boundary,
        Some((stream.len() as u64, "the part of the stream that has pages is over"))
    );
    for chunks in [&[1][..], &[4096], &[4095, 4097, 3]] {
        assert_eq!(split(Format::Xen, &stream, chunks), whole, "{chunks:?}");
        assert_eq!(split(Format::Engine, &stream, chunks), whole, "{chunks:?}");
    }
    let libxc = Xen(vec![]).libxc().pages(&[1]).record(0, &[]).0;
    let libxl = Xen(b"LibxlFmt\0\0\0\x02\0\0\0\0".to_vec()).record(1, &[]).libxc().pages(&[1]).0;
    for stream in [libxc, libxl] {
        assert_eq!(split(Format::Xen, &stream, &[9, 0, 5000]).pages.len(), 1);
    }
}

/// The same splitter follows the stream of either engine.
#[test]
fn streams_are_told_apart() {
    let stream = recorded("pc");
    let qemu = split(Format::Qemu, &stream, &[4096]);
    assert!(!qemu.pages.is_empty());
    assert_eq!(split(Format::Engine, &stream, &[4096]), qemu);
    assert_eq!(
        split(Format::Engine, &stream, &[0, 1, 70_001]),
        split(Format::Qemu, &stream, &[0, 1, 70_001])
    );
}

/// A pass walks upwards, over records and holes; where a number does not rise, the next one begins.
/// What else travels counts for nothing.
#[test]
fn the_passes_of_a_xen_stream_are_counted() {
    const HOLE: u64 = 0xf000_0000_0000_0000;
    let many: Vec<u64> = (100..500).collect();
    let parts: [(Xen, (u64, u64, u64)); 5] = [
        (Xen::new().record(0xe, b"static data").pages(&[HOLE, HOLE | 1]), (0, 0, 0)),
        (Xen(vec![]).pages(&[5, 6, HOLE | 7, 8]).pages(&many), (1, 403, 0)),
        (Xen(vec![]).pages(&[6, 499]).record(9, &[1; 5]), (2, 2, 403)),
        (Xen(vec![]).pages(&[499]).pages(&[HOLE | 1, 500]), (3, 2, 2)),
        (Xen(vec![]).record(0, &[]).record(3, &[9; 70_001]).record(0, &[]), (3, 2, 2)),
    ];
    for size in [1, 4097, usize::MAX] {
        let mut tally = XenTally::default();
        for (part, expected) in &parts {
            let chunks = part.0.chunks(size);
            let last = chunks.map(|chunk| tally.push(chunk)).last().unwrap();
            let found = (last.round, last.pages, last.pages_before);
            assert_eq!(found, *expected, "in chunks of {size}");
        }
    }
}

/// What is not the format at all is opaque from its first byte, and short streams are no trouble.
#[test]
fn other_streams_are_opaque() {
    for format in [Format::Qemu, Format::Xen, Format::Engine, Format::Opaque] {
        for stream in
            [&b""[..], b"Q", b"QEVM", b"GET / HTTP/1.1\r\n\r\n", &[0; 9000], &[0xff; 9000]]
        {
            let found = split(format, stream, &[3]);
            assert_eq!(found.opaque_bytes, stream.len(), "{format:?}");
        }
    }
    let old = b"QEVM\0\0\0\x02 anything";
    assert_eq!(split(Format::Qemu, old, &[100]).boundary.unwrap().0, 8);
}
