// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Keeps checked pages, verifies them for ever and dirties some of them.
//!
//! One thread owns the pages. It works in short slices: so many pages dirtied, so many verified,
//! then it sleeps, so that a guest whose CPU is emulated still has time for the rest.

use crate::page::{Kind, PAGE_BYTES, Page, Random};
use crate::parameters::Parameters;
use crate::state::State;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

pub(crate) const PAGES_PER_MIB: usize = (1 << 20) / PAGE_BYTES;
const SLICE: Duration = Duration::from_millis(10);
/// Pages verified in each slice without being asked: 25 MiB a second.
const VERIFIED_PER_SLICE: usize = PAGES_PER_MIB / 4;
/// After a pause the dirt of at most this long is made up for, not of the whole pause.
const ARREARS_MAX: Duration = Duration::from_millis(100);
/// Requests for a full pass that may wait.
const REQUESTS_MAX: usize = 8;

/// Asks for a pass over all pages, now; the answer is the number of damaged ones.
pub(crate) type Verify = SyncSender<u64>;

/// The pages and the version each must have.
struct Memory<'a> {
    pages: Vec<Page>,
    versions: Vec<u64>,
    random: Random,
    state: &'a State,
    /// Where the endless verification stands.
    next: usize,
}

/// Starts the thread that owns the pages.
pub(crate) fn start(parameters: &Parameters, state: &'static State) -> SyncSender<Verify> {
    let (sender, requests) = sync_channel(REQUESTS_MAX);
    let (pages, fill) = (parameters.memory_mib * PAGES_PER_MIB, parameters.fill);
    std::thread::spawn(move || {
        let mut memory = Memory::new(pages, fill, state);
        state.memory.page_count.store(pages as u64, Relaxed);
        memory.work(&requests);
    });
    sender
}

impl<'a> Memory<'a> {
    fn new(page_count: usize, fill: Kind, state: &'a State) -> Memory<'a> {
        let mut pages = vec![Page::zeroed(); page_count];
        for (index, page) in (0..).zip(&mut pages) {
            page.write(index, 1, fill);
        }
        let versions = vec![1; page_count];
        Memory { pages, versions, random: Random(state.seed), state, next: 0 }
    }

    /// Works until the last requester is gone, which is never.
    fn work(&mut self, requests: &Receiver<Verify>) {
        let mut last = Instant::now();
        let mut due_bytes = 0_u64;
        loop {
            match requests.recv_timeout(SLICE) {
                Ok(answer) => {
                    let damaged = (0..self.pages.len()).map(|index| self.verify(index)).sum();
                    // Whoever asked may have hung up meanwhile.
                    let _ = answer.try_send(damaged);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            due_bytes += self.dirt_due(last.elapsed().min(ARREARS_MAX));
            last = Instant::now();
            while due_bytes >= PAGE_BYTES as u64 && self.dirty_one() {
                due_bytes -= PAGE_BYTES as u64;
            }
            self.verify_some();
        }
    }

    fn dirt_due(&self, elapsed: Duration) -> u64 {
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        (self.state.dirty().mib_per_s << 20).saturating_mul(elapsed_us) / 1_000_000
    }

    /// Dirties a page; false if there is none to dirty.
    fn dirty_one(&mut self) -> bool {
        let dirty = self.state.dirty();
        let asked = dirty.over_mib.saturating_mul(PAGES_PER_MIB);
        let over = if asked == 0 { self.pages.len() } else { asked.min(self.pages.len()) };
        if dirty.kind == Kind::None || over == 0 {
            return false;
        }
        let index = self.random.below(over);
        // A damaged page must be seen before new content covers it.
        self.verify(index);
        self.versions[index] += 1;
        self.pages[index].write(index as u64, self.versions[index], dirty.kind);
        self.state.memory.pages_dirtied.fetch_add(1, Relaxed);
        true
    }

    fn verify_some(&mut self) {
        for _ in 0..VERIFIED_PER_SLICE.min(self.pages.len()) {
            self.verify(self.next);
            self.next += 1;
            if self.next == self.pages.len() {
                self.next = 0;
                self.state.memory.passes.fetch_add(1, Relaxed);
            }
        }
    }

    /// Verifies a page and repairs a damaged one, so that each damage is counted once.
    fn verify(&mut self, index: usize) -> u64 {
        let version = self.versions[index];
        let Err(damage) = self.pages[index].verify(index as u64, version) else { return 0 };
        self.state.memory.errors.fetch_add(1, Relaxed);
        self.state.report(&format!("memory page {index}: {damage:?}"));
        self.pages[index].write(index as u64, version, Kind::Random);
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Dirty;

    /// Dirtied memory stays whole, and a single flipped bit is counted exactly once.
    #[test]
    fn damage_is_counted_once() {
        let dirty = Dirty { kind: Kind::Text, mib_per_s: 1, over_mib: 0 };
        let state = State::new(7, dirty);
        let mut memory = Memory::new(16, Kind::Random, &state);
        for _ in 0..100 {
            assert!(memory.dirty_one());
        }
        let pass = |memory: &mut Memory<'_>| (0..16).map(|index| memory.verify(index)).sum::<u64>();
        assert_eq!(pass(&mut memory), 0);

        memory.versions[3] += 1;
        assert_eq!(pass(&mut memory), 1);
        assert_eq!(pass(&mut memory), 0);
        assert_eq!(state.memory.errors.load(Relaxed), 1);
        assert_eq!(state.problems().len(), 1);
    }
}
