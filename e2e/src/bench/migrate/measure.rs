// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! One move, measured from outside: bytes on the wire, time, and the silence a client meets.

use super::cores::Watch;
use super::programs::Moved;
use super::samples::{Key, Samples};
use super::stage::Stage;
use super::ways::Way;
use anyhow::{Context as _, Result};
use std::fs;
use std::time::Duration;

/// How long anybody may take to move a guest.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);
/// The client asks for so long before and after.
const MARGIN: Duration = Duration::from_millis(250);

pub(super) const BYTES: &str = "wire bytes";
pub(super) const WHOLE: &str = "whole ms";
pub(super) const TRAVEL: &str = "travel ms";
pub(super) const SILENCE: &str = "silence ms";
/// Whatever else the machine does is in here; a calm one has about two.
pub(super) const LOAD: &str = "load";

/// What a move cost.
pub(super) struct Measured {
    pub(super) bytes: u64,
    pub(super) silence: Duration,
    /// The machine's load average of the last minute.
    pub(super) load: f64,
    /// Where the processors' time went.
    pub(super) cores: Vec<(String, f64)>,
    /// What was done; an error if the guest is where it was.
    pub(super) outcome: Result<Moved>,
}

/// Has a guest that is awake moved to the other host by `migrate`.
pub(super) fn measured(
    stage: &mut Stage<'_>,
    way: Way,
    migrate: impl FnOnce(&mut Stage<'_>) -> Result<Moved>,
) -> Result<Measured> {
    let witness = stage.witness(way);
    witness.is_well()?;
    let ticker = witness.watch()?;
    std::thread::sleep(MARGIN);
    let lab = stage.lab();
    let before = lab.bytes_between_hosts()?;
    let cores = Watch::begin();
    let outcome = migrate(stage);
    let cores = cores.end()?;
    let load = load()?;
    let bytes = lab.bytes_between_hosts()? - before;
    std::thread::sleep(MARGIN);
    let silence = ticker.stop().longest_silence;
    witness.is_well()?;
    Ok(Measured { bytes, silence, load, cores, outcome })
}

/// Moves a guest that is awake to the other host, and takes down what it cost.
pub(super) fn note_move(
    stage: &mut Stage<'_>,
    way: Way,
    key: &Key,
    samples: &mut Samples,
) -> Result<()> {
    let measured = measured(stage, way, |stage| stage.program(way).migrate(way, PATIENCE))?;
    let (bytes, silence) = (number(measured.bytes), ms(measured.silence));
    let mut figures = figures(bytes, silence, measured.outcome?);
    figures.push((LOAD.to_owned(), measured.load));
    figures.extend(measured.cores);
    say(way, &figures);
    samples.note(key, &figures)
}

pub(super) fn figures(bytes: f64, silence: f64, moved: Moved) -> Vec<(String, f64)> {
    let mut figures = vec![
        (BYTES.to_owned(), bytes),
        (WHOLE.to_owned(), ms(moved.whole)),
        (SILENCE.to_owned(), silence),
    ];
    figures.extend(moved.travel.map(|travel| (TRAVEL.to_owned(), ms(travel))));
    figures.extend(moved.parts);
    figures
}

/// Shows what was measured, for those who watch.
pub(super) fn say(way: Way, figures: &[(String, f64)]) {
    let figures: Vec<_> =
        figures.iter().map(|(figure, value)| format!("{figure} {value:.0}")).collect();
    println!("  {:<7} {}", way.name(), figures.join(", "));
}

/// The machine's load average of the last minute.
fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().context("the load is a number")
}

pub(super) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Counts of this size are exact as floating point.
#[allow(clippy::cast_precision_loss, reason = "no wire here carries 2^53 bytes")]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}
