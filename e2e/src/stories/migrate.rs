// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A guest moves while it runs, and does not notice.

use crate::lab::{Host, finish};
use crate::qemu::{OtherQemu, version_of};
use crate::scene::{
    Cast, SOON, Scene, await_state, console_of, engines, lives_only_on, report, state, until,
};
use crate::setting::{Setting, Skip};
use crate::witness::{Status, Witness};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::time::Duration;

/// Longest silence a client may meet: emulated guests on two busy cores.
const PAUSE_MAX: Duration = Duration::from_secs(5);
const MOVE_PATIENCE: Duration = Duration::from_secs(120);

/// A guest that works moves there and back: its memory, both disks and an open connection are what
/// they were.
pub(super) fn there_and_back(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1().dirtying("text", 4))?;
    move_and_check(&witness, alpha, beta, &[])?;
    move_and_check(&witness, beta, alpha, &[])?;
    Ok(())
}

/// The same over one channel, as engines without multifd do it.
pub(super) fn through_a_single_channel(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let witness = scene.create(scene.alpha(), &Cast::web1().dirtying("random", 4))?;
    move_and_check(&witness, scene.alpha(), scene.beta(), &["--channels", "1"])?;
    Ok(())
}

/// Stopped first, copied then: for guests that dirty faster than the wire carries.
pub(super) fn stop_and_copy(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let witness = scene.create(scene.alpha(), &Cast::web1().dirtying("random", 64))?;
    move_and_check(&witness, scene.alpha(), scene.beta(), &["--stop-and-copy"])?;
    Ok(())
}

/// Moves `web1` and asks its witness, a client and the hosts how it went.
pub(super) fn move_and_check(
    witness: &Witness<'_>,
    source: &Host,
    target: &Host,
    options: &[&str],
) -> Result<Value> {
    let before = witness.is_well()?;
    let mut held = witness.hold()?;
    let ticker = witness.watch()?;
    let command = [&["migrate", "web1", &target.name], options].concat();
    let ran = source.whimbrel(&command)?;
    let took = ran.took;
    ran.ok().with_context(|| console_of(target, "web1"))?;
    let after = held.is_well().context("the open connection, after the move")?;
    let ticks = ticker.stop();
    went_on(&before, &after)?;
    lives_only_on(target, source, "web1", "running")?;
    let report = report(target, "web1")?;
    println!(
        "{} to {} {options:?}: {took:?}, client's silence {:?}, report {report}",
        source.name, target.name, ticks.longest_silence
    );
    let is_live = options != ["--stop-and-copy"];
    ensure!(!is_live || ticks.longest_silence < PAUSE_MAX, "a client's silence: {ticks:?}");
    Ok(report)
}

/// Checks that counters went on from where they were, without a boot between.
fn went_on(before: &Status, after: &Status) -> Result<()> {
    for disk in [0, 1] {
        ensure!(after.boot(disk)? == before.boot(disk)?, "the guest was booted: {after:?}");
        let (old, new) = (before.counter(disk)?, after.counter(disk)?);
        ensure!(new > old, "disk {disk} does not count on: {old} before, {new} after");
    }
    Ok(())
}

/// Debian's QEMU on one host and a newer one on the other: there and back.
pub(super) fn between_versions_of_qemu(setting: &Setting) -> Result<()> {
    let other = OtherQemu::fetch_or_skip(&setting.cache())?;
    let (ours, theirs) = (version_of("qemu-system-x86_64".as_ref())?, other.version()?);
    if ours == theirs {
        return Err(Skip(format!("both QEMUs are {ours}")).into());
    }
    println!("alpha has {ours}, beta {theirs}");
    let (lab, image) = setting.lab()?;
    lab.beta.show(&other.directory, OtherQemu::PLACE)?;
    let scene = Scene::configured(lab, image, ["", &OtherQemu::configuration()])?;
    scene.pair()?;
    let witness = scene.create(scene.alpha(), &Cast::web1().dirtying("text", 4))?;
    move_and_check(&witness, scene.alpha(), scene.beta(), &[])?;
    move_and_check(&witness, scene.beta(), scene.alpha(), &[])?;
    Ok(())
}

/// A guest that was paused arrives paused, and goes on when it is told to.
pub(super) fn a_paused_guest_arrives_paused(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    let before = witness.is_well()?;
    alpha.whimbrel(&["pause", "web1"])?.ok()?;
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok()?;
    lives_only_on(beta, alpha, "web1", "paused")?;
    beta.whimbrel(&["unpause", "web1"])?.ok()?;
    until("the guest counts on", SOON, || {
        Ok(witness.status()?.counter(0)? > before.counter(0)? + 3)
    })?;
    went_on(&before, &witness.is_well()?)
}

/// A guest that does not run moves as what it is: a definition.
pub(super) fn a_stopped_guest_moves_its_definition(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    alpha.whimbrel(&["stop", "--now", "web1"])?.ok()?;
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok()?;
    ensure!(state(alpha, "web1")?.is_none(), "the source still lists it");
    await_state(beta, "web1", "stopped")?;
    beta.whimbrel(&["start", "web1"])?.ok()?;
    ensure!(witness.wait()?.boot(0)? == 2, "it boots from another disk");
    Ok(())
}

/// Two guests move at once, in opposite directions.
pub(super) fn two_at_once(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let first = scene.create(alpha, &Cast::web1())?;
    let second = scene.create(beta, &Cast::web2())?;
    let leaving = alpha.spawn_whimbrel(&["migrate", "web1", "beta"])?;
    let arriving = beta.spawn_whimbrel(&["migrate", "web2", "alpha"])?;
    finish(leaving, "migrate web1 beta", "", MOVE_PATIENCE)?.ok()?;
    finish(arriving, "migrate web2 alpha", "", MOVE_PATIENCE)?.ok()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    lives_only_on(alpha, beta, "web2", "running")?;
    first.is_well()?;
    second.is_well()?;
    Ok(())
}

/// Ctrl-C in the middle: the guest stays where it is, and nothing is left on the target.
pub(super) fn ctrl_c_cancels(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1().dirtying("random", 16))?;
    // Slower than the guest dirties: it cannot end before it is cancelled.
    alpha.set_rate(Some(50))?;
    let child = alpha.spawn_whimbrel(&["migrate", "web1", "beta", "--yes"])?;
    until("an engine waits on the target", SOON, || Ok(!engines(beta, "web1")?.is_empty()))?;
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?;
    let ran = finish(child, "migrate web1 beta", "", MOVE_PATIENCE)?;
    ensure!(!ran.status.success(), "a cancelled migration says that it succeeded: {ran}");
    alpha.set_rate(None)?;
    lives_only_on(alpha, beta, "web1", "running")?;
    witness.is_well()?;
    Ok(())
}

/// A guest that reboots while it moves arrives all the same; one that powers off ends where its
/// policy says.
pub(super) fn a_guest_that_ends_while_moving(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1().dirtying("random", 16))?;
    alpha.set_rate(Some(50))?;
    let child = alpha.spawn_whimbrel(&["migrate", "web1", "beta", "--yes"])?;
    until("an engine waits on the target", SOON, || Ok(!engines(beta, "web1")?.is_empty()))?;
    let _ = witness.ask("poweroff");
    let ran = finish(child, "migrate web1 beta", "", MOVE_PATIENCE)?;
    ensure!(ran.status.code() == Some(3), "a guest that was shut down arrived? {ran}");
    alpha.set_rate(None)?;
    lives_only_on(alpha, beta, "web1", "stopped")
}
