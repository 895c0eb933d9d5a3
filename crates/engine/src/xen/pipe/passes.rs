// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How far a guest that travels has come, by what of it has passed.
//!
//! libxc says nothing about that to anybody. But it walks over the guest's memory in passes, each
//! in order, and a pass sends what was written during the one before: so the passes, what each has
//! sent and how long it took say how fast it goes and how much the guest writes.

use std::time::Duration;
use whimbrel_pages::split::{PAGE_BYTES, Tally};

/// What the daemon is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::xen) struct Travelled {
    /// Of the stream.
    pub(in crate::xen) bytes: u64,
    /// Passes over the guest's memory; 0 before the first page.
    pub(in crate::xen) round: u64,
    /// Of pages, in this pass.
    pub(in crate::xen) round_bytes: u64,
    /// Of pages, a second: in the last whole pass, or else in this one.
    pub(in crate::xen) rate: u64,
    /// Bytes of pages that the guest writes a second; 0: not known yet.
    pub(in crate::xen) dirty_rate: u64,
    /// What this pass will have sent, if the guest goes on as before; 0: not known.
    pub(in crate::xen) round_expected: u64,
}

impl Travelled {
    /// Returns the figures in one line.
    pub(super) fn words(&self) -> String {
        let Travelled { bytes, round, round_bytes, rate, dirty_rate, round_expected } = self;
        format!("{bytes} {round} {round_bytes} {rate} {dirty_rate} {round_expected}")
    }

    /// Reads them. What is not there is 0: an older release says how many bytes, and no more.
    pub(in crate::xen) fn parse(words: &str) -> Travelled {
        let mut numbers = words.split(' ').map(|word| word.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Travelled {
            bytes: next(),
            round: next(),
            round_bytes: next(),
            rate: next(),
            dirty_rate: next(),
            round_expected: next(),
        }
    }
}

/// Follows the passes.
#[derive(Debug, Default)]
pub(super) struct Passes {
    travelled: Travelled,
    /// When this pass began.
    began: Duration,
    /// How long the one before took.
    took: Duration,
}

impl Passes {
    pub(super) fn travelled(&self) -> Travelled {
        self.travelled
    }

    /// Takes in that so many more bytes have passed, and how it stands at `now`.
    pub(super) fn note(&mut self, bytes: u64, tally: Tally, now: Duration) {
        let it = &mut self.travelled;
        it.bytes += bytes;
        if tally.round > it.round {
            let took = now.saturating_sub(self.began);
            if tally.round > 2 {
                it.dirty_rate = per_second(size(tally.pages_before), self.took);
                it.round_expected = in_time(it.dirty_rate, took);
            }
            if tally.round > 1 {
                it.rate = per_second(size(tally.pages_before), took);
            }
            (self.began, self.took) = (now, took);
        }
        (it.round, it.round_bytes) = (tally.round, size(tally.pages));
        match it.round {
            0 => {}
            1 => it.rate = per_second(it.round_bytes, now.saturating_sub(self.began)),
            // What it has written since is at least what has come of it.
            _ => it.dirty_rate = it.dirty_rate.max(per_second(it.round_bytes, self.took)),
        }
    }
}

fn size(pages: u64) -> u64 {
    pages.saturating_mul(PAGE_BYTES as u64)
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    let rate = u128::from(bytes) * 1000 / time.as_millis().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

fn in_time(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_millis() / 1000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use whimbrel_pages::split::XenTally;

    /// A guest of 4,000 pages that writes 250 a second, over a link that takes 1,000 a second: the
    /// first pass takes 4 s and finds 1,000 pages, the next 1 s and finds 250.
    #[test]
    fn rates_follow_from_the_passes() {
        let mut passes = Passes::default();
        let tally = |round, pages, pages_before| {
            let mut tally = Tally::default();
            (tally.round, tally.pages, tally.pages_before) = (round, pages, pages_before);
            tally
        };
        let steps = [
            // At, round, pages, before: rate, dirty, expected, all in pages.
            (0, (1, 1, 0), (1000, 0, 0)),
            (2000, (1, 2000, 0), (1000, 0, 0)),
            (4000, (2, 100, 4000), (1000, 25, 0)),
            (4800, (2, 800, 4000), (1000, 200, 0)),
            (5000, (3, 1, 1000), (1000, 250, 250)),
            (5250, (4, 1, 250), (1000, 250, 62)),
        ];
        for (ms, (round, pages, before), (rate, dirty, expected)) in steps {
            passes.note(4096, tally(round, pages, before), Duration::from_millis(ms));
            let it = passes.travelled();
            let found = [it.rate, it.dirty_rate, it.round_expected].map(|bytes| bytes / 4096);
            assert_eq!((it.round, it.round_bytes), (round, pages * 4096), "at {ms} ms");
            assert_eq!(found, [rate, dirty, expected], "at {ms} ms");
        }
        assert_eq!(passes.travelled().bytes, 6 * 4096);
    }

    #[test]
    fn figures_survive_being_said() {
        let said = Travelled {
            bytes: 1,
            round: 2,
            round_bytes: 3,
            rate: 4,
            dirty_rate: 5,
            round_expected: 6,
        };
        assert_eq!(Travelled::parse(&said.words()), said);
        // By a pipe that was started before an upgrade, and by nobody.
        assert_eq!(Travelled::parse("4711"), Travelled { bytes: 4711, ..Travelled::default() });
        assert_eq!(Travelled::parse(""), Travelled::default());
    }

    /// Anything but a domain passes, and is but bytes.
    #[test]
    fn what_is_no_domain_has_no_passes() {
        let tally = XenTally::default().push(&[7; 10_000]);
        let mut passes = Passes::default();
        passes.note(10_000, tally, Duration::from_secs(1));
        let expected = Travelled { bytes: 10_000, ..Travelled::default() };
        assert_eq!(passes.travelled(), expected);
    }
}
