// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How many bytes may be under way? Every byte queued between the engines is downtime.
//!
//! Bytes are counted as the engine wrote them and until the other engine has accepted them, so that
//! neither packing nor the sockets in between hide a queue. The window is what the target takes in
//! [`QUEUE_TIME_MAX`] plus one round trip. It finds its size: as long as less than that time is
//! queued, a larger window is accepted faster, measures a higher rate, and grows again.

use std::time::Duration;

/// The time a byte may wait between the engines, besides the round trip.
pub const QUEUE_TIME_MAX: Duration = Duration::from_millis(30);

/// Less would leave links idle between two acknowledgements.
pub const WINDOW_BYTES_MIN: u64 = 128 << 10;

/// More would cost memory on both sides, and gains nothing below 4 Gbit/s.
pub const WINDOW_BYTES_MAX: u64 = 16 << 20;

/// The shortest time a rate is measured over.
const SAMPLE_MIN: Duration = Duration::from_millis(5);

/// Returns the window for a rate and a round trip that are known.
pub fn window_bytes(accepted_bytes_per_s: f64, round_trip: Duration) -> u64 {
    let bytes = accepted_bytes_per_s * (QUEUE_TIME_MAX + round_trip).as_secs_f64();
    // Out of range, and also not a number, saturate; rounding does not matter.
    #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
    #[expect(clippy::cast_sign_loss, reason = "a cast of a float saturates")]
    let bytes = bytes as u64;
    bytes.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX)
}

/// Follows the rate at which the target engine accepts bytes.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// None before the first sample.
    bytes_per_s: Option<f64>,
    /// Accepted in this sample so far.
    sample_bytes: u64,
    sample_time: Duration,
}

impl Window {
    /// Takes an acknowledgement: `bytes` were accepted in the `elapsed` time since the one before.
    /// Leave out times in which nothing was under way: an idle engine is not a slow target.
    pub fn on_accepted(&mut self, bytes: u64, elapsed: Duration) {
        self.sample_bytes += bytes;
        self.sample_time += elapsed;
        if self.sample_time < SAMPLE_MIN {
            return;
        }
        let sample = self.sample_bytes as f64 / self.sample_time.as_secs_f64();
        self.bytes_per_s = Some(match self.bytes_per_s {
            None => sample,
            Some(rate) => rate + (sample - rate) / 4.0,
        });
        (self.sample_bytes, self.sample_time) = (0, Duration::ZERO);
    }

    /// Returns the rate measured so far.
    pub fn bytes_per_s(&self) -> Option<f64> {
        self.bytes_per_s
    }

    /// Returns the window to work with now.
    pub fn bytes(&self, round_trip: Duration) -> u64 {
        window_bytes(self.bytes_per_s.unwrap_or(0.0), round_trip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_stays_within_its_limits() {
        let check = |rate, ms, expected| {
            assert_eq!(window_bytes(rate, Duration::from_millis(ms)), expected, "{rate} {ms}");
        };
        check(0.0, 0, WINDOW_BYTES_MIN);
        check(-1.0, 0, WINDOW_BYTES_MIN);
        check(f64::NAN, 0, WINDOW_BYTES_MIN);
        check(12.5e6, 0, 375_000);
        check(125e6, 1, 3_875_000);
        check(f64::INFINITY, 10, WINDOW_BYTES_MAX);
    }

    /// A link with a rate and a delay, driven by nothing but the window: it must fill the link,
    /// and keep no more than the queue time (and some noise) in the queue.
    #[test]
    fn the_window_finds_the_rate_of_a_link_and_does_not_fill_its_buffers() {
        for (rate, round_trip_ms) in [(12.5e6, 0), (12.5e6, 40), (125e6, 1), (125e6, 20)] {
            let round_trip = Duration::from_millis(round_trip_ms);
            let mut window = Window::default();
            let mut bytes = window.bytes(round_trip);
            for _ in 0..200 {
                // One window goes through: the delay once, or the time the link needs for it.
                let time = round_trip.max(Duration::from_micros(200)).as_secs_f64();
                let time = time.max(bytes as f64 / rate);
                window.on_accepted(bytes, Duration::from_secs_f64(time));
                bytes = window.bytes(round_trip);
            }
            let found = window.bytes_per_s().unwrap();
            assert!(found > 0.9 * rate, "{found} of {rate} at {round_trip_ms} ms");
            let queued_s = bytes as f64 / rate - round_trip.as_secs_f64();
            assert!(queued_s < 0.035, "{queued_s} s at {rate} and {round_trip_ms} ms");
        }
    }
}
