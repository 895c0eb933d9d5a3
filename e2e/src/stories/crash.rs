// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Something dies in the middle of a migration: one copy runs, and nothing is left over.

use crate::lab::{Host, finish};
use crate::scene::{Cast, SOON, Scene, await_state, engines, lives_only_on, until};
use crate::setting::Setting;
use crate::witness::Witness;
use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::Child;
use std::time::Duration;

const SETTLED: Duration = Duration::from_secs(60);
/// Guests of a daemon that is killed so often.
const GUESTS: u8 = 20;
const KILLS: u32 = 10;

/// A guest in the middle of its move: memory flows, and cannot all have flowed.
struct Middle<'a> {
    witness: Witness<'a>,
    command: Child,
}

fn in_the_middle<'a>(scene: &'a Scene, options: &[&str]) -> Result<Middle<'a>> {
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1().dirtying("random", 16))?;
    alpha.set_rate(Some(50))?;
    let before = alpha.traffic()?;
    let command = [&["migrate", "web1", "beta", "--yes"], options].concat();
    let command = alpha.spawn_whimbrel(&command)?;
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
    move_now(scene, &middle.witness)
}

pub(super) fn kill_engine(host: &Host) -> Result<()> {
    for pid in engines(host, "web1")? {
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
    }
    Ok(())
}

pub(super) fn the_target_engine_is_killed(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let middle = in_the_middle(&scene, &[])?;
    kill_engine(scene.beta())?;
    it_stayed_and_can_move_later(&scene, middle)
}

/// The target's daemon is killed and comes back: its carrying process went on, so the move does.
pub(super) fn the_target_daemon_is_killed(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let middle = in_the_middle(&scene, &[])?;
    scene.beta().kill_daemon()?;
    scene.beta().start_daemon()?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    alpha.set_rate(None)?;
    middle.witness.ask("set dirty none 0")?;
    finish(middle.command, "migrate web1 beta", "", SETTLED)?.ok()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    is_not_booted_anew(&middle.witness)
}

/// The source's daemon is killed and comes back: it has not seen what its engine went through, so
/// the guest stays, and the next attempt succeeds.
pub(super) fn the_source_daemon_is_killed(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let middle = in_the_middle(&scene, &[])?;
    scene.alpha().kill_daemon()?;
    middle.witness.ask("echo still here")?;
    scene.alpha().start_daemon()?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    // Its daemon has died under the command: how it ended is asked of the hosts.
    let ran = finish(middle.command, "migrate web1 beta", "", SETTLED)?;
    ensure!(!ran.status.success(), "the command did not notice: {ran}");
    lives_only_on(alpha, beta, "web1", "running")?;
    is_not_booted_anew(&middle.witness)?;
    move_now(&scene, &middle.witness)
}

/// The wire is pulled and stays out until the attempt has ended: a tunnel cannot be made again.
pub(super) fn the_wire_is_pulled(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let middle = in_the_middle(&scene, &["--carrier", "tunnel"])?;
    scene.beta().unplug()?;
    let Middle { witness, command } = middle;
    let ran = finish(command, "migrate web1 beta", "", SETTLED)?;
    ensure!(ran.status.code() == Some(3), "expected exit code 3 of {ran}");
    witness.is_well()?;
    scene.beta().plug_in()?;
    lives_only_on(scene.alpha(), scene.beta(), "web1", "running")?;
    move_now(&scene, &witness)
}

/// Twenty guests run on while the daemon that looks after them is killed again and again.
pub(super) fn twenty_guests_and_a_daemon_that_dies(setting: &Setting) -> Result<()> {
    let scene = Scene::strangers(setting)?;
    let alpha = scene.alpha();
    let casts: Vec<_> = (0..GUESTS)
        .map(|index| Cast::named(&format!("web{index}"), 60 + index).with_memory(96, 2))
        .collect();
    for cast in &casts {
        let file = scene.guest_file(cast)?;
        alpha.whimbrel(&["create", &file])?.ok()?;
    }
    let witnesses: Vec<_> = casts.iter().map(|cast| scene.witness(cast)).collect();
    witnesses.iter().try_for_each(|witness| witness.wait().map(drop))?;
    let engines_of = |cast: &Cast| engines(alpha, &cast.name);
    let before = casts.iter().map(engines_of).collect::<Result<Vec<_>>>()?;
    for _ in 0..KILLS {
        alpha.kill_daemon()?;
        alpha.start_daemon()?;
        for cast in &casts {
            await_state(alpha, &cast.name, "running")?;
        }
    }
    let after = casts.iter().map(engines_of).collect::<Result<Vec<_>>>()?;
    ensure!(before == after, "some guest has another engine now: {before:?}, then {after:?}");
    witnesses.iter().try_for_each(is_not_booted_anew)
}

/// The guest is well, and has not been booted but once.
fn is_not_booted_anew(witness: &Witness<'_>) -> Result<()> {
    let status = witness.is_well()?;
    ensure!(status.boot(0)? == 1, "the guest was booted anew: {status:?}");
    Ok(())
}

/// The next attempt is not in the way of the one that was given up.
fn move_now(scene: &Scene, witness: &Witness<'_>) -> Result<()> {
    let (alpha, beta) = (scene.alpha(), scene.beta());
    alpha.set_rate(None)?;
    witness.ask("set dirty none 0")?;
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    is_not_booted_anew(witness)
}
