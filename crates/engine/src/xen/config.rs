// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A guest in the words of `xl`: the file that `xl create` reads.

use super::hotplug::Plugged;
use crate::error::EngineError;
use std::fmt::Write as _;
use whimbrel_model::guest::{
    Boot, Disk, DiskDevice, DiskFormat, DiskSource, Guest, Mac, NetworkKind,
};
use whimbrel_model::passport::{DeviceKind, Passport};

/// The kinds of guests, as the passport's machine names them.
pub(super) const MACHINE_PVH: &str = "xenpvh";
pub(super) const MACHINE_PV: &str = "xenpv";

/// Writes the configuration of a guest.
pub(super) fn text(
    guest: &Guest,
    passport: &Passport,
    plugged: &Plugged,
) -> Result<String, EngineError> {
    let Boot::Kernel { kernel, ramdisk, command_line } = &guest.boot else {
        return Err(unsupported("firmware: on Xen a guest is given its kernel"));
    };
    let kind = if passport.machine == MACHINE_PV { "pv" } else { "pvh" };
    let mut text = String::new();
    let mut set =
        |key: &str, value: String| writeln!(text, "{key}={value}").expect("a string grows");
    set("type", quoted(kind)?);
    set("name", quoted(guest.name.as_str())?);
    set("uuid", quoted(&passport.guest.to_string())?);
    set("kernel", quoted(&kernel.to_string_lossy())?);
    if let Some(ramdisk) = ramdisk {
        set("ramdisk", quoted(&ramdisk.to_string_lossy())?);
    }
    set("cmdline", quoted(command_line)?);
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
    set("disk", disks(guest, plugged)?);
    set("vif", cards(guest, passport, plugged)?);
    Ok(text)
}

fn disks(guest: &Guest, plugged: &Plugged) -> Result<String, EngineError> {
    let mut all = Vec::new();
    for (index, disk) in guest.disks.iter().enumerate() {
        let DiskSource::Path(path) = &disk.source else {
            return Err(unsupported("a disk by `nfs://`: mount the export, and give the path"));
        };
        let format = match disk.format {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
        };
        let name = disk_name(index, disk);
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
pub(super) fn disk_name(index: usize, disk: &Disk) -> String {
    let letter = char::from(b'a' + u8::try_from(index).expect("DISKS_MAX is small"));
    disk.name.clone().unwrap_or_else(|| format!("xvd{letter}"))
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
