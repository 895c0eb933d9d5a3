// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What was derived from the host when a guest first started.
//!
//! The definition says "a CPU like the host's"; the passport says which one that was. It is frozen
//! at the first start, travels with the guest, and the target starts its engine from nothing else,
//! so that both engines agree on every device to the byte.

pub mod file;

use crate::id::GuestId;
use crate::units::Bytes;
use std::path::PathBuf;

/// Everything about a guest that an engine must reproduce exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passport {
    pub guest: GuestId,
    pub engine: EngineKind,
    /// The engine that first started the guest, as it names itself: `7.2.22`.
    pub engine_version: String,
    pub accelerator: Accelerator,
    /// Versioned, never an alias: `pc-q35-7.2`.
    pub machine: String,
    pub cpu: Cpu,
    pub memory: Bytes,
    pub cpu_count: u32,
    pub cpu_count_max: u32,
    pub devices: Vec<Device>,
    /// Files the next reboot needs, by content: kernel, ramdisk, firmware code.
    pub boot_files: Vec<BootFile>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineKind {
    Qemu,
    Xen,
    /// Exists only in tests.
    Fake,
}

impl EngineKind {
    /// Returns its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Qemu => "QEMU",
            EngineKind::Xen => "Xen",
            EngineKind::Fake => "the fake engine",
        }
    }

    /// Whether the engine itself chooses when to stop a guest that moves, and aims at no pause. A
    /// pause that is promised is a promise to give up then.
    pub fn chooses_pause(self) -> bool {
        self == EngineKind::Xen
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accelerator {
    Kvm,
    Tcg,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// The model as given to the engine, with flags: `Skylake-Server,-hle`.
    pub model: String,
    /// The features the guest really sees, by the engine's names, sorted. The target must have
    /// them all; it may have more.
    pub features: Vec<String>,
}

/// A device at a fixed address, in the order the engine is given them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub id: String,
    pub kind: DeviceKind,
    /// Slot on the guest's PCI bus; none for devices that are not on it.
    pub pci_slot: Option<u8>,
    /// Size of the option ROM in bytes, where the device has one: a different size on the target
    /// breaks the migration late.
    pub rom_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// The n-th disk of the definition.
    Disk {
        index: usize,
    },
    /// The n-th network card of the definition.
    Network {
        index: usize,
        mac: crate::guest::Mac,
    },
    Serial,
    Balloon,
    Rng,
    /// Lets the guest's kernel say that it has panicked.
    Panic,
    /// UEFI variables of the guest.
    Firmware,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFile {
    pub role: BootRole,
    pub path: PathBuf,
    pub bytes: u64,
    pub blake3: [u8; 32],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BootRole {
    Kernel,
    Ramdisk,
    Firmware,
}
