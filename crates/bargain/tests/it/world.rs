// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A guest, a link, and an engine that copies as QEMU does, in steps of a hundredth of a second.
//!
//! The guest writes to random pages of a hot part of its memory, so that what it has written since
//! a moment approaches that part. The engine sends what it knows of; when that fits into the pause
//! it asks what was written meanwhile, and if all of it fits, it switches over.

use crate::traces::Trace;
use std::time::Duration;
use whimbrel_bargain::{Advice, Look, Step};
use whimbrel_model::units::Bytes;

const STEP: f64 = 0.01;
/// QEMU tells how much is written once a second at most.
const PERIOD_MIN: f64 = 1.0;
/// A page in each tenth of a second is the least that QEMU sends.
const LEAST: f64 = 40_960.0;
/// What a switchover costs besides pages, here.
pub(crate) const SWITCHOVER: f64 = 0.04;
/// Whoever is not done by then never is.
const NEVER: f64 = 4.0 * 3600.0;

/// What an engine is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orders {
    pub(crate) pause: f64,
    pub(crate) bandwidth: Option<f64>,
    pub(crate) throttle: u8,
    pub(crate) is_cancelled: bool,
}

impl Orders {
    pub(crate) fn of(advice: &Advice) -> Self {
        Self {
            pause: advice.allowance.as_secs_f64(),
            bandwidth: advice.bandwidth.map(|Bytes(bytes)| bytes as f64),
            throttle: advice.throttle_percent,
            // What is not pre-copy any more is not simulated here.
            is_cancelled: matches!(advice.step, Step::Cancel | Step::Postcopy),
        }
    }
}

/// Whoever looks after a migration.
pub(crate) trait Policy {
    /// Seconds between two looks.
    fn every(&self) -> f64 {
        0.2
    }
    fn look(&mut self, look: &Look) -> Orders;
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    Moved { at: f64, pause: f64 },
    Cancelled { at: f64 },
    Never,
}

/// Moves the guest of `trace`.
pub(crate) fn run(trace: &Trace, policy: &mut dyn Policy) -> End {
    World::new(trace).run(policy)
}

/// What the plan would measure: the pages that are written in the first second.
pub(crate) fn written_before(trace: &Trace) -> Bytes {
    let load = (trace.load)(0.0);
    bytes(load.hot * (1.0 - (-load.writes / load.hot).exp()))
}

struct World<'a> {
    trace: &'a Trace,
    time: f64,
    round: u64,
    /// Known to be still to send, how much of it is of the hot part, and what was written since the
    /// engine has asked.
    remaining: f64,
    hot: f64,
    written: f64,
    asked_at: f64,
    dirty_rate: f64,
    rate: f64,
    orders: Orders,
}

impl<'a> World<'a> {
    fn new(trace: &'a Trace) -> Self {
        let orders = Orders { pause: 0.0, bandwidth: None, throttle: 0, is_cancelled: false };
        World {
            trace,
            time: 0.0,
            round: 1,
            remaining: trace.memory,
            hot: (trace.load)(0.0).hot,
            written: 0.0,
            asked_at: 0.0,
            dirty_rate: 0.0,
            rate: 0.0,
            orders,
        }
    }

    fn run(mut self, policy: &mut dyn Policy) -> End {
        let mut next_look = 0.0;
        while self.time < NEVER {
            if self.time >= next_look {
                self.orders = policy.look(&self.look());
                next_look = self.time + policy.every();
                if self.orders.is_cancelled {
                    return End::Cancelled { at: self.time };
                }
            }
            if let Some(pause) = self.step() {
                return End::Moved { at: self.time, pause };
            }
        }
        End::Never
    }

    fn look(&self) -> Look {
        Look {
            elapsed: Duration::from_secs_f64(self.time),
            round: self.round,
            remaining: bytes(self.remaining),
            rate: bytes(self.rate),
            dirty_rate: bytes(self.dirty_rate),
            throttle_percent: self.orders.throttle,
            is_link_up: (self.trace.link)(self.time) > 0.0,
            is_running: true,
            stood: Duration::ZERO,
        }
    }

    /// Returns the pause, if it came to that.
    fn step(&mut self) -> Option<f64> {
        let link = (self.trace.link)(self.time);
        self.rate = self.orders.bandwidth.map_or(link, |limit| limit.max(LEAST).min(link));
        let load = (self.trace.load)(self.time);
        let free = 1.0 - f64::from(self.orders.throttle) / 100.0;
        let hot = load.hot.max(1.0);
        let fresh = (1.0 - self.written / hot).max(0.0);
        self.written += load.writes * free * STEP * fresh;
        let sent = (self.rate * STEP).min(self.remaining);
        self.hot -= sent * self.hot / self.remaining.max(1.0);
        self.remaining -= sent;
        self.time += STEP;
        let fits = self.rate * self.orders.pause;
        if self.rate <= 0.0 || (self.remaining >= fits && self.remaining > 0.0) {
            return None;
        }
        self.ask();
        let is_over = self.remaining == 0.0 || self.remaining < fits;
        is_over.then_some(self.remaining / self.rate + SWITCHOVER)
    }

    /// The engine asks what was written, and begins a pass.
    fn ask(&mut self) {
        let period = self.time - self.asked_at;
        if period >= PERIOD_MIN {
            self.dirty_rate = self.written / period;
            self.asked_at = self.time;
        }
        // What is still to be sent is not sent twice.
        let hot = (self.trace.load)(self.time).hot.max(1.0);
        let new = self.written * (1.0 - self.hot / hot).max(0.0);
        self.remaining = (self.remaining + new).min(self.trace.memory);
        self.hot = (self.hot + new).min(self.remaining);
        self.written = 0.0;
        self.round += 1;
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a simulated figure")]
pub(crate) fn bytes(size: f64) -> Bytes {
    Bytes(size as u64)
}
