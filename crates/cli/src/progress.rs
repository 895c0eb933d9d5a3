// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A migration's progress: one line a phase, the current one kept up to date on a terminal.

use crate::format;
use crate::printer::Printer;
use std::time::{Duration, Instant};
use whimbrel_api::migration::{Migration, Phase};
use whimbrel_api::plan::Severity;

/// What is over sooner is not worth a line.
const QUIET_TIME: Duration = Duration::from_millis(250);

/// Shows what is new about a migration.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    lines: Lines,
    /// Lines that wait for the quiet time to be over.
    waiting: Vec<String>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { began: Instant::now(), lines: Lines::default(), waiting: Vec::new() }
    }
}

impl Progress {
    pub(crate) fn show(&mut self, migration: &Migration, printer: &mut Printer) {
        self.waiting.extend(self.lines.finished(migration));
        if self.began.elapsed() < QUIET_TIME || printer.is_json {
            return;
        }
        for line in self.waiting.drain(..) {
            printer.say(&line);
        }
        if let Some(line) = current(migration) {
            printer.progress(&line);
        }
    }
}

/// Which lines were said. Pure.
#[derive(Debug, Default)]
struct Lines {
    said: Vec<Phase>,
    is_warned: bool,
    is_miss_said: bool,
    is_hold_said: bool,
}

impl Lines {
    /// Returns the lines of the phases that are over and were not said yet.
    fn finished(&mut self, migration: &Migration) -> Vec<String> {
        let mut lines = Vec::new();
        for time in &migration.phases {
            if self.said.contains(&time.phase) {
                continue;
            }
            self.said.push(time.phase);
            if let Some(text) = finished(time.phase, time.duration_ms, migration) {
                lines.push(line(time.phase, &text));
            }
        }
        if let Some(miss) = &migration.miss
            && !std::mem::replace(&mut self.is_miss_said, true)
        {
            lines.push(format!("warning: the bargain cannot be kept: {miss}"));
        }
        let progress = migration.progress.as_ref();
        if let Some(held) = progress.filter(|progress| progress.is_holding)
            && !std::mem::replace(&mut self.is_hold_said, true)
        {
            lines.extend(held.reason.clone());
        }
        if migration.phase > Phase::Plan && !std::mem::replace(&mut self.is_warned, true) {
            let warnings = migration.findings.iter().filter(|f| f.severity == Severity::Warning);
            lines.extend(warnings.map(|finding| format!("warning: {}", finding.text)));
        }
        lines
    }
}

fn line(phase: Phase, text: &str) -> String {
    format!("{phase:<9}  {text}")
}

fn finished(phase: Phase, duration_ms: u64, migration: &Migration) -> Option<String> {
    let took = format::ms(duration_ms);
    Some(match phase {
        Phase::Plan => plan(migration),
        Phase::Prepare => format!("{} is ready ({took})", migration.target),
        Phase::Memory => format!("{} ({took})", memory(migration)),
        Phase::Handoff => "done".to_owned(),
        Phase::Postcopy => format!("the rest of its memory has followed ({took})"),
        // Too short, or too late, to be worth a line.
        Phase::Switch | Phase::Release | Phase::Ended => return None,
    })
}

fn plan(migration: &Migration) -> String {
    let passed = format!("{} passed", format::count(migration.checks_passed.into(), "check"));
    let Some(forecast) = &migration.forecast else { return passed };
    let total = format::range(forecast.total_ms, format::ms);
    let pause = format::range(forecast.pause_ms, format::ms);
    format!("{passed}; expect {total}, pause {pause}")
}

fn memory(migration: &Migration) -> String {
    let Some(progress) = &migration.progress else { return "travels".to_owned() };
    let done = progress.total_bytes.saturating_sub(progress.remaining_bytes);
    let mut parts = vec![
        format!("round {}", progress.round),
        format!("{} of {}", format::size(done), format::size(progress.total_bytes)),
        format::rate(progress.rate_bytes_per_second),
    ];
    if progress.dirty_bytes_per_second > 0 {
        parts.push(format!("dirty {}", format::rate(progress.dirty_bytes_per_second)));
    }
    let saved = saved_percent(progress.wire_bytes, progress.transferred_bytes);
    if let Some(percent) = saved.filter(|&percent| percent > 0) {
        parts.push(format!("{percent} % saved"));
    }
    parts.join("   ")
}

/// Returns how much less crossed the network than the engine sent.
fn saved_percent(wire_bytes: u64, transferred_bytes: u64) -> Option<u64> {
    let saved = u128::from(transferred_bytes.checked_sub(wire_bytes)?);
    u64::try_from((saved * 100).checked_div(transferred_bytes.into())?).ok()
}

/// Returns the line of what is going on now.
fn current(migration: &Migration) -> Option<String> {
    let text = match migration.phase {
        Phase::Plan => "checking".to_owned(),
        Phase::Prepare => format!("{} starts its engine", migration.target),
        Phase::Memory => {
            let progress = migration.progress.as_ref();
            let left = progress.and_then(|progress| progress.remaining_ms);
            let left = left.map(|left| format!("   {} left", format::range(left, format::ms)));
            let reason = progress.and_then(|progress| progress.reason.as_ref());
            let reason = reason.map(|reason| format!("   {reason}"));
            memory(migration) + &left.unwrap_or_default() + &reason.unwrap_or_default()
        }
        Phase::Switch => "the guest stands still".to_owned(),
        Phase::Handoff => format!("{} takes over", migration.target),
        Phase::Postcopy => format!(
            "{}   {} runs on {}, the rest of its memory follows{}",
            memory(migration),
            migration.guest,
            migration.target,
            if is_late(migration) { "; later than promised, and there is no way back" } else { "" }
        ),
        Phase::Release => "cleaning up".to_owned(),
        Phase::Ended => return None,
    };
    Some(line(migration.phase, &text))
}

fn is_late(migration: &Migration) -> bool {
    let bargain = migration.bargain.as_ref().filter(|bargain| !bargain.is_held);
    bargain.is_some_and(|bargain| migration.elapsed_ms > bargain.deadline_ms)
}

#[cfg(test)]
mod tests;
