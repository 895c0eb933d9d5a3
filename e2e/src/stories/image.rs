// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The test guest itself, without our program: what the other stories rely on.

use crate::disk;
use crate::qemu::start_by_hand;
use crate::setting::Setting;
use crate::witness::Witness;
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::time::{Duration, Instant};

/// The guest boots, counts on both disks, notices no damage where there is none, and goes on where
/// it stopped after its power was cut.
pub(super) fn the_witness_boots_and_counts(setting: &Setting) -> Result<()> {
    let (lab, image) = setting.lab()?;
    let disks =
        [disk::raw(&lab.shared.join("root.img"), 16)?, disk::raw(&lab.shared.join("swap.img"), 8)?];
    let [root, swap] = &disks;
    let console = lab.shared.join("console.log");
    let witness = Witness::new(&lab.client);

    let started = Instant::now();
    let mut engine = start_by_hand(&lab.alpha, &image, &[root, swap], &console)?;
    let first = witness.wait().with_context(|| fs::read_to_string(&console).unwrap_or_default())?;
    println!("answers after {:.1} s", started.elapsed().as_secs_f64());
    ensure!(first.boot(0)? == 1 && first.boot(1)? == 1, "fresh disks were not fresh");

    let ticker = witness.watch()?;
    let mut held = witness.hold()?;
    held.ask("set dirty random 4")?;
    while held.status()?.number("dirtied")? < 1000 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let before = held.is_well()?;
    let ticks = ticker.stop();
    ensure!(ticks.answers > 100, "hardly any ticks: {ticks:?}");
    engine.kill()?;
    engine.wait()?;

    let mut engine = start_by_hand(&lab.alpha, &image, &[root, swap], &console)?;
    witness.wait()?;
    let after = witness.is_well()?;
    ensure!(after.boot(0)? == 2, "the second boot was not counted: {after:?}");
    ensure!(after.counter(0)? >= before.counter(0)?, "the counter went back: {after:?}");
    ensure!(after.counter(1)? >= before.counter(1)?, "the second counter went back: {after:?}");

    let _ = witness.ask("poweroff")?;
    let ended = engine.wait()?;
    ensure!(ended.success(), "QEMU did not end by itself: {ended}");
    Ok(())
}
