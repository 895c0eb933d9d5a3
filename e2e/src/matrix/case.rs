// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! One case: one migration, one fault at one point, and what came of it.

use super::expected::{End, expected};
use super::faults::Fault;
use super::leftovers;
use super::observer;
use super::points::Point;
use super::stage::{Side, Stage};
use crate::lab::{Ran, finish};
use anyhow::{Context as _, Result, bail, ensure};
use std::process::Child;
use std::time::{Duration, Instant};

/// How long no copy may run, once both daemons are up and the link is whole.
const STILL_MAX: Duration = Duration::from_secs(5);
/// How long until nothing of the attempt is left: one that goes on has its memory to carry.
const SETTLED_MAX: Duration = Duration::from_secs(25);
/// The same, counted from when the guest began to run where it is, if that was after the healing.
const LEFT_MAX: Duration = Duration::from_secs(5);
const COMMAND_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A fault at a point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) point: &'static Point,
    pub(super) fault: Fault,
}

/// What came of a case that went well.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came {
    pub(super) end: End,
    /// There was nothing to break at this point.
    pub(super) was_idle: bool,
    /// From the healing on: the longest time in which no copy ran.
    pub(super) still: Duration,
    /// From the healing until nothing of the attempt was left.
    pub(super) settled: Duration,
}

/// How a case ended.
#[derive(Debug)]
pub(super) enum Verdict {
    Right(Came),
    /// The migration did not pass this point this time.
    NotPassed,
}

impl Case {
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.point.key(), self.fault.key())
    }

    /// Acts it out. Afterwards the stage is ready for the next one, unless this fails.
    pub(super) fn run(&self, stage: &mut Stage) -> Result<Verdict> {
        stage.rest()?;
        stage.observer.forget();
        stage.plan(self.point.side, self.point.name, self.fault.action())?;
        let mut command = stage.migrate()?;
        let Some(has_struck) = self.strike(stage, &mut command)? else {
            finish(command, "migrate", "", COMMAND_MAX)?.ok()?;
            self.wait_until_settled(stage, Instant::now())?;
            self.leave(stage, End::Moves)?;
            return Ok(Verdict::NotPassed);
        };
        self.fault.heal(stage, self.point)?;
        let (healed, healed_at) = (Instant::now(), observer::now());
        let ran = finish(command, "migrate", "", COMMAND_MAX)?;
        let home = self.wait_until_settled(stage, healed)?;
        let settled = healed.elapsed();
        let over_at = stage.observer.last_start().max(healed_at);
        let left = Duration::from_secs_f64((observer::now() - over_at).max(0.0));
        let still = stage.observer.longest_silence(healed_at);
        let end = self.judge(stage, home, has_struck)?;
        self.check_command(&ran, end)?;
        ensure!(still <= STILL_MAX, "no copy ran for {still:?} after all was healed");
        ensure!(
            left <= LEFT_MAX,
            "something of the attempt was left for {left:?} after it was over"
        );
        stage.observer.never_two()?;
        self.leave(stage, end)?;
        Ok(Verdict::Right(Came { end, was_idle: !has_struck, still, settled }))
    }

    /// Waits for the point and does the deed; nothing if the point is not passed.
    fn strike(&self, stage: &Stage, command: &mut Child) -> Result<Option<bool>> {
        let side = self.point.side;
        if self.fault.action() != "stop" {
            let deadline = Instant::now() + COMMAND_MAX;
            while !stage.is_carried_out(side) {
                let is_over = command.try_wait()?.is_some() && stage.is_quiet()?;
                if is_over || Instant::now() > deadline {
                    return Ok(if stage.drop_plan(side) { Some(true) } else { None });
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            return Ok(Some(true));
        }
        let Some(standing) = stage.await_point(side, command)? else {
            ensure!(!stage.drop_plan(side), "a daemon passed its point without a word");
            return Ok(None);
        };
        let has_struck = self.fault.strike(stage, side)?;
        drop(standing);
        Ok(Some(has_struck))
    }

    /// Waits until the guest runs somewhere and nothing else is left, and returns where.
    fn wait_until_settled(&self, stage: &Stage, healed: Instant) -> Result<Side> {
        loop {
            let mut left = Vec::new();
            for home in [Side::Source, Side::Target] {
                let found = leftovers::of_the_guest(stage, home)?;
                if found.is_empty() && stage.observer.running().len() == 1 {
                    return Ok(home);
                }
                left.push((home, found));
            }
            if healed.elapsed() > SETTLED_MAX {
                stage.observer.never_two()?;
                let running = stage.observer.running();
                bail!("after {SETTLED_MAX:?} engines {running:?} run, and there is left: {left:?}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Asks the guest how it fared, and holds that against what is written down.
    fn judge(&self, stage: &mut Stage, home: Side, has_struck: bool) -> Result<End> {
        let status = stage.is_well()?;
        let boots = status.boot(0)?;
        let booted = boots.checked_sub(stage.boots).context("its disk has forgotten a boot")?;
        stage.boots = boots;
        let end = match (home, booted) {
            (Side::Source, 0) => End::Stays,
            (Side::Target, 0) => End::Moves,
            (Side::Source, 1) => End::BootsAtSource,
            (Side::Target, 1) => End::BootsAtTarget,
            (_, times) => bail!("the guest was booted {times} times"),
        };
        // Nothing to break, nothing broken.
        let right = if has_struck { expected(self.point, self.fault) } else { vec![End::Moves] };
        let words = |ends: &[End]| ends.iter().map(|e| e.word()).collect::<Vec<_>>().join(" or ");
        ensure!(
            right.contains(&end),
            "the guest is at the {}, and is to be at the {}",
            end.word(),
            words(&right)
        );
        Ok(end)
    }

    /// What the command said must be true, where there was a daemon to say it.
    fn check_command(&self, ran: &Ran, end: End) -> Result<()> {
        if matches!(self.fault, Fault::SourceDaemon | Fault::BothDaemons) {
            return Ok(());
        }
        let is_poisoned = self.point.side == Side::Source
            && self.point.name.starts_with("persist/")
            && matches!(self.fault, Fault::DiskFull | Fault::FailingSync);
        let has_moved = matches!(end, End::Moves | End::BootsAtTarget);
        ensure!(
            is_poisoned || ran.status.success() == has_moved,
            "the guest is at the {}, and the command said otherwise: {ran}",
            end.word()
        );
        Ok(())
    }

    /// Leaves the guest for the next case: one that stayed is moved, which must work at once.
    fn leave(&self, stage: &mut Stage, end: End) -> Result<()> {
        if matches!(end, End::Stays | End::BootsAtSource) {
            let again = finish(stage.migrate()?, "migrate again", "", COMMAND_MAX)?;
            again.ok().context("the second attempt")?;
            let home = self.wait_until_settled(stage, Instant::now())?;
            ensure!(home == Side::Target, "the second attempt left the guest where it was");
            let status = stage.is_well()?;
            ensure!(status.boot(0)? == stage.boots, "the second attempt booted the guest");
            stage.observer.never_two()?;
        }
        stage.turn();
        Ok(())
    }
}
