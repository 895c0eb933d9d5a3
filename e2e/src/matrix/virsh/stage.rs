// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Two hosts with a libvirtd each, and one guest, on alpha.

use super::cases::Setup;
use super::devices::Devices;
use super::log;
use crate::lab::{Host, Lab};
use crate::libvirt::{Disks, Libvirt, Look, make_disks, write_definition};
use crate::matrix::observer::Observer;
use crate::matrix::stage::{GUEST, Side};
use crate::scene::{Cast, engines};
use crate::witness::Witness;
use anyhow::Result;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Child;

/// Slow enough that a fault can hit the guest's memory on its way.
const BANDWIDTH_MIB_PER_S: &str = "24";

pub(super) struct Stage<'a> {
    pub(super) lab: &'a Lab,
    pub(super) source: Libvirt<'a>,
    pub(super) target: Libvirt<'a>,
    pub(super) observer: Observer,
    _devices: Option<Devices>,
}

impl<'a> Stage<'a> {
    /// Starts both daemons, and boots the guest on the source.
    pub(super) fn new(lab: &'a Lab, setup: Setup) -> Result<Stage<'a>> {
        let observer = Observer::new(lab.directory())?;
        let start = |host: &'a Host| Libvirt::configured(host, &log::config(&log_of(host)));
        let (source, target) = (start(&lab.alpha)?, start(&lab.beta)?);
        let files = make_disks(lab, &cast())?;
        let devices = match setup {
            Setup::Devices => Some(Devices::attach(lab, &files)?),
            Setup::Usual | Setup::Paused | Setup::Direct => None,
        };
        let look = Look {
            machine: "q35".to_owned(),
            cpu: "qemu64".to_owned(),
            emulator: observer.program().display().to_string(),
            disks: if devices.is_some() { Disks::Devices(Devices::PLACE) } else { Disks::Files },
        };
        let stage = Stage { lab, source, target, observer, _devices: devices };
        let file = write_definition(lab, &cast(), &look)?;
        stage.source.virsh(&["define", &file])?.ok()?;
        stage.source.virsh(&["start", GUEST])?.ok()?;
        stage.witness().wait()?;
        if setup == Setup::Paused {
            stage.source.virsh(&["suspend", GUEST])?.ok()?;
        }
        Ok(stage)
    }

    pub(super) fn of(&self, side: Side) -> &Libvirt<'a> {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    pub(super) fn of_mut(&mut self, side: Side) -> &mut Libvirt<'a> {
        match side {
            Side::Source => &mut self.source,
            Side::Target => &mut self.target,
        }
    }

    pub(super) fn log(&self, side: Side) -> PathBuf {
        log_of(self.of(side).host)
    }

    pub(super) fn witness(&self) -> Witness<'a> {
        Witness::at(&self.lab.client, cast().address)
    }

    pub(super) fn engines(&self, side: Side) -> Result<Vec<u32>> {
        engines(self.of(side).host, GUEST)
    }

    /// Begins to move the guest.
    pub(super) fn migrate(&self, setup: Setup) -> Result<Child> {
        let options = options(setup, self.lab.beta.address);
        self.source.spawn_virsh(&options.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// The command in question.
pub(super) fn options(setup: Setup, target: Ipv4Addr) -> Vec<String> {
    let there = format!("qemu+tcp://{target}/system");
    let memory = format!("tcp://{target}");
    let mut words = vec!["migrate", "--live", "--persistent", "--undefinesource", "--unsafe"];
    if setup != Setup::Direct {
        words.push("--p2p");
    }
    words.extend(["--bandwidth", BANDWIDTH_MIB_PER_S, GUEST, &there, &memory]);
    words.into_iter().map(str::to_owned).collect()
}

pub(super) fn log_of(host: &Host) -> PathBuf {
    host.daemon_log().with_file_name("libvirtd.log")
}

fn cast() -> Cast {
    Cast::named(GUEST, 50).with_memory(112, 8).dirtying("text", 1)
}
