// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The passport as it is stored and sent: JSON, versioned and bounded.
//!
//! An unknown key is refused: a passport is what the target's engine is started from, and a part
//! of it that is not understood would be a device that is not there.

use super::{Accelerator, BootFile, BootRole, Cpu, Device, DeviceKind, EngineKind, Passport};
use crate::guest::file::check_word;
use crate::guest::{Mac, VCPUS_MAX};
use crate::id::GuestId;
use crate::json::{Format, JsonError, Wire, raw_enum, raw_struct};
use crate::units::Bytes;
use std::path::PathBuf;

/// The version this Whimbrel writes.
pub const VERSION: u32 = 1;
/// Longest text that is looked at, in bytes.
pub const PASSPORT_BYTES_MAX: usize = 256 * 1024;
/// Most devices, and most boot files.
pub const DEVICES_MAX: usize = 64;
pub const BOOT_FILES_MAX: usize = 8;
/// Slots of a PCI bus.
pub const PCI_SLOTS: u8 = 32;

const FORMAT: Format = Format { what: "passport", version: VERSION, bytes_max: PASSPORT_BYTES_MAX };

/// Returns the passport as JSON, the same text for the same passport.
pub fn to_json(passport: &Passport) -> String {
    FORMAT.write(passport)
}

/// Reads what [`to_json`] wrote, here or on another host.
pub fn from_json(text: &str) -> Result<Passport, JsonError> {
    let passport = FORMAT.read::<Passport>(text)?;
    check(&passport).map_err(|reason| JsonError::Malformed { what: FORMAT.what, reason })?;
    Ok(passport)
}

/// Checks what a peer may not choose freely: every word that reaches the engine, every count.
fn check(passport: &Passport) -> Result<(), String> {
    check_word(&passport.machine, "machine type")?;
    check_word(&passport.cpu.model, "CPU model")?;
    let counts = 1..=VCPUS_MAX;
    let (count, count_max) = (passport.cpu_count, passport.cpu_count_max);
    if !counts.contains(&count) || !counts.contains(&count_max) || count > count_max {
        return Err(format!("{count} vCPUs of at most {count_max} cannot be"));
    }
    if passport.devices.len() > DEVICES_MAX || passport.boot_files.len() > BOOT_FILES_MAX {
        return Err(format!(
            "{} devices and {} boot files are too many",
            passport.devices.len(),
            passport.boot_files.len()
        ));
    }
    for Device { id, pci_slot, .. } in &passport.devices {
        check_word(id, "device id")?;
        if let Some(slot) = pci_slot.filter(|&slot| slot >= PCI_SLOTS) {
            return Err(format!("device `{id}` is in slot {slot}, and a bus has {PCI_SLOTS}"));
        }
    }
    Ok(())
}

raw_struct! {
    #[serde(deny_unknown_fields)]
    Passport as RawPassport {
        guest: GuestId,
        engine: EngineKind,
        engine_version: String,
        accelerator: Accelerator,
        machine: String,
        cpu: Cpu,
        memory: Bytes,
        cpu_count: u32,
        cpu_count_max: u32,
        devices: Vec<Device>,
        boot_files: Vec<BootFile>,
    }
}

raw_enum! { EngineKind as RawEngineKind { Qemu, Xen, Fake, } }
raw_enum! { Accelerator as RawAccelerator { Kvm, Tcg, } }
raw_enum! { BootRole as RawBootRole { Kernel, Ramdisk, Firmware, } }

raw_struct! {
    #[serde(deny_unknown_fields)]
    Cpu as RawCpu { model: String, features: Vec<String>, }
}

raw_struct! {
    #[serde(deny_unknown_fields)]
    Device as RawDevice {
        id: String,
        kind: DeviceKind,
        pci_slot: Option<u8>,
        rom_bytes: Option<u64>,
    }
}

raw_enum! {
    DeviceKind as RawDeviceKind {
        Disk { index: usize },
        Network { index: usize, mac: Mac },
        Serial,
        Balloon,
        Rng,
        Panic,
        Firmware,
    }
}

raw_struct! {
    #[serde(deny_unknown_fields)]
    BootFile as RawBootFile { role: BootRole, path: PathBuf, bytes: u64, blake3: [u8; 32], }
}

/// An index into the definition's lists.
impl Wire for usize {
    type Raw = u32;

    fn to_raw(&self) -> u32 {
        u32::try_from(*self).expect("a guest has few devices")
    }

    fn from_raw(raw: u32) -> Result<Self, String> {
        match usize::try_from(raw) {
            Ok(index) if index < DEVICES_MAX => Ok(index),
            Ok(_) | Err(_) => Err(format!("{raw} is not the index of a device")),
        }
    }
}

#[cfg(test)]
mod tests {
    //! A passport comes back as it was, its text is stable, and nothing that could become an
    //! argument of the engine passes unchecked.

    use super::*;
    use crate::sample::passport as sample;

    #[test]
    fn a_passport_comes_back_as_it_was() {
        let text = to_json(&sample());
        assert_eq!(from_json(&text), Ok(sample()));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let text = to_json(&sample());
        let check = |from: &str, to: &str, expected: &str| {
            assert!(text.contains(from), "{from}");
            let error = from_json(&text.replacen(from, to, 1)).expect_err(to);
            assert_eq!(error.to_string(), expected);
        };
        check(
            "\"version\":1",
            "\"version\":2",
            "the passport has version 2, and this Whimbrel reads version 1",
        );
        check(
            "\"machine\":\"pc-q35-7.2\"",
            "\"machine\":\"q35 -drive file=/etc/shadow\"",
            "the passport cannot be read: a machine type cannot contain ` `",
        );
        check(
            "\"/xen/vmlinuz\"",
            "\"../vmlinuz\"",
            "the passport cannot be read: boot_files: [0] path: the path `../vmlinuz` contains \
             `..`; write where it really leads",
        );
        check(
            "\"pci_slot\":2",
            "\"pci_slot\":32",
            "the passport cannot be read: device `disk0` is in slot 32, and a bus has 32",
        );
        check(
            "\"cpu_count\":1",
            "\"cpu_count\":3",
            "the passport cannot be read: 3 vCPUs of at most 2 cannot be",
        );
        assert!(from_json(&text.replacen("\"guest\"", "\"gast\":1,\"guest\"", 1)).is_err());
        assert!(from_json("{}").is_err());
        assert!(from_json(&" ".repeat(PASSPORT_BYTES_MAX + 1)).is_err());
    }
}
