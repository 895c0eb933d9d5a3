// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Packing a batch: raw, lz4 or zstd, and which of them.
//!
//! Batches are packed on their own, so that any core can pack any batch, a batch can be sent again,
//! and a keeper of pages can open one without its neighbours. Long windows and dictionaries were
//! measured and gain nothing on memory pages.

mod choice;

pub use choice::{CodecRates, Conditions, choose};

/// The levels of zstd that are worth their time on memory pages.
pub const ZSTD_LEVEL_MAX: u8 = 9;

/// How a batch is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    Raw,
    Lz4,
    /// With a level of 1 to [`ZSTD_LEVEL_MAX`].
    Zstd(u8),
}

/// The codec as it stands in a batch: unpacking needs no level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    Raw,
    Lz4,
    Zstd,
}

impl Packing {
    pub(crate) fn tag(self) -> u8 {
        match self {
            Packing::Raw => 1,
            Packing::Lz4 => 2,
            Packing::Zstd => 3,
        }
    }

    pub(crate) fn from_tag(tag: u8) -> Option<Self> {
        [Packing::Raw, Packing::Lz4, Packing::Zstd].into_iter().find(|packing| packing.tag() == tag)
    }
}

/// Why packed bytes could not be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{packed_bytes} packed bytes do not unpack to the {plain_bytes} bytes they should")]
pub struct UnpackError {
    pub packed_bytes: usize,
    pub plain_bytes: usize,
}

/// Packs batches. Keeps what a codec needs between two batches; have one per thread.
#[derive(Default)]
pub struct Packer {
    zstd: Option<(u8, zstd::bulk::Compressor<'static>)>,
}

impl Packer {
    /// Packs `plain`; what does not get smaller is left raw.
    pub fn pack(&mut self, codec: Codec, plain: &[u8]) -> (Packing, Vec<u8>) {
        let packed = match codec {
            Codec::Raw => None,
            Codec::Lz4 => Some((Packing::Lz4, lz4_flex::block::compress(plain))),
            Codec::Zstd(level) => self
                .zstd(level.clamp(1, ZSTD_LEVEL_MAX), plain)
                .map(|packed| (Packing::Zstd, packed)),
        };
        match packed {
            Some((packing, packed)) if packed.len() < plain.len() => (packing, packed),
            _ => (Packing::Raw, plain.to_vec()),
        }
    }

    fn zstd(&mut self, level: u8, plain: &[u8]) -> Option<Vec<u8>> {
        if self.zstd.as_ref().is_none_or(|(current, _)| *current != level) {
            self.zstd = Some((level, zstd::bulk::Compressor::new(i32::from(level)).ok()?));
        }
        let (_, compressor) = self.zstd.as_mut()?;
        compressor.compress(plain).ok()
    }
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

/// Unpacks batches: never more than the caller says, never less.
#[derive(Default)]
pub struct Unpacker {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Unpacker {
    /// Replaces the content of `plain` by what `packed` holds, which must be exactly `plain_bytes`.
    /// The caller has checked `plain_bytes` against a limit of its own.
    pub fn unpack(
        &mut self,
        packing: Packing,
        packed: &[u8],
        plain_bytes: usize,
        plain: &mut Vec<u8>,
    ) -> Result<(), UnpackError> {
        let wrong = UnpackError { packed_bytes: packed.len(), plain_bytes };
        plain.clear();
        let length = match packing {
            Packing::Raw => {
                plain.extend_from_slice(packed);
                packed.len()
            }
            Packing::Lz4 => {
                plain.resize(plain_bytes, 0);
                lz4_flex::block::decompress_into(packed, plain).map_err(|_| wrong)?
            }
            Packing::Zstd => {
                plain.resize(plain_bytes, 0);
                self.zstd(packed, plain).ok_or(wrong)?
            }
        };
        if length == plain_bytes { Ok(()) } else { Err(wrong) }
    }

    fn zstd(&mut self, packed: &[u8], plain: &mut [u8]) -> Option<usize> {
        if self.zstd.is_none() {
            self.zstd = zstd::bulk::Decompressor::new().ok();
        }
        self.zstd.as_mut()?.decompress_to_buffer(packed, plain).ok()
    }
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Codec; 5] =
        [Codec::Raw, Codec::Lz4, Codec::Zstd(1), Codec::Zstd(3), Codec::Zstd(9)];

    #[test]
    fn every_codec_gives_back_what_it_was_given() {
        let texts: [Vec<u8>; 4] = [
            vec![],
            b"abc".to_vec(),
            b"whimbrel ".repeat(20_000),
            blake3::hash(b"noise").as_bytes().iter().copied().cycle().take(31).collect(),
        ];
        let (mut packer, mut unpacker, mut back) = <(Packer, Unpacker, Vec<u8>)>::default();
        for (codec, text) in ALL.into_iter().flat_map(|codec| texts.iter().map(move |t| (codec, t)))
        {
            let (packing, packed) = packer.pack(codec, text);
            assert!(packed.len() <= text.len(), "{codec:?} never makes a batch larger");
            unpacker.unpack(packing, &packed, text.len(), &mut back).unwrap();
            assert!(back == *text, "{codec:?}");
        }
    }

    #[test]
    fn a_batch_that_unpacks_to_another_length_is_refused() {
        let text = b"whimbrel ".repeat(20_000);
        let (mut packer, mut unpacker, mut back) = <(Packer, Unpacker, Vec<u8>)>::default();
        for codec in ALL {
            let (packing, packed) = packer.pack(codec, &text);
            for wrong in [0, 1, text.len() - 1, text.len() + 1] {
                let error = unpacker.unpack(packing, &packed, wrong, &mut back).unwrap_err();
                assert_eq!(error.plain_bytes, wrong, "{codec:?}");
                assert!(back.capacity() <= 2 * text.len(), "no more is allocated than was allowed");
            }
            let cut = &packed[..packed.len() - 1];
            assert!(unpacker.unpack(packing, cut, text.len(), &mut back).is_err(), "{codec:?}");
        }
    }
}
