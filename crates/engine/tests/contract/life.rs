// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A guest's life on one host.

use crate::bench::{Bench, Kind, is_alive, until_gone, within};
use std::time::Duration;
use whimbrel_engine::{EngineError, EngineEvent, Start};
use whimbrel_model::id::GuestId;
use whimbrel_model::run_state::RunState;

/// A launched guest stands still until it is resumed; pause and resume may be repeated.
pub(crate) async fn it_starts_paused_and_runs_when_told(kind: Kind) {
    let Some(bench) = Bench::new(kind).await else { return };
    let defined = bench.define(|_| {}).await;
    let guest = bench.launch(&defined, "alpha", Start::Boot).await;
    assert_eq!(guest.run_state().await.unwrap(), RunState::Paused);
    let mut events = guest.events();
    for _ in 0..2 {
        guest.resume().await.unwrap();
        assert_eq!(guest.run_state().await.unwrap(), RunState::Running);
    }
    for _ in 0..2 {
        guest.pause().await.unwrap();
        assert_eq!(guest.run_state().await.unwrap(), RunState::Paused);
    }
    for expected in [EngineEvent::Resumed, EngineEvent::Stopped] {
        assert_eq!(within("an event", events.recv()).await.unwrap(), expected);
    }
    guest.destroy().await.unwrap();
}

/// The power button is pressed, no more: a guest that ignores it runs on, and can be ended.
async fn a_guest_may_ignore_the_power_button(kind: Kind) {
    let Some(bench) = Bench::new(kind).await else { return };
    let defined = bench.define(|_| {}).await;
    let guest = bench.launch(&defined, "alpha", Start::Boot).await;
    guest.resume().await.unwrap();
    guest.power_down().await.unwrap();
    assert_eq!(guest.run_state().await.unwrap(), RunState::Running);
    guest.destroy().await.unwrap();
}

/// A reset is transparent: the guest goes on as what it was, and the event says what happened.
pub(crate) async fn a_reset_keeps_the_guest_running(kind: Kind) {
    let Some(bench) = Bench::new(kind).await else { return };
    let defined = bench.define(|_| {}).await;
    let guest = bench.launch(&defined, "alpha", Start::Boot).await;
    guest.resume().await.unwrap();
    let mut events = guest.events();
    guest.reset().await.unwrap();
    within("the reset", async { while events.recv().await.unwrap() != EngineEvent::Reset {} })
        .await;
    assert_eq!(guest.run_state().await.unwrap(), RunState::Running);
    guest.destroy().await.unwrap();
}

/// The daemon forgets everything, comes back and finds its guest running, the same process.
pub(crate) async fn it_outlives_the_daemon(kind: Kind) {
    let Some(bench) = Bench::new(kind).await else { return };
    let defined = bench.define(|_| {}).await;
    let guest = bench.launch(&defined, "alpha", Start::Boot).await;
    guest.resume().await.unwrap();
    let (process, console) = (guest.process(), guest.console());
    assert!(console.as_ref().unwrap().exists());
    drop(guest);
    let directory = bench.directory("alpha");
    for _ in 0..2 {
        let found = bench.engine.attach(defined.id, &directory).await.unwrap().expect("it lives");
        assert_eq!(found.process(), process);
        assert_eq!(found.console(), console);
        assert_eq!(found.run_state().await.unwrap(), RunState::Running);
        assert!(found.cpu_time().await.unwrap() < Duration::from_secs(60));
    }
    let found = bench.engine.attach(defined.id, &directory).await.unwrap().unwrap();
    found.destroy().await.unwrap();
    assert!(bench.engine.attach(defined.id, &directory).await.unwrap().is_none());
}

/// Nothing is found where nothing was launched, and another guest's engine is not ours.
pub(crate) async fn attach_finds_only_the_guest_it_was_asked_for(kind: Kind) {
    let Some(bench) = Bench::new(kind).await else { return };
    let defined = bench.define(|_| {}).await;
    let directory = bench.directory("alpha");
    assert!(bench.engine.attach(defined.id, &directory).await.unwrap().is_none());
    let guest = bench.launch(&defined, "alpha", Start::Boot).await;
    let stranger = GuestId(uuid::Uuid::new_v4());
    assert!(bench.engine.attach(stranger, &directory).await.is_err());
    guest.destroy().await.unwrap();
}

/// After `destroy` there is no process, no socket and no record, only logs; everyone is told; and
/// it may be repeated.
pub(crate) async fn destroy_leaves_nothing(kind: Kind) {
    let Some(bench) = Bench::new(kind).await else { return };
    let defined = bench.define(|_| {}).await;
    let guest = bench.launch(&defined, "alpha", Start::Boot).await;
    guest.resume().await.unwrap();
    let events = guest.events();
    guest.destroy().await.unwrap();
    guest.destroy().await.unwrap();
    until_gone(events).await;
    if kind == Kind::Qemu {
        assert!(!is_alive(guest.process().pid));
    }
    let left: Vec<_> = std::fs::read_dir(bench.directory("alpha"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".log"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let error = guest.run_state().await.unwrap_err();
    assert!(matches!(error, EngineError::Gone { .. }), "{error}");
    // And the place is free for the next.
    bench.launch(&defined, "alpha", Start::Boot).await.destroy().await.unwrap();
}

macro_rules! on_both {
    ($($test:ident)*) => {
        mod fake {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::bench::Kind::Fake).await;
            })*
        }
        mod qemu {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::bench::Kind::Qemu).await;
            })*
        }
    };
}
pub(crate) use on_both;

on_both! {
    it_starts_paused_and_runs_when_told
    a_guest_may_ignore_the_power_button
    a_reset_keeps_the_guest_running
    it_outlives_the_daemon
    attach_finds_only_the_guest_it_was_asked_for
    destroy_leaves_nothing
}
