// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `./x soak --daemon-kills N`: many guests, and a daemon that is killed again and again, also
//! while it is still finding them. None of them may notice.

use crate::lab::{Host, guard};
use crate::scene::{Cast, SOON, Scene, engines, json, until};
use crate::setting::Setting;
use anyhow::{Context as _, Result, ensure};
use std::thread::sleep;
use std::time::{Duration, Instant};

const GUESTS: usize = 20;
/// How long a daemon lives that is killed before it may have found its guests.
const LIVES: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(3),
    Duration::from_millis(20),
    Duration::from_millis(80),
];

/// Kills the daemon `count` times beside twenty guests.
pub fn daemon_kills(count: usize) -> Result<()> {
    guard();
    let took = kill_again_and_again(&Setting::find()?, GUESTS, count)?;
    let median = took.get(took.len() / 2).copied().unwrap_or_default();
    let longest = took.last().copied().unwrap_or_default();
    println!("{count} daemons killed beside {GUESTS} guests, none disturbed");
    println!("all guests known again after: median {median:?}, longest {longest:?}");
    Ok(())
}

/// Returns how long the daemons that were let live took to know all guests again, sorted.
pub(crate) fn kill_again_and_again(
    setting: &Setting,
    guests: usize,
    count: usize,
) -> Result<Vec<Duration>> {
    let scene = Scene::strangers(setting)?;
    let alpha = scene.alpha();
    let casts: Vec<_> = (60..)
        .take(guests)
        .map(|last| Cast::named(&format!("web{last}"), last).with_memory(128, 4))
        .collect();
    // All at once: they have many boots to do on a few processors.
    for cast in &casts {
        alpha.whimbrel(&["create", &scene.guest_file(cast)?])?.ok()?;
    }
    let mut held = Vec::new();
    for cast in &casts {
        let witness = scene.witness(cast);
        witness.wait().with_context(|| cast.name.clone())?;
        held.push(witness.hold()?);
    }
    let pids = casts.iter().map(|cast| engines(alpha, &cast.name)).collect::<Result<Vec<_>>>()?;
    let mut took = Vec::new();
    for round in 0..count {
        alpha.kill_daemon()?;
        let started = Instant::now();
        alpha.start_daemon()?;
        if round % 2 == 0 {
            sleep(LIVES[round / 2 % LIVES.len()]);
            continue;
        }
        all_run(alpha, guests)?;
        took.push(started.elapsed());
        let found = casts.iter().map(|cast| engines(alpha, &cast.name));
        ensure!(found.collect::<Result<Vec<_>>>()? == pids, "round {round}: other engines run now");
        let asked = held.iter_mut().try_for_each(|held| held.ask("echo still here").map(drop));
        asked.with_context(|| format!("round {round}: a guest noticed"))?;
    }
    all_run(alpha, guests)?;
    for (held, cast) in held.iter_mut().zip(&casts) {
        let status = held.is_well()?;
        ensure!(status.boot(0)? == 1, "{} was booted anew: {status:?}", cast.name);
    }
    took.sort_unstable();
    Ok(took)
}

fn all_run(host: &Host, count: usize) -> Result<()> {
    until("all guests are known again", SOON, || {
        let list = json(host, &["list"])?;
        let guests = list["guests"].as_array().context("no guests are listed")?;
        let running = guests.iter().filter(|guest| guest["state"] == "running").count();
        Ok(running == count)
    })
}
