// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The contract of [`whimbrel_engine`] on real Xen, by the tests that the other engines pass.
//!
//! Cargo does not run this by itself: it is brought into an emulated Xen host by `./x e2e xen`, and
//! run there. A guest that moves needs a second host, so those parts of the contract are held by
//! the story. A power button that is ignored is another kind of guest's.

#[cfg(test)]
#[path = "contract/bench.rs"]
#[expect(dead_code, reason = "half of the bench is for guests that move")]
mod bench;
#[cfg(test)]
#[path = "contract/life.rs"]
#[expect(dead_code, reason = "one of the tests is not for Xen")]
mod life;

macro_rules! on_xen {
    ($($test:ident)*) => {
        #[cfg(test)]
        mod xen {
            $(#[tokio::test]
            async fn $test() {
                crate::life::$test(crate::bench::Kind::Xen).await;
            })*
        }
    };
}

on_xen! {
    it_starts_paused_and_runs_when_told
    a_reset_keeps_the_guest_running
    it_outlives_the_daemon
    attach_finds_only_the_guest_it_was_asked_for
    destroy_leaves_nothing
}
