// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `./x soak`: guests go back and forth, again and again, and their witnesses watch. Memory and
//! open files of the daemons must stay flat.

pub mod kills;

use crate::lab::{Host, finish, guard};
use crate::scene::{Cast, Scene, console_of, lives_only_on, report};
use crate::setting::Setting;
use crate::witness::Witness;
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::time::{Duration, Instant};

const GUESTS: u8 = 2;
const MOVE_PATIENCE: Duration = Duration::from_secs(180);
/// Moves after which figures are taken as the base: caches are warm then.
const WARM: usize = 4;
/// What a daemon may grow by from then on.
const GROWTH_KIB_MAX: u64 = 24 * 1024;
const GROWTH_FILES_MAX: u64 = 4;

/// What a daemon holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    memory_kib: u64,
    files: u64,
}

/// Moves every guest `count` times, both guests at once, and checks them after each move.
pub fn soak(count: usize) -> Result<()> {
    guard();
    let scene = Scene::paired(&Setting::find()?)?;
    let hosts = [scene.alpha(), scene.beta()];
    let casts: Vec<_> =
        (0..GUESTS).map(|index| Cast::named(&format!("web{index}"), 60 + index)).collect();
    let witnesses = casts
        .iter()
        .map(|cast| scene.create(scene.alpha(), &cast.clone().dirtying("text", 2)))
        .collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    let mut pauses = Vec::new();
    // A daemon holds more where the guests are: odd rounds are held against an odd one.
    let mut bases = [[None; 2]; 2];
    for round in 0..count {
        let (source, target) = (hosts[round % 2], hosts[(round + 1) % 2]);
        pauses.extend(move_all(source, target, &casts, &witnesses).with_context(|| {
            format!("round {round}: {} said: {}", source.name, source.daemon_said())
        })?);
        let held = [held_by(hosts[0])?, held_by(hosts[1])?];
        let base = &mut bases[round % 2];
        if round == WARM || round == WARM + 1 {
            *base = held.map(Some);
        }
        println!("round {round}: {:.0} s, {held:?}", started.elapsed().as_secs_f64());
        for (base, now) in base.iter().zip(held) {
            is_flat(*base, now)?;
        }
    }
    pauses.sort_unstable();
    let moves = pauses.len();
    let median = pauses.get(moves / 2).copied().unwrap_or_default();
    let longest = pauses.last().copied().unwrap_or_default();
    println!("{moves} moves in {:.0} s", started.elapsed().as_secs_f64());
    println!("pause: median {median} ms, longest {longest} ms");
    Ok(())
}

/// Moves all guests at once and returns their pauses in milliseconds.
fn move_all(
    source: &Host,
    target: &Host,
    casts: &[Cast],
    witnesses: &[Witness<'_>],
) -> Result<Vec<u64>> {
    let commands = casts
        .iter()
        .map(|cast| source.spawn_whimbrel(&["migrate", &cast.name, &target.name]))
        .collect::<Result<Vec<_>>>()?;
    for (command, cast) in commands.into_iter().zip(casts) {
        finish(command, &format!("migrate {}", cast.name), "", MOVE_PATIENCE)?.ok()?;
    }
    let mut pauses = Vec::new();
    for (cast, witness) in casts.iter().zip(witnesses) {
        lives_only_on(target, source, &cast.name, "running")?;
        let status = witness.is_well().with_context(|| console_of(target, &cast.name))?;
        ensure!(status.boot(0)? == 1, "{} was booted anew: {status:?}", cast.name);
        pauses.push(report(target, &cast.name)?["pause_ms"].as_u64().unwrap_or_default());
    }
    Ok(pauses)
}

fn held_by(host: &Host) -> Result<Held> {
    let pid = host.daemon_pid().context("the daemon is up")?;
    let files = fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
    Ok(Held { memory_kib: resident_kib(pid)?, files })
}

/// Memory that a process has in use now.
pub(crate) fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let number = line.split_whitespace().nth(1).context("no number")?;
    number.parse().context("VmRSS is a number")
}

fn is_flat(base: Option<Held>, now: Held) -> Result<()> {
    let Some(base) = base else { return Ok(()) };
    let is_flat = now.memory_kib <= base.memory_kib + GROWTH_KIB_MAX
        && now.files <= base.files + GROWTH_FILES_MAX;
    ensure!(is_flat, "a daemon grows: {base:?} after {WARM} rounds, {now:?} now");
    Ok(())
}
