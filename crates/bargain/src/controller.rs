// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Decides at each look what to do next.
//!
//! Whether it goes well is asked at every look: does the forecast end before the deadline, with the
//! pause that was promised? Where it does not, and that is so for two passes, the guest is slowed
//! down as far as it may be. A guest works in waves, so a bad forecast is no miss yet: an engine
//! switches over by itself in a quiet moment. But patience ends at a fifth of the time, so that who
//! waits learns of it while there is time for something else.
//!
//! Forecasts are too good where a guest writes the same pages again and again: a short pass finds
//! more than its share. So trouble is over only when passes really begin with less than before.

use crate::choosing::stands_too_long;
use crate::forecast::Flow;
use crate::hold::{self, Hold, NO_PAUSE};
use crate::pace::{Pace, as_bytes};
use crate::words::{self, Figures, Missed};
use crate::{Advice, Allowance, Look, Miss, Step, Terms};
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;
use whimbrel_model::plan::{OnMiss, Span};
use whimbrel_model::units::Bytes;

/// Passes with a bad forecast until the guest is slowed down, and until it is slowed down more.
const PATIENT_ROUNDS: u64 = 2;
/// From this share of the time on, it is slowed down as far as may be at once.
const HURRY_AT: f64 = 0.12;
/// From this share on a bad forecast is a miss; and later, one that lasts as long.
const MISS_AT: f64 = 0.20;
const MISS_BEFORE: f64 = 0.25;
/// So much more may a guest write than it seems to, from then on.
const DOUBT: f64 = 1.05;
/// Passes that are remembered; one half of them is compared with the other.
const STARTS: usize = 12;
/// Passes that begin with less than this share of what others did shrink.
const SHRINKS_BELOW: f64 = 0.75;
/// The least by which the guest is slowed down further.
const THROTTLE_STEP: u8 = 10;
/// What a guest can bear: with less time, its processors answer the engine late, and passes take
/// longer than what they send.
const THROTTLE_BEARABLE: u8 = 90;
/// More stops the guest altogether, and engines refuse it.
const THROTTLE_MAX: u8 = 99;
/// An engine takes what it has just sent in a moment for what the link carries, and makes a pause
/// by that. So it may not send much more than that when the end is near.
const BURST: f64 = 1.25;
/// A guest that writes less than this part of what the link carries writes little.
const WRITES_LITTLE: u64 = 10;
/// So many times what fits into the pause is near.
const NEAR: f64 = 6.0;
/// So much of a pause must be left for pages, whatever else costs time.
const PAGES_SHARE: u32 = 4;
/// A pause that everything fits into.
const ANY_PAUSE: Duration = Duration::from_secs(2000);
/// What a figure may be off by, either way.
const OPTIMIST: f64 = 0.8;
const PESSIMIST: f64 = 1.3;
/// The same while nobody knows what the guest writes.
const UNKNOWING: f64 = 1.7;

/// Looks after one migration.
#[derive(Clone, Debug)]
pub struct Controller {
    terms: Terms,
    allowance: Allowance,
    pace: Pace,
    hold: Hold,
    round: u64,
    /// What the last passes began with, the newest last; without the first, which is everything.
    starts: VecDeque<Bytes>,
    trouble: Option<Trouble>,
    throttle: u8,
    miss: Option<Miss>,
    /// The pause after a miss, where that may be longer.
    overtime: Option<Duration>,
}

/// The forecast is bad.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    /// Since this pass, or since something was done about it.
    round: u64,
    at: Duration,
    /// What that pass began with.
    start: Option<Bytes>,
}

impl Controller {
    pub fn new(terms: Terms) -> Self {
        let pause = usable_pause(&terms);
        let allowance =
            if terms.is_emulated { Allowance::at_once(pause) } else { Allowance::new(pause) };
        let hold = if terms.is_held { Hold::Converging } else { Hold::Not };
        Self {
            allowance,
            pace: Pace::new(terms.link_rate, terms.dirty_before),
            terms,
            hold,
            round: 0,
            starts: VecDeque::new(),
            trouble: None,
            throttle: 0,
            miss: None,
            overtime: None,
        }
    }

    /// The pause and the bandwidth to begin with.
    pub fn first(&self) -> (Duration, Option<Bytes>) {
        (if self.hold.is_held() { NO_PAUSE } else { self.allowance.now() }, self.terms.bandwidth)
    }

    /// Whether it waits to be told.
    pub fn is_held(&self) -> bool {
        self.hold.is_held()
    }

    /// The word has come: from now on it ends as soon as the bargain allows.
    pub fn cut_over(&mut self, elapsed: Duration) {
        if self.hold.is_held() {
            self.hold = Hold::Cut { at: elapsed };
            self.allowance = Allowance::at_once(usable_pause(&self.terms));
            self.trouble = None;
        }
    }

    /// Takes in how it stands.
    pub fn look(&mut self, look: &Look) -> Advice {
        self.pace.on_look(look, self.bandwidth(look).is_some() && self.hold.is_held());
        self.allowance.on_round(look.round);
        let is_new_round = look.round > self.round;
        if is_new_round {
            self.note_round(look);
        }
        let it = self.figures(look);
        let is_fine = self.is_fine(look);
        if self.hold == Hold::Converging && look.round > 1 && it.pause_now <= self.pause_max() {
            self.hold = Hold::Converged;
        }
        if self.terms.chooses_pause {
            self.judge_choosing(look, &it);
        } else if look.is_link_up && self.hold != Hold::Converged && self.miss.is_none() {
            self.judge(look, &it, is_fine);
        }
        let step = self.step(look, is_new_round);
        Advice {
            allowance: self.pause_allowed(),
            bandwidth: self.bandwidth(look),
            throttle_percent: self.throttle,
            step,
            miss: self.miss.clone(),
            eta: self.eta(look),
            pause_now: it.pause_now,
            reason: match (step, look.is_link_up) {
                (_, false) => "the link was lost; it goes on as soon as there is one".to_owned(),
                (Step::Hold, true) => words::held(&self.terms, &it),
                (Step::GoOn | Step::Cancel | Step::Postcopy, true) => {
                    words::reason(&self.terms, &it, is_fine)
                }
            },
        }
    }

    fn note_round(&mut self, look: &Look) {
        self.round = look.round;
        if look.round > 1 {
            if self.starts.len() == STARTS {
                self.starts.pop_front();
            }
            self.starts.push_back(look.remaining);
        }
    }

    /// The least that a pass began with, lately.
    fn best(&self) -> Option<Bytes> {
        self.starts.iter().min().copied()
    }

    /// Whether passes have stopped to shrink.
    fn is_stuck(&self) -> bool {
        let least = |some: Range<usize>| self.starts.range(some).min().copied();
        let is_full = self.starts.len() == STARTS;
        is_full && self.shrinks_not(least(0..STARTS / 2), least(STARTS / 2..STARTS))
    }

    /// Whether `new` passes begin with about as much as `old` ones did, beyond what fits into the
    /// pause: an engine asks for more as soon as the rest does.
    fn shrinks_not(&self, old: Option<Bytes>, new: Option<Bytes>) -> bool {
        let fits = self.pace.rate().0 as f64 * self.allowance.now().as_secs_f64();
        let beyond = |start: Bytes| (start.0 as f64 - fits).max(0.0);
        old.zip(new).is_some_and(|(old, new)| beyond(new) > beyond(old) * SHRINKS_BELOW)
    }

    /// Does it end in time, with the pause that was promised?
    fn is_fine(&self, look: &Look) -> bool {
        let is_unknown = self.pace.rate() == Bytes(0);
        is_unknown || self.ends_in(look).is_some_and(|time| time <= self.time_left(look))
    }

    fn ends_in(&self, look: &Look) -> Option<Duration> {
        let slowdown = match look.round {
            // Nobody slows a guest down in the first pass; but it will be.
            ..=1 if self.terms.can_throttle => self.terms.bargain.slowdown_percent_max,
            _ => self.throttle,
        };
        let flow = self.pace.flow(look, usable_pause(&self.terms)).throttled(slowdown);
        // The time to doubt is while there is time for something else.
        let doubt = if self.share_of_time(self.time_spent(look)) >= MISS_AT { DOUBT } else { 1.0 };
        Flow { dirty: flow.dirty * doubt, ..flow }.ends_in()
    }

    fn judge(&mut self, look: &Look, it: &Figures, is_fine: bool) {
        if self.time_left(look) == Duration::ZERO {
            return self.call(look, it, Missed::Deadline);
        }
        let start = self.starts.back().copied();
        let shrinks = self.trouble.is_none_or(|trouble| !self.shrinks_not(trouble.start, start));
        if is_fine && !self.is_stuck() && shrinks {
            self.trouble = None;
            return;
        }
        let now = Trouble { round: look.round, at: look.elapsed, start };
        let trouble = *self.trouble.get_or_insert(now);
        let share = self.share_of_time(self.time_spent(look));
        let may_throttle = self.terms.can_throttle && look.round > 1 && look.is_running;
        let most = self.terms.bargain.slowdown_percent_max;
        if may_throttle && self.throttle < most {
            if share >= HURRY_AT {
                self.throttle = most;
                self.trouble = Some(now);
            } else if look.round >= trouble.round + PATIENT_ROUNDS {
                self.throttle_more(look, most);
                self.trouble = Some(now);
            }
            return;
        }
        // What was just done about it is given a pass.
        let is_bad = !is_fine || look.round > trouble.round;
        let lasted = self.share_of_time(look.elapsed.saturating_sub(trouble.at));
        if is_bad && (MISS_AT..MISS_BEFORE).contains(&share) || lasted >= MISS_AT {
            let is_slow_link = self.pace.flow(look, Duration::ZERO).throttled(100).ends_in();
            let is_slow_link = is_slow_link.is_none_or(|time| time > self.time_left(look));
            let missed = if is_slow_link { Missed::Time } else { Missed::Writes };
            self.call(look, it, missed);
        }
    }

    /// Beside an engine that chooses its pause; see [`crate::choosing`].
    fn judge_choosing(&mut self, look: &Look, it: &Figures) {
        if self.miss.is_some() {
            return;
        }
        if look.is_running && self.time_left(look) == Duration::ZERO {
            return self.call(look, it, Missed::Deadline);
        }
        self.miss = stands_too_long(&self.terms, look.elapsed, look.stood);
    }

    fn throttle_more(&mut self, look: &Look, most: u8) {
        let needed = self.pace.flow(look, usable_pause(&self.terms)).throttle_needed();
        let more = self.throttle.saturating_add(THROTTLE_STEP);
        self.throttle = needed.max(more).min(most);
    }

    fn call(&mut self, look: &Look, it: &Figures, missed: Missed) {
        self.trouble = None;
        self.miss = Some(Miss {
            at: look.elapsed,
            text: words::text(&self.terms, it, missed),
            remedy: words::remedy(&self.terms, it, missed),
        });
        if self.terms.bargain.on_miss == OnMiss::Pause {
            let pause = it.pause_best.unwrap_or_default().saturating_sub(self.terms.switchover);
            self.overtime = Some((pause + pause / 8).max(usable_pause(&self.terms)));
        }
    }

    /// Returns what follows from all that.
    fn step(&mut self, look: &Look, is_new_round: bool) -> Step {
        if self.miss.is_some() {
            match self.terms.bargain.on_miss {
                OnMiss::Cancel => return Step::Cancel,
                OnMiss::Throttle | OnMiss::Postcopy if self.terms.chooses_pause => {
                    return Step::Cancel;
                }
                OnMiss::Pause => self.pause_more(look, is_new_round),
                OnMiss::Throttle if self.time_left(look) == Duration::ZERO => return Step::Cancel,
                OnMiss::Throttle => self.throttle_further(look),
                // What is left then is written no more, and sent once.
                OnMiss::Postcopy if !self.follows_in_time(look) => return Step::Cancel,
                OnMiss::Postcopy if look.is_link_up && look.is_running => return Step::Postcopy,
                OnMiss::Postcopy => {}
            }
        }
        if self.hold == Hold::Converged { Step::Hold } else { Step::GoOn }
    }

    /// Whether what is missing on the target would be there before the deadline, if nothing more
    /// were written here. Of this pass, no more can be missing than it has sent.
    fn follows_in_time(&self, look: &Look) -> bool {
        let since = look.elapsed.saturating_sub(self.pace.pass_began());
        let (rate, dirty) = (self.pace.rate(), self.pace.dirty());
        let again = Figures::written(Bytes(rate.0.min(dirty.0)), since);
        let missing = Bytes(look.remaining.0.saturating_add(again.0));
        self.pace.time(missing).is_some_and(|time| time <= self.time_left(look))
    }

    /// However slow the guest becomes: more with every few passes that do not shrink.
    fn throttle_further(&mut self, look: &Look) {
        let start = self.starts.back().copied();
        let now = Trouble { round: look.round, at: look.elapsed, start };
        let most = match self.throttle {
            ..THROTTLE_BEARABLE => THROTTLE_BEARABLE,
            _ => THROTTLE_MAX,
        };
        let Some(last) = self.trouble else {
            self.throttle_more(look, most);
            self.trouble = Some(now);
            return;
        };
        if look.round >= last.round + PATIENT_ROUNDS {
            let stays = last.start.is_none() || self.shrinks_not(last.start, start);
            if stays && self.terms.can_throttle {
                self.throttle_more(look, most);
            }
            self.trouble = Some(now);
        }
    }

    /// A longer pause is what was asked for: the shortest that was seen, and more if that does not
    /// come again; whatever it takes when the time is up.
    fn pause_more(&mut self, look: &Look, is_new_round: bool) {
        let Some(overtime) = &mut self.overtime else { return };
        if is_new_round {
            *overtime = overtime.saturating_mul(3) / 2;
        }
        let last = self.pace.time(look.remaining).unwrap_or_default();
        if self.time_left(look) <= last {
            self.overtime = Some(ANY_PAUSE);
        }
    }

    fn pause_allowed(&self) -> Duration {
        match self.overtime {
            _ if self.hold.is_held() => NO_PAUSE,
            Some(overtime) => overtime.min(ANY_PAUSE),
            None => self.allowance.now(),
        }
    }

    fn bandwidth(&self, look: &Look) -> Option<Bytes> {
        let held = match self.hold.is_held() && look.is_running {
            true => {
                let start = self.starts.back().copied().unwrap_or(look.remaining);
                hold::bandwidth(look.round, start, look.remaining, self.pace.rate())
            }
            false => self.near_the_end(look),
        };
        [held, self.terms.bandwidth].into_iter().flatten().min()
    }

    fn near_the_end(&self, look: &Look) -> Option<Bytes> {
        let is_bound = look.is_running && self.overtime.is_none();
        let rate = self.pace.rate_of_last_pages().filter(|_| is_bound)?;
        if look.round <= 1 && self.pace.dirty().0 < rate.0 / WRITES_LITTLE {
            // Whatever it has written fits, and the end of the first pass need not take longer.
            return None;
        }
        let fits = rate.0 as f64 * self.allowance.now().as_secs_f64();
        let is_near = look.remaining.0 as f64 <= fits * NEAR;
        is_near.then(|| as_bytes(rate.0 as f64 * BURST))
    }

    fn eta(&self, look: &Look) -> Option<Span<Duration>> {
        if self.hold.is_held() || self.pace.rate() == Bytes(0) {
            return None;
        }
        let likely = self.ends_in(look)?;
        let high = if look.round <= 1 && look.is_running { UNKNOWING } else { PESSIMIST };
        let high = likely.mul_f64(high).min(self.time_left(look).max(likely));
        Some(Span { low: likely.mul_f64(OPTIMIST), high })
    }

    fn figures(&self, look: &Look) -> Figures {
        let (rate, dirty) = (self.pace.rate(), self.pace.dirty());
        let since = look.elapsed.saturating_sub(self.pace.pass_began());
        let written = match (look.is_running, self.best()) {
            (false, _) => Bytes(0),
            // More than it wrote in a whole pass is not to be expected.
            (true, Some(most)) => Figures::written(dirty, since).min(most),
            (true, None) => Figures::written(dirty, since),
        };
        let pause = |size: Bytes| Figures::pause(&self.terms, size.0 as f64, rate);
        let start = self.starts.back().copied().unwrap_or(look.remaining).max(look.remaining);
        let pause_now = pause(Bytes(look.remaining.0.saturating_add(written.0)));
        Figures {
            round: look.round,
            remaining: look.remaining,
            rate,
            dirty: Bytes(dirty.0 / 100 * u64::from(100 - self.throttle.min(99))),
            throttle_percent: self.throttle,
            pause_now,
            pause_best: self.best().map(pause),
            // Of a whole pass: what is left of this one says little about the next.
            flow: Flow {
                remaining: start.0 as f64,
                ..self.pace.flow(look, usable_pause(&self.terms))
            },
            time_left: self.time_left(look),
        }
    }

    fn pause_max(&self) -> Duration {
        self.terms.bargain.pause_max
    }

    /// When the clock began that the deadline is for.
    fn time_spent(&self, look: &Look) -> Duration {
        match self.hold {
            Hold::Cut { at } => look.elapsed.saturating_sub(at),
            Hold::Not | Hold::Converging | Hold::Converged => look.elapsed,
        }
    }

    fn time_left(&self, look: &Look) -> Duration {
        match self.hold {
            Hold::Converged => Duration::MAX / 4,
            _ => self.terms.bargain.deadline.saturating_sub(self.time_spent(look)),
        }
    }

    fn share_of_time(&self, time: Duration) -> f64 {
        time.as_secs_f64() / self.terms.bargain.deadline.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// What is left of the promised pause for pages.
fn usable_pause(terms: &Terms) -> Duration {
    let promised = terms.bargain.pause_max;
    promised.saturating_sub(terms.switchover).max(promised / PAGES_SHARE)
}
