// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Where are the pages in an engine's stream?
//!
//! A [`Split`] cuts a stream into [`Piece`]s. One rule keeps it harmless: **the pieces, written one
//! after the other, are the stream**, whatever the stream is and however it was chunked. So a
//! splitter that understands nothing costs bytes on the wire, never correctness; and from the first
//! thing it does not know on, it calls everything opaque and never tries to find its way back.
//!
//! A format is a [`Grammar`]: it says what it wants next (a token, a page, so many bytes it does
//! not look at) and is told when it has come. The [`Cutter`] does the rest: chunks, partial pages,
//! and the flush of a stream that stops in the middle of something.

mod qemu;
mod xen;

pub use qemu::QemuSplit;
pub use xen::{Tally, XenSplit, XenTally};

/// The size of a page in every stream we look into.
pub const PAGE_BYTES: usize = 4096;

/// Blocks of memory (RAM, ROMs, video memory) a stream may name.
pub const BLOCKS_MAX: usize = 1024;

/// The longest token a grammar may ask for, and so the most a splitter holds besides a page.
pub(crate) const TOKEN_BYTES_MAX: usize = 512;

/// The bytes of one page.
pub type Page = [u8; PAGE_BYTES];

/// Where a page lives in the guest: a block of memory and the page's number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub block: u16,
    pub page_index: u32,
}

/// A block of the guest's memory, as the stream announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub name: Vec<u8>,
    pub length_bytes: u64,
}

/// A piece of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes that are not looked into.
    Bytes(&'a [u8]),
    /// A page. With a `head`, these eight bytes (big-endian) stood directly before it.
    Page { head: Option<u64>, place: Place, page: &'a Page },
    /// A page that consists of one byte repeated: its head, then that byte.
    Fill { head: u64, byte: u8 },
}

impl Piece<'_> {
    /// Returns how many bytes of the stream the piece stands for.
    pub fn stream_bytes(&self) -> usize {
        match self {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::Page { head, .. } => PAGE_BYTES + if head.is_some() { 8 } else { 0 },
            Piece::Fill { .. } => 9,
        }
    }
}

/// The place where a splitter stopped looking, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// Bytes of the stream before it.
    pub offset: u64,
    pub reason: &'static str,
}

/// Why a splitter stops looking where all is well.
const PAGES_OVER: &str = "the part of the stream that has pages is over";

impl Boundary {
    /// Whether the state of the devices follows, and not something unknown.
    pub fn is_end_of_pages(&self) -> bool {
        self.reason == PAGES_OVER
    }
}

/// Cuts the stream of an engine into pieces; see the module for the one rule.
pub trait Split: Send {
    /// Takes the next bytes of the stream and hands out every piece that is complete.
    fn push(&mut self, input: &[u8], take: &mut dyn FnMut(Piece<'_>));

    /// Hands out what is held back, as opaque bytes: the input idles, and what is held may be all
    /// the other end is waiting for.
    fn flush(&mut self, take: &mut dyn FnMut(Piece<'_>));

    /// Returns how many bytes are missing from the piece that is held back; 0 if none is.
    fn missing_bytes(&self) -> usize;

    /// Returns whether what is held back is the beginning of a page. No engine waits for an answer
    /// there, so nobody needs it before the rest has come.
    fn is_within_page(&self) -> bool;

    /// Returns the blocks of memory announced so far.
    fn blocks(&self) -> &[Block];

    /// Returns where the opaque rest began, if it has.
    fn boundary(&self) -> Option<Boundary>;
}

/// A splitter that never looks: for return paths and for streams of unknown engines.
#[derive(Debug, Default)]
pub struct OpaqueSplit;

impl Split for OpaqueSplit {
    fn push(&mut self, input: &[u8], take: &mut dyn FnMut(Piece<'_>)) {
        if !input.is_empty() {
            take(Piece::Bytes(input));
        }
    }

    fn flush(&mut self, _take: &mut dyn FnMut(Piece<'_>)) {}

    fn missing_bytes(&self) -> usize {
        0
    }

    fn is_within_page(&self) -> bool {
        false
    }

    fn blocks(&self) -> &[Block] {
        &[]
    }

    fn boundary(&self) -> Option<Boundary> {
        Some(Boundary { offset: 0, reason: "this stream is not looked into" })
    }
}

/// Splits the stream of any engine that is known, by what it begins with.
#[derive(Default)]
pub struct EngineSplit(Option<Box<dyn Split>>);

impl Split for EngineSplit {
    fn push(&mut self, input: &[u8], take: &mut dyn FnMut(Piece<'_>)) {
        // One byte tells them apart, and the grammar looks at the others.
        let Some(first) = input.first() else { return };
        let split = self.0.get_or_insert_with(|| match *first == xen::FIRST {
            true => Box::new(XenSplit::default()),
            false => Box::new(QemuSplit::default()),
        });
        split.push(input, take);
    }

    fn flush(&mut self, take: &mut dyn FnMut(Piece<'_>)) {
        if let Some(split) = &mut self.0 {
            split.flush(take);
        }
    }

    fn missing_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |split| split.missing_bytes())
    }

    fn is_within_page(&self) -> bool {
        self.0.as_ref().is_some_and(|split| split.is_within_page())
    }

    fn blocks(&self) -> &[Block] {
        self.0.as_ref().map_or(&[], |split| split.blocks())
    }

    fn boundary(&self) -> Option<Boundary> {
        self.0.as_ref().and_then(|split| split.boundary())
    }
}

/// What a grammar wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// So many bytes, to look at. At least 1, at most [`TOKEN_BYTES_MAX`].
    Token(usize),
    /// So many bytes that need no look. 0 is allowed.
    Pass(u64),
    /// A page. `headed` says that the token just seen has eight bytes and is the page's head.
    Page { place: Place, headed: bool },
    /// The fill byte of the page whose head is the token just seen.
    Fill,
    /// The rest of the stream is not understood.
    Opaque(&'static str),
}

/// A stream format.
pub(crate) trait Grammar: Send {
    /// Returns what a stream begins with.
    fn start(&self) -> Want;

    /// Takes what was wanted (empty unless it was a token) and says what comes next.
    fn next(&mut self, token: &[u8]) -> Want;

    fn blocks(&self) -> &[Block];
}

/// Drives a [`Grammar`] over chunks of any size.
#[derive(Debug)]
pub(crate) struct Cutter<G> {
    grammar: G,
    want: Want,
    /// The beginning of what is wanted, when a chunk ended in the middle of it.
    held: Vec<u8>,
    /// How much of `held` a flush has already handed out.
    shown: usize,
    /// The head of the page or fill byte that is wanted.
    head: Option<[u8; 8]>,
    /// Bytes of the stream that were taken.
    offset: u64,
    boundary: Option<Boundary>,
}

impl<G: Grammar> Cutter<G> {
    pub(crate) fn new(grammar: G) -> Self {
        let want = grammar.start();
        let held = Vec::with_capacity(PAGE_BYTES);
        Self { grammar, want, held, shown: 0, head: None, offset: 0, boundary: None }
    }

    pub(crate) fn grammar(&self) -> &G {
        &self.grammar
    }

    /// Returns the first `count` bytes that are wanted, if `held` and `input` have them, and
    /// shortens `input` by what it took. The bytes are then in `held`, or, uncopied, in the result.
    fn collect<'a>(&mut self, input: &mut &'a [u8], count: usize) -> Option<Option<&'a [u8]>> {
        if self.held.is_empty() && input.len() >= count {
            let (taken, rest) = input.split_at(count);
            *input = rest;
            self.offset += taken.len() as u64;
            return Some(Some(taken));
        }
        let (taken, rest) = input.split_at(input.len().min(count - self.held.len()));
        self.held.extend_from_slice(taken);
        *input = rest;
        self.offset += taken.len() as u64;
        (self.held.len() == count).then_some(None)
    }

    /// Asks the grammar what follows `token`, and hands the token out unless it is a head.
    fn token(&mut self, token: &[u8], shown: usize, take: &mut dyn FnMut(Piece<'_>)) {
        self.want = self.grammar.next(token);
        let heads = matches!(self.want, Want::Page { headed: true, .. } | Want::Fill);
        match token.try_into() {
            Ok(head) if heads && shown == 0 => self.head = Some(head),
            _ => {
                if shown < token.len() {
                    take(Piece::Bytes(&token[shown..]));
                }
                // Without its head a fill byte is just a byte.
                if self.want == Want::Fill {
                    self.want = Want::Pass(1);
                }
            }
        }
    }

    fn step(&mut self, input: &mut &[u8], take: &mut dyn FnMut(Piece<'_>)) -> Option<()> {
        match self.want {
            Want::Token(count) => {
                debug_assert!((1..=TOKEN_BYTES_MAX).contains(&count));
                match self.collect(input, count)? {
                    Some(token) => self.token(token, 0, take),
                    None => {
                        let held = std::mem::take(&mut self.held);
                        let shown = std::mem::take(&mut self.shown);
                        self.token(&held, shown, take);
                        self.held = held;
                        self.held.clear();
                    }
                }
            }
            Want::Pass(count) => {
                let length = usize::try_from(count).unwrap_or(usize::MAX).min(input.len());
                let (taken, rest) = input.split_at(length);
                *input = rest;
                self.offset += length as u64;
                if length > 0 {
                    take(Piece::Bytes(taken));
                }
                self.want = Want::Pass(count - length as u64);
                if self.want != Want::Pass(0) {
                    return None;
                }
                self.want = self.grammar.next(&[]);
            }
            Want::Page { place, .. } => {
                let direct = self.collect(input, PAGE_BYTES)?;
                let page = direct.unwrap_or(&self.held).try_into().expect("a page was collected");
                take(Piece::Page { head: self.head.take().map(u64::from_be_bytes), place, page });
                self.held.clear();
                self.want = self.grammar.next(&[]);
            }
            Want::Fill => {
                let byte = self.collect(input, 1)?.map_or(0, |bytes| bytes[0]);
                let head = self.head.take().expect("a fill byte is only wanted after its head");
                take(Piece::Fill { head: u64::from_be_bytes(head), byte });
                self.want = self.grammar.next(&[]);
            }
            Want::Opaque(reason) => {
                self.boundary.get_or_insert(Boundary { offset: self.offset, reason });
                if !input.is_empty() {
                    take(Piece::Bytes(input));
                    self.offset += input.len() as u64;
                    *input = &[];
                }
                return None;
            }
        }
        Some(())
    }
}

impl<G: Grammar> Split for Cutter<G> {
    fn push(&mut self, mut input: &[u8], take: &mut dyn FnMut(Piece<'_>)) {
        while self.step(&mut input, take).is_some() {}
        debug_assert!(input.is_empty(), "every byte is either held or handed out");
    }

    fn flush(&mut self, take: &mut dyn FnMut(Piece<'_>)) {
        if let Some(head) = self.head.take() {
            take(Piece::Bytes(&head));
            if self.want == Want::Fill {
                self.want = Want::Pass(1);
            }
        }
        if self.held.len() > self.shown {
            take(Piece::Bytes(&self.held[self.shown..]));
        }
        self.shown = self.held.len();
        // A token is still wanted whole, to be looked at; what is left of a page just passes.
        if let Want::Page { .. } = self.want
            && !self.held.is_empty()
        {
            self.want = Want::Pass((PAGE_BYTES - self.held.len()) as u64);
            self.held.clear();
            self.shown = 0;
        }
    }

    fn is_within_page(&self) -> bool {
        matches!(self.want, Want::Page { .. }) && !self.held.is_empty()
    }

    fn missing_bytes(&self) -> usize {
        let held = self.held.len() - self.shown;
        match self.want {
            Want::Page { .. } if held > 0 || self.head.is_some() => PAGE_BYTES - self.held.len(),
            Want::Fill => 1,
            Want::Token(count) if held > 0 => count - self.held.len(),
            Want::Page { .. } | Want::Token(_) | Want::Pass(_) | Want::Opaque(_) => 0,
        }
    }

    fn blocks(&self) -> &[Block] {
        self.grammar.blocks()
    }

    fn boundary(&self) -> Option<Boundary> {
        self.boundary
    }
}
