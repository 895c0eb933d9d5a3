// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Converged, and waiting for the word.
//!
//! An engine switches over when nothing remains, whatever pause it may make: QEMU with a
//! `downtime-limit` of zero does not even look for what was written meanwhile. So something must
//! always remain. Once little does, the engine may send only a part of it in each moment: the end
//! of a pass is approached ever more slowly, at last a page at a time, and while that takes its
//! time the guest writes what the next pass is made of.
//!
//! ```text
//!   remaining │\
//!             │ \            pass 2          pass 3
//!             │  \__         |\              |\
//!             │     ''--..___| '--..._____   | '--..._____
//!             └──────────────┴───────────────┴──────────────► time
//! ```
//!
//! A guest that writes much is sent as fast as it writes, and stays as close. One that stands still
//! writes nothing, and there is nothing to hold back: its engine finishes, and it is the handing
//! over that waits.

use crate::pace::as_bytes;
use std::time::Duration;
use whimbrel_model::units::Bytes;

/// The least an engine sends: QEMU divides time into tenths of a second, and counts after each page
/// whether it has sent more than a tenth of this.
pub const TRICKLE: Bytes = Bytes(10);
/// The least in the first pass, whose end may be near: empty pages cost nothing.
const FIRST_PASS_LEAST: Bytes = Bytes(2 << 20);
/// So many times what remains may be sent in a second: more than half of it in a tenth.
const SHARE_A_SECOND: f64 = 6.0;
/// Of what the pass began with, this much a second is sent up to its end, or that would take long.
const LEAST_OF_START: f64 = 0.5;
/// But not more than this: the next pass may be a very short one.
const LEAST_MAX: Bytes = Bytes(8 << 20);
/// How often a held engine has to be looked at: more often than it may send the rest.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);
/// More than so many seconds' worth of the link is not held back.
const FREE_ABOVE: f64 = 1.0;
/// A pause that no switchover fits into: QEMU takes no less, and zero is worse.
pub(crate) const NO_PAUSE: Duration = Duration::from_millis(1);

/// Whether somebody wants the migration held, and since when not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Not,
    /// It has to converge first; there is a deadline for that.
    Converging,
    /// It can be cut at any time.
    Converged,
    Cut {
        at: Duration,
    },
}

impl Hold {
    pub(crate) fn is_held(self) -> bool {
        matches!(self, Self::Converging | Self::Converged)
    }
}

/// Returns how fast a held engine may send what remains of a pass that began with `start`; none: as
/// fast as it can.
pub(crate) fn bandwidth(round: u64, start: Bytes, remaining: Bytes, rate: Bytes) -> Option<Bytes> {
    let [start, remaining, rate] = [start, remaining, rate].map(|Bytes(bytes)| bytes as f64);
    if round <= 1 && remaining > rate * FREE_ABOVE {
        return None;
    }
    let least = match round {
        ..=1 => FIRST_PASS_LEAST,
        _ => as_bytes(start * LEAST_OF_START).clamp(TRICKLE, LEAST_MAX),
    };
    Some(as_bytes(remaining * SHARE_A_SECOND).max(least))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Full speed while there is much, ever less towards the end of a pass, and never nothing.
    #[test]
    fn the_end_of_a_pass_is_approached_slowly() {
        let (rate, mib) = (Bytes::mib(100), Bytes::mib);
        assert_eq!(bandwidth(1, mib(900), mib(500), rate), None);
        assert_eq!(bandwidth(1, mib(900), mib(50), rate), Some(mib(300)));
        assert_eq!(bandwidth(1, mib(900), Bytes(0), rate), Some(FIRST_PASS_LEAST));
        assert_eq!(bandwidth(2, mib(8), mib(4), rate), Some(mib(24)));
        assert_eq!(bandwidth(2, mib(8), mib(0), rate), Some(mib(4)));
        assert_eq!(bandwidth(9, Bytes(0), Bytes(0), rate), Some(TRICKLE));
    }
}
