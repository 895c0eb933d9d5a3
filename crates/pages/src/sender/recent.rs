// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Pages the source remembers whole, to make deltas against.
//!
//! A guest's hot pages come again and again in an order that defeats "throw out the oldest" as soon
//! as there are more of them than fit. So a page thrown out is any page: with half of the hot pages
//! remembered, half of them can be deltas. The choice is a fixed sequence of numbers, because this
//! crate draws none.

use std::collections::HashMap;

use crate::split::Page;

#[derive(Debug)]
pub(super) struct Recent {
    /// Where in `pages` the page of a slot lies.
    by_slot: HashMap<u32, usize>,
    pages: Vec<(u32, Box<Page>)>,
    pages_max: usize,
    victims: u64,
}

impl Recent {
    pub(super) fn new(pages_max: u32) -> Self {
        let pages_max = pages_max as usize;
        Self { by_slot: HashMap::new(), pages: Vec::new(), pages_max, victims: 0 }
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Page> {
        self.by_slot.get(&slot).map(|&index| &*self.pages[index].1)
    }

    /// Remembers what is in a slot now.
    pub(super) fn put(&mut self, slot: u32, page: &Page) {
        if let Some(&index) = self.by_slot.get(&slot) {
            *self.pages[index].1 = *page;
        } else if self.pages.len() < self.pages_max {
            self.by_slot.insert(slot, self.pages.len());
            self.pages.push((slot, Box::new(*page)));
        } else if self.pages_max > 0 {
            let index = super::index::spread(&mut self.victims, self.pages_max);
            let (old, held) = &mut self.pages[index];
            self.by_slot.remove(old);
            self.by_slot.insert(slot, index);
            (*old, **held) = (slot, *page);
        }
    }

    /// What is in a slot now is not worth remembering.
    pub(super) fn forget(&mut self, slot: u32) {
        let Some(index) = self.by_slot.remove(&slot) else { return };
        self.pages.swap_remove(index);
        if let Some((moved, _)) = self.pages.get(index) {
            self.by_slot.insert(*moved, index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::PAGE_BYTES;

    /// Against a plain map: what is remembered is always what was put last, and never too much.
    #[test]
    fn what_is_remembered_is_what_is_there() {
        let mut recent = Recent::new(20);
        let mut truth = HashMap::new();
        let (mut found, mut step) = (0, 0);
        for round in 0..4000_u32 {
            let slot = u32::try_from(super::super::index::spread(&mut step, 50)).unwrap();
            let page = [(round % 251) as u8; PAGE_BYTES];
            truth.insert(slot, page);
            if round % 7 == 0 {
                recent.forget(slot);
                assert!(recent.get(slot).is_none());
            } else {
                recent.put(slot, &page);
            }
            assert!(recent.pages.len() <= 20 && recent.pages.len() == recent.by_slot.len());
            for slot in 0..50 {
                if let Some(page) = recent.get(slot) {
                    assert!(page == &truth[&slot]);
                    found += 1;
                }
            }
        }
        assert!(found > 4000 * 15, "it does remember");
        Recent::new(0).put(1, &[0; PAGE_BYTES]);
    }
}
