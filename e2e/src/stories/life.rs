// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The life of a guest on one host.

use crate::lab::ENGINE_UID;
use crate::scene::{
    Cast, SOON, Scene, await_state, console_of, engines, json, lives_only_on, state, until,
};
use crate::setting::Setting;
use crate::terminal::Terminal;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::time::{Duration, Instant};

/// A restarted daemon knows its guests within this time.
const REATTACHED_MAX: Duration = Duration::from_secs(1);

/// Created, paused, rebooted, stopped, started, ended, forgotten; the disks are never touched by
/// anyone but the guest.
pub(super) fn from_create_to_rm(setting: &Setting) -> Result<()> {
    let scene = Scene::strangers(setting)?;
    let (alpha, cast) = (scene.alpha(), Cast::web1());
    let witness = scene.create(alpha, &cast)?;
    await_state(alpha, "web1", "running")?;
    let shown = alpha.whimbrel(&["show", "web1"])?.ok()?;
    ensure!(shown.contains("web1-root.img"), "`show` does not show the disk: {shown}");

    alpha.whimbrel(&["pause", "web1"])?.ok()?;
    await_state(alpha, "web1", "paused")?;
    alpha.whimbrel(&["unpause", "web1"])?.ok()?;
    witness.is_well()?;

    alpha.whimbrel(&["reboot", "web1"])?.ok()?;
    until("the guest has rebooted", SOON, || Ok(witness.wait()?.boot(0)? == 2))?;

    alpha.whimbrel(&["stop", "web1"])?.ok()?;
    await_state(alpha, "web1", "stopped")?;
    ensure!(engines(alpha, "web1")?.is_empty(), "a stopped guest has an engine");

    alpha.whimbrel(&["start", "web1"])?.ok()?;
    let third = witness.wait()?;
    ensure!(third.boot(0)? == 3 && third.boot(1)? == 3, "not the third boot: {third:?}");
    witness.is_well()?;

    alpha.whimbrel(&["stop", "--now", "web1"])?.ok()?;
    alpha.whimbrel(&["rm", "web1"])?.ok()?;
    ensure!(state(alpha, "web1")?.is_none(), "a forgotten guest is listed");
    ensure!(scene.lab.shared.join("web1-root.img").exists(), "`rm` removed a disk");
    Ok(())
}

/// The daemon is stopped, started, killed, started: the guest never notices, and is known again
/// within a second.
pub(super) fn guests_outlive_the_daemon(setting: &Setting) -> Result<()> {
    let scene = Scene::strangers(setting)?;
    let alpha = scene.alpha();
    let witness = scene.create(alpha, &Cast::web1().dirtying("random", 2))?;
    let engine = engines(alpha, "web1")?;
    let mut held = witness.hold()?;
    for end in [crate::lab::Host::stop_daemon, crate::lab::Host::kill_daemon] {
        end(alpha)?;
        held.ask("echo still here").context("the guest noticed that the daemon ended")?;
        alpha.start_daemon()?;
        let started = Instant::now();
        await_state(alpha, "web1", "running")?;
        let took = started.elapsed();
        ensure!(took < REATTACHED_MAX, "the daemon took {took:?} to find its guest");
        ensure!(engines(alpha, "web1")? == engine, "the guest has another engine now");
    }
    let status = held.is_well()?;
    ensure!(status.boot(0)? == 1, "the guest was booted anew: {status:?}");
    alpha.whimbrel(&["stop", "web1"])?.ok()?;
    Ok(())
}

/// A few guests, and a daemon that is killed again and again, also while it is finding them.
pub(super) fn guests_outlive_many_daemons(setting: &Setting) -> Result<()> {
    crate::soak::kills::kill_again_and_again(setting, 4, 20).map(drop)
}

/// The program is replaced while the daemon runs: the guest moves all the same, and when the daemon
/// is restarted as the new one it finds its guest, which never notices.
pub(super) fn the_program_is_upgraded(setting: &Setting) -> Result<()> {
    let mut scene = Scene::strangers(setting)?;
    scene.alpha().stop_daemon()?;
    scene.lab.alpha.upgrade()?;
    scene.alpha().start_daemon()?;
    scene.pair()?;
    let cast = Cast::web1();
    scene.create(scene.alpha(), &cast)?;
    scene.lab.alpha.upgrade()?;
    let (alpha, beta, witness) = (scene.alpha(), scene.beta(), scene.witness(&cast));
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok().context("by a daemon without a file")?;
    beta.whimbrel(&["migrate", "web1", "alpha"])?.ok().context("to a daemon without a file")?;
    lives_only_on(alpha, beta, "web1", "running")?;
    let engine = engines(alpha, "web1")?;
    alpha.stop_daemon()?;
    alpha.start_daemon()?;
    await_state(alpha, "web1", "running")?;
    ensure!(engines(alpha, "web1")? == engine, "the guest has another engine now");
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok().context("by the new program")?;
    lives_only_on(beta, alpha, "web1", "running")?;
    let status = witness.is_well()?;
    ensure!(status.boot(0)? == 1, "the guest was booted anew: {status:?}");
    Ok(())
}

/// The console shows what was said before, takes a line, gives the answer, outlives the daemon, and
/// lets go at Ctrl+]. Without a terminal it says so.
pub(super) fn the_console_is_there(setting: &Setting) -> Result<()> {
    let scene = Scene::strangers(setting)?;
    let alpha = scene.alpha();
    scene.create(alpha, &Cast::web1())?;
    let refusal = alpha.whimbrel(&["console", "web1"])?;
    ensure!(!refusal.status.success(), "a console without a terminal");
    ensure!(refusal.stderr.contains("terminal"), "no word about the terminal: {refusal}");

    let mut terminal = Terminal::whimbrel(alpha, "console web1")?;
    terminal.shown.wait_for("witness: ready", SOON).context("no scrollback")?;
    terminal.ask("echo from the console", "ok from the console")?;
    alpha.kill_daemon()?;
    alpha.start_daemon()?;
    terminal.ask("echo after the crash", "ok after the crash")?;
    terminal.leave()
}

/// One types, others read; who asks with `--force` takes the keyboard.
pub(super) fn one_types_others_read(setting: &Setting) -> Result<()> {
    let scene = Scene::strangers(setting)?;
    let alpha = scene.alpha();
    scene.create(alpha, &Cast::web1())?;
    let mut first = Terminal::whimbrel(alpha, "console web1")?;
    first.ask("echo one", "ok one")?;
    let mut second = Terminal::whimbrel(alpha, "console web1")?;
    second.shown.wait_for("ok one", SOON).context("a reader sees nothing")?;
    second.type_line("echo two")?;
    first.ask("echo three", "ok three")?;
    second.shown.wait_for("ok three", SOON).context("a reader sees nothing more")?;
    let typed = second.shown.so_far().iter().any(|line| line.contains("ok two"));
    ensure!(!typed, "a second one types, too");
    let mut third = Terminal::whimbrel(alpha, "console web1 --force")?;
    third.ask("echo four", "ok four")?;
    third.leave()
}

/// A guest that ends by itself does what its file says.
pub(super) fn a_guest_ends_as_its_policies_say(setting: &Setting) -> Result<()> {
    let scene = Scene::strangers(setting)?;
    let alpha = scene.alpha();
    let witness = scene.create(alpha, &Cast::web1().with_keys("on_crash = \"restart\""))?;
    let _ = witness.ask("panic");
    until("the crashed guest is restarted", SOON, || Ok(witness.wait()?.boot(0)? == 2))
        .with_context(|| console_of(alpha, "web1"))?;
    let _ = witness.ask("reboot");
    until("the guest reboots by itself", SOON, || Ok(witness.wait()?.boot(0)? == 3))?;
    let _ = witness.ask("poweroff");
    await_state(alpha, "web1", "stopped")
}

/// One file, created on two hosts that share its disks: one copy runs, and the other host names it.
pub(super) fn one_file_on_two_hosts(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let witness = scene.create(scene.alpha(), &Cast::web1())?;
    let file = format!("{}/web1.toml", crate::lab::SHARED);
    let refusal = scene.beta().whimbrel(&["create", &file])?;
    ensure!(refusal.status.code() == Some(1), "a second copy was not refused: {refusal}");
    ensure!(refusal.stderr.contains("alpha"), "the owner is not named: {refusal}");
    ensure!(engines(scene.beta(), "web1")?.is_empty(), "a second copy has an engine");
    let hint = scene.beta().whimbrel(&["show", "web1"])?;
    ensure!(hint.stderr.contains("on `alpha`"), "no word of where it is: {hint}");
    let word = scene.alpha().whimbrel(&["recover", "web1", "--is-off", "beta"])?;
    ensure!(word.status.code() == Some(1), "a guest that is well was recovered: {word}");
    ensure!(witness.is_well()?.boot(0)? == 1, "the guest was booted anew");
    Ok(())
}

/// What `list` and `log` show a person and a script.
pub(super) fn lists_and_logs(setting: &Setting) -> Result<()> {
    let scene = Scene::strangers(setting)?;
    let alpha = scene.alpha();
    scene.create(alpha, &Cast::web1())?;
    let table = alpha.whimbrel(&["list"])?.ok()?;
    ensure!(table.contains("web1") && table.contains("running"), "{table}");
    let list = json(alpha, &["list"])?;
    ensure!(list.to_string().contains("web1"), "{list}");
    let hint = alpha.whimbrel(&["show", "wbe1"])?;
    ensure!(!hint.status.success() && hint.stderr.contains("web1"), "no hint: {hint}");
    let log = alpha.whimbrel(&["log", "web1"])?.ok()?;
    ensure!(!log.trim().is_empty(), "the log is empty");
    Ok(())
}

/// After a boot of the host, guests with `autostart` run and the others do not. A daemon that only
/// restarts starts nobody.
pub(super) fn autostart_after_a_host_boot(setting: &Setting) -> Result<()> {
    let scene = Scene::strangers(setting)?;
    let alpha = scene.alpha();
    let witness = scene.create(alpha, &Cast::web1().with_keys("autostart = true"))?;
    scene.create(alpha, &Cast::web2())?;
    for guest in ["web1", "web2"] {
        alpha.whimbrel(&["stop", "--now", guest])?.ok()?;
    }
    alpha.stop_daemon()?;
    alpha.start_daemon()?;
    let is_stopped =
        |guest| Ok::<_, anyhow::Error>(state(alpha, guest)?.as_deref() == Some("stopped"));
    ensure!(is_stopped("web1")?, "a restart of the daemon started a guest that was stopped");
    alpha.whimbrel(&["start", "web2"])?.ok()?;

    // The power fails: everything ends at once, and the next boot has a new number.
    alpha.kill_daemon()?;
    for pid in engines(alpha, "web2")? {
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
    }
    let number = scene.lab.directory().join("boot_id");
    fs::write(&number, "11111111-2222-4333-8444-555555555555\n")?;
    alpha.show(&number, "/proc/sys/kernel/random/boot_id")?;
    alpha.start_daemon()?;
    let status = witness.wait().with_context(|| console_of(alpha, "web1"))?;
    ensure!(status.boot(0)? == 2, "not its second boot: {status:?}");
    await_state(alpha, "web1", "running")?;
    ensure!(engines(alpha, "web2")?.is_empty(), "a guest without `autostart` was started");
    Ok(())
}

/// The engine is nobody: an unprivileged user in no group, without capabilities, behind a filter of
/// system calls, and it can get nothing back.
pub(super) fn the_engine_is_confined(setting: &Setting) -> Result<()> {
    let scene = Scene::strangers(setting)?;
    let alpha = scene.alpha();
    scene.create(alpha, &Cast::web1())?;
    let engine = *engines(alpha, "web1")?.first().context("the guest has an engine")?;
    let status = fs::read_to_string(format!("/proc/{engine}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let engine_user = vec![ENGINE_UID.to_string(); 4];
    ensure!(field("Uid:") == engine_user && field("Gid:") == engine_user, "{status}");
    ensure!(field("Groups:").is_empty(), "it is in groups: {status}");
    ensure!(
        field("CapEff:") == ["0000000000000000"] && field("CapPrm:") == field("CapEff:"),
        "{status}"
    );
    ensure!(field("NoNewPrivs:") == ["1"] && field("Seccomp:") == ["2"], "{status}");
    let line = fs::read(format!("/proc/{engine}/cmdline"))?;
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    ensure!(line.contains("-sandbox on,"), "{line}");
    Ok(())
}
