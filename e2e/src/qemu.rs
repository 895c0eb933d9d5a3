// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Starts QEMU without our program: to test the test guest, and to find other QEMUs.

use crate::command::run;
use crate::image::GuestImage;
use crate::lab::{GUEST_ADDRESS, Host};
use anyhow::Result;
use std::path::Path;
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

/// The kernel command line of a witness at the usual address.
pub fn command_line(more: &str) -> String {
    let more = if more.is_empty() { String::new() } else { format!(" {more}") };
    format!("console=ttyS0 quiet panic=-1 witness.ip={GUEST_ADDRESS}/24 witness.seed=7{more}")
}
