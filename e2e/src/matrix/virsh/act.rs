// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Acts out a case: one `virsh migrate`, one fault, and what came of it within a minute.

use super::cases::{Case, Setup};
use super::log::Log;
use super::moments::Sign;
use super::stage::Stage;
use super::verdict::Scene;
use crate::lab::{Lab, Ran, finish};
use crate::matrix::observer::now;
use crate::matrix::stage::{GUEST, Side};
use anyhow::{Context as _, Result, bail, ensure};
use std::process::Child;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a migration may take to come to its moment.
const MOMENT_PATIENCE: Duration = Duration::from_secs(60);
/// How long after the healing libvirt has to settle by itself.
const SETTLED_MAX: Duration = Duration::from_secs(60);
const COMMAND_MAX: Duration = Duration::from_secs(150);
/// A moment may be over within a millisecond.
const FOLLOW_EVERY: Duration = Duration::from_micros(200);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What came of a case.
#[derive(Clone, Debug)]
pub(super) struct Came {
    pub(super) place: String,
    pub(super) left: Vec<String>,
    /// How long two copies ran at a time.
    pub(super) two: Duration,
    /// How long the target's copy had run when the source's older one went on.
    pub(super) undone: Duration,
    /// From the fault on: the longest time in which no copy ran.
    pub(super) still: Duration,
    /// From the healing until all was well, if it was.
    pub(super) settled: Option<Duration>,
    /// What the guest says of its memory and disks.
    pub(super) witness: String,
    pub(super) to_type: Vec<String>,
    /// How the command ended.
    pub(super) said: String,
}

impl Case {
    /// Acts it out in a lab of its own, which must be fresh; nothing if the moment was missed.
    pub(super) fn act(&self, lab: &Lab) -> Result<Option<Came>> {
        let mut stage = Stage::new(lab, self.setup)?;
        let mut log = Log::from_now(&stage.log(self.moment.side()))?;
        let mut end = match self.moment.end {
            Some((side, text)) => Some((Log::from_now(&stage.log(side))?, text)),
            None => None,
        };
        let mut command = stage.migrate(self.setup)?;
        if !self.await_moment(&stage, &mut log, &mut command)? {
            let ran = finish(command, "virsh migrate", "", COMMAND_MAX)?;
            bail!("the moment did not come: {ran}");
        }
        if let Some((log, text)) = &mut end
            && log.has(text)?
        {
            return Ok(None);
        }
        let struck = now();
        self.fault.strike(&mut stage, &mut command)?;
        stage.of(self.moment.side()).hold(false)?;
        let command = std::thread::spawn(move || finish(command, "virsh migrate", "", COMMAND_MAX));
        self.fault.heal(&mut stage)?;
        let (scene, settled) = self.settle(&stage, &command)?;
        let is_paused = self.setup == Setup::Paused;
        let two = stage.observer.longest_overlap().map_or(0.0, |(together, ..)| together);
        let still = stage.observer.longest_silence(struck);
        self.fault.tidy(&stage)?;
        Ok(Some(Came {
            place: scene.place(is_paused).to_owned(),
            left: scene.left(is_paused),
            two: Duration::from_secs_f64(two),
            undone: Duration::from_secs_f64(stage.observer.undone().unwrap_or_default()),
            still: if is_paused { Duration::ZERO } else { still },
            settled,
            witness: ask_witness(&stage, &scene, is_paused),
            to_type: scene.to_type(is_paused),
            said: if command.is_finished() {
                how_it_ended(&command.join().expect("a panic ends the run"))
            } else {
                "has not ended".to_owned()
            },
        }))
    }

    /// Waits for the moment and holds its daemon there; returns whether it came.
    fn await_moment(&self, stage: &Stage<'_>, log: &mut Log, command: &mut Child) -> Result<bool> {
        let deadline = Instant::now() + MOMENT_PATIENCE;
        while Instant::now() < deadline {
            let is_over = command.try_wait()?.is_some();
            let has_come = match self.moment.sign {
                Sign::Line(_, text) => log.has(text)?,
                Sign::CarriedMib(least) => carried_mib(stage)? >= least,
                Sign::Over => is_over,
            };
            if has_come {
                stage.of(self.moment.side()).hold(true)?;
                return Ok(true);
            }
            if is_over {
                return Ok(false);
            }
            std::thread::sleep(FOLLOW_EVERY);
        }
        Ok(false)
    }

    /// Looks until all is well, or nothing can become well any more; returns the last look.
    fn settle(
        &self,
        stage: &Stage<'_>,
        command: &JoinHandle<Result<Ran>>,
    ) -> Result<(Scene, Option<Duration>)> {
        let healed = Instant::now();
        loop {
            let scene = Scene::of(stage)?;
            let settled = healed.elapsed();
            if command.is_finished() && scene.is_well(self.setup == Setup::Paused) {
                return Ok((scene, Some(settled)));
            }
            let is_over = command.is_finished() && scene.is_over();
            if is_over || settled > SETTLED_MAX {
                return Ok((scene, None));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// The memory that was carried so far, in whole MiB.
fn carried_mib(stage: &Stage<'_>) -> Result<u32> {
    let said = stage.of(Side::Source).ask(&["domjobinfo", GUEST])?.stdout;
    Ok(carried_of(&said).unwrap_or_default())
}

fn carried_of(said: &str) -> Option<u32> {
    let line = said.lines().find_map(|line| line.strip_prefix("Data processed:"))?;
    let (number, unit) = line.trim().split_once(' ')?;
    match unit.trim() {
        "MiB" => number.split('.').next()?.parse().ok(),
        _ => None,
    }
}

/// Asks the guest how it fared, where exactly one copy runs.
fn ask_witness(stage: &Stage<'_>, scene: &Scene, is_paused: bool) -> String {
    if is_paused || !matches!(scene.place(is_paused), "source" | "target") {
        return "-".to_owned();
    }
    let asked = || -> Result<()> {
        let witness = stage.witness();
        witness.wait()?;
        let boots = witness.is_well()?.boot(0)?;
        ensure!(boots == 1, "it was booted {boots} times");
        Ok(())
    };
    asked().context("the guest").map_or_else(|error| format!("{error:#}"), |()| "well".to_owned())
}

/// The last line that a person would have read.
fn how_it_ended(outcome: &Result<Ran>) -> String {
    match outcome {
        Ok(ran) if ran.status.success() => "done".to_owned(),
        Ok(ran) => match ran.stderr.trim().lines().last() {
            Some(line) => line.to_owned(),
            None => format!("{}", ran.status),
        },
        Err(_) => format!("took longer than {COMMAND_MAX:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `virsh domjobinfo` of libvirt 9.0 prints it.
    #[test]
    fn what_was_carried_is_read() {
        let said =
            "Job type:         Unbounded   \nData processed:   31.582 MiB\nData total: 1 GiB";
        assert_eq!(carried_of(said), Some(31));
        assert_eq!(carried_of("Data processed:   12.000 KiB\n"), None);
        assert_eq!(carried_of("Job type:         None\n"), None);
    }
}
