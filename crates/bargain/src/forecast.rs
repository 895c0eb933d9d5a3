// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Follows the passes to come.
//!
//! A pass over `remaining` bytes takes `remaining / rate`; meanwhile the guest writes so much that
//! the next is `dirty / rate` times as long. Below one that ends, at one and above it never does.

use std::time::Duration;

/// Passes that are followed: more than these are one that does not end.
const ROUNDS_MAX: usize = 200;
/// Passes that shrink by less than this do not end in practice: figures are not that exact.
const SHRINKS_BELOW: f64 = 0.97;
/// To this share of the link a guest is brought by slowing it down.
const THROTTLE_AIM: f64 = 0.70;

/// Bytes, and bytes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flow {
    pub remaining: f64,
    pub rate: f64,
    pub dirty: f64,
    /// What fits into the pause.
    pub fits: f64,
}

impl Flow {
    /// Returns how long until what remains fits into the pause; none: never.
    pub fn ends_in(self) -> Option<Duration> {
        if self.rate <= 0.0 {
            return None;
        }
        let share = self.dirty / self.rate;
        let (mut remaining, mut seconds) = (self.remaining, 0.0);
        for _ in 0..ROUNDS_MAX {
            if remaining <= self.fits {
                return Duration::try_from_secs_f64(seconds).ok();
            }
            // The first of these passes is under way. What it leaves behind is a pass's worth.
            seconds += (remaining - self.fits).max(0.0) / self.rate;
            if share >= SHRINKS_BELOW && remaining * share > self.fits {
                return None;
            }
            remaining *= share;
        }
        None
    }

    /// The same with the guest slowed down.
    pub fn throttled(self, percent: u8) -> Self {
        Self { dirty: self.dirty * (1.0 - f64::from(percent) / 100.0), ..self }
    }

    /// Returns how much the guest has to be slowed down, in steps of 5 %; 0 if it has not.
    pub fn throttle_needed(self) -> u8 {
        let steps = (1..20).map(|step| step * 5);
        let is_enough = |percent: &u8| self.throttled(*percent).dirty <= self.rate * THROTTLE_AIM;
        if self.dirty <= self.rate * THROTTLE_AIM {
            0
        } else {
            steps.clone().find(is_enough).unwrap_or(99)
        }
    }
}

#[cfg(test)]
mod tests {
    //! The arithmetic of passes, by hand.

    use super::*;

    const MIB: f64 = 1048576.0;

    fn flow(remaining: f64, rate: f64, dirty: f64, fits: f64) -> Flow {
        Flow { remaining: remaining * MIB, rate: rate * MIB, dirty: dirty * MIB, fits: fits * MIB }
    }

    #[test]
    fn passes_that_shrink_end() {
        let seconds = |flow: Flow| flow.ends_in().map(|time| time.as_secs_f64().round());
        // 10 s, 5 s, 2.5 s ... until 10 MiB are left: about 20 s.
        assert_eq!(seconds(flow(1000.0, 100.0, 50.0, 10.0)), Some(19.0));
        assert_eq!(seconds(flow(1000.0, 100.0, 0.0, 10.0)), Some(10.0));
        assert_eq!(seconds(flow(5.0, 100.0, 500.0, 10.0)), Some(0.0));
        assert_eq!(seconds(flow(1000.0, 100.0, 100.0, 10.0)), None);
        assert_eq!(seconds(flow(1000.0, 0.0, 0.0, 10.0)), None);
    }

    #[test]
    fn a_guest_is_slowed_down_as_little_as_it_takes() {
        let needed = |dirty| flow(1.0, 100.0, dirty, 1.0).throttle_needed();
        assert_eq!([50.0, 70.0, 75.0, 100.0, 140.0, 1e6].map(needed), [0, 0, 10, 30, 50, 99]);
    }
}
