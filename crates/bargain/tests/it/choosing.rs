// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Beside an engine that chooses its pause by itself, the promise is to give up in time.

use std::time::Duration;
use whimbrel_bargain::{Controller, Look, Step, Terms};
use whimbrel_model::plan::{Bargain, OnMiss};
use whimbrel_model::units::Bytes;

const SECOND: Duration = Duration::from_secs(1);

fn controller(on_miss: OnMiss) -> Controller {
    Controller::new(Terms {
        guest: "web1".to_owned(),
        bargain: Bargain {
            pause_max: SECOND,
            deadline: 100 * SECOND,
            on_miss,
            ..Bargain::default()
        },
        switchover: Duration::from_millis(100),
        bandwidth: None,
        link_rate: Some(Bytes(10_000_000)),
        dirty_before: None,
        is_held: false,
        is_emulated: false,
        can_throttle: false,
        chooses_pause: true,
    })
}

/// A guest that writes faster than the link carries.
fn look(seconds: u64, stood_ms: u64) -> Look {
    Look {
        elapsed: Duration::from_secs(seconds),
        round: 1 + seconds / 20,
        remaining: Bytes(200_000_000),
        rate: Bytes(10_000_000),
        dirty_rate: Bytes(30_000_000),
        throttle_percent: 0,
        is_link_up: true,
        is_running: stood_ms == 0,
        stood: Duration::from_millis(stood_ms),
    }
}

/// It ends after some passes in any case: nothing is given up for a forecast. What counts is how
/// long the guest has stood still.
#[test]
fn a_guest_that_stands_still_goes_on_in_time() {
    let mut ours = controller(OnMiss::Cancel);
    for (seconds, stood_ms) in [(1, 0), (21, 0), (45, 0), (90, 0), (91, 200), (92, 900)] {
        let advice = ours.look(&look(seconds, stood_ms));
        assert_eq!((advice.step, advice.miss), (Step::GoOn, None), "at {seconds} s");
    }
    let advice = ours.look(&look(92, 901));
    assert_eq!(advice.step, Step::Cancel);
    assert!(advice.miss.unwrap().text.contains("stood still for 901 ms"));
}

/// Or for as long as it takes, where that was asked for.
#[test]
fn or_stands_still_for_longer() {
    let mut ours = controller(OnMiss::Pause);
    let advice = ours.look(&look(92, 20_000));
    assert_eq!((advice.step, advice.miss), (Step::GoOn, None));
}

/// The deadline is for the time in which it runs: once stopped it is nearly there.
#[test]
fn a_deadline_is_for_the_running() {
    let late = |stood_ms| controller(OnMiss::Cancel).look(&look(101, stood_ms)).step;
    assert_eq!((late(0), late(300)), (Step::Cancel, Step::GoOn));
}
