// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What is said: why it is still running, why it cannot be kept, and what would help.

use crate::Terms;
use crate::forecast::Flow;
use crate::pace::as_bytes;
use std::time::Duration;
use whimbrel_model::units::{Bytes, format_duration};

/// The figures that words are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) round: u64,
    pub(crate) remaining: Bytes,
    pub(crate) rate: Bytes,
    pub(crate) dirty: Bytes,
    pub(crate) throttle_percent: u8,
    pub(crate) pause_now: Duration,
    /// The shortest pause that a pass has ended with, lately.
    pub(crate) pause_best: Option<Duration>,
    pub(crate) flow: Flow,
    pub(crate) time_left: Duration,
}

/// Which part of the bargain cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// The link is too slow for what has to be sent once.
    Time,
    /// The guest writes faster than it is sent.
    Writes,
    /// The time is over.
    Deadline,
}

pub(crate) fn reason(terms: &Terms, it: &Figures, is_fine: bool) -> String {
    let guest = &terms.guest;
    if terms.chooses_pause && it.round > 1 {
        let (dirty, rate) = (it.dirty, it.rate);
        return format!(
            "round {}: {guest} writes {dirty}/s, the link carries {rate}/s; the engine chooses when \
             to stop it",
            it.round
        );
    }
    if it.round <= 1 {
        return match it.rate {
            Bytes(0) => "every page is sent once".to_owned(),
            rate => format!("every page is sent once; the link carries {rate}/s"),
        };
    }
    let slowed = slowed(it.throttle_percent);
    let rates = format!("{guest} writes {}/s, the link carries {}/s{slowed}", it.dirty, it.rate);
    match is_fine {
        true => {
            let pause = format_duration(it.pause_now);
            format!("round {}: {rates}; the pause would be {pause} now", it.round)
        }
        false => format!("{rates}; {}", help(terms, it)),
    }
}

pub(crate) fn held(terms: &Terms, it: &Figures) -> String {
    let pause = format_duration(it.pause_now);
    format!("held: `whimbrel cutover {}` moves it with a pause of about {pause}", terms.guest)
}

pub(crate) fn text(terms: &Terms, it: &Figures, missed: Missed) -> String {
    let guest = &terms.guest;
    let deadline = format_duration(terms.bargain.deadline);
    match missed {
        Missed::Time => {
            let least = it.flow.ends_in().map_or_else(|| "too long".to_owned(), format_duration);
            format!(
                "{} of `{guest}` remain and the link carries {}/s: that takes {least} at the \
                 least, and the deadline is {deadline}",
                it.remaining, it.rate
            )
        }
        Missed::Writes => {
            let pause = it.pause_best.map(|pause| {
                let promised = format_duration(terms.bargain.pause_max);
                format!(
                    ": the pause would be {}, and {promised} was promised",
                    format_duration(pause)
                )
            });
            format!(
                "`{guest}` writes {}/s and the link carries {}/s{}{}",
                it.dirty,
                it.rate,
                slowed(it.throttle_percent),
                pause.unwrap_or_default()
            )
        }
        Missed::Deadline => format!(
            "the deadline of {deadline} is over and {} of `{guest}` remain (it writes {}/s, the \
             link carries {}/s)",
            it.remaining, it.dirty, it.rate
        ),
    }
}

/// Says what would help, with the outcome.
pub(crate) fn remedy(terms: &Terms, it: &Figures, missed: Missed) -> String {
    match missed {
        Missed::Time => {
            let needed = it.flow.ends_in().unwrap_or(terms.bargain.deadline) * 2;
            format!("give it more time: `--deadline {}`", round_up_time(needed))
        }
        Missed::Writes | Missed::Deadline => {
            format!("{}; or try when it writes less", help(terms, it))
        }
    }
}

fn help(terms: &Terms, it: &Figures) -> String {
    let mut ways = Vec::new();
    let percent = it.flow.throttle_needed().div_ceil(10) * 10;
    let asked = terms.bargain.slowdown_percent_max.max(it.throttle_percent);
    let time = it.flow.throttled(percent).ends_in().filter(|time| *time <= it.time_left);
    if let Some(time) = time.filter(|_| percent > asked && percent < 100) {
        let time = format_duration(time.max(Duration::from_secs(1)));
        ways.push(format!("with `--max-slowdown {percent}%` it would end in about {time}"));
    }
    if let Some(best) = it.pause_best.filter(|best| *best > terms.bargain.pause_max) {
        let pause = round_up_pause(best + best / 4);
        ways.push(format!("with `--max-pause {pause}` it would end soon"));
    }
    match ways.is_empty() {
        true => "nothing but `--stop-and-copy` would end it".to_owned(),
        false => ways.join(", "),
    }
}

fn slowed(percent: u8) -> String {
    match percent {
        0 => String::new(),
        percent => format!(" (slowed down by {percent} %)"),
    }
}

/// Returns a pause as one would type it, not shorter.
pub(crate) fn round_up_pause(pause: Duration) -> String {
    match pause.as_millis() {
        ms @ 0..1000 => format!("{}ms", ms.div_ceil(50) * 50),
        ms => format!("{}s", ms.div_ceil(1000)),
    }
}

/// The same of a longer time.
fn round_up_time(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{}s", seconds.div_ceil(10).max(1) * 10),
        seconds => format!("{}m", seconds.div_ceil(60)),
    }
}

impl Figures {
    /// What a pause of `remaining` takes.
    pub(crate) fn pause(terms: &Terms, size: f64, rate: Bytes) -> Duration {
        let seconds = if rate.0 == 0 { 0.0 } else { size / rate.0 as f64 };
        terms.switchover + Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX / 4)
    }

    /// What was written since `since`, at the most.
    pub(crate) fn written(dirty: Bytes, since: Duration) -> Bytes {
        as_bytes(dirty.0 as f64 * since.as_secs_f64())
    }
}
