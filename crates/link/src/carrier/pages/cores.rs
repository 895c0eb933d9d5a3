// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Whether there is a core to spare: work that takes longer on the clock than of a core has waited
//! for one, and so has whoever else computes here, the guest first of all.

use rustix::time::{ClockId, clock_gettime};
use std::ops::AddAssign;
use std::time::{Duration, Instant};

/// Of the time that work takes: cores are waited for, ...
pub(super) const CONTENDED: f64 = 0.25;
/// ... or are not.
pub(super) const NOT_CONTENDED: f64 = 0.1;

/// How long work took, on the clock and of a core.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Took {
    pub(super) wall: Duration,
    pub(super) core: Duration,
}

impl Took {
    /// Returns how much of the time was spent waiting for a core.
    pub(super) fn contended(&self) -> f64 {
        1.0 - self.core.as_secs_f64() / self.wall.as_secs_f64().max(1e-9)
    }
}

impl AddAssign for Took {
    fn add_assign(&mut self, other: Self) {
        self.wall += other.wall;
        self.core += other.core;
    }
}

/// Does work that waits for nothing else than a core, and says how long it took.
pub(super) fn took<T>(work: impl FnOnce() -> T) -> (T, Took) {
    let (began, core_began) = (Instant::now(), core_time());
    let done = work();
    (done, Took { wall: began.elapsed(), core: core_time().saturating_sub(core_began) })
}

/// How long this thread has had a core.
fn core_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
