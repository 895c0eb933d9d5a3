// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `./x bench command`: what a person waits for.

use crate::lab::guard;
use crate::scene::{Cast, Scene, json, lives_only_on, report};
use crate::setting::Setting;
use crate::soak::resident_kib;
use anyhow::{Context as _, Result, bail};
use std::time::Duration;

const MOVES: usize = 6;
const LISTS: usize = 20;
const MORE_GUESTS: u8 = 4;

pub fn bench(name: &str) -> Result<()> {
    guard();
    match name {
        "command" => command(),
        other => bail!("there is no benchmark `{other}`; there is `command`"),
    }
}

/// The whole `migrate` command and the client's silence for an idle guest of 512 MiB, `list`, and
/// the daemon's memory.
fn command() -> Result<()> {
    let scene = Scene::paired(&Setting::find()?)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let memory = || resident_kib(alpha.daemon_pid().context("the daemon is up")?);
    let idle_kib = memory()?;
    let witness = scene.create(alpha, &Cast::web1().with_memory(512, 128))?;
    let (mut commands, mut silences, mut pauses) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..MOVES {
        let (source, target) = if round % 2 == 0 { (alpha, beta) } else { (beta, alpha) };
        let ticker = witness.watch()?;
        let ran = source.whimbrel(&["migrate", "web1", &target.name])?;
        commands.push(ran.took);
        ran.ok()?;
        silences.push(ticker.stop().longest_silence);
        lives_only_on(target, source, "web1", "running")?;
        let pause_ms = report(target, "web1")?["pause_ms"].as_u64();
        pauses.push(Duration::from_millis(pause_ms.unwrap_or_default()));
    }
    let lists =
        (0..LISTS).map(|_| Ok(alpha.whimbrel(&["list"])?.took)).collect::<Result<Vec<_>>>()?;
    for index in 0..MORE_GUESTS {
        let cast = Cast::named(&format!("more{index}"), 70 + index).with_memory(128, 8);
        scene.create(alpha, &cast)?;
    }
    let listed = json(alpha, &["list"])?["guests"].as_array().map_or(0, Vec::len);
    println!("{:<44} {:>10} {:>10} {:>10}", "", "median", "least", "most");
    show("migrate, idle guest of 512 MiB", &mut commands);
    show("  client's longest silence", &mut silences);
    show("  pause as reported", &mut pauses);
    show("list", &mut lists.clone());
    println!("daemon's memory, idle                        {idle_kib:>7} KiB");
    println!("daemon's memory, {listed} guests here            {:>7} KiB", memory()?);
    Ok(())
}

fn show(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let [least, median, most] =
        [0, times.len() / 2, times.len() - 1].map(|place| times[place].as_secs_f64() * 1000.0);
    println!("{what:<44} {median:>7.0} ms {least:>7.0} ms {most:>7.0} ms");
}
