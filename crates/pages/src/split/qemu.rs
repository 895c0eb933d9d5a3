// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! QEMU's migration stream, version 3 (QEMU 7.2 and newer).
//!
//! ```text
//! "QEVM" 3                                   all numbers are big-endian
//! 07 configuration: u32 length, machine type, then subsections (05, named)
//! 08 command:       u16 number, u16 length, data        return path, ping, post-copy
//! 01 section start: u32 id, u8+name, u32 instance, u32 version, content
//! 02 section part, 03 section end: u32 id, content
//! 7e footer:        u32 id
//! ```
//!
//! Sections have no length, so only one kind can be followed: `ram`, version 4. Its content is a
//! list of words, `page address | flags`, each followed by a block name unless the flag `CONTINUE`
//! says "the same block", and then by what the flag announces. A word with `EOS` ends the section.
//! The first section that is not `ram` (the devices, when the guest has stopped) begins the opaque
//! rest; so does every number, flag or name this file does not know.
//!
//! Two details save us from having to know capabilities that the stream does not show. In the list
//! of blocks, 64-bit words may follow each entry (a page size, an address): names are never empty
//! and such words have a zero in front, so a zero where a name should begin is one of them. And
//! what a post-copy package contains has a length, so it passes, and pages are found again after
//! it.

use super::{
    BLOCKS_MAX, Block, Boundary, Cutter, Grammar, PAGE_BYTES, PAGES_OVER, Piece, Place, Split, Want,
};

/// The machine type and other text of the configuration section.
const CONFIGURATION_BYTES_MAX: u32 = 4096;

/// Capabilities the configuration section may name.
const CAPABILITIES_MAX: u32 = 256;

/// The longest block whose pages have a number.
const BLOCK_BYTES_MAX: u64 = (u32::MAX as u64 + 1) * PAGE_BYTES as u64;

/// Words without flags that may follow the list of blocks.
const EXTRA_WORDS_MAX: u8 = 2;

mod section {
    pub(super) const START: u8 = 0x01;
    pub(super) const PART: u8 = 0x02;
    pub(super) const END: u8 = 0x03;
    pub(super) const SUBSECTION: u8 = 0x05;
    pub(super) const CONFIGURATION: u8 = 0x07;
    pub(super) const COMMAND: u8 = 0x08;
    pub(super) const FOOTER: u8 = 0x7e;
}

mod flag {
    pub(super) const MASK: u64 = 0xfff;
    pub(super) const FILL: u64 = 0x02;
    pub(super) const BLOCKS: u64 = 0x04;
    pub(super) const PAGE: u64 = 0x08;
    pub(super) const EOS: u64 = 0x10;
    pub(super) const CONTINUE: u64 = 0x20;
    pub(super) const XBZRLE: u64 = 0x40;
    pub(super) const COMPRESSED: u64 = 0x100;
    pub(super) const MULTIFD_FLUSH: u64 = 0x200;
}

/// The command whose data is a package with a length of its own.
const COMMAND_PACKAGED: u16 = 8;

/// Splits QEMU's migration stream.
#[derive(Debug)]
pub struct QemuSplit(Cutter<Qemu>);

impl Default for QemuSplit {
    fn default() -> Self {
        Self(Cutter::new(Qemu::default()))
    }
}

impl Split for QemuSplit {
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

/// What follows a word and its block name.
#[derive(Clone, Copy, Debug)]
enum Content {
    Page,
    Fill,
    Xbzrle,
    Compressed,
}

/// What the token, or the bytes, we asked for are.
#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    Magic,
    Section,
    ConfigurationLength,
    SubsectionNameLength,
    SubsectionName,
    CapabilityCount,
    CapabilityLength {
        left: u32,
    },
    CapabilityName {
        left: u32,
    },
    PageBits,
    Command,
    PackageLength,
    /// Bytes passed; a section type is next.
    Passed,
    StartHead,
    StartName {
        id: u32,
        name_length: usize,
    },
    PartHead,
    Footer,
    /// The name of a block in the list, or a further word about the block before.
    BlockNameLength {
        bytes_left: u64,
    },
    BlockExtra {
        bytes_left: u64,
    },
    BlockName {
        bytes_left: u64,
    },
    Word {
        extras_left: u8,
    },
    WordNameLength {
        address: u64,
        content: Content,
    },
    WordName {
        address: u64,
        content: Content,
    },
    XbzrleLength,
    CompressedLength,
    /// A page or its like came; a word is next.
    PageDone,
}

#[derive(Debug, Default)]
struct Qemu {
    at: At,
    /// Section ids of `ram`.
    ram_id: Option<u32>,
    blocks: Vec<Block>,
    /// The block of words that say `CONTINUE`.
    current: Option<u16>,
}

impl Grammar for Qemu {
    fn start(&self) -> Want {
        Want::Token(8)
    }

    fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    fn next(&mut self, token: &[u8]) -> Want {
        match self.at {
            At::Magic if token == b"QEVM\0\0\0\x03" => self.ask(At::Section, 1),
            At::Magic => Want::Opaque("it does not begin as a QEMU stream of version 3"),
            At::Section => self.section(token[0]),
            At::ConfigurationLength => match be32(token) {
                length @ 1..=CONFIGURATION_BYTES_MAX => self.pass(At::Passed, length.into()),
                _ => Want::Opaque("the configuration section has an impossible length"),
            },
            At::SubsectionNameLength => match usize::from(token[0]) {
                0 => Want::Opaque("a subsection has no name"),
                length => self.ask(At::SubsectionName, length + 4),
            },
            At::SubsectionName => self.subsection(&token[..token.len() - 4]),
            At::CapabilityCount => match be32(token) {
                0 => self.ask(At::Section, 1),
                left @ 1..=CAPABILITIES_MAX => self.ask(At::CapabilityLength { left }, 1),
                _ => Want::Opaque("the configuration names too many capabilities"),
            },
            At::CapabilityLength { left } => {
                self.pass(At::CapabilityName { left: left - 1 }, token[0].into())
            }
            At::CapabilityName { left: 0 } | At::Passed => self.ask(At::Section, 1),
            At::CapabilityName { left } => self.ask(At::CapabilityLength { left }, 1),
            At::PageBits if be32(token) == PAGE_BYTES.trailing_zeros() => self.ask(At::Section, 1),
            At::PageBits => Want::Opaque("pages do not have 4 KiB"),
            At::Command => match u16::from_be_bytes([token[0], token[1]]) {
                COMMAND_PACKAGED => self.ask(At::PackageLength, 4),
                _ => self.pass(At::Passed, u16::from_be_bytes([token[2], token[3]]).into()),
            },
            At::PackageLength => self.pass(At::Passed, be32(token).into()),
            At::StartHead => self.start_head(token),
            At::StartName { id, name_length } => {
                self.section_start(id, &token[..name_length], token)
            }
            At::PartHead if Some(be32(token)) == self.ram_id => self.word(0),
            At::PartHead => Want::Opaque("a section goes on that never began"),
            At::Footer => self.ask(At::Section, 1),
            At::BlockNameLength { bytes_left } => self.block_name(token[0], bytes_left),
            At::BlockExtra { bytes_left } => self.ask(At::BlockNameLength { bytes_left }, 1),
            At::BlockName { bytes_left } => self.block(token, bytes_left),
            At::Word { extras_left } => self.on_word(be64(token), extras_left),
            At::WordNameLength { address, content } => match usize::from(token[0]) {
                0 => Want::Opaque("a page's block has no name"),
                length => self.ask(At::WordName { address, content }, length),
            },
            At::WordName { address, content } => match self.find(token) {
                Some(block) => {
                    self.current = Some(block);
                    self.content(address, content, false)
                }
                None => Want::Opaque("a page's block was never announced"),
            },
            At::XbzrleLength => {
                self.pass(At::PageDone, u16::from_be_bytes([token[1], token[2]]).into())
            }
            At::CompressedLength => self.pass(At::PageDone, be32(token).into()),
            At::PageDone => self.word(0),
        }
    }
}

impl Qemu {
    fn ask(&mut self, at: At, count: usize) -> Want {
        self.at = at;
        Want::Token(count)
    }

    fn pass(&mut self, at: At, count: u64) -> Want {
        self.at = at;
        Want::Pass(count)
    }

    fn word(&mut self, extras_left: u8) -> Want {
        self.ask(At::Word { extras_left }, 8)
    }

    fn section(&mut self, kind: u8) -> Want {
        match kind {
            section::CONFIGURATION => self.ask(At::ConfigurationLength, 4),
            // Only the configuration's subsections come between sections.
            section::SUBSECTION if self.ram_id.is_none() => self.ask(At::SubsectionNameLength, 1),
            section::COMMAND => self.ask(At::Command, 4),
            section::START => self.ask(At::StartHead, 5),
            section::PART | section::END => self.ask(At::PartHead, 4),
            section::FOOTER => self.ask(At::Footer, 4),
            _ => Want::Opaque(PAGES_OVER),
        }
    }

    fn subsection(&mut self, name: &[u8]) -> Want {
        match name {
            b"configuration/capabilities" => self.ask(At::CapabilityCount, 4),
            b"configuration/target-page-bits" => self.ask(At::PageBits, 4),
            b"configuration/uuid" => self.pass(At::Passed, 16),
            _ => Want::Opaque("the configuration has an unknown subsection"),
        }
    }

    fn start_head(&mut self, token: &[u8]) -> Want {
        match usize::from(token[4]) {
            0 => Want::Opaque("a section has no name"),
            name_length => {
                let id = be32(token);
                self.ask(At::StartName { id, name_length }, name_length + 8)
            }
        }
    }

    fn section_start(&mut self, id: u32, name: &[u8], token: &[u8]) -> Want {
        let version = be32(&token[name.len() + 4..]);
        match (name, self.ram_id) {
            (b"ram", None) if version == 4 => {
                self.ram_id = Some(id);
                self.word(0)
            }
            _ => Want::Opaque("a section begins that is not `ram`"),
        }
    }

    fn block_name(&mut self, length: u8, bytes_left: u64) -> Want {
        match usize::from(length) {
            0 if self.blocks.is_empty() => Want::Opaque("a block has no name"),
            0 => self.pass(At::BlockExtra { bytes_left }, 7),
            length => self.ask(At::BlockName { bytes_left }, length + 8),
        }
    }

    fn block(&mut self, token: &[u8], bytes_left: u64) -> Want {
        let (name, length) = token.split_at(token.len() - 8);
        let length_bytes = be64(length);
        let Some(bytes_left) = bytes_left.checked_sub(length_bytes) else {
            return Want::Opaque("the blocks are longer than announced");
        };
        if self.blocks.len() == BLOCKS_MAX {
            return Want::Opaque("there are too many blocks");
        }
        if length_bytes > BLOCK_BYTES_MAX || self.find(name).is_some() {
            return Want::Opaque("a block is too long or comes twice");
        }
        self.blocks.push(Block { name: name.to_vec(), length_bytes });
        match bytes_left {
            0 => self.word(EXTRA_WORDS_MAX),
            bytes_left => self.ask(At::BlockNameLength { bytes_left }, 1),
        }
    }

    fn on_word(&mut self, word: u64, extras_left: u8) -> Want {
        let address = word & !flag::MASK;
        let content = match word & flag::MASK & !flag::CONTINUE {
            0 if word & flag::MASK == 0 && extras_left > 0 => return self.word(extras_left - 1),
            flag::EOS => return self.ask(At::Section, 1),
            flag::MULTIFD_FLUSH => return self.word(0),
            flag::BLOCKS if self.blocks.is_empty() && address > 0 => {
                return self.ask(At::BlockNameLength { bytes_left: address }, 1);
            }
            flag::PAGE => Content::Page,
            flag::FILL => Content::Fill,
            flag::XBZRLE => Content::Xbzrle,
            flag::COMPRESSED => Content::Compressed,
            _ => return Want::Opaque("a page has unknown flags"),
        };
        match word & flag::CONTINUE {
            0 => self.ask(At::WordNameLength { address, content }, 1),
            _ => self.content(address, content, true),
        }
    }

    fn content(&mut self, address: u64, content: Content, headed: bool) -> Want {
        let Some(place) = self.place(address) else {
            return Want::Opaque("a page lies outside of its block");
        };
        self.at = At::PageDone;
        match content {
            Content::Page => Want::Page { place, headed },
            Content::Fill if headed => Want::Fill,
            Content::Fill => Want::Pass(1),
            Content::Xbzrle => self.ask(At::XbzrleLength, 3),
            Content::Compressed => self.ask(At::CompressedLength, 4),
        }
    }

    fn place(&self, address: u64) -> Option<Place> {
        let block = self.current?;
        let inside = address < self.blocks[usize::from(block)].length_bytes;
        let page_index = u32::try_from(address / PAGE_BYTES as u64).ok()?;
        inside.then_some(Place { block, page_index })
    }

    fn find(&self, name: &[u8]) -> Option<u16> {
        let index = self.blocks.iter().position(|block| block.name == name)?;
        u16::try_from(index).ok()
    }
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("the token has four bytes"))
}

fn be64(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().expect("the token has eight bytes"))
}
