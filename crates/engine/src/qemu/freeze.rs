// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Freezes what a guest derives from its first host into a passport.
//!
//! Every device gets its place on the PCI bus here, once and for ever. The plan of the bus leaves
//! each kind its own range, so that a guest that is given one more disk finds the others where
//! they were:
//!
//! ```text
//! 0x00  chipset             0x02  random numbers   0x04-0x0b  network cards
//! 0x01  chipset (i440fx)    0x03  balloon          0x0c-0x1e  disks
//! 0x1f  chipset (q35)
//! ```

use super::facts::Facts;
use super::firmware;
use super::probe::Probe;
use crate::boot_files::{describe, of_kernel};
use crate::error::EngineError;
use std::collections::BTreeMap;
use whimbrel_model::guest::{Boot, DiskDevice, Firmware, Guest, Mac};
use whimbrel_model::id::GuestId;
use whimbrel_model::passport::{BootFile, BootRole, Cpu, Device, DeviceKind, EngineKind, Passport};

const SLOT_RNG: u8 = 0x02;
const SLOT_BALLOON: u8 = 0x03;
const SLOT_NETWORK_FIRST: u8 = 0x04;
const SLOT_DISK_FIRST: u8 = 0x0c;
const SLOT_DISK_LAST: u8 = 0x1e;

/// The prefix that KVM and QEMU have used for two decades; locally administered.
const MAC_PREFIX: [u8; 3] = [0x52, 0x54, 0x00];

pub(super) fn passport(
    id: GuestId,
    guest: &Guest,
    facts: &Facts,
    cpu: Cpu,
    boot_files: Vec<BootFile>,
) -> Result<Passport, EngineError> {
    Ok(Passport {
        guest: id,
        engine: EngineKind::Qemu,
        engine_version: facts.engine.version.clone(),
        accelerator: facts.engine.accelerator,
        machine: machine(guest, facts)?,
        cpu,
        memory: guest.memory.size,
        cpu_count: guest.cpus.count,
        cpu_count_max: guest.cpus.count_max,
        devices: devices(id, guest)?,
        boot_files,
    })
}

/// Resolves `q35` and `pc` to what they mean here, and refuses what this QEMU cannot start.
fn machine(guest: &Guest, facts: &Facts) -> Result<String, EngineError> {
    let Some(wanted) = &guest.machine else { return Ok(facts.engine.machine_default.clone()) };
    let machines = &facts.engine.machines;
    if machines.contains(wanted) {
        return Ok(wanted.clone());
    }
    let newest = |prefix: &str| machines.iter().rfind(|name| name.starts_with(prefix)).cloned();
    let resolved = match wanted.as_str() {
        "q35" => newest("pc-q35-"),
        "pc" => newest("pc-i440fx-"),
        _ => None,
    };
    resolved.ok_or_else(|| EngineError::Unsupported {
        what: format!(
            "QEMU {} has no machine type `{wanted}`; it has `q35`, `pc` and {} more, up to `{}`",
            facts.engine.version,
            machines.len(),
            facts.engine.machine_default
        ),
    })
}

/// Gives every device of the guest its place.
pub(super) fn devices(id: GuestId, guest: &Guest) -> Result<Vec<Device>, EngineError> {
    let device = |id: String, kind, pci_slot| Device { id, kind, pci_slot, rom_bytes: None };
    let mut devices = Vec::new();
    if guest.devices.has_serial {
        devices.push(device("serial0".to_owned(), DeviceKind::Serial, None));
    }
    devices.push(device("panic0".to_owned(), DeviceKind::Panic, None));
    if guest.devices.has_rng {
        devices.push(device("rng0".to_owned(), DeviceKind::Rng, Some(SLOT_RNG)));
    }
    if guest.devices.has_balloon {
        devices.push(device("balloon0".to_owned(), DeviceKind::Balloon, Some(SLOT_BALLOON)));
    }
    for (index, (network, slot)) in
        guest.networks.iter().zip(SLOT_NETWORK_FIRST..SLOT_DISK_FIRST).enumerate()
    {
        let mac = network.mac.unwrap_or_else(|| mac(id, index));
        devices.push(device(format!("net{index}"), DeviceKind::Network { index, mac }, Some(slot)));
    }
    let mut slots = SLOT_DISK_FIRST..=SLOT_DISK_LAST;
    for (index, disk) in guest.disks.iter().enumerate() {
        let slot = match disk.device {
            DiskDevice::Cdrom => None,
            DiskDevice::Disk => Some(slots.next().ok_or_else(too_many_disks)?),
        };
        devices.push(device(format!("disk{index}"), DeviceKind::Disk { index }, slot));
    }
    if is_uefi(guest) {
        devices.push(device("firmware0".to_owned(), DeviceKind::Firmware, None));
    }
    Ok(devices)
}

fn too_many_disks() -> EngineError {
    let places = SLOT_DISK_LAST - SLOT_DISK_FIRST + 1;
    EngineError::Unsupported { what: format!("more than {places} disks in one guest") }
}

fn is_uefi(guest: &Guest) -> bool {
    matches!(guest.boot, Boot::Firmware { firmware: Firmware::Uefi, .. })
}

/// Draws the address of the n-th network card from the guest's identity: the same guest has the
/// same addresses wherever and whenever it is frozen.
fn mac(id: GuestId, index: usize) -> Mac {
    let mut hasher = blake3::Hasher::new();
    hasher.update(id.0.as_bytes()).update(&(index as u64).to_le_bytes());
    let hash = hasher.finalize();
    let [a, b, c] = MAC_PREFIX;
    let [d, e, f, ..] = *hash.as_bytes();
    Mac([a, b, c, d, e, f])
}

/// Settles the CPU: the model with its flags, and the features a guest really sees of it.
///
/// What this host cannot give of a model that was asked for is written into the passport as
/// `-flag`, so that a target that could give it does not.
pub(super) async fn cpu(guest: &Guest, facts: &Facts, probe: &Probe) -> Result<Cpu, EngineError> {
    let wanted = guest.cpus.model.as_ref().unwrap_or(&facts.engine.cpu_model);
    let (name, flags) = parse_model(wanted)?;
    let expansion = probe.expand(&facts.cpu, name, &flags).await?;
    let mut model = wanted.clone();
    let follows_the_host = name == "host" || name == "max";
    if !follows_the_host {
        for missing in expansion.features.difference(&facts.cpu_available) {
            model.push_str(",-");
            model.push_str(missing);
        }
    }
    let features = expansion.features.intersection(&facts.cpu_available).cloned().collect();
    Ok(Cpu { model, features })
}

/// Splits `Skylake-Server,-hle,+aes,pmu=off` and refuses what is not of this form, because it
/// ends on a command line.
fn parse_model(text: &str) -> Result<(&str, BTreeMap<String, bool>), EngineError> {
    let wrong = || EngineError::Unsupported {
        what: format!("the CPU model `{text}`; write `Name`, `Name,-flag` or `Name,flag=off`"),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_word = |word: &str| !word.is_empty() && word.chars().all(allowed);
    let mut parts = text.split(',');
    let name = parts.next().filter(|name| is_word(name)).ok_or_else(wrong)?;
    let mut flags = BTreeMap::new();
    for part in parts {
        let (flag, is_on) = if let Some(flag) = part.strip_prefix('-') {
            (flag, false)
        } else if let Some(flag) = part.strip_prefix('+') {
            (flag, true)
        } else {
            match part.split_once('=') {
                Some((flag, "on")) => (flag, true),
                Some((flag, "off")) => (flag, false),
                _ => return Err(wrong()),
            }
        };
        if !is_word(flag) {
            return Err(wrong());
        }
        flags.insert(flag.to_owned(), is_on);
    }
    Ok((name, flags))
}

/// Describes by content the files that the next reboot of the guest needs. Blocks.
pub(super) fn boot_files(guest: &Guest) -> Result<Vec<BootFile>, EngineError> {
    match &guest.boot {
        Boot::Firmware { firmware: Firmware::Uefi, .. } => {
            Ok(vec![describe(BootRole::Firmware, firmware::installed()?.code)?])
        }
        Boot::Kernel { .. } | Boot::Firmware { firmware: Firmware::Bios, .. } => of_kernel(guest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::samples;

    /// Addresses never move: written down here, they hold for every later version.
    #[test]
    fn devices_have_their_places_for_ever() {
        let guest = samples::everything();
        let text: Vec<_> = devices(samples::ID, &guest)
            .unwrap()
            .into_iter()
            .map(|device| format!("{} {:02x?}", device.id, device.pci_slot))
            .collect();
        assert_eq!(
            text,
            [
                "serial0 None",
                "panic0 None",
                "rng0 Some(02)",
                "balloon0 Some(03)",
                "net0 Some(04)",
                "net1 Some(05)",
                "disk0 Some(0c)",
                "disk1 Some(0d)",
                "disk2 None",
                "disk3 Some(0e)",
                "disk4 Some(0f)",
            ]
        );
    }

    #[test]
    fn addresses_are_drawn_from_the_identity() {
        assert_eq!(mac(samples::ID, 0), mac(samples::ID, 0));
        assert_ne!(mac(samples::ID, 0), mac(samples::ID, 1));
        assert!(mac(samples::ID, 0).to_string().starts_with("52:54:00:"));
    }

    #[test]
    fn more_disks_than_places_are_refused() {
        let mut guest = samples::everything();
        guest.disks = vec![guest.disks[0].clone(); 20];
        assert!(devices(samples::ID, &guest).is_err());
        guest.disks.pop();
        assert!(devices(samples::ID, &guest).is_ok());
    }

    #[test]
    fn models_are_parsed_and_nothing_else_passes() {
        let (name, flags) = parse_model("Skylake-Server-v4,-hle,+aes,pmu=off").unwrap();
        assert_eq!(name, "Skylake-Server-v4");
        let expected = [("aes", true), ("hle", false), ("pmu", false)];
        assert!(flags.iter().map(|(name, &is_on)| (name.as_str(), is_on)).eq(expected));
        for wrong in ["", "a b", "max,foo=1", "max,,", "max,-", "max;rm"] {
            assert!(parse_model(wrong).is_err(), "{wrong}");
        }
    }
}
