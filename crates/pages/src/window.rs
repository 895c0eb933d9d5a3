// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How many bytes may be on their way between the two engines.
//!
//! Whatever waits in buffers when the guest stops is pause. So one direction of one channel keeps
//! at most what the other engine takes in 30 ms, plus what fits into the round trip, on its way:
//!
//! ```text
//!   window = rate x (30 ms + round trip),   128 KiB <= window <= 8 MiB
//! ```
//!
//! `rate` is the highest of the last few measured rates at which the other engine *accepted* bytes,
//! `round trip` the shortest of the last pings. While the window is too small, the measured rate is
//! window / round trip, so the window grows by (30 ms + round trip) / round trip each round trip,
//! and stops growing when the link is full: more bytes on their way would only wait.
//!
//! The upper bound is what the receiver keeps for an engine that does not read; it is part of the
//! protocol. Times are those since any moment the caller likes: this crate has no clock.

use std::collections::VecDeque;
use std::time::Duration;

/// Less would leave links idle between two acknowledgements.
pub const WINDOW_BYTES_MIN: u64 = 128 << 10;
/// More would cost memory at the receiver, and gains nothing below 2 Gbit/s.
pub const WINDOW_BYTES_MAX: u64 = 8 << 20;

/// What may wait at the receiving end.
const QUEUE: Duration = Duration::from_millis(30);
/// A rate is measured over at least this long.
const SAMPLE: Duration = Duration::from_millis(20);
/// A pause between bytes that is longer does not count for the rate.
const IDLE: Duration = Duration::from_millis(2);
/// So many rates and round trips are remembered.
const RATES_MAX: usize = 10;
const ROUND_TRIPS_MAX: usize = 10;

/// The window of one direction of one channel.
#[derive(Clone, Debug)]
pub struct Window {
    sent: u64,
    accepted: u64,
    accepted_at: Duration,
    sample_began: Duration,
    sample_accepted: u64,
    /// Bytes a second, newest last.
    rates: VecDeque<u64>,
    round_trips: VecDeque<Duration>,
}

impl Window {
    pub fn new(now: Duration) -> Self {
        Self {
            sent: 0,
            accepted: 0,
            accepted_at: now,
            sample_began: now,
            sample_accepted: 0,
            rates: VecDeque::with_capacity(RATES_MAX),
            round_trips: VecDeque::with_capacity(ROUND_TRIPS_MAX),
        }
    }

    /// Returns the bytes sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Returns the bytes accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Returns how many bytes may be sent now.
    pub fn room(&self) -> u64 {
        self.size().saturating_sub(self.sent - self.accepted)
    }

    /// Notes that so many bytes leave.
    pub fn send(&mut self, bytes: u64, now: Duration) {
        if self.sent == self.accepted && now.saturating_sub(self.accepted_at) > IDLE {
            // Nothing was on its way: the time since then says nothing about the link.
            self.sample_began = now;
            self.sample_accepted = self.accepted;
        }
        self.sent += bytes;
    }

    /// Takes an acknowledgement. Returns whether it made sense.
    pub fn accept(&mut self, total: u64, now: Duration) -> bool {
        if total < self.accepted || total > self.sent {
            return false;
        }
        self.accepted = total;
        self.accepted_at = now;
        let elapsed = now.saturating_sub(self.sample_began);
        if elapsed >= SAMPLE {
            let bytes = u128::from(self.accepted - self.sample_accepted);
            let rate = bytes * 1_000_000 / elapsed.as_micros();
            remember(&mut self.rates, RATES_MAX, u64::try_from(rate).unwrap_or(u64::MAX));
            self.sample_began = now;
            self.sample_accepted = self.accepted;
        }
        true
    }

    /// Takes a measured round trip.
    pub fn round_trip(&mut self, measured: Duration) {
        remember(&mut self.round_trips, ROUND_TRIPS_MAX, measured);
    }

    /// The shortest of the last round trips: what the link takes without queues.
    pub fn shortest_round_trip(&self) -> Option<Duration> {
        self.round_trips.iter().min().copied()
    }

    /// Returns how many bytes may be on their way.
    pub fn size(&self) -> u64 {
        let rate = u128::from(self.rates.iter().max().copied().unwrap_or(0));
        let time = QUEUE + self.shortest_round_trip().unwrap_or_default();
        let size = rate * time.as_micros() / 1_000_000;
        u64::try_from(size).unwrap_or(u64::MAX).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX)
    }
}

fn remember<T>(list: &mut VecDeque<T>, max: usize, value: T) {
    if list.len() == max {
        list.pop_front();
    }
    list.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as much as the window lets over a link of `rate` bytes a second and `round_trip`, and
    /// returns the window it settles at and the share of the link that was used at the end.
    fn settle(rate: u64, round_trip: Duration) -> (u64, f64) {
        let start = Duration::ZERO;
        let mut window = Window::new(start);
        window.round_trip(round_trip);
        let step = Duration::from_millis(1);
        let per_step = rate / 1000;
        let half = round_trip.as_millis() / 2;
        // What arrives at the link, and what comes back, each half a round trip later.
        let mut there: VecDeque<u64> = VecDeque::from(vec![0; usize::try_from(half).unwrap()]);
        let mut back = there.clone();
        let (mut queued, mut total, mut late_total) = (0u64, 0u64, 0u64);
        for tick in 0..4000u32 {
            let now = start + step * tick;
            let bytes = window.room();
            window.send(bytes, now);
            there.push_back(bytes);
            queued += there.pop_front().unwrap();
            let carried = queued.min(per_step);
            queued -= carried;
            back.push_back(carried);
            total += back.pop_front().unwrap();
            assert!(window.accept(total, now));
            late_total += if tick >= 3000 { carried } else { 0 };
        }
        #[allow(clippy::cast_precision_loss, reason = "a share for a test")]
        (window.size(), late_total as f64 / rate as f64)
    }

    /// The window finds 30 ms and a round trip of the link's rate, from a small start, and then
    /// the link is used.
    #[test]
    fn the_window_fits_the_link() {
        let check = |rate: u64, round_trip_ms: u64, expected: u64| {
            let (size, used) = settle(rate, Duration::from_millis(round_trip_ms));
            assert!(size.abs_diff(expected) * 10 <= expected, "{size} instead of {expected}");
            assert!(used > 0.95, "{used} of {rate} with {round_trip_ms} ms");
        };
        check(12_500_000, 2, 400_000);
        check(12_500_000, 40, 875_000);
        check(125_000_000, 2, 4_000_000);
        check(125_000_000, 20, 6_250_000);
        check(1_000_000, 2, WINDOW_BYTES_MIN);
        check(2_000_000_000, 2, WINDOW_BYTES_MAX);
    }

    /// An acknowledgement of what was never sent, or that takes one back, makes no sense.
    #[test]
    fn acknowledgements_are_checked() {
        let now = Duration::ZERO;
        let mut window = Window::new(now);
        window.send(100, now);
        assert!(window.accept(60, now));
        assert!(!window.accept(59, now));
        assert!(!window.accept(101, now));
        assert_eq!(window.room(), WINDOW_BYTES_MIN - 40);
    }

    /// Idle time is not taken for a slow link.
    #[test]
    fn idle_time_says_nothing() {
        let start = Duration::ZERO;
        let mut window = Window::new(start);
        let later = start + Duration::from_secs(100);
        window.send(100_000, later);
        assert!(window.accept(100_000, later + SAMPLE));
        assert_eq!(window.rates.back(), Some(&5_000_000));
    }
}
