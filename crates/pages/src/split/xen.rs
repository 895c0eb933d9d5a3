// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Xen's migration stream: xl's header, libxl's records (version 2), and in them libxc's (version
//! 3).
//!
//! ```text
//! xl:     "Xen saved domain, xl format\n \0 \r", byte order, 2 x flags, length; the configuration
//! libxl:  "LibxlFmt", version, options; records: u32 type, u32 length, body padded to 8 bytes
//!         record 1 is followed by the whole libxc stream, and then libxl's records go on
//! libxc:  8 x ff, "XENF", version, options; 16 bytes about the guest; records as above
//!         record 1: u32 count, u32 0, count x u64 (type in the top four bits, frame number), then
//!         the pages of those frames that have any
//! ```
//!
//! Every record says how long it is, so unlike QEMU's this stream can be followed to its end.
//! A stream may begin at any of the three layers. Only little-endian guests are looked into.

use super::{Block, Boundary, Cutter, Grammar, PAGE_BYTES, PAGES_OVER, Piece, Place, Split, Want};

/// Frames of one record, a limit that libxc has, too.
pub(crate) const RECORD_FRAMES_MAX: u32 = 1024;
/// So many frames of a list are looked at in one go.
const FRAMES_AT_ONCE: u32 = 64;

/// No other engine's stream begins with it.
pub(super) const FIRST: u8 = XL_MAGIC[0];
const XL_MAGIC: &[u8] = b"Xen saved domain, xl format\n \0 \r";
const XL_HEADER_BYTES: usize = 48;
const LIBXL_MAGIC: &[u8] = b"LibxlFmt\0\0\0\x02";
const LIBXC_MAGIC: &[u8] = b"\xff\xff\xff\xff\xff\xff\xff\xffXENF\0\0\0\x03\0\0";

const RECORD_END: u32 = 0;
/// In libxl's stream: libxc's stream follows. In libxc's stream: pages.
const RECORD_ONE: u32 = 1;

/// Splits the stream of `xl migrate`, or one of the streams in it.
#[derive(Debug)]
pub struct XenSplit(Cutter<Xen>);

impl Default for XenSplit {
    fn default() -> Self {
        Self(Cutter::new(Xen::default()))
    }
}

impl Split for XenSplit {
    fn push(&mut self, input: &[u8], take: &mut dyn FnMut(Piece<'_>)) {
        self.0.push(input, take);
    }

    fn flush(&mut self, take: &mut dyn FnMut(Piece<'_>)) {
        self.0.flush(take);
    }

    fn missing_bytes(&self) -> usize {
        self.0.missing_bytes()
    }

    fn is_within_page(&self) -> bool {
        self.0.is_within_page()
    }

    fn blocks(&self) -> &[Block] {
        self.0.blocks()
    }

    fn boundary(&self) -> Option<Boundary> {
        self.0.boundary()
    }
}

/// Counts what passes in the stream of `xl migrate`, or one of the streams in it, and leaves the
/// pages alone: of each record it reads the head and the list of frames.
#[derive(Debug)]
pub struct XenTally(Cutter<Xen>);

/// What has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passes over the guest's memory; 0 before the first page. In each, libxc walks the frames
    /// upwards: a number that does not rise begins the next one.
    pub round: u64,
    /// Pages of this pass.
    pub pages: u64,
    /// Pages of the pass before.
    pub pages_before: u64,
    last_frame: u32,
}

impl Default for XenTally {
    fn default() -> Self {
        Self(Cutter::new(Xen { skips_pages: true, ..Xen::default() }))
    }
}

impl XenTally {
    /// Takes the next bytes of the stream, and returns how it stands after them.
    pub fn push(&mut self, input: &[u8]) -> Tally {
        self.0.push(input, &mut |_| ());
        self.0.grammar().tally
    }
}

impl Tally {
    fn note(&mut self, frame: u32) {
        if self.round == 0 || frame <= self.last_frame {
            self.round += 1;
            self.pages_before = std::mem::take(&mut self.pages);
        }
        self.pages += 1;
        self.last_frame = frame;
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Layer {
    #[default]
    Libxl,
    Libxc,
}

#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    Magic,
    XlHeader,
    /// Xl's configuration passed; libxl's header is next.
    Configuration,
    LibxlMagic,
    LibxlHeader,
    LibxcMagic,
    LibxcHeader,
    /// A record passed; the next one begins.
    Record,
    RecordHead,
    PageCount {
        body_bytes: u32,
    },
    Frames {
        left: u32,
        body_bytes: u32,
    },
    /// A page came, or none was to come.
    Pages,
}

#[derive(Debug, Default)]
struct Xen {
    at: At,
    layer: Layer,
    /// Libxc's stream stands in libxl's.
    nested: bool,
    /// Frames of this record seen so far, and how many of them have a page.
    frames_seen: u32,
    pages_seen: u32,
    /// The pages that follow, in reverse; none where they are not looked at.
    pages: Vec<Place>,
    skips_pages: bool,
    tally: Tally,
}

impl Grammar for Xen {
    fn start(&self) -> Want {
        Want::Token(8)
    }

    fn blocks(&self) -> &[Block] {
        &[]
    }

    fn next(&mut self, token: &[u8]) -> Want {
        match self.at {
            At::Magic if token == &XL_MAGIC[..8] => self.ask(At::XlHeader, XL_HEADER_BYTES - 8),
            At::Magic if token == &LIBXL_MAGIC[..8] => self.ask(At::LibxlHeader, 8),
            At::Magic if token == &LIBXC_MAGIC[..8] => self.ask(At::LibxcHeader, 16),
            At::Magic => Want::Opaque("it does not begin as a stream of Xen"),
            At::XlHeader => self.xl_header(token),
            At::Configuration => self.ask(At::LibxlMagic, 8),
            At::LibxlMagic => match token == &LIBXL_MAGIC[..8] {
                true => self.ask(At::LibxlHeader, 8),
                false => Want::Opaque("libxl's part does not begin as it should"),
            },
            At::LibxlHeader => match token[..4] == LIBXL_MAGIC[8..] && token[4..] == [0; 4] {
                true => self.ask(At::RecordHead, 8),
                false => Want::Opaque("libxl's part has an unknown version or option"),
            },
            At::LibxcMagic => match token == &LIBXC_MAGIC[..8] {
                true => self.ask(At::LibxcHeader, 16),
                false => Want::Opaque("libxc's part does not begin as it should"),
            },
            At::LibxcHeader => self.libxc_header(token),
            At::Record => self.ask(At::RecordHead, 8),
            At::RecordHead => self.record(le32(token), le32(&token[4..])),
            At::PageCount { body_bytes } => match le32(token) {
                left @ 1..=RECORD_FRAMES_MAX => self.ask_for_frames(left, body_bytes),
                _ => Want::Opaque("a record has an impossible number of frames"),
            },
            At::Frames { left, body_bytes } => self.frames(token, left, body_bytes),
            At::Pages => match self.pages.pop() {
                Some(place) => Want::Page { place, headed: false },
                None => self.ask(At::RecordHead, 8),
            },
        }
    }
}

impl Xen {
    fn ask(&mut self, at: At, count: usize) -> Want {
        self.at = at;
        Want::Token(count)
    }

    fn pass(&mut self, at: At, count: u64) -> Want {
        self.at = at;
        Want::Pass(count)
    }

    fn xl_header(&mut self, token: &[u8]) -> Want {
        let (magic, rest) = token.split_at(XL_MAGIC.len() - 8);
        if magic != &XL_MAGIC[8..] || le32(rest) != 0x0102_0304 {
            return Want::Opaque("xl's header is not one we know");
        }
        self.pass(At::Configuration, le32(&rest[12..]).into())
    }

    fn libxc_header(&mut self, token: &[u8]) -> Want {
        // The last bit of the options would say big-endian; after them, six reserved bytes.
        if token[..8] != LIBXC_MAGIC[8..16] || token[8..10] != LIBXC_MAGIC[16..] {
            return Want::Opaque("libxc's part has an unknown version or option");
        }
        self.layer = Layer::Libxc;
        self.pass(At::Record, 16)
    }

    fn record(&mut self, kind: u32, body_bytes: u32) -> Want {
        let padded = u64::from(body_bytes).next_multiple_of(8);
        match (self.layer, kind) {
            (Layer::Libxl, RECORD_END) => Want::Opaque(PAGES_OVER),
            (Layer::Libxl, RECORD_ONE) if body_bytes == 0 => {
                self.nested = true;
                self.ask(At::LibxcMagic, 8)
            }
            (Layer::Libxc, RECORD_END) if self.nested && body_bytes == 0 => {
                self.layer = Layer::Libxl;
                self.ask(At::RecordHead, 8)
            }
            (Layer::Libxc, RECORD_END) => Want::Opaque(PAGES_OVER),
            (Layer::Libxc, RECORD_ONE) => self.ask(At::PageCount { body_bytes }, 8),
            _ => self.pass(At::Record, padded),
        }
    }

    fn ask_for_frames(&mut self, left: u32, body_bytes: u32) -> Want {
        let count = left.min(FRAMES_AT_ONCE);
        self.ask(At::Frames { left, body_bytes }, 8 * usize::try_from(count).unwrap_or(0))
    }

    fn frames(&mut self, token: &[u8], left: u32, body_bytes: u32) -> Want {
        for word in token.chunks_exact(8) {
            let word = u64::from_le_bytes(word.try_into().expect("a frame has eight bytes"));
            self.frames_seen += 1;
            // 13 to 15: broken, only allocated, or a hole. These have no page.
            if word >> 60 >= 0xd {
                continue;
            }
            let Ok(page_index) = u32::try_from(word & 0x000f_ffff_ffff_ffff) else {
                return Want::Opaque("a frame number is too large");
            };
            self.pages_seen += 1;
            self.tally.note(page_index);
            if !self.skips_pages {
                self.pages.push(Place { block: 0, page_index });
            }
        }
        match left - left.min(FRAMES_AT_ONCE) {
            0 => self.frames_over(body_bytes),
            left => self.ask_for_frames(left, body_bytes),
        }
    }

    fn frames_over(&mut self, body_bytes: u32) -> Want {
        let frames = u64::from(std::mem::take(&mut self.frames_seen));
        let pages = u64::from(std::mem::take(&mut self.pages_seen));
        let page_bytes = PAGE_BYTES as u64 * pages;
        if u64::from(body_bytes) != 8 + 8 * frames + page_bytes {
            return Want::Opaque("a record of pages has an impossible length");
        }
        self.pages.reverse();
        self.pass(At::Pages, if self.skips_pages { page_bytes } else { 0 })
    }
}

fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("the token has four bytes"))
}
