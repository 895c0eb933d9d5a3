// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a guest boots from, besides a kernel that the engine loads; and its other devices.

use crate::bootable;
use crate::lab::SHARED;
use crate::scene::{Cast, SOON, Scene, await_state, lives_only_on, until};
use crate::setting::Setting;
use crate::witness::{Status, Witness};
use anyhow::{Context as _, Result, ensure};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// What a guest boots, and how the file says so.
struct Medium {
    boot: &'static str,
    device: &'static str,
    /// Disks that the guest sees and may only read; a CD is not one of them.
    read_only_disks: u64,
}

pub(super) fn a_disk_by_bios(setting: &Setting) -> Result<()> {
    boots_and_moves(setting, &Medium { boot: "", device: "disk", read_only_disks: 1 })
}

/// With variables of its own, which move along.
pub(super) fn a_disk_by_uefi(setting: &Setting) -> Result<()> {
    bootable::need_uefi()?;
    let boot = "[boot]\nfirmware = \"uefi\"\n";
    boots_and_moves(setting, &Medium { boot, device: "disk", read_only_disks: 1 })
}

pub(super) fn an_iso(setting: &Setting) -> Result<()> {
    let boot = "[boot]\nfrom = \"cdrom\"\n";
    boots_and_moves(setting, &Medium { boot, device: "cdrom", read_only_disks: 0 })
}

/// Boots through firmware, is read-only where the file says so, and moves like any other guest.
fn boots_and_moves(setting: &Setting, medium: &Medium) -> Result<()> {
    let scene = Scene::paired(setting)?;
    // UEFI and GRUB keep the kernel twice for a moment.
    let mut cast = Cast::web1().with_memory(320, 32);
    let image = scene.lab.shared.join("boot.img");
    bootable::make(&scene.image, &cast.command_line(), &image)?;
    cast.boot = Some(medium.boot.to_owned());
    cast.disks = format!(
        "[[disk]]\npath = \"{SHARED}/boot.img\"\nformat = \"raw\"\nread_only = true\n\
         device = \"{}\"\n",
        medium.device
    );
    let witness = scene.create(scene.alpha(), &cast)?;
    let status = witness.is_well()?;
    ensure!(status.number("read_only_disks")? == medium.read_only_disks, "{status:?}");
    scene.alpha().whimbrel(&["migrate", "web1", "beta"])?.ok()?;
    lives_only_on(scene.beta(), scene.alpha(), "web1", "running")?;
    let moved = witness.is_well()?;
    ensure!(moved.boot(0)? == 1, "it was booted anew: {moved:?}");
    // The target has the firmware and its variables, too: it boots there.
    scene.beta().whimbrel(&["reboot", "web1"])?.ok()?;
    until("it has rebooted there", SOON * 2, || is_boot(&witness.wait()?, 2))
}

fn is_boot(status: &Status, boot: u64) -> Result<bool> {
    Ok(status.boot(0)? == boot)
}

/// User networking needs no bridge; a port of the host leads into the guest. It is free again when
/// the guest has gone.
pub(super) fn a_port_leads_into_the_guest(setting: &Setting) -> Result<()> {
    let scene = Scene::strangers(setting)?;
    let alpha = scene.alpha();
    let mut cast = Cast::web1();
    cast.networks =
        "[[network]]\nuser = true\nforward = [\"tcp:127.0.0.1:2222->7777\"]\n".to_owned();
    // Where QEMU's own network puts its first guest.
    cast.address = Ipv4Addr::new(10, 0, 2, 15);
    let file = scene.guest_file(&cast)?;
    alpha.whimbrel(&["create", &file])?.ok()?;
    let ask = || -> Result<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 2222));
        let mut stream = alpha.place.run(move || TcpStream::connect(address))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"status\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    };
    until("the forwarded port answers", SOON * 2, || {
        Ok(ask().is_ok_and(|line| line.contains("boot0=1")))
    })?;
    alpha.whimbrel(&["stop", "--now", "web1"])?.ok()?;
    await_state(alpha, "web1", "stopped")?;
    ensure!(ask().is_err(), "the port of a stopped guest answers");
    Ok(())
}

/// What was derived from the host at the first start stays: the machine, the processor and the
/// card's address are the same after a stop, and on the other host.
pub(super) fn what_was_frozen_stays(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    let frozen = |host| -> Result<serde_json::Value> {
        let shown = crate::scene::json(host, &["show", "web1"])?;
        let (frozen, networks) = (&shown["frozen"], &shown["networks"]);
        ensure!(frozen.is_object(), "`show` shows nothing frozen: {shown}");
        Ok(serde_json::json!({ "frozen": frozen, "networks": networks }))
    };
    let first = frozen(alpha)?;
    alpha.whimbrel(&["stop", "--now", "web1"])?.ok()?;
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok()?;
    beta.whimbrel(&["start", "web1"])?.ok()?;
    booted_twice(&witness).context("on the other host")?;
    let second = frozen(beta)?;
    ensure!(first == second, "it changed:\n{first}\n{second}");
    Ok(())
}

fn booted_twice(witness: &Witness<'_>) -> Result<()> {
    let status = witness.wait()?;
    ensure!(is_boot(&status, 2)?, "{status:?}");
    Ok(())
}
