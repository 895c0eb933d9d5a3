// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Ours: the command, as a person types it, with mutual TLS between the hosts.

use super::super::measure::number;
use super::super::ways::Way;
use super::{Moved, Program};
use crate::carriers::peak_kib;
use crate::lab::{Host, TooLong, finish};
use crate::scene::{Scene, await_disks_known, await_state, lives_only_on, report};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::time::{Duration, Instant};

pub(in super::super) struct Ours<'a> {
    scene: &'a Scene,
    guest: String,
    is_on_beta: bool,
}

impl<'a> Ours<'a> {
    /// The guest is on alpha.
    pub(in super::super) fn new(scene: &'a Scene, guest: &str) -> Ours<'a> {
        Ours { scene, guest: guest.to_owned(), is_on_beta: false }
    }

    /// The host it is on, and the other one.
    fn hosts(&self) -> [&'a Host; 2] {
        let [alpha, beta] = [self.scene.alpha(), self.scene.beta()];
        if self.is_on_beta { [beta, alpha] } else { [alpha, beta] }
    }

    fn call_off(&self) -> Result<()> {
        let [source, _] = self.hosts();
        source.whimbrel(&["cancel", &self.guest])?.ok()?;
        await_state(source, &self.guest, "running")
    }
}

impl Program for Ours<'_> {
    fn rest(&mut self) -> Result<()> {
        self.hosts()[0].whimbrel(&["pause", &self.guest])?.ok().map(drop)
    }

    fn wake(&mut self) -> Result<()> {
        self.hosts()[0].whimbrel(&["unpause", &self.guest])?.ok().map(drop)
    }

    fn forget(&mut self) -> Result<()> {
        let dropped = ["pages", "drop", "--all"];
        self.hosts().iter().try_for_each(|host| host.whimbrel(&dropped)?.ok().map(drop))?;
        await_disks_known(self.hosts()[0])
    }

    fn migrate(&mut self, way: Way, patience: Duration) -> Result<Moved> {
        let Way::Ours(carrier) = way else { bail!("not ours: {way:?}") };
        let [source, target] = self.hosts();
        let mut words = vec!["migrate", self.guest.as_str(), target.name.as_str()];
        words.extend(carrier.iter().flat_map(|carrier| ["--carrier", carrier]));
        let started = Instant::now();
        let command = source.spawn_whimbrel(&words)?;
        let finishing = || finish(command, &words.join(" "), "", patience);
        let (finished, peak_kib) = peak_kib(self.hosts(), finishing);
        let whole = match finished {
            Ok(ran) => {
                let whole = started.elapsed();
                ran.ok()?;
                whole
            }
            Err(error) if error.downcast_ref::<TooLong>().is_some() => {
                self.call_off().context("cannot call a migration off")?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        lives_only_on(target, source, &self.guest, "running")?;
        self.is_on_beta = !self.is_on_beta;
        let report = report(source, &self.guest)?;
        let mut parts = parts(&report);
        parts.push(("carrier KiB".to_owned(), number(peak_kib)));
        Ok(Moved { whole, travel: travel(&report), parts })
    }
}

fn phases(report: &Value) -> impl Iterator<Item = (&str, u64)> {
    let phases = report["phases"].as_array().into_iter().flatten();
    phases.filter_map(|phase| Some((phase["phase"].as_str()?, phase["duration_ms"].as_u64()?)))
}

/// From the first byte of memory until the guest runs on the target.
fn travel(report: &Value) -> Option<Duration> {
    let times = phases(report).filter(|(name, _)| ["memory", "switch", "handoff"].contains(name));
    times.map(|(_, ms)| Duration::from_millis(ms)).reduce(|sum, time| sum + time)
}

/// Where our own time goes, and how pages travelled, by our own word.
fn parts(report: &Value) -> Vec<(String, f64)> {
    let of_phases = phases(report).map(|(name, time)| (format!("phase {name} ms"), Some(time)));
    let pause = ("reported pause ms".to_owned(), report["pause_ms"].as_u64());
    // Only the carrier that looks for pages counts them.
    let counts = report["pages"].as_object().into_iter().flatten();
    let counts = counts.map(|(name, count)| (name.replace('_', " "), count.as_u64()));
    let parts = of_phases.chain([pause]).chain(counts);
    parts.filter_map(|(name, value)| Some((name, number(value?)))).collect()
}
