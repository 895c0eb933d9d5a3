// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How fast the link takes pages and how fast the guest writes them, from one look to the next.
//!
//! - What the link takes is how fast the remainder shrinks within a pass: that counts pages of the
//!   guest, whatever becomes of them on the way. In the first pass many pages are empty and cost
//!   nothing, and what is sent once compresses better than what is written again and again: there
//!   the engine's own figure stands, and what was measured of the link before.
//! - What the guest writes is what one pass leaves for the next. The engine's figure is of its last
//!   period, and the larger of both counts; what it wrote in the second before it was moved is
//!   forgotten slowly, because a long pass says little about short ones. Slowed down, a guest
//!   writes less than it would: what is kept here is what it would write.

use crate::Look;
use crate::forecast::Flow;
use std::time::Duration;
use whimbrel_model::units::Bytes;

/// The weight of a new figure against all that came before. A moment in which nothing had to
/// travel, because the target held it, says little: some seconds count.
const RATE_WEIGHT: f64 = 0.1;
const DIRTY_WEIGHT: f64 = 0.6;
/// Shorter passes say nothing about how much a guest writes.
const PASS_MIN: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    last: Option<Look>,
    link_rate: Option<Bytes>,
    rate: f64,
    /// Has been measured where empty pages do not count.
    is_rate_real: bool,
    dirty: f64,
    pass_began: Duration,
}

impl Pace {
    /// Begins with what is known of the link, and of what the guest wrote before.
    pub(crate) fn new(link_rate: Option<Bytes>, dirty_before: Option<Bytes>) -> Self {
        Self { link_rate, dirty: dirty_before.map_or(0.0, as_f64), ..Self::default() }
    }

    /// Takes in a look. While the engine is `held_back` it does not say what the link takes.
    pub(crate) fn on_look(&mut self, look: &Look, held_back: bool) {
        if let Some(last) = self.last.filter(|last| last.is_link_up && look.is_link_up) {
            if !held_back {
                self.note_rate(&last, look);
            }
            if look.round > last.round {
                self.note_dirty(&last, look);
            }
        }
        if look.round > self.last.map_or(0, |last| last.round) {
            self.pass_began = look.elapsed;
        }
        self.last = Some(*look);
    }

    fn note_rate(&mut self, last: &Look, look: &Look) {
        let seconds = look.elapsed.saturating_sub(last.elapsed).as_secs_f64();
        let sent = last.remaining.0.saturating_sub(look.remaining.0);
        let is_within_pass = look.round == last.round && look.round > 1;
        match (is_within_pass && seconds > 0.0 && sent > 0, self.is_rate_real) {
            (true, is_real) if self.rate > 0.0 => {
                if !is_real {
                    self.rate = self.link_rate.map_or(self.rate, as_f64);
                }
                self.rate += RATE_WEIGHT * (as_f64(Bytes(sent)) / seconds - self.rate);
                self.is_rate_real = true;
            }
            (true, _) => self.rate = as_f64(Bytes(sent)) / seconds,
            (false, false) if look.rate > Bytes(0) => self.rate = as_f64(look.rate),
            (false, _) => {}
        }
    }

    fn note_dirty(&mut self, last: &Look, look: &Look) {
        let took = look.elapsed.saturating_sub(self.pass_began);
        // An engine asks for what was written before it has sent the last of the pass.
        let since = look.elapsed.saturating_sub(last.elapsed).as_secs_f64();
        let unsent = (as_f64(last.remaining) - self.rate * since).max(0.0);
        let left = match took >= PASS_MIN && look.round == last.round + 1 {
            true => (as_f64(look.remaining) - unsent).max(0.0) / took.as_secs_f64(),
            false => 0.0,
        };
        let seen = left.max(as_f64(look.dirty_rate));
        if seen <= 0.0 {
            return;
        }
        let free = seen / (1.0 - f64::from(last.throttle_percent.min(99)) / 100.0);
        self.dirty = match self.dirty > 0.0 {
            true => self.dirty + DIRTY_WEIGHT * (free - self.dirty),
            false => free,
        };
    }

    /// Bytes a second, of pages.
    pub(crate) fn rate(&self) -> Bytes {
        as_bytes(self.rate)
    }

    /// How fast pages travel that the guest writes again and again.
    pub(crate) fn rate_of_last_pages(&self) -> Option<Bytes> {
        if self.is_rate_real { Some(self.rate()) } else { self.link_rate }
    }

    /// Bytes a second the guest would write if it were not slowed down.
    pub(crate) fn dirty(&self) -> Bytes {
        as_bytes(self.dirty)
    }

    pub(crate) fn pass_began(&self) -> Duration {
        self.pass_began
    }

    /// How it goes on if the guest is not slowed down and stands still for `pause`.
    pub(crate) fn flow(&self, look: &Look, pause: Duration) -> Flow {
        Flow {
            remaining: as_f64(look.remaining),
            rate: self.rate,
            dirty: if look.is_running { self.dirty } else { 0.0 },
            fits: self.rate * pause.as_secs_f64(),
        }
    }

    /// How long so much takes.
    pub(crate) fn time(&self, size: Bytes) -> Option<Duration> {
        (self.rate > 0.0)
            .then(|| Duration::try_from_secs_f64(as_f64(size) / self.rate).ok())
            .flatten()
    }
}

fn as_f64(bytes: Bytes) -> f64 {
    bytes.0 as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturating is right for a figure that is measured"
)]
pub(crate) fn as_bytes(size: f64) -> Bytes {
    Bytes(size as u64)
}
