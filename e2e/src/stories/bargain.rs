// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What was promised of a migration is kept, or it is said early that it cannot be; and a migration
//! that is held waits for the word.

use crate::lab::Ran;
use crate::scene::{
    Cast, SOON, Scene, console_of, engines, json, lives_only_on, report, state, until,
};
use crate::setting::Setting;
use crate::terminal::Terminal;
use crate::witness::Witness;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::time::Duration;

/// The wire, in Mbit/s: 6 MiB/s.
const WIRE: u32 = 50;
/// What the guest writes that is faster than that: three times as much, and nothing repeats.
const FAST: u32 = 18;
/// What can be caught up with by slowing it down, in few passes.
const CATCHABLE: u32 = 9;
const DEADLINE: Duration = Duration::from_secs(80);
/// What the processors of a busy machine add to a pause.
const PAUSE_SLACK_MS: u64 = 1000;
/// How long a held migration is left alone.
const HELD: Duration = Duration::from_secs(60);

/// Moves a guest that writes `mib_per_s` over the wire, under a bargain.
fn move_under<'a>(
    scene: &'a Scene,
    mib_per_s: u32,
    options: &[&str],
) -> Result<(Witness<'a>, Ran)> {
    let alpha = scene.alpha();
    let witness = scene.create(alpha, &Cast::web1().dirtying("random", mib_per_s))?;
    alpha.set_rate(Some(WIRE))?;
    let ran =
        alpha.whimbrel(&[&["migrate", "web1", "beta", "--deadline", "80s"], options].concat());
    alpha.set_rate(None)?;
    let ran = ran?;
    println!("{ran}\n{:?}: {}", ran.took, json(alpha, &["report", "web1"])?);
    Ok((witness, ran))
}

/// A guest that writes eight tenths of what the wire carries.
pub(super) fn kept_beside_the_link(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    // And two more, for whatever a guest does that does nothing.
    let (witness, ran) = move_under(&scene, 3, &["--max-pause", "1s", "--max-slowdown", "20%"])?;
    ran.ok()?;
    lives_only_on(scene.beta(), scene.alpha(), "web1", "running")?;
    witness.is_well()?;
    let report = report(scene.alpha(), "web1")?;
    ensure!(number(&report, "pause_ms")? < 1000 + PAUSE_SLACK_MS, "{report}");
    ensure!(number(&report, "throttle_percent_max")? <= 20, "{report}");
    ensure!(report["miss"].is_null(), "{report}");
    Ok(())
}

/// The miss is called before a quarter of the time, with what both sides do and what would help;
/// the guest stays.
pub(super) fn cancelled_with_numbers(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (witness, ran) = move_under(&scene, FAST, &["--on-miss", "cancel", "--yes"])?;
    ensure!(ran.took < DEADLINE / 4, "called after {:?}", ran.took);
    let words = ran.refused(3, "migration/bargain-missed")?;
    for said in ["`web1` writes ", "the link carries "] {
        ensure!(words.contains(said), "`{said}` is missing: {words}");
    }
    lives_only_on(scene.alpha(), scene.beta(), "web1", "running")?;
    witness.is_well()?;
    Ok(())
}

/// A miss that can be seen before is refused before anything is begun, with what would help; a
/// person at a terminal may try it all the same.
pub(super) fn a_predicted_miss_is_refused(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let (witness, ran) = move_under(&scene, FAST, &[])?;
    let words = ran.refused(1, "plan/convergence")?;
    for said in ["`web1` writes ", "the link carries ", "--max-slowdown ", "--on-miss pause"] {
        ensure!(words.contains(said), "`{said}` is missing: {words}");
    }
    lives_only_on(alpha, beta, "web1", "running")?;
    alpha.set_rate(Some(WIRE))?;
    let mut person = Terminal::whimbrel(alpha, "migrate web1 beta")?;
    person.shown.wait_for("or use a faster link", SOON)?;
    person.type_line("n")?;
    person.shown.wait_for("plan/convergence", SOON)?;
    let mut person = Terminal::whimbrel(alpha, "migrate web1 beta")?;
    person.shown.wait_for("or use a faster link", SOON)?;
    ensure!(engines(beta, "web1")?.is_empty(), "something was begun before the answer");
    person.type_line("y")?;
    until("it moves", SOON, || Ok(!engines(beta, "web1")?.is_empty()))?;
    alpha.whimbrel(&["cancel", "web1"])?;
    person.shown.wait_for("web1 stays on alpha", SOON)?;
    lives_only_on(alpha, beta, "web1", "running")?;
    witness.is_well().map(drop)
}

/// Where that was asked for, the guest stands still for longer than promised, and arrives in time.
pub(super) fn a_longer_pause(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (witness, ran) = move_under(&scene, FAST, &["--on-miss", "pause"])?;
    ensure!(ran.took < DEADLINE, "it took {:?}", ran.took);
    ran.ok()?;
    lives_only_on(scene.beta(), scene.alpha(), "web1", "running")?;
    witness.is_well()?;
    let report = report(scene.alpha(), "web1")?;
    ensure!(report["miss"].is_string() && report["is_kept"] == false, "{report}");
    ensure!(number(&report, "pause_ms")? > 300, "{report}");
    ensure!(number(&report, "throttle_percent_max")? == 0, "{report}");
    Ok(())
}

/// Where that was asked for, the guest is slowed down until it is caught up with.
pub(super) fn slowed_down(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let options = ["--max-slowdown", "20%", "--on-miss", "throttle"];
    let (witness, ran) = move_under(&scene, CATCHABLE, &options)?;
    ran.ok()?;
    lives_only_on(scene.beta(), scene.alpha(), "web1", "running")?;
    witness.is_well().with_context(|| console_of(scene.beta(), "web1"))?;
    let report = report(scene.alpha(), "web1")?;
    ensure!(number(&report, "throttle_percent_max")? > 20, "{report}");
    ensure!(number(&report, "pause_ms")? < 300 + PAUSE_SLACK_MS, "{report}");
    Ok(())
}

/// Afterwards the report says where the pause went, on both hosts: also what only the source's
/// carrying process can see, and what only the target can.
pub(super) fn the_pause_in_parts(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    scene.create(alpha, &Cast::web1())?;
    alpha.whimbrel(&["migrate", "web1", "beta", "--carrier", "pages"])?.ok()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    for host in [alpha, beta] {
        // The target listens for a moment, and tells the source.
        until("the first packet is told", SOON, || {
            Ok(report(host, "web1")?["pause"]["first_packet_ms"].is_u64())
        })?;
        let report = report(host, "web1")?;
        let part = |name| number(&report["pause"], name);
        let sum = part("last_pages_ms")?
            + part("device_state_ms")?
            + part("commit_ms")?
            + part("start_ms")?;
        println!("{}: {} of {} ms", host.name, report["pause"], report["pause_ms"]);
        ensure!(sum <= number(&report, "pause_ms")? + 5, "the parts are more: {report}");
    }
    Ok(())
}

/// A guest that does nothing, which an engine would move at once, is held for a while, and moved
/// with the word.
pub(super) fn held_until_the_word(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    alpha.whimbrel(&["migrate", "web1", "beta", "--hold", "--detach"])?.ok()?;
    until("it is held", SOON, || Ok(progress(&scene)?["is_holding"] == true))?;
    // What is told is that nothing happens.
    std::thread::sleep(HELD);
    let progress = progress(&scene)?;
    println!("after {HELD:?}: {progress}");
    ensure!(progress["is_holding"] == true, "{progress}");
    ensure!(number(&progress, "pause_now_ms")? <= 300, "{progress}");
    ensure!(state(alpha, "web1")?.as_deref() == Some("running"), "it does not run on alpha");
    witness.is_well()?;
    let ticker = witness.watch()?;
    let ran = alpha.whimbrel(&["cutover", "web1"])?;
    let took = ran.took;
    ran.ok()?;
    println!("cut over in {took:?}, a client's silence {:?}", ticker.stop().longest_silence);
    lives_only_on(beta, alpha, "web1", "running")?;
    witness.is_well()?;
    let report = report(alpha, "web1")?;
    println!("{report}");
    ensure!(number(&report, "pause_ms")? < 300 + PAUSE_SLACK_MS, "{report}");
    beta.whimbrel(&["cutover", "web1"])?.refused(1, "migration/none")?;
    Ok(())
}

/// A guest that stands still is complete on the target, and yet not handed over before the word;
/// until then it can be cancelled as ever.
pub(super) fn a_paused_guest_is_held(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    let before = witness.is_well()?;
    hold_paused(&scene, 1)?;
    alpha.whimbrel(&["cancel", "web1"])?.ok()?;
    lives_only_on(alpha, beta, "web1", "paused")?;
    // QEMU does not send a guest twice that has not run in between.
    alpha.whimbrel(&["unpause", "web1"])?.ok()?;
    witness.is_well()?;
    hold_paused(&scene, 2)?;
    // Longer than a target may take to confirm what it was told.
    std::thread::sleep(Duration::from_secs(31));
    alpha.whimbrel(&["cutover", "web1"])?.ok()?;
    lives_only_on(beta, alpha, "web1", "paused")?;
    beta.whimbrel(&["unpause", "web1"])?.ok()?;
    until(
        "the guest counts on",
        SOON,
        || Ok(witness.status()?.counter(0)? > before.counter(0)? + 3),
    )
}

/// Pauses the guest and begins to move it, until only the word is missing, for this many times.
fn hold_paused(scene: &Scene, times: usize) -> Result<()> {
    let alpha = scene.alpha();
    alpha.whimbrel(&["pause", "web1"])?.ok()?;
    alpha.whimbrel(&["migrate", "web1", "beta", "--hold", "--detach"])?.ok()?;
    until("everything is on the target", SOON, || {
        let log = alpha.whimbrel(&["log", "web1"])?.ok()?;
        Ok(log.matches("the guest waits for `whimbrel cutover`").count() == times)
    })?;
    alpha.whimbrel(&["unpause", "web1"])?.refused(1, "guest/not-now")?;
    Ok(())
}

/// A rehearsal does everything but the handing over: the guest works on where it is, nothing of it
/// is on the target, and what would have happened is reported, also as a page.
pub(super) fn rehearsed(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1().dirtying("text", 2))?;
    let said = alpha.whimbrel(&["migrate", "web1", "beta", "--rehearse"])?.ok()?;
    println!("{said}");
    ensure!(said.contains("Rehearsed: web1 would have moved to beta"), "{said}");
    lives_only_on(alpha, beta, "web1", "running")?;
    witness.is_well()?;
    let seen = json(alpha, &["report", "web1"])?;
    ensure!(seen["result"] == "rehearsed" && seen["problem"].is_null(), "{seen}");
    ensure!(number(&seen, "rehearsed_pause_ms")? <= 300 + PAUSE_SLACK_MS, "{seen}");
    ensure!(seen["samples"].as_array().is_some_and(|samples| samples.len() > 1), "{seen}");
    let page = scene.lab.shared.join("report.html");
    let path = page.display().to_string();
    alpha.whimbrel(&["report", "web1", "--html", &path])?.ok()?;
    let page = std::fs::read_to_string(&page)?;
    ensure!(page.contains("<polyline") && !page.contains("http"), "{page}");
    // And what was rehearsed can be done.
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    witness.is_well()?;
    Ok(())
}

fn progress(scene: &Scene) -> Result<Value> {
    let shown = json(scene.alpha(), &["show", "web1"])?;
    Ok(shown["migration"]["progress"].clone())
}

fn number(value: &Value, key: &str) -> Result<u64> {
    value[key].as_u64().with_context(|| format!("no `{key}` in {value}"))
}
