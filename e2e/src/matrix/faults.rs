// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What can go wrong at a point, and how it is brought about and healed.

use super::points::Point;
use super::stage::{Side, Stage};
use anyhow::{Context as _, Result};
use std::time::Duration;

/// How long a wire stays out.
const CUT: Duration = Duration::from_secs(1);
/// How long a host hears nothing while the other hears it.
const DEAF: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    SourceDaemon,
    TargetDaemon,
    BothDaemons,
    SourceCarrier,
    TargetCarrier,
    SourceEngine,
    TargetEngine,
    LinkCut,
    HalfOpen,
    Repeated,
    Lost,
    DiskFull,
    FailingSync,
}

impl Fault {
    pub(super) const ALL: [Fault; 13] = [
        Fault::SourceDaemon,
        Fault::TargetDaemon,
        Fault::BothDaemons,
        Fault::SourceCarrier,
        Fault::TargetCarrier,
        Fault::SourceEngine,
        Fault::TargetEngine,
        Fault::LinkCut,
        Fault::HalfOpen,
        Fault::Repeated,
        Fault::Lost,
        Fault::DiskFull,
        Fault::FailingSync,
    ];

    pub(super) fn key(self) -> &'static str {
        match self {
            Fault::SourceDaemon => "source-daemon",
            Fault::TargetDaemon => "target-daemon",
            Fault::BothDaemons => "both-daemons",
            Fault::SourceCarrier => "source-carrier",
            Fault::TargetCarrier => "target-carrier",
            Fault::SourceEngine => "source-engine",
            Fault::TargetEngine => "target-engine",
            Fault::LinkCut => "link-cut",
            Fault::HalfOpen => "half-open",
            Fault::Repeated => "repeated",
            Fault::Lost => "lost",
            Fault::DiskFull => "disk-full",
            Fault::FailingSync => "failing-sync",
        }
    }

    /// Whether such a thing can happen at a point.
    pub(super) fn applies_to(self, point: &Point) -> bool {
        match self {
            Fault::Repeated => point.is_message(),
            // While the link is up nobody else repeats them; before the commit point the attempt
            // may end.
            Fault::Lost => matches!(point.name, "send/Cede" | "send/Started"),
            Fault::DiskFull | Fault::FailingSync => point.is_durable_write(),
            _ => true,
        }
    }

    /// What the daemon itself is to do at the point; the harness does the rest while it waits.
    pub(super) fn action(self) -> &'static str {
        match self {
            Fault::Repeated => "repeat",
            Fault::Lost => "lose",
            Fault::DiskFull => "enospc",
            Fault::FailingSync => "eio",
            _ => "stop",
        }
    }

    /// Does the deed, while a daemon stands at its point. Returns whether there was anything to
    /// do it to.
    pub(super) fn strike(self, stage: &Stage, at: Side) -> Result<bool> {
        let kill = |side: Side| stage.host(side).kill_daemon().map(|()| true);
        match self {
            Fault::SourceDaemon => kill(Side::Source),
            Fault::TargetDaemon => kill(Side::Target),
            Fault::BothDaemons => Ok(kill(Side::Source)? && kill(Side::Target)?),
            Fault::SourceCarrier => Ok(stage.kill_carrier(Side::Source)? > 0),
            Fault::TargetCarrier => Ok(stage.kill_carrier(Side::Target)? > 0),
            Fault::SourceEngine => Ok(stage.kill_engine(Side::Source)? > 0),
            Fault::TargetEngine => Ok(stage.kill_engine(Side::Target)? > 0),
            Fault::LinkCut => stage.beta().unplug().map(|()| true),
            Fault::HalfOpen => stage.host(at).set_deaf(true).map(|()| true),
            Fault::Repeated | Fault::Lost | Fault::DiskFull | Fault::FailingSync => Ok(true),
        }
    }

    /// Mends what was broken: daemons run again, the link is up.
    pub(super) fn heal(self, stage: &Stage, point: &Point) -> Result<()> {
        match self {
            Fault::LinkCut => {
                std::thread::sleep(CUT);
                stage.beta().plug_in()?;
            }
            Fault::HalfOpen => {
                std::thread::sleep(DEAF);
                stage.host(point.side).set_deaf(false)?;
            }
            // Nothing is decided any more until the file was read again.
            Fault::DiskFull | Fault::FailingSync if point.name.starts_with("persist/") => {
                stage.host(point.side).kill_daemon()?;
            }
            _ => {}
        }
        for host in stage.hosts() {
            if host.daemon_pid().is_none() {
                host.start_daemon().context("a daemon does not come back")?;
            }
        }
        Ok(())
    }
}
