// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How long a pause the engine may make just now.
//!
//! An engine stops the guest as soon as it expects to send the rest within its allowance. With the
//! whole of what was promised it would do so in the middle of the first pass, though most of that
//! could have been sent while the guest ran. So the allowance is small at first, and doubles with
//! each pass that did not get there, up to what was promised.
//!
//! Not so for an emulated guest. QEMU's emulator marks a page as written and writes it then: a page
//! that is sent in between arrives without the write (kvm-unit-tests has a "TCG migration
//! lost dirty bit reproducer"). What is sent
//! after the guest has stopped is whole. Short passes send what was written a moment ago, and are
//! where it happens: of 1,600 moves of a busy guest, with the small allowance, three went wrong.

use std::time::Duration;

/// The share of the promise to begin with.
const FIRST: u32 = 8;
/// The first pass sends everything, and the second what was written meanwhile: only the third says
/// that the guest writes faster than that.
const PATIENT_ROUNDS: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    promised: Duration,
    now: Duration,
    round: u64,
}

impl Allowance {
    pub fn new(promised: Duration) -> Self {
        Self { promised, now: promised / FIRST, round: 0 }
    }

    /// All of it from the beginning.
    pub fn at_once(promised: Duration) -> Self {
        Self { promised, now: promised, round: 0 }
    }

    pub fn now(self) -> Duration {
        self.now
    }

    /// Takes in which pass the engine is in.
    pub fn on_round(&mut self, round: u64) {
        let is_new = round > self.round.max(PATIENT_ROUNDS);
        self.round = self.round.max(round);
        if is_new {
            self.now = self.now.saturating_mul(2).min(self.promised);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An idle guest gets the smallest pause; one that goes on writing gets what was promised, and
    /// never more.
    #[test]
    fn it_grows_with_each_pass_up_to_the_promise() {
        let mut allowance = Allowance::new(Duration::from_millis(300));
        assert_eq!(allowance.now(), Duration::from_micros(37_500));
        let ms = [1, 2, 2, 3, 3, 4, 7, 6, 8].map(|round| {
            allowance.on_round(round);
            allowance.now().as_millis()
        });
        assert_eq!(ms, [37, 37, 37, 75, 75, 150, 300, 300, 300]);
        let mut all = Allowance::at_once(Duration::from_secs(1));
        all.on_round(5);
        assert_eq!(all.now(), Duration::from_secs(1));
    }
}
