// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A guest's move from one engine to another, and all the ways it can end.

use crate::bench::{Bench, Defined, Kind, Limits, Wire, options, until, until_gone, until_state};
use crate::life::on_both;
use std::sync::Arc;
use std::time::Duration;
use whimbrel_engine::fake::Stage;
use whimbrel_engine::{Instance, Migration, MigrationOptions, Start, Tuning};
use whimbrel_model::run_state::RunState;
use whimbrel_model::units::Bytes;

/// A guest on alpha, and an engine on beta that waits for it.
struct Journey {
    bench: Bench,
    defined: Defined,
    source: Arc<dyn Instance>,
    target: Arc<dyn Instance>,
}

/// Enough for a stream to have begun, not enough for it to have ended.
const EARLY: Limits = Limits { forward: 16 << 10, back: u64::MAX };

impl Journey {
    async fn new(kind: Kind) -> Option<Journey> {
        let bench = Bench::new(kind).await?;
        let disk = bench.disk("disk.img");
        let defined = bench.define(|guest| guest.disks.push(disk)).await;
        let source = bench.launch(&defined, "alpha", Start::Boot).await;
        source.resume().await.unwrap();
        let target = bench.launch(&defined, "beta", Start::Incoming).await;
        Some(Journey { bench, defined, source, target })
    }

    /// Begins to move, over a wire with limits.
    async fn depart(&self, options: &MigrationOptions, limits: Limits) -> Wire {
        let listening = self.target.receive(options.clone()).await.unwrap();
        let wire = Wire::new(self.bench.folder.path(), listening, limits);
        self.source.send(options.clone(), wire.end.clone()).await.unwrap();
        wire.joined().await;
        wire
    }

    /// Moves without a hitch, until both engines say that everything has arrived.
    async fn arrive(&self, options: &MigrationOptions) -> Migration {
        let _wire = self.depart(options, Limits::NONE).await;
        let completed = until(&self.source, "the source to complete", is_completed).await;
        until(&self.target, "the target to complete", is_completed).await;
        completed
    }

    async fn end(self) {
        self.source.destroy().await.unwrap();
        self.target.destroy().await.unwrap();
    }
}

fn is_completed(migration: &Migration) -> bool {
    // Waiting for what can no longer come would only cost time.
    assert!(!matches!(migration, Migration::Failed { .. } | Migration::Cancelled), "{migration:?}");
    matches!(migration, Migration::Completed(_))
}

/// QEMU may call it either, by what it noticed first: the order, or the socket that it closed.
fn is_given_up(migration: &Migration) -> bool {
    matches!(migration, Migration::Cancelled | Migration::Failed { .. })
}

async fn give_up(source: &Arc<dyn Instance>) {
    let ended = source.cancel().await.unwrap();
    assert!(is_given_up(&ended), "{ended:?}");
}

fn is_active(migration: &Migration) -> bool {
    matches!(migration, Migration::Active(progress) if progress.total > Bytes(0))
}

async fn moves_with(kind: Kind, options: MigrationOptions) {
    let Some(journey) = Journey::new(kind).await else { return };
    let completed = journey.arrive(&options).await;
    // Nobody runs: who does is not for the engines to decide.
    assert_eq!(journey.source.run_state().await.unwrap(), RunState::Paused);
    assert_eq!(journey.target.run_state().await.unwrap(), RunState::Paused);
    assert!(journey.source.has_run() && !journey.target.has_run());
    let Migration::Completed(progress) = completed else { panic!("{completed:?}") };
    let steps = progress.pause;
    assert!(steps.stopped.unwrap() <= steps.switching.unwrap(), "{steps:?}");
    assert!(steps.switching.unwrap() <= steps.completed.unwrap(), "{steps:?}");
    assert!(progress.downtime.is_some() && progress.transferred > Bytes(0), "{progress:?}");
    if let Some(fake) = &journey.bench.fake {
        let memory = |host| fake.guest(&journey.bench.directory(host)).unwrap().memory();
        assert_eq!(memory("alpha"), memory("beta"));
    }
    journey.target.resume().await.unwrap();
    journey.target.announce().await.unwrap();
    assert_eq!(journey.target.run_state().await.unwrap(), RunState::Running);
    journey.end().await;
}

/// Everything arrives; both stand still; the target runs when it is told to, with its disk.
async fn a_guest_moves_over_one_channel(kind: Kind) {
    moves_with(kind, options()).await;
}

async fn a_guest_moves_over_compressed_channels(kind: Kind) {
    moves_with(kind, MigrationOptions { channels: 2, is_compressed: true, ..options() }).await;
}

async fn a_guest_is_stopped_and_copied(kind: Kind) {
    moves_with(kind, MigrationOptions { is_stop_and_copy: true, ..options() }).await;
}

/// A guest that was paused arrives paused, and leaves the source paused when the move fails.
async fn a_paused_guest_stays_paused(kind: Kind) {
    let Some(journey) = Journey::new(kind).await else { return };
    journey.source.pause().await.unwrap();
    let wire = journey.depart(&options(), EARLY).await;
    give_up(&journey.source).await;
    assert_eq!(journey.source.run_state().await.unwrap(), RunState::Paused);
    wire.cut().await;
    journey.target.destroy().await.unwrap();
    let target = journey.bench.launch(&journey.defined, "beta", Start::Incoming).await;
    let journey = Journey { target, ..journey };
    journey.arrive(&options()).await;
    assert_eq!(journey.target.run_state().await.unwrap(), RunState::Paused);
    journey.end().await;
}

/// A guest that arrived paused and never ran cannot move on: a clear refusal, not an abort. Once
/// it has run it can, also for a daemon that knows it only from its directory.
async fn a_guest_that_never_ran_here_is_not_moved_on(kind: Kind) {
    let Some(journey) = Journey::new(kind).await else { return };
    journey.arrive(&options()).await;
    journey.source.destroy().await.unwrap();
    let beta = journey.bench.directory("beta");
    drop(journey.target);
    let attach = || journey.bench.engine.attach(journey.defined.id, &beta);
    let guest = attach().await.unwrap().unwrap();
    assert!(!guest.has_run(), "a new daemon knows it, too");
    let third = journey.bench.launch(&journey.defined, "gamma", Start::Incoming).await;
    let listening = third.receive(options()).await.unwrap();
    let wire = Wire::new(journey.bench.folder.path(), listening, Limits::NONE);
    if is_old_qemu(&journey.bench, kind).await {
        let error = guest.send(options(), wire.end.clone()).await.unwrap_err();
        assert!(error.to_string().contains("never") || error.to_string().contains("paused"));
    }
    assert_eq!(guest.run_state().await.unwrap(), RunState::Paused, "it is unharmed");
    guest.resume().await.unwrap();
    drop(guest);
    let guest = attach().await.unwrap().unwrap();
    guest.send(options(), wire.end.clone()).await.unwrap();
    until(&third, "the third host", is_completed).await;
    guest.destroy().await.unwrap();
    third.destroy().await.unwrap();
}

async fn is_old_qemu(bench: &Bench, kind: Kind) -> bool {
    let version = bench.engine.facts().await.unwrap().version;
    let major: u32 = version.split('.').next().unwrap().parse().unwrap();
    kind == Kind::Fake || major < 10
}

/// Cancelled while memory flows, the guest runs on, and a second attempt works.
async fn a_cancelled_guest_runs_on_and_can_try_again(kind: Kind) {
    let Some(journey) = Journey::new(kind).await else { return };
    let wire = journey.depart(&options(), EARLY).await;
    until(&journey.source, "memory to flow", is_active).await;
    journey.source.retune(options().tuning).await.unwrap();
    give_up(&journey.source).await;
    assert_eq!(journey.source.run_state().await.unwrap(), RunState::Running);
    wire.cut().await;
    journey.target.destroy().await.unwrap();
    let target = journey.bench.launch(&journey.defined, "beta", Start::Incoming).await;
    let journey = Journey { target, ..journey };
    journey.arrive(&options()).await;
    journey.target.resume().await.unwrap();
    journey.end().await;
}

/// A guest that we stopped in order to copy it runs again when that is given up.
async fn a_stopped_and_copied_guest_runs_again_after_cancel(kind: Kind) {
    let Some(journey) = Journey::new(kind).await else { return };
    let stop_and_copy = MigrationOptions { is_stop_and_copy: true, ..options() };
    let wire = journey.depart(&stop_and_copy, EARLY).await;
    assert_eq!(journey.source.run_state().await.unwrap(), RunState::Paused);
    give_up(&journey.source).await;
    assert_eq!(journey.source.run_state().await.unwrap(), RunState::Running);
    wire.cut().await;
    journey.end().await;
}

/// The target dies while memory flows: the source says why it failed, and never stopped.
async fn a_dead_target_leaves_the_source_running(kind: Kind) {
    let Some(journey) = Journey::new(kind).await else { return };
    let wire = journey.depart(&options(), EARLY).await;
    until(&journey.source, "memory to flow", is_active).await;
    journey.target.destroy().await.unwrap();
    wire.cut().await;
    let is_failed = |migration: &Migration| matches!(migration, Migration::Failed { .. });
    until(&journey.source, "the failure", is_failed).await;
    until_state(&journey.source, RunState::Running).await;
    journey.end().await;
}

/// The source vanishes: the target gives up, too, without ever having run.
async fn a_cut_link_ends_the_target(kind: Kind) {
    let Some(journey) = Journey::new(kind).await else { return };
    let gone = journey.target.events();
    let wire = journey.depart(&options(), EARLY).await;
    until(&journey.source, "memory to flow", is_active).await;
    wire.cut().await;
    until_gone(gone).await;
    until_state(&journey.source, RunState::Running).await;
    journey.end().await;
}

/// Everything was delivered and the last acknowledgement is lost: the classic split. The source
/// runs again, the target stands still, complete as it is.
async fn a_lost_last_acknowledgement_makes_no_second_guest(kind: Kind) {
    let Some(journey) = Journey::new(kind).await else { return };
    if let Some(fake) = &journey.bench.fake {
        fake.guest(&journey.bench.directory("alpha")).unwrap().hang_at(Some(Stage::Switching));
    }
    // QEMU's return path carries nothing but the final word.
    let silent = if kind == Kind::Qemu { 0 } else { u64::MAX };
    let limits = Limits { back: silent, ..Limits::NONE };
    let wire = journey.depart(&options(), limits).await;
    let is_switching = |migration: &Migration| matches!(migration, Migration::Switching(_));
    until(&journey.source, "the switchover", is_switching).await;
    if kind == Kind::Qemu {
        until(&journey.target, "the target to complete", is_completed).await;
    }
    assert_eq!(journey.source.run_state().await.unwrap(), RunState::Paused);
    let (ended, ()) = tokio::join!(journey.source.cancel(), wire.cut());
    assert!(is_given_up(&ended.unwrap()));
    assert_eq!(journey.source.run_state().await.unwrap(), RunState::Running);
    if kind == Kind::Qemu {
        assert_eq!(journey.target.run_state().await.unwrap(), RunState::Paused);
    }
    journey.end().await;
}

/// After `Completed` it is too late to cancel, and nothing is changed by trying. When the target
/// is gone then, the source takes its disk again and goes on.
async fn the_source_comes_back_when_the_target_is_lost(kind: Kind) {
    let Some(journey) = Journey::new(kind).await else { return };
    journey.arrive(&options()).await;
    let late = journey.source.cancel().await.unwrap();
    assert!(matches!(late, Migration::Completed(_)), "{late:?}");
    assert_eq!(journey.source.run_state().await.unwrap(), RunState::Paused);
    journey.target.destroy().await.unwrap();
    journey.source.resume().await.unwrap();
    assert_eq!(journey.source.run_state().await.unwrap(), RunState::Running);
    let target = journey.bench.launch(&journey.defined, "beta", Start::Incoming).await;
    let journey = Journey { target, ..journey };
    journey.arrive(&options()).await;
    journey.end().await;
}

/// A target cannot be started before everything has arrived, not even for later.
async fn half_a_guest_never_runs(kind: Kind) {
    let Some(journey) = Journey::new(kind).await else { return };
    assert!(journey.target.resume().await.is_err());
    let wire = journey.depart(&options(), EARLY).await;
    until(&journey.source, "memory to flow", is_active).await;
    assert!(journey.target.resume().await.is_err());
    wire.release();
    until(&journey.target, "the target to complete", is_completed).await;
    assert_eq!(journey.target.run_state().await.unwrap(), RunState::Paused);
    journey.end().await;
}

/// A migration that would take minutes hurries when it may: what it is tuned to counts at once.
async fn a_slow_move_hurries_when_it_may(kind: Kind) {
    let Some(journey) = Journey::new(kind).await else { return };
    let slow = if kind == Kind::Qemu { Bytes(16 * Bytes::KIB) } else { Bytes(512 * Bytes::KIB) };
    let tuning = Tuning { bandwidth: Some(slow), ..options().tuning };
    let _wire = journey.depart(&MigrationOptions { tuning, ..options() }, Limits::NONE).await;
    until(&journey.source, "memory to flow", is_active).await;
    let begun = std::time::Instant::now();
    journey.source.retune(options().tuning).await.unwrap();
    until(&journey.source, "the end", is_completed).await;
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    journey.end().await;
}

/// A guest that dirties faster than the link carries does not converge, round after round; with a
/// longer pause allowed it does. Only a fake dirties at a rate that no load of the host changes.
#[tokio::test]
async fn a_busy_guest_converges_when_it_is_given_more() {
    let Some(journey) = Journey::new(Kind::Fake).await else { return };
    let fake = journey.bench.fake.as_ref().unwrap();
    fake.guest(&journey.bench.directory("alpha")).unwrap().set_dirty_rate(Bytes::mib(1024));
    let pause_max = Duration::from_millis(1);
    let tuning = Tuning { bandwidth: Some(Bytes::mib(512)), pause_max, ..Tuning::default() };
    let _wire = journey.depart(&MigrationOptions { tuning, ..options() }, Limits::NONE).await;
    let is_third = |migration: &Migration| {
        assert!(!matches!(migration, Migration::Completed(_)), "too early: {migration:?}");
        matches!(migration, Migration::Active(progress) if progress.round >= 3)
    };
    until(&journey.source, "the third round", is_third).await;
    let wide = Tuning { pause_max: Duration::from_secs(2), ..Tuning::default() };
    journey.source.retune(wide).await.unwrap();
    until(&journey.source, "the end", is_completed).await;
    journey.end().await;
}

on_both! {
    a_guest_moves_over_one_channel
    a_guest_moves_over_compressed_channels
    a_guest_is_stopped_and_copied
    a_paused_guest_stays_paused
    a_guest_that_never_ran_here_is_not_moved_on
    a_cancelled_guest_runs_on_and_can_try_again
    a_stopped_and_copied_guest_runs_again_after_cancel
    a_dead_target_leaves_the_source_running
    a_cut_link_ends_the_target
    a_lost_last_acknowledgement_makes_no_second_guest
    the_source_comes_back_when_the_target_is_lost
    half_a_guest_never_runs
    a_slow_move_hurries_when_it_may
}
