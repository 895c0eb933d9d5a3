// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Those who move guests, behind one face: each has one guest, which is on one of the two hosts.

mod ours;
mod qemu;
mod virsh;

pub(super) use ours::Ours;
pub(super) use qemu::Qemu;
pub(super) use virsh::Virsh;

use super::ways::Way;
use anyhow::Result;
use std::time::Duration;

/// What moving a guest took, as whoever moved it can tell.
#[derive(Clone, Debug)]
pub(super) struct Moved {
    /// All a person waits for, starting the target's engine included.
    pub(super) whole: Duration,
    /// From the first byte of memory until the guest runs on the target.
    pub(super) travel: Option<Duration>,
    /// Further figures, in milliseconds.
    pub(super) parts: Vec<(String, f64)>,
}

pub(super) trait Program {
    /// Stops the guest: it takes no part in what others are measured by.
    fn rest(&mut self) -> Result<()>;

    /// Lets it run again.
    fn wake(&mut self) -> Result<()>;

    /// Forgets what is kept of the guest on the host where it is not, so that it has never been
    /// there.
    fn forget(&mut self) -> Result<()> {
        Ok(())
    }

    /// Moves it to the other host. On an error it runs where it was; one that took longer than
    /// `patience` is called off and is a [`TooLong`](crate::lab::TooLong).
    fn migrate(&mut self, way: Way, patience: Duration) -> Result<Moved>;
}
