// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A host is gone outside any migration, and a person says so: truly, falsely, or through a fence.

use super::crash::kill_engine;
use crate::lab::Host;
use crate::scene::{Cast, SOON, Scene, await_state, engines, json, lives_only_on, state, until};
use crate::setting::Setting;
use crate::witness::Witness;
use anyhow::{Result, ensure};
use std::os::unix::fs::PermissionsExt;

/// Waits until beta keeps the papers of alpha's guest.
fn papers_are_kept(beta: &Host) -> Result<()> {
    until("beta keeps the papers of web1", 2 * SOON, || {
        Ok(beta.whimbrel(&["recover", "web1"])?.status.success())
    })
}

/// Alpha loses its daemon and its engines, as in a power cut.
fn alpha_dies(scene: &Scene) -> Result<()> {
    scene.alpha().kill_daemon()?;
    kill_engine(scene.alpha())?;
    until("its engines are gone", SOON, || Ok(engines(scene.alpha(), "web1")?.is_empty()))
}

fn booted_anew_on_beta(scene: &Scene, witness: &Witness<'_>) -> Result<()> {
    await_state(scene.beta(), "web1", "running")?;
    let status = witness.wait()?;
    ensure!(status.boot(0)? == 2, "not its second boot: {status:?}");
    witness.is_well()?;
    Ok(())
}

/// Its guest is started elsewhere by the papers kept there; alpha, back again, neither runs nor
/// remembers it as its own, and says why.
pub(super) fn a_dead_host(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1().with_keys("autostart = true"))?;
    papers_are_kept(beta)?;
    let word = ["recover", "web1", "--on", "beta", "--is-off", "alpha"];
    beta.whimbrel(&word)?.refused(1, "recover/peer-answers")?;
    ensure!(state(beta, "web1")?.is_none(), "a refused word left something on beta");
    alpha_dies(&scene)?;
    let said = json(beta, &["recover", "web1"])?;
    ensure!(said["choices"].as_array().is_some_and(|choices| !choices.is_empty()), "{said}");
    beta.whimbrel(&word)?.ok()?;
    booted_anew_on_beta(&scene, &witness)?;
    alpha.start_daemon()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    until("alpha says why", SOON, || {
        Ok(alpha.whimbrel(&["log"])?.ok()?.contains("`beta` owns the guest now"))
    })?;
    witness.is_well()?;
    beta.whimbrel(&["migrate", "web1", "alpha"])?.ok()?;
    lives_only_on(alpha, beta, "web1", "running")
}

/// Said of a host that lives behind a cut link, while the disks show that the guest is in use: it
/// is refused, and the guest goes on undisturbed.
pub(super) fn a_false_word(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    papers_are_kept(beta)?;
    // Alpha's daemon alone falls silent: its guest can still be watched.
    alpha.kill_daemon()?;
    let said = beta.whimbrel(&["recover", "web1", "--is-off", "alpha"])?;
    said.refused(1, "ownership/image-in-use")?;
    alpha.start_daemon()?;
    lives_only_on(alpha, beta, "web1", "running")?;
    let status = witness.is_well()?;
    ensure!(status.boot(0)? == 1, "the guest was booted anew: {status:?}");
    Ok(())
}

/// A fence command speaks instead of a person, and only its success counts.
pub(super) fn a_fence(setting: &Setting) -> Result<()> {
    let (lab, image) = setting.lab()?;
    let fence = lab.shared.join("fence.sh");
    let says = |ends_with: u8| -> Result<()> {
        std::fs::write(&fence, format!("#!/bin/sh\ntest \"$1\" = alpha && exit {ends_with}\n"))?;
        Ok(std::fs::set_permissions(&fence, PermissionsExt::from_mode(0o755))?)
    };
    says(1)?;
    let config = format!("[fence]\ncommand = \"{}/fence.sh\"\n", crate::lab::SHARED);
    let scene = Scene::configured(lab, image, ["", &config])?;
    scene.pair()?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    papers_are_kept(beta)?;
    alpha_dies(&scene)?;
    let word = ["recover", "web1", "--fence", "alpha"];
    beta.whimbrel(&word)?.refused(1, "recover/fence-failed")?;
    ensure!(state(beta, "web1")?.is_none(), "a refused word left something on beta");
    says(0)?;
    beta.whimbrel(&word)?.ok()?;
    booted_anew_on_beta(&scene, &witness)
}
