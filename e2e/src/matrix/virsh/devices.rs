// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Disks as hosts of a storage network see them: each host has a block device of its own for the
//! same blocks. What one host's kernel locks, the other's knows nothing of.

use crate::command::{run, stdout_of};
use crate::lab::{Host, Lab};
use anyhow::{Context as _, Result};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Room for the guest's disks, whatever their format adds.
const DEVICE_BYTES: u64 = 16 << 20;

/// Loop devices over the same files, one of each for each host. They go when the last one who has
/// them open is gone, whoever that is.
pub(super) struct Devices {
    _held: Vec<File>,
}

impl Devices {
    /// Where a host finds its devices.
    pub(super) const PLACE: &str = "/srv/disks";

    pub(super) fn attach(lab: &Lab, files: &[PathBuf]) -> Result<Devices> {
        let mut held = Vec::new();
        for host in [&lab.alpha, &lab.beta] {
            for file in files {
                held.push(attach(host, file)?);
            }
        }
        Ok(Devices { _held: held })
    }
}

fn attach(host: &Host, file: &Path) -> Result<File> {
    // A device cannot grow as a file does.
    let whole = File::options().write(true).open(file)?;
    whole.set_len(whole.metadata()?.len().max(DEVICE_BYTES))?;
    let device = stdout_of(Command::new("losetup").args(["--find", "--show"]).arg(file))?;
    let device = PathBuf::from(device.trim());
    let held = File::open(&device).with_context(|| format!("no {}", device.display()))?;
    // It is detached once nobody has it open any more.
    run(Command::new("losetup").arg("--detach").arg(&device))?;
    let name = Path::new(Devices::PLACE).join(file.file_name().context("a disk has a name")?);
    host.place.run(move || -> Result<()> {
        fs::create_dir_all(Devices::PLACE)?;
        symlink(&device, &name).with_context(|| format!("no {}", name.display()))
    })?;
    Ok(held)
}
