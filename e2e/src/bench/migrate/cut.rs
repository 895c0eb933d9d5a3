// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The link is cut when nine tenths have been sent: how much is sent after it?
//!
//! TCP by itself outlives a wire that is dark for some seconds, and so does everybody here. So the
//! cut is one after which connections are gone, as with a firewall or a card that was restarted:
//! both hosts abort theirs while the wire is down. Who gives up is asked again once it is back.

use super::cell::{Cell, Question, UNSHAPED};
use super::measure::{BYTES, PATIENCE, figures, measured, ms, note_move, number, say};
use super::samples::Samples;
use super::stage::Stage;
use super::ways::Way;
use crate::lab::{Host, Lab};
use anyhow::{Context as _, Result, bail};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const DARK: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The first, and those after it.
const ATTEMPTS_MAX: u32 = 3;

pub(super) const AFTER: &str = "bytes after the cut";
pub(super) const RESENT: &str = "sent again %";
pub(super) const UNTIL_THERE: &str = "until it was there ms";
pub(super) const ATTEMPTS: &str = "attempts";

pub(super) fn run(stage: &mut Stage<'_>, cell: &Cell, samples: &mut Samples) -> Result<()> {
    stage.set_link(cell.link)?;
    for (round, way) in cell.open(samples) {
        stage.wake(way, cell.kind)?;
        stage.program(way).forget()?;
        let visit = cell.key_of(Question::Visit, way, round);
        if samples.spread(&visit, BYTES).is_none() {
            note_move(stage, way, &visit, samples)?;
            stage.program(way).forget()?;
        }
        let usual = samples.spread(&visit, BYTES).context("a visit was measured")?.median;
        let cut = cut_at(stage, way, usual)
            .with_context(|| format!("{}, round {round} of {cell}", way.name()))?;
        say(way, &cut);
        samples.note(&cell.key(way, round), &cut)?;
        stage.rest(way)?;
    }
    stage.set_link(UNSHAPED)
}

/// Moves the guest over a wire that is cut, until it is there.
fn cut_at(stage: &mut Stage<'_>, way: Way, usual: f64) -> Result<Vec<(String, f64)>> {
    let lab = stage.lab();
    let started = Instant::now();
    let before = lab.bytes_between_hosts()?;
    let (mut at_cut, mut attempts) = (None, 1);
    let measured = measured(stage, way, |stage| {
        let is_over = AtomicBool::new(false);
        let first = std::thread::scope(|threads| {
            let cutter = threads.spawn(|| cut(lab, before, 0.9 * usual, &is_over));
            let first = stage.program(way).migrate(way, PATIENCE);
            is_over.store(true, Relaxed);
            at_cut = cutter.join().expect("the cutter does not panic")?;
            anyhow::Ok(first)
        })?;
        let mut outcome = first;
        while let Err(error) = &outcome
            && attempts < ATTEMPTS_MAX
        {
            println!("  {:<7} gave up: {}", way.name(), first_line(error));
            attempts += 1;
            outcome = stage.program(way).migrate(way, PATIENCE);
        }
        outcome
    })?;
    let moved = measured.outcome?;
    let Some(at_cut) = at_cut else {
        bail!("it was over before nine tenths of {usual:.0} bytes were sent");
    };
    let total = number(measured.bytes);
    let after = total - number(at_cut - before);
    let whole = ms(started.elapsed());
    let mut figures = figures(total, ms(measured.silence), moved);
    figures.push((UNTIL_THERE.to_owned(), whole));
    figures.push((AFTER.to_owned(), after));
    figures.push((RESENT.to_owned(), 100.0 * (total / usual - 1.0)));
    figures.push((ATTEMPTS.to_owned(), f64::from(attempts)));
    Ok(figures)
}

/// Waits for so many bytes, cuts the wire, and mends it. Returns what had been sent at the cut;
/// `None` if all was over before.
fn cut(lab: &Lab, before: u64, bytes: f64, is_over: &AtomicBool) -> Result<Option<u64>> {
    loop {
        let now = lab.bytes_between_hosts()?;
        if number(now - before) >= bytes {
            break;
        }
        if is_over.load(Relaxed) {
            return Ok(None);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    lab.alpha.unplug()?;
    let at_cut = lab.bytes_between_hosts()?;
    let aborted = [&lab.alpha, &lab.beta].into_iter().try_for_each(abort_connections);
    std::thread::sleep(DARK);
    lab.alpha.plug_in()?;
    aborted.map(|()| Some(at_cut))
}

fn abort_connections(host: &Host) -> Result<()> {
    host.command("ss".as_ref(), &["--kill", "--tcp", "state", "established"], "")?.ok().map(drop)
}

fn first_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let says_why = |line: &&&str| line.starts_with("error");
    lines.iter().find(says_why).or(lines.first()).copied().unwrap_or_default().to_owned()
}
