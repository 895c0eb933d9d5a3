// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The promise beside an engine that chooses its pause by itself.
//!
//! Such an engine ends after a number of passes whatever was asked of it, so no forecast can be bad
//! enough to give up for while the guest runs. When it stands still a clock runs, and the promise
//! is kept by taking the guest back in time: before it is given away, and before the pause is
//! longer than was promised.

use crate::words;
use crate::{Miss, Terms};
use std::time::Duration;
use whimbrel_model::plan::OnMiss;
use whimbrel_model::units::format_duration;

/// Says whether a guest that has stood still for so long, and has not been handed over, would stand
/// still for longer than was promised.
pub fn stands_too_long(terms: &Terms, elapsed: Duration, stood: Duration) -> Option<Miss> {
    let promised = terms.bargain.pause_max;
    let may = terms.bargain.on_miss == OnMiss::Pause;
    let pause = stood + terms.switchover;
    if stood == Duration::ZERO || may || pause <= promised {
        return None;
    }
    let guest = &terms.guest;
    Some(Miss {
        at: elapsed,
        text: format!(
            "`{guest}` stood still for {}, the handing over takes {} more, and at most {} was \
             promised: it goes on where it was",
            format_duration(stood),
            format_duration(terms.switchover),
            format_duration(promised)
        ),
        remedy: format!(
            "promise more, such as `--max-pause {}`, or nothing: leave `--max-pause` out",
            words::round_up_pause(pause * 2)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use whimbrel_model::plan::Bargain;

    fn terms(pause_ms: u64, on_miss: OnMiss) -> Terms {
        let pause_max = Duration::from_millis(pause_ms);
        Terms {
            guest: "web1".to_owned(),
            bargain: Bargain { pause_max, on_miss, ..Bargain::default() },
            switchover: Duration::from_millis(40),
            bandwidth: None,
            link_rate: None,
            dirty_before: None,
            is_held: false,
            is_emulated: false,
            can_throttle: false,
            chooses_pause: true,
        }
    }

    /// Taken back in time, with what the handing over takes kept in mind; never while it runs, and
    /// not where a longer pause is what was asked for.
    #[test]
    fn a_pause_ends_when_the_promise_does() {
        let cases = [
            (1000, 0, OnMiss::Cancel, false),
            (1000, 960, OnMiss::Cancel, false),
            (1000, 961, OnMiss::Cancel, true),
            // There is nothing that could be slowed down.
            (1000, 961, OnMiss::Throttle, true),
            (1000, 20_000, OnMiss::Pause, false),
            // Less than the handing over takes: it may run until it stops, and then not for long.
            (20, 0, OnMiss::Cancel, false),
            (20, 1, OnMiss::Cancel, true),
        ];
        for (promised, stood, on_miss, expected) in cases {
            let stood = Duration::from_millis(stood);
            let miss = stands_too_long(&terms(promised, on_miss), Duration::from_secs(9), stood);
            assert_eq!(miss.is_some(), expected, "{promised} {stood:?} {on_miss:?}");
        }
    }

    #[test]
    fn the_words_have_the_measured_pause() {
        let (at, stood) = (Duration::from_secs(9), Duration::from_millis(2400));
        let miss = stands_too_long(&terms(1000, OnMiss::Cancel), at, stood).unwrap();
        assert_eq!(miss.at, at);
        assert_eq!(
            miss.text,
            "`web1` stood still for 2.4 s, the handing over takes 40 ms more, and at most 1.0 s was \
             promised: it goes on where it was"
        );
        assert!(miss.remedy.contains("`--max-pause 5s`"), "{}", miss.remedy);
    }
}
