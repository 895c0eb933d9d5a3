// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The counter as it lies on the disk, and what a disk full of records says.
//!
//! The disk begins with [`SLOTS`] blocks used in turn: counter `n` lies in slot `n % SLOTS`. So the
//! last writes are all there to be looked at, and a write that was lost or came from elsewhere
//! leaves a gap.
//!
//! ```text
//!    0  magic    8  seed   16  boot   24  counter   32  checksum   then the counter, repeated
//! ```

pub(crate) const BLOCK_BYTES: usize = 4096;
/// Blocks used in turn; one mebibyte.
pub(crate) const SLOTS: u64 = 256;

const MAGIC: u64 = u64::from_le_bytes(*b"witness1");
const HEADER: usize = 40;

/// A block as the disk takes it, aligned for direct access.
#[repr(C, align(4096))]
#[derive(Clone)]
pub(crate) struct Block(pub(crate) [u8; BLOCK_BYTES]);

/// One written counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) seed: u64,
    pub(crate) boot: u64,
    pub(crate) counter: u64,
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Empty,
    Record(Record),
    /// One of ours that is torn or was overwritten in part.
    Torn,
    /// Something else: not our disk.
    Foreign,
}

/// What the whole disk says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Fresh,
    /// The counter goes on after `last`.
    Continues {
        last: Record,
    },
    /// This disk must not be written.
    Foreign(String),
    /// Ours, but the records do not follow each other.
    Broken {
        last: Record,
        reason: String,
    },
}

impl Block {
    pub(crate) fn zeroed() -> Block {
        Block([0; BLOCK_BYTES])
    }

    pub(crate) fn encode(&mut self, record: &Record) {
        let words = [MAGIC, record.seed, record.boot, record.counter];
        for (place, word) in self.0.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        for place in self.0[HEADER..].chunks_exact_mut(8) {
            place.copy_from_slice(&record.counter.to_le_bytes());
        }
        let checksum = self.checksum();
        self.0[32..HEADER].copy_from_slice(&checksum.to_le_bytes());
    }

    pub(crate) fn decode(&self) -> Slot {
        if self.word(0) != MAGIC {
            return if self.0.iter().all(|byte| *byte == 0) { Slot::Empty } else { Slot::Foreign };
        }
        if self.word(4) != self.checksum() {
            return Slot::Torn;
        }
        Slot::Record(Record { seed: self.word(1), boot: self.word(2), counter: self.word(3) })
    }

    fn word(&self, index: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[index * 8..index * 8 + 8]);
        u64::from_le_bytes(bytes)
    }

    /// Everything but the checksum's own place.
    fn checksum(&self) -> u64 {
        let (head, rest) = (&self.0[..32], &self.0[HEADER..]);
        head.iter().chain(rest).fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

/// Judges all slots of a disk, given in order.
pub(crate) fn judge(slots: &[Slot], seed: u64) -> Found {
    let records = |slot: &Slot| match slot {
        Slot::Record(record) => Some(*record),
        Slot::Empty | Slot::Torn | Slot::Foreign => None,
    };
    let Some(last) = slots.iter().filter_map(records).max_by_key(|record| record.counter) else {
        return match slots.iter().position(|slot| *slot != Slot::Empty) {
            None => Found::Fresh,
            Some(place) => Found::Foreign(format!("block {place} holds something else")),
        };
    };
    if last.seed != seed {
        return Found::Foreign(format!("written with seed {}, ours is {seed}", last.seed));
    }
    match first_gap(slots, last) {
        Some(reason) => Found::Broken { last, reason },
        None => Found::Continues { last },
    }
}

/// Looks for a slot that does not hold what the last counter says it should. Only the slot after
/// the last may be torn: that write was under way when the machine stopped.
fn first_gap(slots: &[Slot], last: Record) -> Option<String> {
    let count = slots.len() as u64;
    let oldest = last.counter.saturating_sub(count - 1).max(1);
    (oldest..=last.counter).find_map(|counter| {
        let slot = slots[usize::try_from(counter % count).expect("a slot is an index")];
        let is_next_to_go = counter + count == last.counter + 1;
        match slot {
            Slot::Record(record) if record.counter == counter && record.seed == last.seed => None,
            Slot::Torn if is_next_to_go => None,
            found => Some(format!("the place of counter {counter} holds {found:?}")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(counters: std::ops::RangeInclusive<u64>) -> Vec<Slot> {
        let mut slots = vec![Slot::Empty; 8];
        for counter in counters {
            slots[usize::try_from(counter % 8).unwrap()] =
                Slot::Record(Record { seed: 7, boot: 1, counter });
        }
        slots
    }

    fn last(counter: u64) -> Record {
        Record { seed: 7, boot: 1, counter }
    }

    /// What is encoded is decoded, and every single damaged byte is noticed.
    #[test]
    fn a_record_survives_the_disk_and_damage_is_noticed() {
        let record = Record { seed: 1, boot: 2, counter: 3 };
        let mut block = Block::zeroed();
        assert_eq!(block.decode(), Slot::Empty);
        block.encode(&record);
        assert_eq!(block.decode(), Slot::Record(record));
        for place in 0..BLOCK_BYTES {
            let mut damaged = block.clone();
            damaged.0[place] ^= 0x10;
            let expected = if place < 8 { Slot::Foreign } else { Slot::Torn };
            assert_eq!(damaged.decode(), expected, "byte {place}");
        }
    }

    /// The counter goes on from any point of the ring, also with the next write torn.
    #[test]
    fn a_whole_ring_continues() {
        assert_eq!(judge(&[Slot::Empty; 8], 7), Found::Fresh);
        for counter in 1..40 {
            assert_eq!(judge(&disk(1..=counter), 7), Found::Continues { last: last(counter) });
        }
        let mut torn = disk(1..=20);
        torn[21 % 8] = Slot::Torn;
        assert_eq!(judge(&torn, 7), Found::Continues { last: last(20) });
    }

    /// A lost write, a write by another and a torn old slot are each found.
    #[test]
    fn a_gap_is_noticed() {
        for damage in [Slot::Empty, Slot::Torn, Slot::Record(last(10))] {
            let mut slots = disk(1..=20);
            slots[18 % 8] = damage;
            assert!(matches!(judge(&slots, 7), Found::Broken { .. }), "{damage:?}");
        }
    }

    /// A disk that is not ours is left alone.
    #[test]
    fn a_foreign_disk_is_refused() {
        assert!(matches!(judge(&disk(1..=3), 8), Found::Foreign(_)));
        let mut slots = vec![Slot::Empty; 8];
        slots[5] = Slot::Foreign;
        assert!(matches!(judge(&slots, 7), Found::Foreign(_)));
    }
}
