// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! There, and back: what a first visit costs, and what a return after work does.

use super::cell::{Cell, Question, UNSHAPED};
use super::measure::note_move;
use super::samples::Samples;
use super::stage::Stage;
use super::ways::Way;
use anyhow::{Context as _, Result};

pub(super) fn run(stage: &mut Stage<'_>, cell: &Cell, samples: &mut Samples) -> Result<()> {
    stage.set_link(cell.link)?;
    for (round, way) in cell.open(samples) {
        journey(stage, cell, way, round, samples)
            .with_context(|| format!("{}, round {round} of {cell}", way.name()))?;
    }
    stage.set_link(UNSHAPED)
}

fn journey(
    stage: &mut Stage<'_>,
    cell: &Cell,
    way: Way,
    round: usize,
    samples: &mut Samples,
) -> Result<()> {
    stage.wake(way, cell.kind)?;
    stage.program(way).forget()?;
    note_move(stage, way, &cell.key_of(Question::Visit, way, round), samples)?;
    if let Some(work) = cell.work {
        stage.work(way, work)?;
        note_move(stage, way, &cell.key(way, round), samples)?;
    }
    stage.rest(way)
}
