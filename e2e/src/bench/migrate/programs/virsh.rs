// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! libvirt: `virsh migrate --live --p2p`, over plain TCP.

use super::super::ways::Way;
use super::{Moved, Program};
use crate::lab::TooLong;
use crate::libvirt::Libvirt;
use crate::scene::{SOON, until};
use anyhow::{Result, bail};
use std::time::Duration;

pub(in super::super) struct Virsh<'a> {
    pub(in super::super) daemons: [Libvirt<'a>; 2],
    pub(in super::super) guest: String,
    pub(in super::super) is_on_beta: bool,
}

impl<'a> Virsh<'a> {
    /// The host it is on, and the other one.
    fn hosts(&self) -> [&Libvirt<'a>; 2] {
        let [alpha, beta] = &self.daemons;
        if self.is_on_beta { [beta, alpha] } else { [alpha, beta] }
    }

    fn is_running(&self) -> Result<bool> {
        let state = self.hosts()[0].virsh(&["domstate", &self.guest])?;
        Ok(state.stdout.trim() == "running")
    }
}

impl Program for Virsh<'_> {
    fn rest(&mut self) -> Result<()> {
        self.hosts()[0].virsh(&["suspend", &self.guest])?.ok().map(drop)
    }

    fn wake(&mut self) -> Result<()> {
        self.hosts()[0].virsh(&["resume", &self.guest])?.ok().map(drop)
    }

    fn migrate(&mut self, way: Way, patience: Duration) -> Result<Moved> {
        let Way::Virsh(_, more) = way else { bail!("not libvirt's: {way:?}") };
        let [source, target] = self.hosts();
        let ran = source.migrate(&self.guest, target.host, more, patience).and_then(|ran| {
            let took = ran.took;
            ran.ok().map(|_| took)
        });
        match ran {
            Ok(whole) => {
                target.has_it_alone(source, &self.guest)?;
                self.is_on_beta = !self.is_on_beta;
                Ok(Moved { whole, travel: None, parts: Vec::new() })
            }
            Err(error) => {
                if error.downcast_ref::<TooLong>().is_some() {
                    source.virsh(&["domjobabort", &self.guest])?.ok()?;
                }
                until("libvirt's guest runs where it was", SOON, || self.is_running())?;
                Err(error)
            }
        }
    }
}
