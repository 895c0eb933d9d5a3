// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What the source knows about the target's shelf: which place has which slot, and which slot holds
//! which digest. About 37 bytes a page, less than a hundredth of the guest.

use std::collections::HashMap;

use crate::batch::SLOTS_MAX;
use crate::digest::PageDigest;
use crate::split::Place;

/// Places are kept in groups, so that a sparse guest costs little.
const GROUP: u64 = 1024;

/// No slot.
const NONE: u32 = u32::MAX;

/// Returns a number below `below`, well spread, from a counter.
pub(super) fn spread(counter: &mut u64, below: usize) -> usize {
    *counter = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*counter ^ (*counter >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = u128::from(mixed ^ (mixed >> 31));
    usize::try_from((mixed * below as u128) >> 64).expect("it is less than `below`")
}

/// A slot of the shelf.
#[derive(Clone, Copy, Debug)]
struct Slot {
    place: u64,
    /// None until the slot was first written.
    digest: Option<PageDigest>,
}

#[derive(Debug)]
pub(super) struct Index {
    slots_max: u32,
    /// So many of the first slots hold an image, and keep what they hold.
    image_slots: u32,
    slots: Vec<Slot>,
    by_place: HashMap<u64, Box<[u32]>>,
    by_digest: DigestTable,
    evictions: u64,
}

impl Index {
    pub(super) fn new(slots_max: u32) -> Self {
        Self {
            slots_max: slots_max.min(SLOTS_MAX),
            image_slots: 0,
            slots: Vec::new(),
            by_place: HashMap::new(),
            by_digest: DigestTable::default(),
            evictions: 0,
        }
    }

    /// Says what the first slots hold from an earlier visit, and always will. Places rise.
    pub(super) fn hold(&mut self, pages: impl IntoIterator<Item = (Place, PageDigest)>) {
        for (place, digest) in pages.into_iter().take(self.slots_max as usize) {
            let slot = u32::try_from(self.slots.len()).expect("there are fewer slots than 2^30");
            self.slots.push(Slot { place: number(place), digest: None });
            self.set(slot, digest);
        }
        assert!(self.slots.is_sorted_by_key(|slot| slot.place), "an image is in order of places");
        self.image_slots = u32::try_from(self.slots.len()).expect("there are fewer than 2^30");
    }

    /// Returns whether another page may be put into the slot.
    pub(super) fn is_free(&self, slot: u32) -> bool {
        slot >= self.image_slots
    }

    /// Returns the slot that holds an earlier version of the page at this place.
    pub(super) fn slot_of(&self, place: Place) -> Option<u32> {
        let place = number(place);
        let group = self.by_place.get(&(place / GROUP));
        let slot = group.map_or(NONE, |group| group[within(place)]);
        if slot == NONE { self.image_slot(place) } else { Some(slot) }
    }

    /// Returns the slot of the page at this place in the image. Newer versions have slots of their
    /// own, and may lose them.
    pub(super) fn image_slot_of(&self, place: Place) -> Option<u32> {
        self.image_slot(number(place))
    }

    fn image_slot(&self, place: u64) -> Option<u32> {
        let image = &self.slots[..self.image_slots as usize];
        let slot = image.binary_search_by_key(&place, |slot| slot.place).ok()?;
        u32::try_from(slot).ok()
    }

    /// Returns a slot that holds this content, the `preferred` one if it does.
    pub(super) fn find(&self, preferred: Option<u32>, digest: PageDigest) -> Option<u32> {
        let is_it = |&slot: &u32| self.slots[slot as usize].digest == Some(digest);
        preferred.filter(is_it).or_else(|| self.by_digest.find(&self.slots, digest))
    }

    /// Gives a slot to a place that has none, or only one that keeps what it holds: a free one, or
    /// that of any other place.
    pub(super) fn allot(&mut self, place: Place) -> Option<u32> {
        let place = number(place);
        if self.slots_max == self.image_slots {
            return None;
        }
        let next = u32::try_from(self.slots.len()).expect("there are fewer slots than 2^30");
        let slot = if next < self.slots_max {
            self.slots.push(Slot { place, digest: None });
            next
        } else {
            let first = self.image_slots as usize;
            let victim = first + spread(&mut self.evictions, self.slots.len() - first);
            let slot = u32::try_from(victim).expect("there are fewer slots than 2^30");
            self.clear(slot);
            let old = std::mem::replace(&mut self.slots[victim].place, place);
            if let Some(group) = self.by_place.get_mut(&(old / GROUP)) {
                group[within(old)] = NONE;
                if group.iter().all(|&slot| slot == NONE) {
                    self.by_place.remove(&(old / GROUP));
                }
            }
            slot
        };
        let empty = || vec![NONE; within(GROUP - 1) + 1].into_boxed_slice();
        self.by_place.entry(place / GROUP).or_insert_with(empty)[within(place)] = slot;
        Some(slot)
    }

    /// Says what a slot holds now.
    pub(super) fn set(&mut self, slot: u32, digest: PageDigest) {
        self.clear(slot);
        self.slots[slot as usize].digest = Some(digest);
        self.by_digest.insert(&self.slots, slot);
    }

    fn clear(&mut self, slot: u32) {
        if self.slots[slot as usize].digest.is_some() {
            self.by_digest.remove(&self.slots, slot);
            self.slots[slot as usize].digest = None;
        }
    }
}

fn number(place: Place) -> u64 {
    u64::from(place.block) << 32 | u64::from(place.page_index)
}

fn within(place: u64) -> usize {
    usize::try_from(place % GROUP).expect("a group is small")
}

/// Finds slots by what they hold. A hash table of slot numbers alone (open addressing, linear
/// probing): the digests are in the slots, and are their own hash.
#[derive(Debug, Default)]
struct DigestTable {
    cells: Vec<u32>,
    used: usize,
}

impl DigestTable {
    fn find(&self, slots: &[Slot], digest: PageDigest) -> Option<u32> {
        if self.cells.is_empty() {
            return None;
        }
        let mut cell = self.home(digest);
        while self.cells[cell] != NONE {
            if slots[self.cells[cell] as usize].digest == Some(digest) {
                return Some(self.cells[cell]);
            }
            cell = self.after(cell);
        }
        None
    }

    /// Adds a slot by the digest it has. Another slot with the same digest may be there.
    fn insert(&mut self, slots: &[Slot], slot: u32) {
        if (self.used + 1) * 4 > self.cells.len() * 3 {
            let length = (self.cells.len() * 2).max(1024);
            let old = std::mem::replace(&mut self.cells, vec![NONE; length]);
            for slot in old.into_iter().filter(|&slot| slot != NONE) {
                self.place(slots, slot);
            }
        }
        self.place(slots, slot);
        self.used += 1;
    }

    fn place(&mut self, slots: &[Slot], slot: u32) {
        let digest =
            slots[slot as usize].digest.expect("only slots with a digest are in the table");
        let mut cell = self.home(digest);
        while self.cells[cell] != NONE {
            cell = self.after(cell);
        }
        self.cells[cell] = slot;
    }

    /// Takes a slot out, by the digest it still has, and closes the gap.
    fn remove(&mut self, slots: &[Slot], slot: u32) {
        let home = |slot: u32| {
            let digest = slots[slot as usize].digest;
            self.home(digest.expect("only slots with a digest are in the table"))
        };
        let mut gap = home(slot);
        while self.cells[gap] != slot {
            assert_ne!(self.cells[gap], NONE, "a slot with a digest is in the table");
            gap = self.after(gap);
        }
        let mut moves = Vec::new();
        let mut cell = self.after(gap);
        while self.cells[cell] != NONE {
            // It may move into the gap if that is not before its home, going around the end.
            let distance = |from: usize| cell.wrapping_sub(from) & (self.cells.len() - 1);
            if distance(home(self.cells[cell])) >= distance(gap) {
                moves.push((gap, self.cells[cell]));
                gap = cell;
            }
            cell = self.after(cell);
        }
        for (to, slot) in moves {
            self.cells[to] = slot;
        }
        self.cells[gap] = NONE;
        self.used -= 1;
    }

    fn home(&self, digest: PageDigest) -> usize {
        let hash = u64::from_le_bytes(*digest.0.first_chunk().expect("a digest has 16 bytes"));
        usize::try_from(hash & (self.cells.len() as u64 - 1)).expect("it is below the length")
    }

    fn after(&self, cell: usize) -> usize {
        (cell + 1) & (self.cells.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(content: usize) -> PageDigest {
        // Few different homes, so that the table has long runs.
        let mut bytes = [0; 16];
        bytes[0] = u8::try_from(content % 5).unwrap() * 40;
        bytes[8..].copy_from_slice(&(content as u64).to_le_bytes());
        PageDigest(bytes)
    }

    /// Against plain maps: whatever is found is there, and what a place holds is found.
    #[test]
    fn the_index_agrees_with_the_shelf() {
        let mut index = Index::new(300);
        let mut shelf: HashMap<u32, PageDigest> = HashMap::new();
        let mut step = 0;
        let (mut hits, mut evicted) = (0, 0);
        for _ in 0..20_000 {
            let page_index = u32::try_from(spread(&mut step, 500) * 700).unwrap();
            let place = Place { block: 1, page_index };
            let digest = digest(spread(&mut step, 400));
            let own = index.slot_of(place);
            if let Some(slot) = index.find(own, digest) {
                assert_eq!(shelf[&slot], digest);
                hits += 1;
                continue;
            }
            assert!(!shelf.values().any(|held| *held == digest), "what is there is found");
            let slot = own.or_else(|| index.allot(place)).unwrap();
            index.set(slot, digest);
            evicted += usize::from(shelf.insert(slot, digest).is_some() && own.is_none());
            assert_eq!(index.slot_of(place), Some(slot));
            assert_eq!(index.by_digest.used, shelf.len());
        }
        assert!(hits > 1000 && evicted > 1000 && shelf.len() == 300, "{hits} {evicted}");
        assert!(index.by_place.len() <= 300, "empty groups are given back");
    }

    #[test]
    fn no_shelf_is_no_slot() {
        let mut index = Index::new(0);
        let place = Place { block: 0, page_index: 0 };
        assert_eq!(index.allot(place), None);
        assert_eq!(index.slot_of(place), None);
        assert_eq!(index.find(None, digest(1)), None);
    }
}
