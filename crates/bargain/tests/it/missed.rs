// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What is said of a miss, and what each way out of it comes to.

use crate::rivals::{DEADLINE, Ours};
use crate::traces::{self, Trace};
use crate::world::{End, run};
use whimbrel_bargain::Step;
use whimbrel_model::plan::OnMiss;

fn trace(name: &str) -> Trace {
    traces::all().into_iter().find(|trace| trace.name == name).expect("there is such a trace")
}

/// The words have the figures of both sides and what would help, and that would really help.
#[test]
fn the_words_are_true() {
    let trace = trace("as fast as the link");
    let mut ours = Ours::new(&trace, 0, OnMiss::Cancel);
    assert!(matches!(run(&trace, &mut ours), End::Cancelled { .. }));
    let miss = ours.said.unwrap().miss.unwrap();
    assert!(miss.text.starts_with("`web1` writes 1"), "{miss:?}");
    assert!(miss.text.contains("and the link carries 113 MiB/s"), "{miss:?}");
    let percent = miss.remedy.split("--max-slowdown ").nth(1).unwrap().split('%').next().unwrap();
    let mut helped = Ours::new(&trace, percent.parse().unwrap(), OnMiss::Cancel);
    let end = run(&trace, &mut helped);
    assert!(matches!(end, End::Moved { .. }), "{percent} %: {end:?}");
}

/// A link that cannot carry it in time is told as that.
#[test]
fn a_link_that_is_too_slow() {
    let trace = trace("20 Mbit/s, idle");
    let mut ours = Ours::new(&trace, 30, OnMiss::Cancel);
    assert!(matches!(run(&trace, &mut ours), End::Cancelled { .. }));
    let miss = ours.said.unwrap().miss.unwrap();
    assert!(miss.text.contains("at the least, and the deadline is 10 m"), "{miss:?}");
    assert!(miss.remedy.starts_with("give it more time: `--deadline "), "{miss:?}");
}

/// Asked to stand still for longer, the guest does so for little longer than it must, and in time.
#[test]
fn a_longer_pause() {
    for name in ["as fast as the link", "three times the link", "fast, in 100 MB"] {
        let trace = trace(name);
        let mut ours = Ours::new(&trace, 0, OnMiss::Pause);
        let end = run(&trace, &mut ours);
        let End::Moved { at, pause } = end else { panic!("{name}: {end:?}") };
        assert!(at < DEADLINE && pause > 0.3, "{name}: {end:?}");
        let said = ours.said.unwrap().pause_now.as_secs_f64();
        assert!(pause < said * 1.5, "{name}: {pause} s, and said were {said} s");
        assert_eq!(ours.throttled, 0, "{name}");
    }
}

/// Asked for post-copy, it is entered as soon as the miss is known, if the rest follows in time.
#[test]
fn post_copy_is_entered_where_it_ends() {
    let terms = |trace| Ours::new(&trace, 0, OnMiss::Postcopy);
    let mut ours = terms(trace("three times the link"));
    run(&trace("three times the link"), &mut ours);
    let said = ours.said.unwrap();
    assert_eq!(said.step, Step::Postcopy, "{said:?}");
    let mut slow = terms(trace("20 Mbit/s, idle"));
    assert!(matches!(run(&trace("20 Mbit/s, idle"), &mut slow), End::Cancelled { .. }));
}

/// Asked to slow down further, the guest arrives within the pause that was promised.
#[test]
fn slowed_down_further() {
    for name in ["as fast as the link", "three times the link", "fast, in 100 MB"] {
        let trace = trace(name);
        let mut ours = Ours::new(&trace, 0, OnMiss::Throttle);
        let end = run(&trace, &mut ours);
        let End::Moved { at, pause } = end else { panic!("{name}: {end:?}") };
        assert!(at < DEADLINE && pause <= 0.3, "{name}: {end:?}");
        assert!(ours.throttled > 0, "{name}: {} %", ours.throttled);
    }
}
