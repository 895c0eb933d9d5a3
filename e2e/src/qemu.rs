// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Starts QEMU without our program: to test the test guest, and to find other QEMUs.

use crate::apt::{Apt, unpacked_once};
use crate::command::{run, stdout_of};
use crate::image::GuestImage;
use crate::lab::{GUEST_ADDRESS, Host};
use crate::setting::Skip;
use anyhow::{Context as _, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// Starts the guest by hand on a host, with a tap on its bridge; its console goes to `console`.
pub fn start_by_hand(
    host: &Host,
    image: &GuestImage,
    disks: &[&Path],
    console: &Path,
) -> Result<Child> {
    host.place.run(|| {
        if !Path::new("/sys/class/net/tap0").exists() {
            run(Command::new("ip").args(["tuntap", "add", "tap0", "mode", "tap"]))?;
        }
        run(Command::new("ip").args(["link", "set", "tap0", "master", "br0", "up"]))
    })?;
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg,thread=multi", "-machine", "q35", "-m", "192", "-nographic"]);
    command.args(["-no-reboot", "-nodefaults", "-display", "none"]);
    command.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.initramfs);
    command.args(["-append", &command_line("")]);
    for (index, disk) in disks.iter().enumerate() {
        let drive = format!("file={},if=none,id=d{index},format=raw,cache=none", disk.display());
        command.args(["-drive", &drive, "-device", &format!("virtio-blk-pci,drive=d{index}")]);
    }
    command.args(["-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no"]);
    command.args(["-device", "virtio-net-pci,netdev=n0"]);
    command.arg("-serial").arg(format!("file:{}", console.display()));
    host.spawn(command)
}

/// A QEMU of another version, unpacked beside the system's.
#[derive(Clone, Debug)]
pub struct OtherQemu {
    /// To be shown to a host at [`OtherQemu::PLACE`].
    pub directory: PathBuf,
}

impl OtherQemu {
    /// Where a host finds it.
    pub const PLACE: &str = "/srv/other-qemu";
    /// What to start there: finds its own firmware.
    pub const PROGRAM: &str = "/srv/other-qemu/qemu";

    /// Takes it from the cache, or downloads it; the system's packages are not touched.
    pub fn fetch(cache: &Path) -> Result<OtherQemu> {
        let directory = unpacked_once(&cache.join("qemu-backports"), |partial| {
            let suites = ["bookworm", "bookworm-backports"];
            let apt = Apt::private(&cache.join("apt-backports"), &suites)?;
            let of_backports =
                ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios"];
            let names = of_backports.map(|name| format!("{name}/bookworm-backports"));
            let mut packages: Vec<_> = names.iter().map(String::as_str).collect();
            packages.push("ipxe-qemu");
            apt.unpack(&packages, partial)?;
            let start = partial.join("qemu");
            fs::write(&start, START)?;
            fs::set_permissions(&start, fs::Permissions::from_mode(0o755))?;
            // Whoever the engine runs as must get there.
            fs::set_permissions(partial, fs::Permissions::from_mode(0o755))?;
            Ok(())
        })?;
        Ok(OtherQemu { directory })
    }

    /// The same for a story that cannot be told without it.
    pub fn fetch_or_skip(cache: &Path) -> Result<OtherQemu> {
        OtherQemu::fetch(cache)
            .map_err(|error| Skip(format!("no other QEMU can be had: {error:#}")).into())
    }

    /// What a host's configuration says for this QEMU to be its engine.
    pub fn configuration() -> String {
        format!("[engine]\nqemu = \"{}\"", OtherQemu::PROGRAM)
    }

    /// Its version, as in `10.0.2`.
    pub fn version(&self) -> Result<String> {
        version_of(&self.directory.join("qemu"))
    }
}

/// Replaces itself by the unpacked QEMU, so that the process id is QEMU's.
const START: &str = r#"#!/bin/sh
here=$(dirname "$0")
share=$here/usr/share
exec "$here/usr/bin/qemu-system-x86_64" -L "$share/qemu" -L "$share/seabios" \
    -L "$here/usr/lib/ipxe/qemu" "$@"
"#;

/// The version of a QEMU, as in `7.2.22`.
pub fn version_of(program: &Path) -> Result<String> {
    let said = stdout_of(Command::new(program).arg("--version"))?;
    let version = said.split_once("version ").and_then(|(_, rest)| rest.split([' ', '\n']).next());
    Ok(version.with_context(|| format!("no version in: {said}"))?.to_owned())
}

/// The kernel command line of a witness at the usual address.
pub fn command_line(more: &str) -> String {
    let more = if more.is_empty() { String::new() } else { format!(" {more}") };
    format!("console=ttyS0 quiet panic=-1 witness.ip={GUEST_ADDRESS}/24 witness.seed=7{more}")
}
