// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A guest in the words of `xl`: the file that `xl create` reads.

use super::hotplug::Plugged;
use crate::error::EngineError;
use std::fmt::Write as _;
use whimbrel_model::guest::{
    Boot, BootFrom, Disk, DiskDevice, DiskFormat, DiskSource, Firmware, Guest, Mac, NetworkKind,
};
use whimbrel_model::passport::{DeviceKind, Passport};

/// The kinds of guests, as the passport's machine names them.
pub(super) const MACHINE_PVH: &str = "xenpvh";
pub(super) const MACHINE_PV: &str = "xenpv";
pub(super) const MACHINE_HVM: &str = "xenhvm";

/// The serial port of a whole machine, as a terminal of the host.
pub(super) const SERIAL: &str = "pty";

/// A whole machine has so many disks that firmware sees.
const IDE_DISKS_MAX: usize = 4;

/// Returns the machine of a guest: only a whole one has firmware.
pub(super) fn machine(guest: &Guest) -> &str {
    let usual = match guest.boot {
        Boot::Kernel { .. } => MACHINE_PVH,
        Boot::Firmware { .. } => MACHINE_HVM,
    };
    guest.machine.as_deref().unwrap_or(usual)
}

/// What Xen calls such guests.
pub(super) fn kind(machine: &str) -> &'static str {
    match machine {
        MACHINE_PV => "pv",
        MACHINE_HVM => "hvm",
        _ => "pvh",
    }
}

/// Writes the configuration of a guest.
pub(super) fn text(
    guest: &Guest,
    passport: &Passport,
    plugged: &Plugged,
) -> Result<String, EngineError> {
    let is_whole = passport.machine == MACHINE_HVM;
    let mut text = String::new();
    let mut set =
        |key: &str, value: String| writeln!(text, "{key}={value}").expect("a string grows");
    set("type", quoted(kind(&passport.machine))?);
    set("name", quoted(guest.name.as_str())?);
    set("uuid", quoted(&passport.guest.to_string())?);
    match &guest.boot {
        Boot::Kernel { kernel, ramdisk, command_line } if !is_whole => {
            set("kernel", quoted(&kernel.to_string_lossy())?);
            if let Some(ramdisk) = ramdisk {
                set("ramdisk", quoted(&ramdisk.to_string_lossy())?);
            }
            set("cmdline", quoted(command_line)?);
        }
        Boot::Firmware { firmware, from } if is_whole => {
            set("bios", quoted(bios(*firmware))?);
            set("boot", quoted(boot_order(*from))?);
            // Seen by whoever may see the console, and by nobody over the network.
            set("serial", quoted(SERIAL)?);
            set("vga", quoted("none")?);
            set("vnc", "0".to_owned());
        }
        Boot::Kernel { .. } => return Err(unsupported("a kernel: an HVM guest has firmware")),
        Boot::Firmware { .. } => {
            return Err(unsupported("firmware: PV and PVH guests are given their kernel"));
        }
    }
    set("memory", (passport.memory.0 >> 20).to_string());
    set("vcpus", passport.cpu_count.to_string());
    set("maxvcpus", passport.cpu_count_max.to_string());
    // The clock of the other host's processor may go at another speed: Xen sees to that where
    // it must, and is asked not to emulate what is the same everywhere.
    set("tsc_mode", quoted("native")?);
    // What follows an end is decided by the daemon.
    for end in ["on_poweroff", "on_reboot", "on_crash"] {
        set(end, quoted("preserve")?);
    }
    set("disk", disks(guest, &passport.machine, plugged)?);
    set("vif", cards(guest, passport, plugged)?);
    Ok(text)
}

fn disks(guest: &Guest, machine: &str, plugged: &Plugged) -> Result<String, EngineError> {
    let mut all = Vec::new();
    for (index, disk) in guest.disks.iter().enumerate() {
        let DiskSource::Path(path) = &disk.source else {
            return Err(unsupported("a disk by `nfs://`: mount the export, and give the path"));
        };
        let format = match disk.format {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
        };
        let name = disk_name(index, disk, machine);
        let access = if disk.is_read_only { "ro" } else { "rw" };
        let kind = match disk.device {
            DiskDevice::Disk => "",
            DiskDevice::Cdrom => "devtype=cdrom,",
        };
        let script = script(plugged.disk(index));
        // The path takes the rest of the line, whatever is in it.
        all.push(quoted(&format!(
            "format={format},vdev={name},access={access},{kind}{script}target={}",
            path.to_string_lossy()
        ))?);
    }
    Ok(format!("[{}]", all.join(",")))
}

fn cards(guest: &Guest, passport: &Passport, plugged: &Plugged) -> Result<String, EngineError> {
    let script = script(plugged.networks());
    let mut all = Vec::new();
    for (mac, bridge) in networks(guest, passport) {
        let bridge = bridge.ok_or_else(|| unsupported("user networking: give the guest a bridge"));
        let mac = mac.map(|mac| format!("mac={mac},")).unwrap_or_default();
        all.push(quoted(&format!("{mac}{script}bridge={}", bridge?))?);
    }
    Ok(format!("[{}]", all.join(",")))
}

fn script(script: Option<&str>) -> String {
    script.map(|script| format!("script={script},")).unwrap_or_default()
}

/// What a guest calls a disk of its own.
pub(super) fn disk_name(index: usize, disk: &Disk, machine: &str) -> String {
    let letter = char::from(b'a' + u8::try_from(index).expect("DISKS_MAX is small"));
    // Of the disks of a whole machine firmware sees those of IDE, which Xen cannot make read-only.
    let can_be_ide = !disk.is_read_only || disk.device == DiskDevice::Cdrom;
    let is_ide = machine == MACHINE_HVM && index < IDE_DISKS_MAX && can_be_ide;
    let bus = if is_ide { "hd" } else { "xvd" };
    disk.name.clone().unwrap_or_else(|| format!("{bus}{letter}"))
}

/// The firmware of a whole machine, as xl calls it.
pub(super) fn bios(firmware: Firmware) -> &'static str {
    match firmware {
        Firmware::Bios => "seabios",
        Firmware::Uefi => "ovmf",
    }
}

/// What the firmware looks at first.
pub(super) fn boot_order(from: BootFrom) -> &'static str {
    match from {
        BootFrom::Disk => "c",
        BootFrom::Cdrom => "d",
    }
}

/// The guest's network cards: the address that was frozen, and the bridge, where it is on one.
pub(super) fn networks<'a>(
    guest: &'a Guest,
    passport: &'a Passport,
) -> impl Iterator<Item = (Option<Mac>, Option<&'a str>)> {
    guest.networks.iter().enumerate().map(|(index, network)| {
        let mac = passport.devices.iter().find_map(|device| match device.kind {
            DeviceKind::Network { index: found, mac } if found == index => Some(mac),
            _ => None,
        });
        let bridge = match &network.kind {
            NetworkKind::Bridge { bridge } => Some(bridge.as_str()),
            NetworkKind::User { .. } => None,
        };
        (mac, bridge)
    })
}

fn unsupported(what: &str) -> EngineError {
    EngineError::Unsupported { what: what.to_owned() }
}

/// Quotes a string. xl's files know no way to write a quotation mark inside its own kind.
fn quoted(value: &str) -> Result<String, EngineError> {
    match value {
        _ if value.contains(['\n', '\r', '\\']) => {}
        _ if !value.contains('"') => return Ok(format!("\"{value}\"")),
        _ if !value.contains('\'') => return Ok(format!("'{value}'")),
        _ => {}
    }
    Err(unsupported("a value with line breaks, backslashes or both kinds of quotation marks"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Firmware sees the first four disks, unless they are read-only, which Xen cannot make so.
    #[test]
    fn disks_are_called_what_firmware_can_see() {
        let disk = |device, is_read_only| Disk {
            source: DiskSource::Path("/dev/vdb".into()),
            format: DiskFormat::Raw,
            is_read_only,
            device,
            name: None,
        };
        let name = |index, device, is_read_only, machine| {
            disk_name(index, &disk(device, is_read_only), machine)
        };
        assert_eq!(name(0, DiskDevice::Disk, false, MACHINE_PVH), "xvda");
        assert_eq!(name(0, DiskDevice::Disk, false, MACHINE_HVM), "hda");
        assert_eq!(name(1, DiskDevice::Disk, true, MACHINE_HVM), "xvdb");
        assert_eq!(name(3, DiskDevice::Cdrom, true, MACHINE_HVM), "hdd");
        assert_eq!(name(4, DiskDevice::Disk, false, MACHINE_HVM), "xvde");
        let named = Disk { name: Some("sda".to_owned()), ..disk(DiskDevice::Disk, false) };
        assert_eq!(disk_name(0, &named, MACHINE_HVM), "sda");
    }

    /// Nobody's definition may say more than one setting.
    #[test]
    fn values_cannot_break_out() {
        assert_eq!(quoted("quiet x='1'").unwrap(), "\"quiet x='1'\"");
        assert_eq!(quoted("x=\"1\"").unwrap(), "'x=\"1\"'");
        for bad in ["a\nkernel=b", "a\\", "'\""] {
            assert!(quoted(bad).is_err(), "{bad}");
        }
    }
}
