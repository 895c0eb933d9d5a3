// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A guest that writes three times as fast as the wire carries moves nevertheless, where that was
//! asked for: it runs on the target while its memory follows.

use crate::lab::Host;
use crate::scene::{Cast, Scene, console_of, json, lives_only_on, report, state, until};
use crate::setting::Setting;
use crate::witness::Witness;
use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use std::time::Duration;

/// The wire, in Mbit/s: 6 MiB/s.
const WIRE: u32 = 50;
/// What the guest writes: three times as much, and nothing repeats.
const FAST: u32 = 18;
/// How long it may take until post-copy begins, or until it is over.
const LONG: Duration = Duration::from_secs(120);
const MIGRATE: [&str; 7] =
    ["migrate", "web1", "beta", "--deadline", "80s", "--on-miss", "postcopy"];

/// What the kernel lets everybody do with page faults, and how to put that back. It is the whole
/// machine's: who changes it keeps other stories waiting that would, too.
struct FaultsOfAll {
    was: String,
    _turn: File,
}

const FAULTS_OF_ALL: &str = "/proc/sys/vm/unprivileged_userfaultfd";

impl FaultsOfAll {
    fn set(value: &str) -> Result<Self> {
        let turn = File::open(std::env::temp_dir())?;
        turn.lock().context("the turn of this story")?;
        let was = std::fs::read_to_string(FAULTS_OF_ALL).context("this kernel has it")?;
        std::fs::write(FAULTS_OF_ALL, value)?;
        Ok(Self { was, _turn: turn })
    }
}

impl Drop for FaultsOfAll {
    fn drop(&mut self) {
        let _ = std::fs::write(FAULTS_OF_ALL, &self.was);
    }
}

/// A wide wire again: the rest of the story need not wait.
fn wide(scene: &Scene) -> Result<()> {
    scene.alpha().set_rate(None)
}

fn phase(host: &Host) -> Result<String> {
    let shown = json(host, &["show", "web1"])?;
    Ok(shown["migration"]["phase"].as_str().unwrap_or_default().to_owned())
}

/// Begins to move the guest, until it runs on beta and the most of it is still on alpha.
fn in_two_halves(scene: &Scene) -> Result<Witness<'_>> {
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1().dirtying("random", FAST))?;
    alpha.set_rate(Some(WIRE))?;
    alpha.whimbrel(&[&MIGRATE[..], &["--detach"]].concat())?.ok()?;
    until("post-copy begins", LONG, || Ok(phase(alpha)? == "postcopy"))?;
    until("it is in post-copy there, too", LONG, || Ok(phase(beta)? == "postcopy"))?;
    Ok(witness)
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
    let _may = FaultsOfAll::set("1")?;
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

/// Each daemon in turn is killed in the middle; the guest does not notice.
pub(super) fn a_daemon_is_killed(setting: &Setting) -> Result<()> {
    let _may = FaultsOfAll::set("1")?;
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

/// Where the kernel does not let the engine do it, the plan says so, with the cure.
pub(super) fn the_kernel_must_allow_it(setting: &Setting) -> Result<()> {
    let _may = FaultsOfAll::set("0")?;
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    scene.create(alpha, &Cast::web1())?;
    let words = alpha.whimbrel(&MIGRATE)?.refused(1, "plan/postcopy")?;
    ensure!(words.contains("userfaultfd"), "{words}");
    lives_only_on(alpha, beta, "web1", "running")
}
