// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! One page of checked memory: what it holds, how it is changed, how a damaged one is noticed.
//!
//! ```text
//!   word 0   index of the page: a page that landed elsewhere is noticed
//!   word 1   version: a page that arrived in an older state is noticed
//!   word 2   checksum of everything else
//!   word 3.. payload
//! ```

pub(crate) const PAGE_BYTES: usize = 4096;
const WORDS: usize = PAGE_BYTES / 8;
const PAYLOAD: usize = 3;
/// A quarter of a kilobyte: a session, a row, a counter with its name.
const OBJECT_WORDS: usize = 32;

/// A page, aligned as the machine's own, so that one of ours is one of the hypervisor's.
#[repr(C, align(4096))]
#[derive(Clone)]
pub(crate) struct Page([u64; WORDS]);

/// What a page is filled or dirtied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: zeros at first, no dirtying.
    None,
    /// Incompressible.
    Random,
    /// One word of the page changes: a delta's best case.
    Sparse,
    /// Words of a language: compresses about as well as program memory.
    Text,
    /// One small object of many in the page is written anew: what a service does.
    Object,
}

impl Kind {
    pub(crate) fn parse(word: &str) -> Option<Kind> {
        Some(match word {
            "none" => Kind::None,
            "random" => Kind::Random,
            "sparse" => Kind::Sparse,
            "text" => Kind::Text,
            "object" => Kind::Object,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::None => "none",
            Kind::Random => "random",
            Kind::Sparse => "sparse",
            Kind::Text => "text",
            Kind::Object => "object",
        }
    }
}

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    Misplaced { found: u64 },
    Stale { expected: u64, found: u64 },
    Corrupt,
}

impl Page {
    pub(crate) fn zeroed() -> Page {
        Page([0; WORDS])
    }

    /// Fills the page anew as the given version.
    pub(crate) fn write(&mut self, index: u64, version: u64, kind: Kind) {
        let mut random = Random(mix(index ^ version.rotate_left(32) ^ 0x5eed));
        match kind {
            Kind::None => {}
            Kind::Random => self.0[PAYLOAD..].fill_with(|| random.next()),
            Kind::Sparse => {
                let place = PAYLOAD + random.below(WORDS - PAYLOAD);
                self.0[place] = random.next();
            }
            Kind::Text => fill_with_text(&mut self.0[PAYLOAD..], &mut random),
            Kind::Object => {
                let place = PAYLOAD + random.below(WORDS - PAYLOAD - OBJECT_WORDS);
                fill_with_text(&mut self.0[place..place + OBJECT_WORDS], &mut random);
            }
        }
        self.0[0] = index;
        self.0[1] = version;
        self.0[2] = self.checksum();
    }

    pub(crate) fn verify(&self, index: u64, version: u64) -> Result<(), Damage> {
        if self.0[2] != self.checksum() {
            Err(Damage::Corrupt)
        } else if self.0[0] != index {
            Err(Damage::Misplaced { found: self.0[0] })
        } else if self.0[1] != version {
            Err(Damage::Stale { expected: version, found: self.0[1] })
        } else {
            Ok(())
        }
    }

    /// Reads a page from a file; `None` if it is not as long as one.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Page> {
        let mut page = Page::zeroed();
        let (words, []) = bytes.as_chunks() else { return None };
        if words.len() != WORDS {
            return None;
        }
        for (word, bytes) in page.0.iter_mut().zip(words) {
            *word = u64::from_le_bytes(*bytes);
        }
        Some(page)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn checksum(&self) -> u64 {
        let start = fold(fold(0, self.0[0]), self.0[1]);
        self.0[PAYLOAD..].iter().fold(start, |sum, word| fold(sum, *word))
    }
}

fn fold(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

/// Writes words of eight letters: eight of them, so three bits of content to the eight bytes,
/// sprinkled with numbers, so that no two pages are equal.
fn fill_with_text(payload: &mut [u64], random: &mut Random) {
    const WORDS: [&[u8; 8]; 8] = [
        b"migrate ",
        b"whimbrel",
        b"estuary ",
        b" winter ",
        b"northern",
        b"shore of",
        b"without ",
        b"landing ",
    ];
    for (place, word) in payload.iter_mut().enumerate() {
        *word = match place % 4 {
            3 => random.next(),
            _ => u64::from_le_bytes(*WORDS[random.below(WORDS.len())]),
        };
    }
}

/// A small generator (splitmix64): the pattern need not be secret, only spread.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Draws an index below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let drawn = self.next() % bound as u64;
        usize::try_from(drawn).expect("smaller than a usize")
    }
}

fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 5] = [Kind::None, Kind::Random, Kind::Sparse, Kind::Text, Kind::Object];

    /// A page just written verifies, whatever it was filled with and whatever it held before.
    #[test]
    fn what_was_written_verifies() {
        let mut page = Page::zeroed();
        for (version, kind) in (1..).zip(KINDS.iter().chain(&KINDS)) {
            page.write(42, version, *kind);
            assert_eq!(page.verify(42, version), Ok(()));
        }
    }

    /// Each kind of damage a migration could do is told from the others.
    #[test]
    fn each_damage_is_named() {
        let mut page = Page::zeroed();
        page.write(42, 3, Kind::Random);
        assert_eq!(page.verify(41, 3), Err(Damage::Misplaced { found: 42 }));
        assert_eq!(page.verify(42, 4), Err(Damage::Stale { expected: 4, found: 3 }));
        for word in 0..WORDS {
            let mut damaged = page.clone();
            damaged.0[word] ^= 1 << (word % 64);
            assert_eq!(damaged.verify(42, 3), Err(Damage::Corrupt), "word {word}");
        }
        assert_eq!(Page::zeroed().verify(0, 0), Ok(()), "zeros are the page before the first");
    }

    /// One word of the payload, one object of it, or all.
    #[test]
    fn kinds_differ_in_how_much_they_change() {
        let mut page = Page::zeroed();
        page.write(1, 1, Kind::Text);
        let before = page.clone();
        page.write(1, 2, Kind::Sparse);
        let changed = (PAYLOAD..WORDS).filter(|word| page.0[*word] != before.0[*word]).count();
        assert_eq!(changed, 1);
        let before = page.clone();
        page.write(1, 3, Kind::Object);
        let changed = (PAYLOAD..WORDS).filter(|word| page.0[*word] != before.0[*word]).count();
        assert!((2..=OBJECT_WORDS).contains(&changed), "{changed} words");
        page.write(1, 4, Kind::Random);
        let changed = (PAYLOAD..WORDS).filter(|word| page.0[*word] != before.0[*word]).count();
        assert_eq!(changed, WORDS - PAYLOAD);
    }

    /// A page survives a file; a file that is too short or too long is not one.
    #[test]
    fn bytes_are_read_back() {
        let mut page = Page::zeroed();
        page.write(5, 1, Kind::Text);
        let bytes = page.to_bytes();
        assert_eq!(Page::from_bytes(&bytes).unwrap().verify(5, 1), Ok(()));
        assert!(Page::from_bytes(&bytes[1..]).is_none());
        assert!(Page::from_bytes(&[bytes, vec![0; 8]].concat()).is_none());
    }

    #[test]
    fn names_of_kinds_are_read_back() {
        for kind in KINDS {
            assert_eq!(Kind::parse(kind.name()), Some(kind));
        }
        assert_eq!(Kind::parse("loud"), None);
    }
}
