// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! QEMU by itself, over plain TCP.

use super::super::ways::Way;
use super::{Moved, Program};
use crate::plain::PlainGuest;
use anyhow::{Result, bail};
use std::time::Duration;

pub(in super::super) struct Qemu<'a>(pub(in super::super) PlainGuest<'a>);

impl Program for Qemu<'_> {
    fn rest(&mut self) -> Result<()> {
        self.0.ask("stop").map(drop)
    }

    fn wake(&mut self) -> Result<()> {
        self.0.ask("cont").map(drop)
    }

    fn migrate(&mut self, way: Way, patience: Duration) -> Result<Moved> {
        let Way::Qemu(_, settings) = way else { bail!("not QEMU's: {way:?}") };
        let times = self.0.migrate(settings, patience)?;
        let whole = times.prepare + times.travel;
        Ok(Moved { whole, travel: Some(times.travel), parts: Vec::new() })
    }
}
