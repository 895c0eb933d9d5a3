// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A host as it is run: systemd starts the daemon, and takes the host down.

use crate::lab::{Booted, Host, SHARED};
use crate::scene::{CONFIG, Cast, SOON, Scene, await_state, engines, lives_only_on, state, until};
use crate::setting::Setting;
use anyhow::{Context as _, Result, ensure};

/// Two hosts; beta has its daemon, alpha is still off.
fn beta_alone(setting: &Setting) -> Result<Scene> {
    let (lab, image) = setting.lab()?;
    lab.alpha.configure(CONFIG)?;
    lab.beta.configure(CONFIG)?;
    lab.beta.start_daemon()?;
    Ok(Scene { lab, image })
}

/// Whatever is done to the daemon's unit, the guest never notices; a reload applies the
/// configuration or names its mistake; and the guest can still be moved.
pub(super) fn restarts_spare_guests(setting: &Setting) -> Result<()> {
    let scene = beta_alone(setting)?;
    let alpha = scene.alpha();
    let booted = alpha.boot()?;
    let witness = scene.create(alpha, &Cast::web1())?;
    // Its scope has just ended when it starts again.
    alpha.whimbrel(&["reboot", "web1"])?.ok()?;
    witness.wait()?;
    let scopes = booted.systemctl(&["list-units", "--plain", "--type=scope"])?.ok()?;
    ensure!(scopes.contains("whimbrel-guest-web1-"), "the guest has no scope: {scopes}");
    let engine = engines(alpha, "web1")?;
    let mut held = witness.hold()?;

    for verbs in [&["restart"] as &[&str], &["stop", "start"], &["kill --signal=SIGKILL"]] {
        for verb in verbs {
            let words: Vec<_> = verb.split(' ').chain(["whimbrel.service"]).collect();
            booted.systemctl(&words)?.ok()?;
        }
        held.ask("echo still here").with_context(|| format!("the guest noticed {verbs:?}"))?;
        until("the daemon is back", SOON, || Ok(alpha.whimbrel(&["list"])?.status.success()))?;
        await_state(alpha, "web1", "running")?;
        ensure!(engines(alpha, "web1")? == engine, "another engine after {verbs:?}");
    }

    reload_applies_the_configuration(alpha, &booted)?;
    scene.pair()?;
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok()?;
    lives_only_on(scene.beta(), alpha, "web1", "running")?;
    held.is_well()?;
    Ok(())
}

fn reload_applies_the_configuration(alpha: &Host, booted: &Booted<'_>) -> Result<()> {
    alpha.configure("[relocation]\nenabeld = true\n")?;
    let refused = booted.systemctl(&["reload", "whimbrel"])?;
    ensure!(!refused.status.success(), "a mistake was taken over: {refused}");
    ensure!(alpha.daemon_said().contains("enabeld"), "no word of it: {}", alpha.daemon_said());
    alpha.configure(CONFIG)?;
    ensure!(alpha.whimbrel(&["relocation"])?.ok()?.contains("port 8002"), "it was closed");

    alpha.configure(&format!("{CONFIG}\nport = 8003\n[engine]\naccelerator = \"tcg\"\n"))?;
    booted.systemctl(&["reload", "whimbrel"])?.ok()?;
    ensure!(alpha.whimbrel(&["relocation"])?.ok()?.contains("port 8003"), "the port is as before");
    let log = alpha.whimbrel(&["log"])?.ok()?;
    ensure!(log.contains("`[engine]` changed"), "nothing about what needs a restart: {log}");
    Ok(())
}

/// The host goes down: a guest that listens shuts down, one that cannot is ended, all before the
/// network and the storage go; when the host is up again, the guest with `autostart` runs.
pub(super) fn the_host_goes_down(setting: &Setting) -> Result<()> {
    let scene = beta_alone(setting)?;
    let alpha = scene.alpha();
    let booted = alpha.boot()?;
    let witness = scene.create(alpha, &Cast::web1().with_keys("autostart = true"))?;
    scene.create(alpha, &Cast::web2())?;
    alpha.whimbrel(&["pause", "web2"])?.ok()?;

    booted.power_off()?;
    for what in ["network", "storage"] {
        let left = Booted::engines_when_went(alpha, what)?;
        ensure!(left == 0, "{left} engines were left when the {what} went");
    }
    let log = alpha.whimbrel(&["log"])?.ok()?;
    for (guest, word) in [("web1", "shut down"), ("web2", "stopped like by a power cut")] {
        let is_told = |line: &str| line.contains(guest) && line.contains(word);
        ensure!(log.lines().any(is_told), "nothing of {guest} `{word}` in the log:\n{log}");
    }

    let _booted = alpha.boot()?;
    let status = witness.wait().context("`autostart` did not start the guest")?;
    ensure!(status.boot(0)? == 2, "not its second boot: {status:?}");
    ensure!(state(alpha, "web2")?.as_deref() == Some("stopped"), "web2 was started, too");
    ensure!(scene.lab.shared.join("web2-root.img").exists(), "a disk in {SHARED} is gone");
    Ok(())
}
