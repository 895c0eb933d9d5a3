// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Disks for test guests.

use crate::command::run;
use anyhow::{Context as _, Result};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who the engine runs as: it must be able to write its disks.
pub use crate::lab::ENGINE_UID;

/// Makes an empty raw disk that the engine may write.
pub fn raw(path: &Path, mebibytes: u64) -> Result<PathBuf> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    file.set_len(mebibytes << 20)?;
    give_to_engine(path)
}

/// Makes an empty qcow2 disk that the engine may write.
pub fn qcow2(path: &Path, mebibytes: u64) -> Result<PathBuf> {
    let size = format!("{mebibytes}M");
    run(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(path).arg(size))?;
    give_to_engine(path)
}

pub(crate) fn give_to_engine(path: &Path) -> Result<PathBuf> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    if nix::unistd::geteuid().is_root() {
        chown(path, Some(ENGINE_UID), Some(ENGINE_UID))?;
    }
    Ok(path.to_owned())
}
