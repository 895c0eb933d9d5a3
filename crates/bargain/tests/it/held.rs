// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A held migration stays converged until the word, and then it is quick.

use crate::rivals::{Ours, PAUSE};
use crate::traces;
use crate::world::{End, run};
use whimbrel_bargain::Step;
use whimbrel_model::plan::OnMiss;

/// For ten minutes, which is the deadline, and then at once.
#[test]
fn held_for_long_and_cut_on_the_word() {
    const WORD: f64 = 700.0;
    for trace in &traces::all() {
        let names = ["idle", "light", "a database", "2 s of each 10", "100 Mbit/s, light"];
        if !names.contains(&trace.name) {
            continue;
        }
        let mut ours = Ours::with(trace, 0, OnMiss::Cancel, |terms| terms.is_held = true);
        ours.cut_at = Some(WORD);
        let end = run(trace, &mut ours);
        let End::Moved { at, pause } = end else { panic!("{}: {end:?}", trace.name) };
        assert!(pause <= PAUSE, "{}: {end:?}", trace.name);
        assert!(at > WORD && at < WORD + 60.0, "{}: {end:?}", trace.name);
    }
}

/// It says when it can be cut, and what the pause would be.
#[test]
fn it_says_when_it_is_ready() {
    let trace = &traces::all()[1];
    let mut ours = Ours::with(trace, 0, OnMiss::Cancel, |terms| terms.is_held = true);
    assert_eq!(run(trace, &mut ours), End::Never);
    let said = ours.said.unwrap();
    assert_eq!((said.step, said.miss), (Step::Hold, None));
    assert!(said.reason.starts_with("held: `whimbrel cutover web1` moves it"), "{}", said.reason);
    assert!(said.pause_now.as_secs_f64() <= PAUSE, "{:?}", said.pause_now);
}

/// One that cannot converge is a miss like any other.
#[test]
fn it_has_to_converge_first() {
    let trace = &traces::all()[6];
    let mut ours = Ours::with(trace, 0, OnMiss::Cancel, |terms| terms.is_held = true);
    let end = run(trace, &mut ours);
    assert!(matches!(end, End::Cancelled { at } if at < 150.0), "{end:?} {:?}", ours.said);
}
