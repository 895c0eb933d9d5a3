// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A migration from its plan to its end, as the lines a person sees.

use super::*;
use whimbrel_api::migration::{Bargain, Mode, OnMiss, PhaseTime, Progress as Figures};
use whimbrel_api::plan::{Convergence, Finding, Forecast, Range};

fn migration(phase: Phase) -> Migration {
    let took = [120, 300, 10_200, 80, 30, 40];
    let order =
        [Phase::Plan, Phase::Prepare, Phase::Memory, Phase::Switch, Phase::Handoff, Phase::Release];
    let over = order.into_iter().zip(took).take_while(|(over, _)| *over < phase);
    Migration {
        id: "6f0c".into(),
        guest: "web1".into(),
        guest_uuid: "aa".into(),
        source: "alpha".into(),
        target: "beta".into(),
        mode: Mode::Live,
        phase,
        started_at_ms: 0,
        elapsed_ms: 0,
        phases: over.map(|(phase, duration_ms)| PhaseTime { phase, duration_ms }).collect(),
        findings: vec![Finding {
            severity: Severity::Warning,
            code: "clock/skew".into(),
            text: "the clocks differ by 3 s".into(),
            remedy: None,
        }],
        checks_passed: 9,
        forecast: Some(Forecast {
            total_ms: Range { min: 9_000, max: 14_000 },
            pause_ms: Range { min: 60, max: 110 },
            wire_bytes: Range::default(),
            convergence: Convergence::Certain,
            reasons: Vec::new(),
        }),
        progress: Some(Figures {
            round: 3,
            total_bytes: 4 << 30,
            remaining_bytes: 100 << 20,
            transferred_bytes: 4 << 30,
            wire_bytes: 1 << 30,
            rate_bytes_per_second: 412 << 20,
            dirty_bytes_per_second: 38 << 20,
            remaining_ms: Some(Range { min: 2_000, max: 3_000 }),
            reason: None,
            ..Figures::default()
        }),
        bargain: None,
        miss: None,
        outcome: None,
    }
}

/// Each phase that is over is said once, with what it found or cost; warnings follow the plan.
#[test]
fn finished_phases_are_said_once() {
    let mut lines = Lines::default();
    assert!(lines.finished(&migration(Phase::Plan)).is_empty());
    insta::assert_snapshot!(lines.finished(&migration(Phase::Prepare)).join("\n"), @r#"
    plan       9 checks passed; expect 9-14 s, pause 60-110 ms
    warning: the clocks differ by 3 s
    "#);
    assert!(lines.finished(&migration(Phase::Prepare)).is_empty());
    insta::assert_snapshot!(lines.finished(&migration(Phase::Ended)).join("\n"), @r#"
    prepare    beta is ready (300 ms)
    memory     round 3   3.9 GiB of 4 GiB   412 MiB/s   dirty 38 MiB/s   75 % saved (10 s)
    handoff    done
    "#);
}

/// The line that is kept up to date says where the migration is and why it still runs.
#[test]
fn the_current_line_says_why() {
    let current = |phase| current(&migration(phase)).unwrap_or_default();
    let phases = [Phase::Plan, Phase::Prepare, Phase::Memory, Phase::Switch, Phase::Handoff];
    let text = phases.map(current).join("\n");
    insta::assert_snapshot!(text, @r#"
    plan       checking
    prepare    beta starts its engine
    memory     round 3   3.9 GiB of 4 GiB   412 MiB/s   dirty 38 MiB/s   75 % saved   2-3.0 s left
    switch     the guest stands still
    handoff    beta takes over
    "#);
    assert_eq!(current(Phase::Ended), "");

    let mut busy = migration(Phase::Memory);
    busy.progress.as_mut().unwrap().reason = Some("it writes faster than it is sent".into());
    let line = super::current(&busy).unwrap();
    assert!(line.ends_with("left   it writes faster than it is sent"), "{line}");
}

/// Once half of the guest has moved nothing can be taken back, and a deadline only be missed.
#[test]
fn a_late_half_is_said() {
    let mut half = migration(Phase::Postcopy);
    let promise = Bargain {
        pause_ms_max: 300,
        deadline_ms: 60_000,
        slowdown_percent_max: 0,
        on_miss: OnMiss::Postcopy,
        is_held: false,
    };
    (half.bargain, half.elapsed_ms) = (Some(promise), 60_000);
    let line = current(&half).unwrap();
    assert!(line.ends_with("web1 runs on beta, the rest of its memory follows"), "{line}");
    half.elapsed_ms += 1;
    let line = current(&half).unwrap();
    assert!(line.ends_with("; later than promised, and there is no way back"), "{line}");
}

/// Savings are never negative, and nothing is divided by nothing.
#[test]
fn savings_are_sane() {
    assert_eq!(saved_percent(1, 4), Some(75));
    assert_eq!(saved_percent(4, 1), None);
    assert_eq!(saved_percent(0, 0), None);
}
