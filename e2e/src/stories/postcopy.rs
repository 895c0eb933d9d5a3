// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A guest that writes several times as fast as the wire carries moves nevertheless, where that was
//! asked for: it runs on the target while its memory follows.

use crate::carriers;
use crate::lab::Host;
use crate::qemu::OtherQemu;
use crate::scene::{Cast, SOON, Scene, console_of, json, lives_only_on, report, state, until};
use crate::setting::Setting;
use crate::stories::crash::kill_engine;
use crate::witness::Witness;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

/// The wire, in Mbit/s: 6 MiB/s.
const WIRE: u32 = 50;
/// What the guest writes: six times as much, and nothing repeats. On a busy machine it gets to do
/// half of that, or less.
const FAST: u32 = 36;
/// How long it may take until post-copy begins, or until it is over.
const LONG: Duration = Duration::from_secs(120);
const MIGRATE: [&str; 7] =
    ["migrate", "web1", "beta", "--deadline", "80s", "--on-miss", "postcopy"];

/// What the kernel lets everybody do with page faults, and how to put that back. It is the whole
/// machine's: stories that want the same go on together, and whoever wants another waits, also
/// from another checkout.
struct FaultsOfAll {
    turn: File,
}

const FAULTS_OF_ALL: &str = "/proc/sys/vm/unprivileged_userfaultfd";
/// Holds what the machine had, while that is changed; locked by who wants it so.
const TURN: &str = "/run/lock/whimbrel-faults-of-all";

impl FaultsOfAll {
    fn allowed() -> Result<Self> {
        let turn = Self::turn()?;
        // Who comes first has it all to itself for as long as it takes to set.
        if turn.try_lock().is_ok() {
            Self::set(&turn, "1")?;
        }
        turn.lock_shared().context("the turn of this story")?;
        // Between the two, another may have put it back.
        if std::fs::read_to_string(FAULTS_OF_ALL)?.trim() != "1" {
            turn.unlock()?;
            return Self::allowed();
        }
        Ok(Self { turn })
    }

    /// For a story that changes it.
    fn alone(value: &str) -> Result<Self> {
        let turn = Self::turn()?;
        turn.lock().context("the turn of this story")?;
        Self::set(&turn, value)?;
        Ok(Self { turn })
    }

    fn turn() -> Result<File> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(TURN);
        file.with_context(|| format!("cannot open {TURN}"))
    }

    fn set(turn: &File, value: &str) -> Result<()> {
        // What is held already was there before anybody changed it.
        if turn.metadata()?.len() == 0 {
            let was = std::fs::read_to_string(FAULTS_OF_ALL).context("this kernel has it")?;
            turn.write_all_at(was.as_bytes(), 0)?;
        }
        Ok(std::fs::write(FAULTS_OF_ALL, value)?)
    }
}

impl Drop for FaultsOfAll {
    /// The last one puts it back.
    fn drop(&mut self) {
        let mut was = String::new();
        let is_last = self.turn.unlock().is_ok() && self.turn.try_lock().is_ok();
        let is_known = self.turn.rewind().is_ok() && self.turn.read_to_string(&mut was).is_ok();
        if is_last && is_known && !was.is_empty() {
            let _ = std::fs::write(FAULTS_OF_ALL, was);
            let _ = self.turn.set_len(0);
        }
    }
}

/// A wide wire again: the rest of the story need not wait.
fn wide(scene: &Scene) -> Result<()> {
    scene.alpha().set_rate(None)
}

fn phase(host: &Host) -> Result<String> {
    let shown = json(host, &["show", "web1"]).with_context(|| told(host))?;
    Ok(shown["migration"]["phase"].as_str().unwrap_or_default().to_owned())
}

/// Begins to move the guest, until it runs on beta and the most of it is still on alpha.
fn in_two_halves(scene: &Scene) -> Result<Witness<'_>> {
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1().dirtying("random", FAST))?;
    alpha.set_rate(Some(WIRE))?;
    alpha.whimbrel(&[&MIGRATE[..], &["--detach"]].concat())?.ok()?;
    for host in [alpha, beta] {
        until("post-copy begins", LONG, || Ok(phase(host)? == "postcopy"))
            .with_context(|| told(host))?;
    }
    Ok(witness)
}

/// What the host has to say of it, for whoever asks why it did not go as the story has it.
fn told(host: &Host) -> String {
    let said = |command: &[&str]| {
        host.whimbrel(command).map_or_else(|error| format!("{error:#}"), |ran| ran.to_string())
    };
    let (shown, log) = (said(&["show", "web1"]), said(&["log", "web1"]));
    format!("{} says\n{shown}\n{log}", host.name)
}

fn has_moved(scene: &Scene, witness: &Witness<'_>) -> Result<()> {
    let (alpha, beta) = (scene.alpha(), scene.beta());
    until("nothing of it is left on alpha", LONG, || Ok(state(alpha, "web1")?.is_none()))?;
    lives_only_on(beta, alpha, "web1", "running")?;
    witness.is_well().with_context(|| console_of(beta, "web1"))?;
    let report = report(alpha, "web1")?;
    println!("{report}");
    ensure!(report["result"] == "done", "{report}");
    let phases = report["phases"].as_array().context("phases")?;
    ensure!(phases.iter().any(|time| time["phase"] == "postcopy"), "{report}");
    Ok(())
}

/// The miss is called, the guest runs on the target, and its memory is right.
pub(super) fn memory_follows(setting: &Setting) -> Result<()> {
    let _may = FaultsOfAll::allowed()?;
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1().dirtying("random", FAST))?;
    alpha.set_rate(Some(WIRE))?;
    let ran = alpha.whimbrel(&MIGRATE)?;
    wide(&scene)?;
    println!("{ran}\n{:?}", ran.took);
    ran.ok()?;
    has_moved(&scene, &witness)?;
    let report = report(beta, "web1")?;
    ensure!(report["miss"].is_string(), "{report}");
    let pause = report["pause_ms"].as_u64().context("a pause")?;
    ensure!(pause < 3000, "the guest stood still for {pause} ms");
    Ok(())
}

/// The engines had a channel for what the guest waited for.
fn has_overtaken(source: &Host) -> Result<()> {
    let log = source.whimbrel(&["log", "web1"])?.ok()?;
    println!("{log}");
    ensure!(log.contains("that the guest waited for went before all others"), "{log}");
    Ok(())
}

/// A guest that can be caught up with moves as ever, and what was made ready for more is gone: with
/// a QEMU that would have had a channel for what the guest waits for.
pub(super) fn it_may_not_be_needed(setting: &Setting) -> Result<()> {
    let _may = FaultsOfAll::allowed()?;
    let scene = with_a_newer_qemu(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    alpha.whimbrel(&MIGRATE)?.ok()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    witness.is_well()?;
    let report = report(alpha, "web1")?;
    ensure!(report["miss"].is_null(), "{report}");
    for host in [alpha, beta] {
        until("nothing carries any more", SOON, || Ok(carriers::of(host).is_empty()))?;
    }
    Ok(())
}

/// Each daemon in turn is killed in the middle; the guest does not notice.
pub(super) fn a_daemon_is_killed(setting: &Setting) -> Result<()> {
    let _may = FaultsOfAll::allowed()?;
    let scene = Scene::paired(setting)?;
    let witness = in_two_halves(&scene)?;
    for host in [scene.beta(), scene.alpha()] {
        host.kill_daemon()?;
        host.start_daemon()?;
        println!("{} is back: {}", host.name, phase(host)?);
    }
    wide(&scene)?;
    has_moved(&scene, &witness)
}

fn with_a_newer_qemu(setting: &Setting) -> Result<Scene> {
    let other = OtherQemu::fetch_or_skip(&setting.cache())?;
    println!("both hosts have {}", other.version()?);
    let (lab, image) = setting.lab()?;
    for host in [&lab.alpha, &lab.beta] {
        host.show(&other.directory, OtherQemu::PLACE)?;
    }
    let engine = OtherQemu::configuration();
    let scene = Scene::configured(lab, image, [&engine, &engine])?;
    scene.pair()?;
    Ok(scene)
}

/// The newest QEMU there is, on both hosts: memory follows, a cut is waited for, and the engines
/// take new channels where a carrying process is killed. What the guest waits for goes first.
pub(super) fn on_a_newer_qemu(setting: &Setting) -> Result<()> {
    let _may = FaultsOfAll::allowed()?;
    let scene = with_a_newer_qemu(setting)?;
    let witness = in_two_halves(&scene)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    ensure!(phase(beta)? == "postcopy", "it is over already");
    beta.unplug()?;
    // How long it is out is what the story is about.
    std::thread::sleep(OUT[1]);
    beta.plug_in()?;
    goes_on(alpha)?;
    for host in [beta, alpha] {
        carriers::signal(host, Signal::SIGKILL)?;
        goes_on(alpha)?;
    }
    wide(&scene)?;
    has_moved(&scene, &witness)?;
    has_overtaken(alpha)
}

/// How long the wire is out: shorter and longer than a connection lives without an answer (10 s).
const OUT: [Duration; 3] =
    [Duration::from_secs(5), Duration::from_secs(14), Duration::from_secs(1)];

fn goes_on(host: &Host) -> Result<()> {
    let before = host.traffic()?;
    until("memory follows again", LONG, || Ok(host.traffic()?.since(before).sent > 4 << 20))
}

/// The wire is pulled more than once while the guest is in two halves. It waits, and goes on.
pub(super) fn a_cut_is_waited_for(setting: &Setting) -> Result<()> {
    let _may = FaultsOfAll::allowed()?;
    let scene = Scene::paired(setting)?;
    let witness = in_two_halves(&scene)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    for out in OUT {
        ensure!(phase(beta)? == "postcopy", "it is over already");
        beta.unplug()?;
        // How long it is out is what the story is about.
        std::thread::sleep(out);
        beta.plug_in()?;
        goes_on(alpha)?;
    }
    wide(&scene)?;
    has_moved(&scene, &witness)?;
    let log = beta.whimbrel(&["log", "web1"])?.ok()?;
    println!("{log}");
    ensure!(log.contains("the link is back, and memory follows again"), "{log}");
    Ok(())
}

/// The wire is out for so long that the deadline passes. The guest moves nevertheless, and that it
/// is late is told.
pub(super) fn the_deadline_passes(setting: &Setting) -> Result<()> {
    let _may = FaultsOfAll::allowed()?;
    let scene = Scene::paired(setting)?;
    let witness = in_two_halves(&scene)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    beta.unplug()?;
    until("the deadline passes", LONG, || {
        Ok(alpha.whimbrel(&["log", "web1"])?.ok()?.contains("the 80 s it was to take are over"))
    })?;
    alpha.whimbrel(&["cancel", "web1"])?.refused(1, "migration/too-late")?;
    beta.plug_in()?;
    wide(&scene)?;
    has_moved(&scene, &witness)?;
    let report = report(alpha, "web1")?;
    ensure!(report["is_kept"] == false, "{report}");
    Ok(())
}

/// Both daemons die while the wire is out. Nobody is missed until it is plugged in again.
pub(super) fn daemons_die_in_a_cut(setting: &Setting) -> Result<()> {
    let _may = FaultsOfAll::allowed()?;
    let scene = Scene::paired(setting)?;
    let witness = in_two_halves(&scene)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    beta.unplug()?;
    std::thread::sleep(OUT[1]);
    for host in [beta, alpha] {
        host.kill_daemon()?;
    }
    beta.plug_in()?;
    for host in [beta, alpha] {
        host.start_daemon()?;
        println!("{} is back: {}", host.name, phase(host)?);
    }
    wide(&scene)?;
    has_moved(&scene, &witness)
}

/// The carrying process of each host in turn is killed: the engines take new channels.
pub(super) fn a_carrying_process_is_killed(setting: &Setting) -> Result<()> {
    let _may = FaultsOfAll::allowed()?;
    let scene = Scene::paired(setting)?;
    let witness = in_two_halves(&scene)?;
    let alpha = scene.alpha();
    for host in [scene.beta(), alpha] {
        carriers::signal(host, Signal::SIGKILL)?;
        goes_on(alpha)?;
    }
    wide(&scene)?;
    has_moved(&scene, &witness)
}

/// The engine of one host is killed in the middle: what runs is lost, as in a crash of the guest on
/// the host it had gone to, and that is said on both. It is started there once, from its disks.
fn a_half_is_lost(setting: &Setting, lost: impl Fn(&Scene) -> &Host) -> Result<()> {
    let _may = FaultsOfAll::allowed()?;
    let scene = Scene::paired(setting)?;
    let witness = in_two_halves(&scene)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    kill_engine(lost(&scene))?;
    wide(&scene)?;
    until("nothing of it is left on alpha", LONG, || Ok(state(alpha, "web1")?.is_none()))?;
    lives_only_on(beta, alpha, "web1", "running")?;
    until("it was started again", LONG, || Ok(has_booted_twice(&witness)))?;
    for host in [alpha, beta] {
        let report = json(host, &["report", "web1"])?;
        println!("{report}");
        ensure!(report["result"] == "failed", "{report}");
        ensure!(report["problem"]["code"] == "migration/half-lost", "{report}");
        until("nothing carries any more", SOON, || Ok(carriers::of(host).is_empty()))?;
    }
    let log = beta.whimbrel(&["log", "web1"])?.ok()?;
    println!("{log}");
    ensure!(log.matches("starts it again").count() == 1, "{log}");
    ensure!(log.contains("ended while memory was still to follow"), "{log}");
    ensure!(!log.contains("its memory is kept here"), "{log}");
    Ok(())
}

pub(super) fn the_half_that_was_left_is_lost(setting: &Setting) -> Result<()> {
    a_half_is_lost(setting, Scene::alpha)
}

pub(super) fn the_half_that_runs_is_lost(setting: &Setting) -> Result<()> {
    a_half_is_lost(setting, Scene::beta)
}

/// The host that the guest has left is gone in the middle. Where it runs it can be stopped, and
/// started from its disks; when the host is back, nothing of the guest is left there.
pub(super) fn a_host_does_not_come_back(setting: &Setting) -> Result<()> {
    let _may = FaultsOfAll::allowed()?;
    let scene = Scene::paired(setting)?;
    let witness = in_two_halves(&scene)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    alpha.unplug()?;
    alpha.kill_daemon()?;
    kill_engine(alpha)?;
    carriers::signal(alpha, Signal::SIGKILL)?;
    until("beta notices", LONG, || {
        Ok(beta.whimbrel(&["log", "web1"])?.ok()?.contains("the link was lost in post-copy"))
    })?;
    beta.whimbrel(&["stop", "web1", "--now"])?.ok()?;
    ensure!(carriers::of(beta).is_empty(), "something carries on beta");
    beta.whimbrel(&["start", "web1"])?.ok()?;
    until("it was started again", LONG, || Ok(has_booted_twice(&witness)))?;
    alpha.plug_in()?;
    wide(&scene)?;
    alpha.start_daemon()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    until("nothing carries any more", SOON, || Ok(carriers::of(alpha).is_empty()))
}

fn has_booted_twice(witness: &Witness<'_>) -> bool {
    witness.status().and_then(|status| status.boot(0)).is_ok_and(|boots| boots == 2)
}

/// Where another way of memory was asked for, that is refused before anything begins.
pub(super) fn its_way_is_not_overridden(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    scene.create(alpha, &Cast::web1())?;
    for way in [["--carrier", "tunnel"], ["--channels", "2"]] {
        let refused = alpha.whimbrel(&[&MIGRATE[..], &way].concat())?;
        let words = refused.refused(2, "migration/postcopy-carrier")?;
        ensure!(words.contains("--on-miss"), "{words}");
    }
    lives_only_on(alpha, beta, "web1", "running")
}

/// Where the kernel does not let the target's engine have its page faults, post-copy does not
/// begin: neither where that is known before, nor where it shows at the last moment.
pub(super) fn the_kernel_must_allow_it(setting: &Setting) -> Result<()> {
    let may = FaultsOfAll::alone("1")?;
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1().dirtying("random", FAST))?;
    alpha.set_rate(Some(WIRE))?;
    alpha.whimbrel(&[&MIGRATE[..], &["--detach"]].concat())?.ok()?;
    until("memory flows", SOON, || Ok(phase(alpha)? == "memory"))?;
    FaultsOfAll::set(&may.turn, "0")?;
    until("it is over", LONG, || Ok(phase(alpha)?.is_empty())).with_context(|| told(alpha))?;
    println!("{}", told(alpha));
    // QEMU 7.2 comes back from that most of the time; else its guest is started again.
    let runs = || Ok(state(alpha, "web1")?.as_deref() == Some("running"));
    until("it runs where it was", LONG, runs).with_context(|| told(alpha))?;
    lives_only_on(alpha, beta, "web1", "running")?;
    until("it answers", LONG, || Ok(witness.is_well().is_ok()))?;
    let log = alpha.whimbrel(&["log", "web1"])?.ok()?;
    ensure!(log.contains("the guest does not come here: the engine"), "it went well: {log}");
    ensure!(log.matches("starts it again").count() <= 1, "more than one crash: {log}");

    let words = alpha.whimbrel(&MIGRATE)?.refused(1, "plan/postcopy")?;
    ensure!(words.contains("userfaultfd"), "{words}");
    lives_only_on(alpha, beta, "web1", "running")
}
