// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a migration would cost, as ranges that are as wide as our ignorance.
//!
//! Pre-copy sends the guest's memory, then what the guest wrote meanwhile, then what it wrote
//! during that: with a guest that writes `d` bytes a second and a link that carries `r`, the sum is
//! `memory / (1 - d/r)`. A guest writes two to three times as much while it is being moved as
//! before, so that the pessimistic end counts 2.5 times the rate that was measured.

use super::{Convergence, Finding, Forecast, OnMiss, Question, Span};
use crate::codes;
use crate::passport::{Accelerator, Passport};
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
/// Plugging a device in on the target, by a script: an emulated host was seen to take six seconds.
const PLUG: Span<Duration> = Span { low: Duration::from_millis(10), high: Duration::from_secs(6) };

/// How far the next migration may be from what earlier ones took.
const LEARNED_TIME: Span<f64> = Span { low: 0.5, high: 1.5 };
const LEARNED_SENT: f64 = 1.25;
const LEARNED_WIRE: f64 = 1.5;
const LEARNED_RATE: Span<f64> = Span { low: 0.2, high: 1.6 };
/// What is left on the wire where the target holds most of it.
const HELD_SHARE: Span<f64> = Span { low: 0.0004, high: 0.5 };
/// A guest that did nothing since was seen to need a thousandth.
const SHARE_MIN: Span<f64> = Span { low: 0.0004, high: 0.002 };
/// What an engine sends: two cores were seen to send 700 MB/s; beside an emulated processor less.
const ENGINE_RATE: Span<f64> = Span { low: 150e6, high: 1.2e9 };
const ENGINE_EMULATED: Span<f64> = Span { low: 40e6, high: 700e6 };
/// Of what can be sent, a guest of which nothing is known may write so much.
const DIRTY_UNKNOWN: f64 = 0.5;

/// A guest that writes less than this share of what the link carries can be caught up with.
const SHARE_CAUGHT_UP: f64 = 0.8;
/// A guest that would have to be slowed down further as good as stands still.
const SLOWDOWN_MAX_PERCENT: f64 = 95.0;

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
    let link = rate(question, &mut reasons);
    let used = used(question, as_f64(passport.memory), &mut reasons);
    let share = wire_share(question, passport, &mut reasons);
    let engine = engine_rate(question, passport.accelerator);
    // What a guest's memory is sent with: as the link lets through what is left of it.
    let rate = Span {
        low: engine.low.min(link.low / share.high),
        high: engine.high.min(link.high / share.low),
    };
    let is_running = run_state == RunState::Running && !question.is_stop_and_copy;
    let dirty = match question.load.dirty_rate {
        _ if !is_running => Span { low: 0.0, high: 0.0 },
        Some(dirty) => {
            reasons.push(format!("the guest writes {dirty}/s, and more while it moves"));
            Span { low: as_f64(dirty), high: as_f64(dirty) * DIRTY_GROWTH }
        }
        // What was sent the last times is what was written, too.
        None if question.load.learned.sent_times.is_some() => Span { low: 0.0, high: 0.0 },
        None => {
            reasons.push("how much the guest writes is not known".to_owned());
            Span { low: 0.0, high: rate.low * DIRTY_UNKNOWN }
        }
    };
    let sent = Span {
        low: used.low * times(dirty.low, rate.high),
        high: used.high * STREAM_OVERHEAD * times(dirty.high, rate.low),
    };
    let around = around(question, &mut reasons);
    let total = Span {
        low: around.low + Duration::from_secs_f64(sent.low / rate.high),
        high: around.high + Duration::from_secs_f64(sent.high / rate.low),
    };
    Forecast {
        total,
        // A guest that is stopped first stands still for nearly all of it.
        pause: match question.is_stop_and_copy && run_state == RunState::Running {
            true => Span { low: total.low.saturating_sub(around.high), high: total.high },
            false => pause(question, is_running),
        },
        bytes: Span { low: as_bytes(sent.low * share.low), high: as_bytes(sent.high * share.high) },
        convergence: convergence(question, is_running),
        reasons,
    }
}

/// How much of the guest's memory the engine will send in its first pass.
fn used(question: &Question<'_>, memory: f64, reasons: &mut Vec<String>) -> Span<f64> {
    if let Some(times) = question.load.learned.sent_times {
        return Span {
            low: memory * times.low / LEARNED_SENT,
            high: memory * times.high * LEARNED_SENT,
        };
    }
    let passport_memory = question.passport.map_or(Bytes(0), |passport| passport.memory);
    match question.load.used {
        Some(used) => {
            reasons.push(format!("{used} of {passport_memory} hold anything but zeroes"));
            Span { low: as_f64(used), high: as_f64(used) * 1.1 }
        }
        None => {
            reasons.push(format!("it is not known how much of {passport_memory} is in use"));
            Span { low: memory * USED_MIN, high: memory }
        }
    }
}

/// What is left of the engine's stream on the wire.
fn wire_share(
    question: &Question<'_>,
    passport: &Passport,
    reasons: &mut Vec<String>,
) -> Span<f64> {
    if question.load.is_held {
        reasons.push("the target holds memory of an earlier visit".to_owned());
    }
    if let Some(share) = question.load.learned.wire_share {
        let high = (share.high * LEARNED_WIRE).clamp(SHARE_MIN.high, 1.1);
        return Span { low: (share.low / LEARNED_WIRE).clamp(SHARE_MIN.low, 1.0), high };
    }
    if question.load.is_held {
        return HELD_SHARE;
    }
    let compresses = [question.source, question.target].iter().all(|side| {
        let engine = side.host.engines.iter().find(|engine| engine.kind == passport.engine);
        engine.is_some_and(|engine| engine.has_multifd_zstd)
    });
    let is_compressed = compresses && compression_pays(question.link.rate);
    Span { low: if is_compressed { COMPRESSED } else { 1.0 }, high: 1.0 }
}

/// Bytes a second that an engine can send when nothing is in its way.
fn engine_rate(question: &Question<'_>, accelerator: Accelerator) -> Span<f64> {
    let unknown = match accelerator {
        Accelerator::Tcg => ENGINE_EMULATED,
        Accelerator::Kvm => ENGINE_RATE,
    };
    match question.load.learned.engine_rate {
        // A link may have been in its way; then it is in the way of the forecast, too.
        Some(best) => Span {
            low: unknown.low.max(as_f64(best) * LEARNED_RATE.low),
            high: as_f64(best) * LEARNED_RATE.high.max(unknown.low / as_f64(best).max(1.0)),
        },
        None => unknown,
    }
}

/// Everything but the time in which memory travels.
fn around(question: &Question<'_>, reasons: &mut Vec<String>) -> Span<Duration> {
    let learned = question.load.learned;
    match learned.around {
        Some(around) => {
            let count = learned.count;
            let plural = if count == 1 { "" } else { "s" };
            reasons.push(format!("{count} earlier migration{plural} between these hosts count"));
            Span {
                low: around.low.mul_f64(LEARNED_TIME.low),
                high: around.high.mul_f64(LEARNED_TIME.high),
            }
        }
        None => Span {
            low: Duration::from_secs_f64(SETUP.low),
            high: Duration::from_secs_f64(SETUP.high),
        },
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
    if question.passport.is_some_and(|passport| passport.engine.chooses_pause()) {
        return chosen_pause(question);
    }
    let once = question.load.switchover.map(|time| Span { low: time, high: time });
    let fixed = match question.load.learned.switchover.or(once) {
        Some(learned) => Span {
            low: learned.low.mul_f64(LEARNED_TIME.low),
            high: learned.high.mul_f64(LEARNED_TIME.high),
        },
        None => SWITCHOVER_UNKNOWN,
    };
    Span { low: fixed.low, high: fixed.high + question.bargain.pause_max }
}

/// The pause of an engine that chooses it: earlier ones count, or else the guest's devices, which
/// are plugged in meanwhile.
fn chosen_pause(question: &Question<'_>) -> Span<Duration> {
    if let Some(learned) = question.load.learned.pause {
        return Span {
            low: learned.low.mul_f64(LEARNED_TIME.low),
            high: learned.high.mul_f64(LEARNED_TIME.high),
        };
    }
    let devices = question.guest.disks.len() + question.guest.networks.len();
    let devices = u32::try_from(devices).unwrap_or(u32::MAX);
    let Span { low, high } = SWITCHOVER_UNKNOWN;
    Span { low: low + PLUG.low * devices, high: high + PLUG.high * devices }
}

/// What the guest writes while it may be slowed down as far as was allowed, in parts of what the
/// link carries of it; none: not known.
fn written_share(question: &Question<'_>) -> Option<f64> {
    let (dirty, link) = (question.load.dirty_rate?, question.link.rate?);
    // Of what was saved in earlier migrations, the least: one that could end is not refused.
    let share = question.load.learned.wire_share.map_or(1.0, |share| share.low.max(SHARE_MIN.low));
    let running = 1.0 - f64::from(question.bargain.slowdown_percent_max) / 100.0;
    Some(as_f64(dirty) * running * share / as_f64(link).max(1.0))
}

fn convergence(question: &Question<'_>, is_running: bool) -> Convergence {
    if !is_running {
        return Convergence::Certain;
    }
    match written_share(question) {
        None => Convergence::Unknown,
        Some(share) if share * DIRTY_GROWTH < SHARE_CAUGHT_UP => Convergence::Certain,
        Some(share) if share < SHARE_CAUGHT_UP => Convergence::Likely,
        Some(_) => Convergence::Unlikely,
    }
}

/// Returns what the forecast means for the bargain. A miss that is certain is refused where it
/// would end in a cancelled migration anyway.
pub(super) fn findings(question: &Question<'_>, forecast: &Forecast) -> Vec<Finding> {
    let would_be_cancelled = question.bargain.on_miss == OnMiss::Cancel && !question.may_miss;
    let finding = |is_certain: bool, code, text, remedy| match is_certain && would_be_cancelled {
        true => Finding::blocker(code, text, remedy),
        false => Finding::warning(code, text, remedy),
    };
    let mut findings = Vec::new();
    let share = written_share(question).filter(|_| forecast.convergence == Convergence::Unlikely);
    if let Some(share) = share {
        let text = never_ends(question);
        findings.push(finding(share > 1.0, codes::PLAN_CONVERGENCE, text, help(question, share)));
    }
    let deadline = question.bargain.deadline;
    if forecast.total.low > deadline {
        let low = format_duration(forecast.total.low);
        let text = format!(
            "it takes {low} at the least, and the deadline is {}",
            format_duration(deadline)
        );
        let remedy = format!(
            "give it longer: `whimbrel migrate {} {} --deadline {}m`",
            question.guest_name(),
            question.target_name(),
            forecast.total.high.as_secs() / 60 + 1
        );
        findings.push(finding(true, codes::PLAN_DEADLINE, text, remedy));
    }
    findings
}

fn never_ends(question: &Question<'_>) -> String {
    let unknown = Bytes(0);
    format!(
        "`{}` writes {}/s and the link carries {}/s: it may never end",
        question.guest_name(),
        question.load.dirty_rate.unwrap_or(unknown),
        question.link.rate.unwrap_or(unknown)
    )
}

/// What would end a migration whose guest writes `share` of what the link carries.
fn help(question: &Question<'_>, share: f64) -> String {
    let migrate = format!("`whimbrel migrate {} {}", question.guest_name(), question.target_name());
    let allowed = f64::from(question.bargain.slowdown_percent_max) / 100.0;
    let slowdown = 1.0 - SHARE_CAUGHT_UP * (1.0 - allowed) / share;
    let percent = (slowdown * 100.0).ceil();
    let slower = (percent <= SLOWDOWN_MAX_PERCENT).then(|| {
        format!("allow the guest to be slowed down: {migrate} --max-slowdown {percent}%`; ")
    });
    format!(
        "{}let it stand still for longer: {migrate} --on-miss pause`; or all the time: {migrate} \
         --stop-and-copy`; or use a faster link",
        slower.unwrap_or_default()
    )
}

fn as_f64(bytes: Bytes) -> f64 {
    bytes.0 as f64
}

#[expect(clippy::cast_possible_truncation, reason = "a forecast is not exact to the byte")]
fn as_bytes(size: f64) -> Bytes {
    Bytes(size as u64)
}
