// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! On every trace the bargain is kept, or the miss is called before a quarter of the time.

use crate::rivals::{DEADLINE, Doubling, Ours, PAUSE, Qemu};
use crate::traces;
use crate::world::{End, run};
use whimbrel_model::plan::OnMiss;

fn is_kept(end: End) -> bool {
    matches!(end, End::Moved { at, pause } if at <= DEADLINE && pause <= PAUSE)
}

/// With and without leave to slow the guest down: no trace ends in a longer pause, a later end, or
/// a late word.
#[test]
fn kept_or_called_early() {
    for slowdown in [0, 30] {
        let mut kept = 0;
        let traces = traces::all();
        assert!(traces.len() >= 20);
        for trace in &traces {
            let mut ours = Ours::new(trace, slowdown, OnMiss::Cancel);
            let end = run(trace, &mut ours);
            match end {
                End::Cancelled { at } => {
                    let miss = ours.said.and_then(|said| said.miss).expect("a miss has words");
                    assert!(at < DEADLINE / 4.0, "{}: {at} s, {miss:?}", trace.name);
                }
                end => assert!(is_kept(end), "{} with {slowdown} %: {end:?}", trace.name),
            }
            assert!(ours.throttled <= slowdown, "{}: {} %", trace.name, ours.throttled);
            kept += usize::from(is_kept(end));
        }
        // Both outcomes occur, and leave to slow down is of use.
        assert!(kept > 14 && kept < traces.len(), "{kept} of {} kept", traces.len());
    }
}

/// What others keep, ours keeps: patience does not end too early.
#[test]
fn nothing_is_given_up_that_others_keep() {
    for trace in traces::all() {
        let theirs = run(&trace, &mut Qemu);
        let ours = run(&trace, &mut Ours::new(&trace, 0, OnMiss::Cancel));
        let is_quick = |end| matches!(end, End::Moved { at, .. } if at < DEADLINE / 5.0);
        if is_kept(theirs) && is_quick(theirs) {
            assert!(is_kept(ours), "{}: {theirs:?}, and ours {ours:?}", trace.name);
        }
    }
}

/// The simulated rivals fail where the real ones are known to: one runs for ever, and one makes a
/// pause that nobody agreed to.
#[test]
fn the_rivals_are_who_they_are() {
    let fast =
        traces::all().into_iter().find(|trace| trace.name == "three times the link").unwrap();
    assert_eq!(run(&fast, &mut Qemu), End::Never);
    let End::Moved { pause, .. } = run(&fast, &mut Doubling::default()) else {
        panic!("doubling ends");
    };
    assert!(pause > 10.0, "{pause} s");
}
