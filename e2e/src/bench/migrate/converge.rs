// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A guest that writes almost as fast as the link carries, or small changes all over much faster:
//! does the move end, and is the guest slowed down?

use super::cell::{Cell, UNSHAPED};
use super::measure::{figures, measured, ms, number, say};
use super::samples::Samples;
use super::stage::Stage;
use super::ways::Way;
use crate::lab::TooLong;
use anyhow::{Context as _, Result};
use std::time::{Duration, Instant};

/// After that it counts as never.
const PATIENCE: Duration = Duration::from_secs(180);
/// The guest writes for so long before: it has its usual rate then.
const BEFORE: Duration = Duration::from_secs(5);

pub(super) const HAS_ENDED: &str = "has ended";
pub(super) const WRITTEN: &str = "guest writes pages/s";

pub(super) fn run(stage: &mut Stage<'_>, cell: &Cell, samples: &mut Samples) -> Result<()> {
    stage.set_link(cell.link)?;
    for (round, way) in cell.open(samples) {
        stage.wake(way, cell.kind)?;
        stage.program(way).forget()?;
        std::thread::sleep(BEFORE);
        let figures = try_to_move(stage, way)
            .with_context(|| format!("{}, round {round} of {cell}", way.name()))?;
        say(way, &figures);
        samples.note(&cell.key(way, round), &figures)?;
        stage.rest(way)?;
    }
    stage.set_link(UNSHAPED)
}

fn try_to_move(stage: &mut Stage<'_>, way: Way) -> Result<Vec<(String, f64)>> {
    let witness = stage.witness(way);
    let dirtied = || witness.status()?.number("dirtied");
    let (started, before) = (Instant::now(), dirtied()?);
    let measured = measured(stage, way, |stage| stage.program(way).migrate(way, PATIENCE))?;
    let elapsed = started.elapsed();
    let rate = number(dirtied()? - before) / elapsed.as_secs_f64();
    let (bytes, silence) = (number(measured.bytes), ms(measured.silence));
    let has_ended = measured.outcome.is_ok();
    let mut figures = match measured.outcome {
        Ok(moved) => figures(bytes, silence, moved),
        Err(error) if error.downcast_ref::<TooLong>().is_some() => Vec::new(),
        Err(error) => return Err(error),
    };
    figures.push((HAS_ENDED.to_owned(), if has_ended { 1.0 } else { 0.0 }));
    figures.push((WRITTEN.to_owned(), rate));
    Ok(figures)
}
