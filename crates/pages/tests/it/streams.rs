// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Streams to test with: recorded ones, and ones written byte by byte.

use std::io::Read;

use whimbrel_pages::split::{
    EngineSplit, OpaqueSplit, PAGE_BYTES, Piece, Place, QemuSplit, Split, XenSplit,
};

/// Recorded from QEMU 7.2 (Debian 12) with TCG and no devices: a guest of 8 or 16 MiB that stands
/// in its firmware, or, in `churn`, in a boot sector that changes a word in each of 96 pages
/// without end. All but the first are stored as differences to the first.
pub(crate) const RECORDED: [(&str, &[u8]); 5] = [
    ("pc", include_bytes!("../data/qemu-7.2-pc.qevm.zst")),
    ("q35", include_bytes!("../data/qemu-7.2-q35.qevm.zst")),
    ("churn", include_bytes!("../data/qemu-7.2-churn.qevm.zst")),
    ("postcopy-advised", include_bytes!("../data/qemu-7.2-postcopy-advised.qevm.zst")),
    ("ignore-shared", include_bytes!("../data/qemu-7.2-ignore-shared.qevm.zst")),
];

/// Returns a recorded stream.
pub(crate) fn recorded(name: &str) -> Vec<u8> {
    let find = |name| RECORDED.iter().find(|(known, _)| *known == name).unwrap().1;
    let unpack = |packed: &[u8], prefix: &[u8]| {
        let mut stream = Vec::new();
        let mut decoder = zstd::Decoder::with_ref_prefix(packed, prefix).unwrap();
        decoder.window_log_max(27).unwrap();
        decoder.read_to_end(&mut stream).unwrap();
        stream
    };
    let first = unpack(find("pc"), &[]);
    if name == "pc" { first } else { unpack(find(name), &first) }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Format {
    Qemu,
    Xen,
    /// Whichever it is.
    Engine,
    Opaque,
}

impl Format {
    pub(crate) fn splitter(self) -> Box<dyn Split> {
        match self {
            Format::Qemu => Box::new(QemuSplit::default()),
            Format::Xen => Box::new(XenSplit::default()),
            Format::Engine => Box::new(EngineSplit::default()),
            Format::Opaque => Box::new(OpaqueSplit),
        }
    }
}

/// What a splitter found in a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) pages: Vec<Place>,
    pub(crate) fills: usize,
    pub(crate) opaque_bytes: usize,
    pub(crate) boundary: Option<(u64, &'static str)>,
}

/// Splits a stream in chunks of the given sizes (repeated) and checks that the pieces are the
/// stream. A size of 0 flushes.
pub(crate) fn split(format: Format, stream: &[u8], chunks: &[usize]) -> Found {
    assert!(chunks.iter().any(|&size| size > 0), "somebody must bring the stream forward");
    let mut splitter = format.splitter();
    let mut found = Found::default();
    let mut rebuilt = Vec::new();
    let mut take = |piece: Piece<'_>| {
        let before = rebuilt.len();
        match piece {
            Piece::Bytes(bytes) => {
                assert!(!bytes.is_empty(), "an empty piece says nothing");
                rebuilt.extend_from_slice(bytes);
                found.opaque_bytes += bytes.len();
            }
            Piece::Page { head, place, page } => {
                rebuilt.extend(head.iter().flat_map(|head| head.to_be_bytes()));
                rebuilt.extend_from_slice(page);
                found.pages.push(place);
            }
            Piece::Fill { head, byte } => {
                rebuilt.extend_from_slice(&head.to_be_bytes());
                rebuilt.push(byte);
                found.fills += 1;
            }
        }
        assert_eq!(rebuilt.len() - before, piece.stream_bytes());
    };
    let mut rest = stream;
    for &size in chunks.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        splitter.push(chunk, &mut take);
        assert!(splitter.missing_bytes() <= PAGE_BYTES, "no more than a page is held");
        if size == 0 {
            splitter.flush(&mut take);
            assert_eq!(splitter.missing_bytes(), 0, "nothing is held after a flush");
        }
        rest = after;
    }
    splitter.flush(&mut take);
    assert!(rebuilt == stream, "the pieces are the stream");
    found.boundary = splitter.boundary().map(|boundary| (boundary.offset, boundary.reason));
    found
}

/// Writes a QEMU stream.
#[derive(Clone, Debug)]
pub(crate) struct Qemu(pub(crate) Vec<u8>);

impl Qemu {
    /// Magic, version, configuration.
    pub(crate) fn new() -> Self {
        Self(b"QEVM\0\0\0\x03\x07\0\0\0\x02pc".to_vec())
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn word(self, word: u64) -> Self {
        self.raw(&word.to_be_bytes())
    }

    pub(crate) fn name(self, name: &[u8]) -> Self {
        self.raw(&[u8::try_from(name.len()).unwrap()]).raw(name)
    }

    pub(crate) fn section_start(self, id: u8, name: &[u8], version: u8) -> Self {
        self.raw(&[1, 0, 0, 0, id]).name(name).raw(&[0, 0, 0, 0, 0, 0, 0, version])
    }

    /// The start of `ram`, up to the list of blocks.
    pub(crate) fn ram(self, blocks: &[(&[u8], u64)]) -> Self {
        let total: u64 = blocks.iter().map(|(_, length)| length).sum();
        let start = self.section_start(2, b"ram", 4).word(total | 4);
        blocks.iter().fold(start, |stream, (name, length)| stream.name(name).word(*length))
    }

    pub(crate) fn end_section(self) -> Self {
        self.word(0x10).raw(&[0x7e, 0, 0, 0, 2])
    }

    pub(crate) fn part(self) -> Self {
        self.raw(&[2, 0, 0, 0, 2])
    }

    pub(crate) fn page(self, address: u64, page: &[u8; PAGE_BYTES]) -> Self {
        self.word(address | 0x28).raw(page)
    }

    pub(crate) fn named_page(self, name: &[u8], address: u64, page: &[u8; PAGE_BYTES]) -> Self {
        self.word(address | 0x08).name(name).raw(page)
    }

    pub(crate) fn zero(self, address: u64) -> Self {
        self.word(address | 0x22).raw(&[0])
    }
}

/// Writes a Xen stream.
#[derive(Clone, Debug)]
pub(crate) struct Xen(pub(crate) Vec<u8>);

impl Xen {
    /// All three headers, up to the first record of libxc.
    pub(crate) fn new() -> Self {
        let configuration = br#"{"c_info":{}}"#;
        let length = u32::try_from(configuration.len()).unwrap().to_le_bytes();
        Self(b"Xen saved domain, xl format\n \0 \r".to_vec())
            .raw(&0x0102_0304_u32.to_le_bytes())
            .raw(&[3, 0, 0, 0, 0, 0, 0, 0])
            .raw(&length)
            .raw(configuration)
            .raw(b"LibxlFmt\0\0\0\x02\0\0\0\0")
            .record(1, &[])
            .libxc()
    }

    pub(crate) fn libxc(self) -> Self {
        self.raw(&[0xff; 8]).raw(b"XENF\0\0\0\x03\0\0\0\0\0\0\0\0").raw(&[1; 16])
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn record(self, kind: u32, body: &[u8]) -> Self {
        let length = u32::try_from(body.len()).unwrap();
        let padding = vec![0; body.len().next_multiple_of(8) - body.len()];
        self.raw(&kind.to_le_bytes()).raw(&length.to_le_bytes()).raw(body).raw(&padding)
    }

    /// A record of pages; frames of the types 13 to 15 have none.
    pub(crate) fn pages(self, frames: &[u64]) -> Self {
        let mut body = u32::try_from(frames.len()).unwrap().to_le_bytes().to_vec();
        body.extend([0; 4]);
        body.extend(frames.iter().flat_map(|frame| frame.to_le_bytes()));
        for frame in frames.iter().filter(|&frame| frame >> 60 < 13) {
            body.extend([u8::try_from(frame % 250).unwrap(); PAGE_BYTES]);
        }
        self.record(1, &body)
    }
}
