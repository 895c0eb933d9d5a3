// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A limit on bytes a second, shared by all channels of a migration.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So much may be sent at once after a silence.
const BURST: Duration = Duration::from_millis(5);

/// Says how long to wait after so many bytes.
#[derive(Debug)]
pub(super) struct Throttle {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bytes_per_second: Option<u64>,
    /// Everything sent so far is paid for at this moment.
    paid: Option<Instant>,
}

impl Throttle {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { state: Mutex::new(State { bytes_per_second, paid: None }) }
    }

    pub(super) fn set(&self, bytes_per_second: Option<u64>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { bytes_per_second, paid: None };
    }

    /// Takes note of bytes that are about to be sent, and returns how long they should wait.
    pub(super) fn charge(&self, bytes: u64, now: Instant) -> Duration {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rate) = state.bytes_per_second else { return Duration::ZERO };
        let micros = u128::from(bytes) * 1_000_000 / u128::from(rate.max(1));
        let cost = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let paid = state.paid.map_or(earliest, |paid| paid.max(earliest)) + cost;
        state.paid = Some(paid);
        paid.saturating_duration_since(now)
    }
}

/// A channel's way through the limit of all.
#[derive(Clone, Debug)]
pub(super) struct Toll {
    throttle: Arc<Throttle>,
    /// Its bytes count, and others wait for them.
    goes_first: bool,
}

impl Toll {
    pub(super) fn in_turn(throttle: Arc<Throttle>) -> Self {
        Self { throttle, goes_first: false }
    }

    pub(super) fn first(throttle: Arc<Throttle>) -> Self {
        Self { throttle, goes_first: true }
    }

    /// As [`Throttle::charge`].
    pub(super) fn charge(&self, bytes: u64, now: Instant) -> Duration {
        let wait = self.throttle.charge(bytes, now);
        if self.goes_first { Duration::ZERO } else { wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over a second, the limit and one burst pass, from however many channels; without a limit
    /// nothing waits.
    #[test]
    fn the_limit_holds() {
        let throttle = Throttle::new(Some(1_000_000));
        let start = Instant::now();
        let (mut now, mut sent) = (start, 0);
        while now < start + Duration::from_secs(1) {
            now += throttle.charge(10_000, now);
            sent += 10_000;
        }
        assert!((990_000..=1_020_000).contains(&sent), "{sent}");
        throttle.set(None);
        assert_eq!(throttle.charge(u64::MAX, now), Duration::ZERO);
    }

    /// Who goes first does not wait; the others wait for both.
    #[test]
    fn who_goes_first_is_paid_for_by_the_others() {
        let throttle = Arc::new(Throttle::new(Some(1_000_000)));
        let (first, in_turn) = (Toll::first(throttle.clone()), Toll::in_turn(throttle));
        let now = Instant::now();
        assert_eq!(first.charge(100_000, now), Duration::ZERO);
        assert_eq!(in_turn.charge(5_000, now), Duration::from_millis(100));
        assert_eq!(first.charge(100_000, now), Duration::ZERO);
    }
}
