// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What goes wrong, brought about from outside, and how it is healed. Words that our own matrix
//! knows mean the same here.

use super::stage::Stage;
use crate::lab::Host;
use crate::matrix::stage::Side::{self, Source, Target};
use crate::matrix::stage::kill_all;
use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::statvfs;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

/// As long as in our own matrix.
const CUT: Duration = Duration::from_secs(1);
const DEAF: Duration = Duration::from_secs(2);
/// How long a host may be busy before it dies.
const LATE: Duration = Duration::from_secs(2);
/// Longer than libvirt's keepalive waits: 5 s, five more times.
const LONG: Duration = Duration::from_secs(40);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// To see that nothing goes wrong by itself.
    Nothing,
    SourceDaemon,
    TargetDaemon,
    BothDaemons,
    SourceEngine,
    TargetEngine,
    /// `virsh` itself.
    Client,
    LinkCut,
    LinkCutLong,
    /// The source hears nothing, and is heard.
    SourceDeaf,
    SourceDeafLong,
    TargetDeafLong,
    /// No space for what the target's libvirtd writes.
    DiskFull,
    /// All processes of the host end, its wire is dead, and it boots again.
    SourceHost,
    TargetHost,
    /// The target's libvirtd is held for a while before: its guest may run, and nobody is told.
    TargetHostLate,
}

impl Fault {
    pub(super) fn key(self) -> &'static str {
        match self {
            Fault::Nothing => "nothing",
            Fault::SourceDaemon => "source-daemon",
            Fault::TargetDaemon => "target-daemon",
            Fault::BothDaemons => "both-daemons",
            Fault::SourceEngine => "source-engine",
            Fault::TargetEngine => "target-engine",
            Fault::Client => "client",
            Fault::LinkCut => "link-cut",
            Fault::LinkCutLong => "link-cut-40s",
            Fault::SourceDeaf => "source-deaf",
            Fault::SourceDeafLong => "source-deaf-40s",
            Fault::TargetDeafLong => "target-deaf-40s",
            Fault::DiskFull => "disk-full",
            Fault::SourceHost => "source-host",
            Fault::TargetHost => "target-host",
            Fault::TargetHostLate => "target-host-2s",
        }
    }

    /// The fault of our own matrix that is the same, or the same for a shorter time.
    pub(super) fn ours(self) -> Option<&'static str> {
        match self {
            Fault::LinkCut | Fault::LinkCutLong => Some("link-cut"),
            // Ours makes the host deaf whose daemon stands at the point.
            Fault::SourceDeaf | Fault::SourceDeafLong | Fault::TargetDeafLong => Some("half-open"),
            Fault::SourceDaemon
            | Fault::TargetDaemon
            | Fault::BothDaemons
            | Fault::SourceEngine
            | Fault::TargetEngine => Some(self.key()),
            Fault::Nothing
            | Fault::Client
            | Fault::DiskFull
            | Fault::SourceHost
            | Fault::TargetHost
            | Fault::TargetHostLate => None,
        }
    }

    /// The side whose engine it kills.
    pub(super) fn kills_engine_of(self) -> Option<Side> {
        match self {
            Fault::SourceEngine | Fault::SourceHost => Some(Source),
            Fault::TargetEngine | Fault::TargetHost | Fault::TargetHostLate => Some(Target),
            _ => None,
        }
    }

    fn duration(self) -> Duration {
        match self {
            Fault::LinkCut | Fault::SourceHost | Fault::TargetHost | Fault::TargetHostLate => CUT,
            Fault::SourceDeaf => DEAF,
            Fault::LinkCutLong | Fault::SourceDeafLong | Fault::TargetDeafLong => LONG,
            _ => Duration::ZERO,
        }
    }

    /// Does the deed, while a daemon is held.
    pub(super) fn strike(self, stage: &mut Stage<'_>, command: &mut Child) -> Result<()> {
        match self {
            Fault::Nothing => {}
            Fault::SourceDaemon => stage.source.kill(),
            Fault::TargetDaemon => stage.target.kill(),
            Fault::BothDaemons => {
                stage.source.kill();
                stage.target.kill();
            }
            Fault::SourceEngine => kill_engine(stage, Source)?,
            Fault::TargetEngine => kill_engine(stage, Target)?,
            // It may have ended by itself.
            Fault::Client => drop(command.kill()),
            Fault::LinkCut | Fault::LinkCutLong => stage.lab.beta.unplug()?,
            Fault::SourceDeaf | Fault::SourceDeafLong => stage.lab.alpha.set_deaf(true)?,
            Fault::TargetDeafLong => stage.lab.beta.set_deaf(true)?,
            Fault::DiskFull => set_full(&stage.lab.beta, true)?,
            Fault::SourceHost => power_off(stage, Source)?,
            Fault::TargetHost => power_off(stage, Target)?,
            Fault::TargetHostLate => {
                std::thread::sleep(LATE);
                power_off(stage, Target)?;
            }
        }
        Ok(())
    }

    /// Waits as long as the fault lasts, then mends what was broken; daemons run again.
    pub(super) fn heal(self, stage: &mut Stage<'_>) -> Result<()> {
        std::thread::sleep(self.duration());
        match self {
            Fault::LinkCut | Fault::LinkCutLong => stage.lab.beta.plug_in()?,
            Fault::SourceDeaf | Fault::SourceDeafLong => stage.lab.alpha.set_deaf(false)?,
            Fault::TargetDeafLong => stage.lab.beta.set_deaf(false)?,
            Fault::SourceHost => power_on(&stage.lab.alpha)?,
            Fault::TargetHost | Fault::TargetHostLate => power_on(&stage.lab.beta)?,
            _ => {}
        }
        for side in [Source, Target] {
            let libvirt = stage.of_mut(side);
            if libvirt.pid().is_none() {
                libvirt.run().context("a libvirtd does not come back")?;
            }
        }
        Ok(())
    }

    /// What is mended last, when the attempt is over: room on a full disk.
    pub(super) fn tidy(self, stage: &Stage<'_>) -> Result<()> {
        match self {
            Fault::DiskFull => set_full(&stage.lab.beta, false),
            _ => Ok(()),
        }
    }
}

fn kill_engine(stage: &Stage<'_>, side: Side) -> Result<()> {
    let count = kill_all(&stage.engines(side)?)?;
    ensure!(count > 0, "there is no engine to kill");
    Ok(())
}

fn power_off(stage: &mut Stage<'_>, side: Side) -> Result<()> {
    let libvirt = stage.of_mut(side);
    libvirt.host.unplug()?;
    kill_all(&libvirt.host.processes())?;
    libvirt.kill();
    Ok(())
}

/// Boots the host, which has forgotten what was in `/run`.
fn power_on(host: &Host) -> Result<()> {
    host.place.run(|| -> std::io::Result<()> {
        fs::remove_dir_all("/run/libvirt")?;
        fs::create_dir_all("/run/libvirt")
    })?;
    host.plug_in()
}

/// Takes all room from the file systems that libvirtd writes its state to, or gives it back.
fn set_full(host: &Host, is_full: bool) -> Result<()> {
    let scratch = host.daemon_log().with_file_name("scratch");
    let places = [PathBuf::from("/run"), PathBuf::from("/var/lib/libvirt"), scratch];
    host.place.run(move || places.iter().try_for_each(|place| set_room(place, !is_full)))
}

fn set_room(place: &Path, has_room: bool) -> Result<()> {
    let none = None::<&str>;
    for more in 0..64 {
        let found = statvfs(place)?;
        let used = found.blocks() - found.blocks_free() + more;
        let size = match has_room {
            true => "size=50%".to_owned(),
            // None at all would mean no limit.
            false => format!("size={}", used.max(1) * found.fragment_size()),
        };
        match mount(none, place, none, MsFlags::MS_REMOUNT, Some(size.as_str())) {
            // Somebody has taken more in between.
            Err(Errno::EINVAL) => {}
            done => return done.with_context(|| format!("cannot fill {}", place.display())),
        }
    }
    bail!("{} is written to too fast", place.display())
}
