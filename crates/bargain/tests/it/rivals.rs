// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The controller, and the rules of others, as policies of the simulated world.

use crate::traces::Trace;
use crate::world::{Orders, Policy, SWITCHOVER, bytes, written_before};
use std::time::Duration;
use whimbrel_bargain::{Advice, Controller, LOOK_EVERY, Look, Terms};
use whimbrel_model::plan::{Bargain, OnMiss};
use whimbrel_model::units::Bytes;

/// The bargain that every trace is held to.
pub(crate) const PAUSE: f64 = 0.3;
pub(crate) const DEADLINE: f64 = 600.0;

/// The controller, and the last thing it said.
pub(crate) struct Ours {
    pub(crate) controller: Controller,
    pub(crate) said: Option<Advice>,
    /// The most the guest was slowed down.
    pub(crate) throttled: u8,
    pub(crate) cut_at: Option<f64>,
}

impl Ours {
    pub(crate) fn new(trace: &Trace, slowdown_percent_max: u8, on_miss: OnMiss) -> Self {
        Self::with(trace, slowdown_percent_max, on_miss, |_| {})
    }

    pub(crate) fn with(
        trace: &Trace,
        slowdown_percent_max: u8,
        on_miss: OnMiss,
        change: impl FnOnce(&mut Terms),
    ) -> Self {
        let bargain = Bargain {
            pause_max: Duration::from_secs_f64(PAUSE),
            deadline: Duration::from_secs_f64(DEADLINE),
            slowdown_percent_max,
            on_miss,
        };
        let mut terms = Terms {
            guest: "web1".to_owned(),
            bargain,
            switchover: Duration::from_secs_f64(SWITCHOVER),
            bandwidth: None,
            link_rate: Some(bytes((trace.link)(0.0))),
            dirty_before: Some(written_before(trace)),
            is_held: false,
            is_emulated: false,
            can_throttle: true,
            chooses_pause: false,
        };
        change(&mut terms);
        Self { controller: Controller::new(terms), said: None, throttled: 0, cut_at: None }
    }
}

impl Policy for Ours {
    fn every(&self) -> f64 {
        if self.controller.is_held() { LOOK_EVERY.as_secs_f64() } else { 0.2 }
    }

    fn look(&mut self, look: &Look) -> Orders {
        if self.cut_at.is_some_and(|at| look.elapsed.as_secs_f64() >= at) {
            self.controller.cut_over(look.elapsed);
        }
        let advice = self.controller.look(look);
        self.throttled = self.throttled.max(advice.throttle_percent);
        let orders = Orders::of(&advice);
        self.said = Some(advice);
        orders
    }
}

const FREE: Orders = Orders { pause: 0.3, bandwidth: None, throttle: 0, is_cancelled: false };

/// QEMU as it comes (with its bandwidth set free): 300 ms, for as long as it takes.
pub(crate) struct Qemu;

impl Policy for Qemu {
    fn look(&mut self, _: &Look) -> Orders {
        FREE
    }
}

/// Proxmox VE: 100 ms, and twice as much after each six looks that found no less to send.
pub(crate) struct Doubling {
    pause: f64,
    last: Bytes,
    count: u32,
}

impl Default for Doubling {
    fn default() -> Self {
        Self { pause: 0.1, last: Bytes(u64::MAX), count: 0 }
    }
}

impl Policy for Doubling {
    fn every(&self) -> f64 {
        1.0
    }

    fn look(&mut self, look: &Look) -> Orders {
        self.count += u32::from(look.remaining > self.last);
        self.last = look.remaining;
        if self.count > 5 {
            self.count = 0;
            self.pause = (self.pause * 2.0).min(2000.0);
        }
        Orders { pause: self.pause, ..FREE }
    }
}
