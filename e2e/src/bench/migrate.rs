// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `./x bench migrate`: whole migrations of the same guest, ours and those of others, in turn, in
//! one run.
//!
//! One room a question: a first [`visit`] and the return after work, a link that is [`cut`], and a
//! guest that writes as fast as the link carries ([`converge`]). Who can move a guest, and how, is
//! in [`ways`]; the guests stand on one [`stage`]; every figure goes into [`samples`] as it is
//! taken, and a run that is broken off goes on there.

mod cell;
mod converge;
mod cores;
mod cut;
mod measure;
mod plot;
mod programs;
mod samples;
mod schedule;
mod stage;
mod verdict;
mod visit;
mod ways;

use super::Options;
use crate::scene::Scene;
use crate::setting::Setting;
use anyhow::Result;
use cell::{Cell, Question};
use samples::Samples;
use stage::Stage;
use std::time::Instant;

/// Ours may read pages from the disks, which both hosts can: no figure is worse for it but the
/// disk's own, and it must be asked for.
const READ_DISKS: &str = "[pages]\nread_disks = true\n";

pub(super) use plot::references;

pub(super) fn migrate(setting: &Setting, options: &Options) -> Result<()> {
    let name = if options.quick { "migrate-quick" } else { "migrate" };
    // A quick run is too short to go on with another one's figures.
    let is_fresh = options.fresh || options.quick;
    let mut samples = Samples::open(&setting.figures().join(format!("{name}.csv")), is_fresh)?;
    let cells = schedule::cells(options.quick);
    let wanted = cells.into_iter().filter(|cell| cell.is_wanted(&options.only));
    let wanted: Vec<_> = wanted.map(|cell| cell.narrowed(&options.only)).collect();
    if wanted.iter().any(|cell| cell.is_open(&samples)) {
        measure_all(setting, &wanted, &mut samples)?;
    }
    let text = verdict::text(&samples);
    println!("\n{text}");
    let place = samples.path();
    std::fs::write(place.with_extension("md"), &text)?;
    for file in plot::draw(&samples)? {
        println!("plot: {}", file.display());
    }
    println!("every figure: {}", place.display());
    Ok(())
}

fn measure_all(setting: &Setting, cells: &[Cell], samples: &mut Samples) -> Result<()> {
    let started = Instant::now();
    let (lab, image) = setting.lab()?;
    let scene = Scene::configured(lab, image, [READ_DISKS, READ_DISKS])?;
    scene.pair()?;
    let mut stage = Stage::set(setting, &scene)?;
    println!("{:.0} s: the guests are ready", started.elapsed().as_secs_f64());
    for cell in cells {
        println!("{:.0} s: {cell}", started.elapsed().as_secs_f64());
        match cell.question {
            Question::Visit | Question::Return => visit::run(&mut stage, cell, samples)?,
            Question::Cut => cut::run(&mut stage, cell, samples)?,
            Question::Converge => converge::run(&mut stage, cell, samples)?,
        }
    }
    println!("{:.0} s: all is measured", started.elapsed().as_secs_f64());
    Ok(())
}
