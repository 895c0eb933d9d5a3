// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Something dies in the middle of a migration: one copy runs, and nothing is left over.

use crate::lab::{Host, finish};
use crate::scene::{Cast, SOON, Scene, engines, lives_only_on, until};
use crate::setting::Setting;
use crate::witness::Witness;
use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::Child;
use std::time::Duration;

const SETTLED: Duration = Duration::from_secs(60);

/// A guest in the middle of its move: memory flows, and cannot all have flowed.
struct Middle<'a> {
    witness: Witness<'a>,
    command: Child,
}

fn in_the_middle(scene: &Scene) -> Result<Middle<'_>> {
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1().dirtying("random", 16))?;
    alpha.set_rate(Some(50))?;
    let before = alpha.traffic()?;
    let command = alpha.spawn_whimbrel(&["migrate", "web1", "beta"])?;
    until("memory flows to an engine on the target", SOON, || {
        let is_received = !engines(beta, "web1")?.is_empty();
        Ok(is_received && alpha.traffic()?.since(before).sent > 4 << 20)
    })?;
    Ok(Middle { witness, command })
}

/// The guest is where it was, the command said so, and the next try succeeds.
fn it_stayed_and_can_move_later(scene: &Scene, middle: Middle<'_>) -> Result<()> {
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let ran = finish(middle.command, "migrate web1 beta", "", SETTLED)?;
    ensure!(ran.status.code() == Some(3), "expected exit code 3 of {ran}");
    lives_only_on(alpha, beta, "web1", "running")?;
    middle.witness.is_well()?;
    middle.witness.ask("set dirty none 0")?;
    alpha.set_rate(None)?;
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    let status = middle.witness.is_well()?;
    ensure!(status.boot(0)? == 1, "the guest was booted anew: {status:?}");
    Ok(())
}

pub(super) fn kill_engine(host: &Host) -> Result<()> {
    for pid in engines(host, "web1")? {
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
    }
    Ok(())
}

pub(super) fn the_target_engine_is_killed(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let middle = in_the_middle(&scene)?;
    kill_engine(scene.beta())?;
    it_stayed_and_can_move_later(&scene, middle)
}

pub(super) fn the_target_daemon_is_killed(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let middle = in_the_middle(&scene)?;
    scene.beta().kill_daemon()?;
    scene.beta().start_daemon()?;
    it_settles(&scene, middle)
}

pub(super) fn the_source_daemon_is_killed(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let middle = in_the_middle(&scene)?;
    scene.alpha().kill_daemon()?;
    middle.witness.ask("echo still here")?;
    scene.alpha().start_daemon()?;
    it_settles(&scene, middle)
}

/// The wire is pulled and stays out until the attempt has ended.
pub(super) fn the_wire_is_pulled(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let middle = in_the_middle(&scene)?;
    scene.beta().unplug()?;
    let Middle { witness, command } = middle;
    let ran = finish(command, "migrate web1 beta", "", SETTLED)?;
    ensure!(ran.status.code() == Some(3), "expected exit code 3 of {ran}");
    witness.is_well()?;
    scene.beta().plug_in()?;
    scene.alpha().set_rate(None)?;
    lives_only_on(scene.alpha(), scene.beta(), "web1", "running")
}

/// However the attempt ended: the guest runs on exactly one host and was not booted anew.
fn it_settles(scene: &Scene, middle: Middle<'_>) -> Result<()> {
    let (alpha, beta) = (scene.alpha(), scene.beta());
    alpha.set_rate(None)?;
    middle.witness.ask("set dirty none 0")?;
    // Its daemon may have died under the command: how it ended is asked of the hosts.
    let _ = finish(middle.command, "migrate web1 beta", "", SETTLED)?;
    until("exactly one engine is left", SETTLED, || {
        Ok(engines(alpha, "web1")?.len() + engines(beta, "web1")?.len() == 1)
    })?;
    let (home, other) =
        if engines(alpha, "web1")?.is_empty() { (beta, alpha) } else { (alpha, beta) };
    lives_only_on(home, other, "web1", "running")?;
    let status = middle.witness.is_well()?;
    ensure!(status.boot(0)? == 1, "the guest was booted anew: {status:?}");
    println!("it runs on {}", home.name);
    Ok(())
}
