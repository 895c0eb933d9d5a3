// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a migration would cost, as ranges that are as wide as our ignorance.
//!
//! Pre-copy sends the guest's memory, then what the guest wrote meanwhile, then what it wrote
//! during that: with a guest that writes `d` bytes a second and a link that carries `r`, the sum is
//! `memory / (1 - d/r)`. A guest writes two to three times as much while it is being moved as
//! before, so that the pessimistic end counts 2.5 times the rate that was measured.

use super::{Convergence, Finding, Forecast, Question, Span};
use crate::codes;
use crate::run_state::RunState;
use crate::units::{Bytes, format_duration};
use std::time::Duration;

/// What a link carries when nobody has measured it: from 100 Mbit/s to 10 Gbit/s.
const RATE_UNKNOWN: Span<f64> = Span { low: 12.5e6, high: 1.25e9 };
/// A measured link carries this much of its rate in the worse case.
const RATE_CERTAINTY: f64 = 0.7;
/// How much more a guest writes while it is being moved.
const DIRTY_GROWTH: f64 = 2.5;
/// What compression leaves at best, and what the stream adds at worst.
const COMPRESSED: f64 = 0.3;
const STREAM_OVERHEAD: f64 = 1.02;
/// How much of a guest's memory holds anything, at the least, when the engine cannot tell.
const USED_MIN: f64 = 0.05;
/// Rounds stop paying beyond this many times the memory: the range ends there.
const SENT_TIMES_MAX: f64 = 10.0;
/// Starting the target's engine and agreeing on everything.
const SETUP: Span<f64> = Span { low: 0.3, high: 2.5 };
/// Stopping, handing over and starting, when it was never measured.
const SWITCHOVER_UNKNOWN: Span<Duration> =
    Span { low: Duration::from_millis(20), high: Duration::from_millis(250) };

/// What an engine can compress while it sends: on two cores, QEMU's multifd with zstd was measured
/// to take in 260 MB/s, and one plain channel 700 MB/s.
const COMPRESSION_PAYS_BELOW: Bytes = Bytes(200_000_000);

/// Whether compression makes a migration over a link faster. Of one that was never measured the
/// worse is assumed.
pub fn compression_pays(rate: Option<Bytes>) -> bool {
    rate.is_none_or(|rate| rate < COMPRESSION_PAYS_BELOW)
}

pub(super) fn forecast(question: &Question<'_>) -> Forecast {
    let (Some(passport), Some(run_state)) = (question.passport, question.run_state) else {
        return definition_only();
    };
    let mut reasons = Vec::new();
    let rate = rate(question, &mut reasons);
    let memory = as_f64(passport.memory);
    let used = match question.load.used {
        Some(used) => {
            reasons.push(format!("{used} of {} hold anything but zeroes", passport.memory));
            Span { low: as_f64(used), high: as_f64(used) * 1.1 }
        }
        None => {
            reasons.push(format!("it is not known how much of {} is in use", passport.memory));
            Span { low: memory * USED_MIN, high: memory }
        }
    };
    let is_running = run_state == RunState::Running;
    let dirty = match question.load.dirty_rate {
        _ if !is_running => Span { low: 0.0, high: 0.0 },
        Some(dirty) => {
            reasons.push(format!("the guest writes {dirty}/s, and more while it moves"));
            Span { low: as_f64(dirty), high: as_f64(dirty) * DIRTY_GROWTH }
        }
        None => {
            reasons.push("how much the guest writes is not known".to_owned());
            Span { low: 0.0, high: rate.low * 0.5 }
        }
    };
    let sent = Span {
        low: used.low * times(dirty.low, rate.high),
        high: used.high * STREAM_OVERHEAD * times(dirty.high, rate.low),
    };
    let compresses = [question.source, question.target].iter().all(|side| {
        let engine = side.host.engines.iter().find(|engine| engine.kind == passport.engine);
        engine.is_some_and(|engine| engine.has_multifd_zstd)
    });
    let least = if compresses && compression_pays(question.link.rate) {
        sent.low * COMPRESSED
    } else {
        sent.low
    };
    Forecast {
        total: Span {
            low: Duration::from_secs_f64(SETUP.low + least / rate.high),
            high: Duration::from_secs_f64(SETUP.high + sent.high / rate.low),
        },
        pause: pause(question, is_running),
        bytes: Span { low: as_bytes(least), high: as_bytes(sent.high) },
        convergence: convergence(question, is_running),
        reasons,
    }
}

fn definition_only() -> Forecast {
    let moment = Span { low: Duration::from_millis(100), high: Duration::from_secs(2) };
    Forecast {
        total: moment,
        pause: Span { low: Duration::ZERO, high: Duration::ZERO },
        bytes: Span { low: Bytes(0), high: Bytes(256 * Bytes::KIB) },
        convergence: Convergence::Certain,
        reasons: vec!["the guest is stopped: only its definition moves".to_owned()],
    }
}

fn rate(question: &Question<'_>, reasons: &mut Vec<String>) -> Span<f64> {
    match question.link.rate {
        Some(rate) if rate > Bytes(0) => {
            reasons.push(format!("the link carries {rate}/s"));
            Span { low: as_f64(rate) * RATE_CERTAINTY, high: as_f64(rate) }
        }
        Some(_) | None => {
            let text = "the link was not measured: from 100 Mbit/s to 10 Gbit/s is assumed";
            reasons.push(text.to_owned());
            RATE_UNKNOWN
        }
    }
}

/// Returns how many times its memory a guest is sent.
fn times(dirty: f64, rate: f64) -> f64 {
    let share = dirty / rate;
    if share < 1.0 { (1.0 / (1.0 - share)).min(SENT_TIMES_MAX) } else { SENT_TIMES_MAX }
}

fn pause(question: &Question<'_>, is_running: bool) -> Span<Duration> {
    if !is_running {
        return Span { low: Duration::ZERO, high: Duration::ZERO };
    }
    let fixed = match question.load.switchover {
        Some(learned) => Span { low: learned.mul_f64(0.7), high: learned.mul_f64(1.5) },
        None => SWITCHOVER_UNKNOWN,
    };
    Span { low: fixed.low, high: fixed.high + question.bargain.pause_max }
}

fn convergence(question: &Question<'_>, is_running: bool) -> Convergence {
    let (Some(dirty), Some(rate)) = (question.load.dirty_rate, question.link.rate) else {
        return if is_running { Convergence::Unknown } else { Convergence::Certain };
    };
    let share = as_f64(dirty) / as_f64(rate).max(1.0);
    match () {
        () if !is_running || share * DIRTY_GROWTH < 0.8 => Convergence::Certain,
        () if share < 0.8 => Convergence::Likely,
        () => Convergence::Unlikely,
    }
}

/// Returns what the forecast means for the bargain.
pub(super) fn findings(question: &Question<'_>, forecast: &Forecast) -> Vec<Finding> {
    let guest = question.guest_name();
    let mut findings = Vec::new();
    let rates = (question.load.dirty_rate, question.link.rate);
    if let (Convergence::Unlikely, (Some(dirty), Some(rate))) = (forecast.convergence, rates) {
        findings.push(Finding::warning(
            codes::PLAN_CONVERGENCE,
            format!("`{guest}` writes {dirty}/s and the link carries {rate}/s: it may never end"),
            format!(
                "try when it is quieter, use a faster link, or let the guest stand still: \
                 `whimbrel migrate {guest} {} --stop-and-copy`",
                question.target_name()
            ),
        ));
    }
    let deadline = question.bargain.deadline;
    if forecast.total.low > deadline {
        findings.push(Finding::warning(
            codes::PLAN_DEADLINE,
            format!(
                "it takes {} at the least, and the deadline is {}",
                format_duration(forecast.total.low),
                format_duration(deadline)
            ),
            "give it a longer `deadline` in `[migration]` of whimbrel.toml",
        ));
    }
    findings
}

fn as_f64(bytes: Bytes) -> f64 {
    bytes.0 as f64
}

#[expect(clippy::cast_possible_truncation, reason = "a forecast is not exact to the byte")]
fn as_bytes(size: f64) -> Bytes {
    Bytes(size as u64)
}
