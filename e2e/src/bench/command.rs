// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `./x bench command`: whole commands, ours and libvirt's, in turn on one machine in one run.
//!
//! The same guest in kernel, disks, memory, board and processor; an unshaped wire between the same
//! two hosts. While one's guest moves, the other's stands still, so that neither pays for the
//! other.

use super::table::Table;
use crate::lab::{Host, Ran};
use crate::libvirt::{Libvirt, Look, MOVE_PATIENCE};
use crate::scene::{Cast, Scene, engines, json, lives_only_on, report};
use crate::setting::Setting;
use crate::soak::resident_kib;
use crate::witness::Witness;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::time::Duration;

/// Each way as often: whatever one direction costs more, it costs both.
const MOVES: usize = 10;
const LISTS: usize = 20;
const MORE_GUESTS: u8 = 4;
const MEMORY_MIB: u32 = 512;
/// What the guest has really touched: about what a small server has.
const TOUCHED_MIB: u32 = 128;
const OURS: &str = "whimbrel";
const THEIRS: &str = "virsh";

/// Two libvirts beside the two daemons.
struct Rivals<'a> {
    alpha: Libvirt<'a>,
    beta: Libvirt<'a>,
}

pub(super) fn command(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let rivals = Rivals { alpha: Libvirt::start(alpha)?, beta: Libvirt::start(beta)? };
    let mut table = Table::default();
    note_memory(&mut table, &scene, &rivals, "no guests")?;

    let ours = Cast::web1().with_memory(MEMORY_MIB, TOUCHED_MIB);
    let theirs = Cast::named("rival", 52).with_memory(MEMORY_MIB, TOUCHED_MIB);
    let our_witness = scene.create(alpha, &ours)?;
    let engine = *engines(alpha, &ours.name)?.first().context("our guest has an engine")?;
    let look = Look::of_engine(engine)?;
    println!("both guests: machine {}, CPU {}, emulated", look.machine, look.cpu);
    alpha.whimbrel(&["pause", &ours.name])?.ok()?;
    let their_witness = rivals.alpha.create(&scene.lab, &theirs, &look)?;
    rivals.alpha.virsh(&["suspend", &theirs.name])?.ok()?;

    for round in 0..MOVES {
        let is_there = round % 2 == 0;
        let (source, target) = if is_there { (alpha, beta) } else { (beta, alpha) };
        move_ours(&mut table, [source, target], &ours, &our_witness)?;
        let (from, to) =
            if is_there { (&rivals.alpha, &rivals.beta) } else { (&rivals.beta, &rivals.alpha) };
        move_theirs(&mut table, [from, to], &theirs, &their_witness)?;
    }
    note_lists(&mut table, alpha, &rivals.alpha, "one guest")?;
    for index in 0..MORE_GUESTS {
        let cast = |name: &str, last| Cast::named(name, last + index).with_memory(128, 8);
        let (name, rival) = (format!("more{index}"), format!("rival{index}"));
        scene.create(alpha, &cast(&name, 70))?;
        alpha.whimbrel(&["pause", &name])?.ok()?;
        rivals.alpha.create(&scene.lab, &cast(&rival, 80), &look)?;
        rivals.alpha.virsh(&["suspend", &rival])?.ok()?;
    }
    let listed = json(alpha, &["list"])?["guests"].as_array().map_or(0, Vec::len);
    ensure!(listed == usize::from(MORE_GUESTS) + 1, "alpha lists {listed} guests");
    note_lists(&mut table, alpha, &rivals.alpha, "5 guests")?;
    note_memory(&mut table, &scene, &rivals, "5 guests")?;

    table.print();
    for what in ["migrate", "client's longest silence", "list, 5 guests"] {
        println!("{what}: {:.2} of virsh's", table.ratio(OURS, THEIRS, what));
    }
    let raw = setting.figures().join("command.csv");
    table.write(&raw)?;
    println!("every figure: {}", raw.display());
    Ok(())
}

/// Runs a command that moves a guest, and times it and the silence that a client meets.
fn timed(
    table: &mut Table,
    who: &'static str,
    witness: &Witness<'_>,
    migrate: impl FnOnce() -> Result<Ran>,
) -> Result<()> {
    witness.is_well()?;
    let ticker = witness.watch()?;
    let ran = migrate()?;
    let took = ran.took;
    let said = ran.ok()?;
    witness.is_well()?;
    let ticks = ticker.stop();
    println!("{who}: {took:?}, silence {:?}: {}", ticks.longest_silence, said.trim());
    table.time(who, "migrate", took);
    table.time(who, "client's longest silence", ticks.longest_silence);
    Ok(())
}

fn move_ours(
    table: &mut Table,
    [source, target]: [&Host; 2],
    cast: &Cast,
    witness: &Witness<'_>,
) -> Result<()> {
    let guest = cast.name.as_str();
    source.whimbrel(&["unpause", guest])?.ok()?;
    timed(table, OURS, witness, || source.whimbrel(&["migrate", guest, &target.name]))?;
    lives_only_on(target, source, guest, "running")?;
    let report = report(source, guest)?;
    note_report(table, &report);
    target.whimbrel(&["pause", guest])?.ok().map(drop)
}

/// Where our own time goes, by our own word.
fn note_report(table: &mut Table, report: &Value) {
    let ms = |value: &Value| value.as_u64().map(Duration::from_millis);
    if let Some(pause) = ms(&report["pause_ms"]) {
        table.time(OURS, "  pause, as reported", pause);
    }
    for phase in report["phases"].as_array().into_iter().flatten() {
        if let (Some(name), Some(time)) = (phase["phase"].as_str(), ms(&phase["duration_ms"])) {
            table.time(OURS, &format!("  phase {name}"), time);
        }
    }
}

fn move_theirs(
    table: &mut Table,
    [source, target]: [&Libvirt<'_>; 2],
    cast: &Cast,
    witness: &Witness<'_>,
) -> Result<()> {
    source.virsh(&["resume", &cast.name])?.ok()?;
    timed(table, THEIRS, witness, || source.migrate(&cast.name, target.host, &[], MOVE_PATIENCE))?;
    target.has_it_alone(source, &cast.name)?;
    target.virsh(&["suspend", &cast.name])?.ok().map(drop)
}

fn note_lists(table: &mut Table, host: &Host, rival: &Libvirt<'_>, when: &str) -> Result<()> {
    let what = format!("list, {when}");
    for _ in 0..LISTS {
        table.time(OURS, &what, host.whimbrel(&["list"])?.took);
        table.time(THEIRS, &what, rival.virsh(&["list"])?.took);
    }
    Ok(())
}

fn note_memory(table: &mut Table, scene: &Scene, rivals: &Rivals<'_>, when: &str) -> Result<()> {
    let what = format!("daemon's memory, {when} (MiB)");
    let ours = scene.alpha().daemon_pid().context("the daemon is up")?;
    let theirs = rivals.alpha.pid().context("libvirt is up")?;
    for (who, pid) in [(OURS, ours), (THEIRS, theirs)] {
        table.note(who, &what, kib_in_mib(resident_kib(pid)?));
    }
    Ok(())
}

fn kib_in_mib(kib: u64) -> f64 {
    let kib = u32::try_from(kib).unwrap_or(u32::MAX);
    f64::from(kib) / 1024.0
}
