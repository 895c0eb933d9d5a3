// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Moves with something to them: watched, limited, disturbed, or of a guest that has its own plans.

use crate::carriers;
use crate::lab::finish;
use crate::scene::{Cast, SOON, Scene, await_state, engines, lives_only_on, report, until};
use crate::setting::Setting;
use crate::terminal::Terminal;
use crate::witness::Witness;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use std::process::Child;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
/// Slower than the guests here dirty, so that nothing ends before its time.
const SLOW_MBIT: u32 = 50;

/// Begins a move that cannot end, and waits until memory flows.
fn in_the_middle<'a>(
    scene: &'a Scene,
    cast: &Cast,
    options: &[&str],
) -> Result<(Witness<'a>, Child)> {
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &cast.clone().dirtying("random", 16))?;
    alpha.set_rate(Some(SLOW_MBIT))?;
    let before = alpha.traffic()?;
    let command = [&["migrate", &cast.name, "beta", "--yes"], options].concat();
    let command = alpha.spawn_whimbrel(&command)?;
    until("memory flows to an engine on the target", SOON, || {
        let is_received = !engines(beta, &cast.name)?.is_empty();
        Ok(is_received && alpha.traffic()?.since(before).sent > 4 << 20)
    })?;
    Ok((witness, command))
}

/// `--detach` comes back at once, `watch` shows the rest and ends with it.
pub(super) fn detached_and_watched(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1().dirtying("random", 16))?;
    alpha.set_rate(Some(SLOW_MBIT))?;
    let said = alpha.whimbrel(&["migrate", "web1", "beta", "--detach", "--yes"])?;
    ensure!(said.stderr.contains("watch web1"), "nothing about `watch`: {said}");
    said.ok()?;
    let watcher = alpha.spawn_whimbrel(&["watch", "web1"])?;
    until("it moves", SOON, || Ok(!engines(beta, "web1")?.is_empty()))?;
    witness.ask("set dirty none 0")?;
    alpha.set_rate(None)?;
    let watched = finish(watcher, "watch web1", "", PATIENCE)?;
    ensure!(watched.stdout.contains("web1 now runs on beta"), "{watched}");
    watched.ok()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    witness.is_well().map(drop)
}

/// `--bandwidth` is kept: what went over the wire, in the time that it took.
pub(super) fn within_a_bandwidth(setting: &Setting) -> Result<()> {
    const LIMIT: u64 = 16 << 20;
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    // What does not compress.
    let witness = scene.create(alpha, &Cast::web1().dirtying("random", 1))?;
    let before = alpha.traffic()?;
    alpha.whimbrel(&["migrate", "web1", "beta", "--bandwidth", "16MiB/s"])?.ok()?;
    let sent = alpha.traffic()?.since(before).sent;
    lives_only_on(beta, alpha, "web1", "running")?;
    let report = report(alpha, "web1")?;
    let phases = report["phases"].as_array().context("no phases")?;
    let memory =
        phases.iter().filter(|phase| phase["phase"] == "memory" || phase["phase"] == "switch");
    let took_ms: u64 = memory.filter_map(|phase| phase["duration_ms"].as_u64()).sum();
    let rate = sent * 1000 / took_ms.max(1);
    println!("{sent} bytes in {took_ms} ms: {rate} bytes/s");
    ensure!(rate < LIMIT * 5 / 4, "{rate} bytes/s, and {LIMIT} were allowed: {report}");
    witness.is_well().map(drop)
}

/// An open console follows its guest, and so does the keyboard.
pub(super) fn the_console_follows(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    scene.create(alpha, &Cast::web1())?;
    let mut console = Terminal::whimbrel(alpha, "console web1")?;
    console.ask("echo at home", "ok at home")?;
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok()?;
    console.shown.wait_for("beta", SOON).context("no word of where the guest is now")?;
    console.ask("echo abroad", "ok abroad")?;
    console.leave()?;
    lives_only_on(beta, alpha, "web1", "running")
}

/// The wire is cut in the middle, the guest stays; plugged in again, the next try succeeds at once,
/// though the target has not understood yet that the first is over.
pub(super) fn again_after_a_cut(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let (witness, command) = in_the_middle(&scene, &Cast::web1(), &["--carrier", "tunnel"])?;
    beta.unplug()?;
    carriers::signal(beta, Signal::SIGSTOP)?;
    beta.hold_daemon(true)?;
    let ran = finish(command, "migrate web1 beta", "", PATIENCE)?;
    ensure!(ran.status.code() == Some(3), "expected exit code 3 of {ran}");
    ensure!(ran.stderr.contains("help:"), "no remedy: {ran}");
    witness.is_well()?;
    await_state(alpha, "web1", "running")?;
    beta.plug_in()?;
    alpha.set_rate(None)?;
    witness.ask("set dirty none 0")?;
    beta.hold_daemon(false)?;
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok().context("the second try")?;
    lives_only_on(beta, alpha, "web1", "running")?;
    let status = witness.is_well()?;
    ensure!(status.boot(0)? == 1, "it was booted anew: {status:?}");
    Ok(())
}

/// A guest that reboots while it moves arrives all the same, after its reboot.
pub(super) fn a_guest_that_reboots(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let (witness, command) = in_the_middle(&scene, &Cast::web1(), &[])?;
    let _ = witness.ask("reboot");
    until("the second boot", SOON * 2, || Ok(witness.wait()?.boot(0)? == 2))?;
    witness.ask("set dirty none 0")?;
    alpha.set_rate(None)?;
    finish(command, "migrate web1 beta", "", PATIENCE)?.ok()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    let status = witness.is_well()?;
    ensure!(status.boot(0)? == 2, "not its second boot: {status:?}");
    Ok(())
}

/// One that panics ends the attempt, and its policy is applied where it is.
pub(super) fn a_guest_that_panics(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let cast = Cast::web1().with_keys("on_crash = \"restart\"");
    let (witness, command) = in_the_middle(&scene, &cast, &[])?;
    let _ = witness.ask("panic");
    let ran = finish(command, "migrate web1 beta", "", PATIENCE)?;
    ran.refused(3, "migration/guest-ended")?;
    alpha.set_rate(None)?;
    until("it runs again", SOON * 2, || Ok(witness.wait()?.boot(0)? == 2))?;
    lives_only_on(alpha, beta, "web1", "running")
}
