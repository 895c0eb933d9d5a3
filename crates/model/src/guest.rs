// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The definition of a guest, checked.
//!
//! A definition says what a person wants; what was derived from the host at the first start is in
//! the [passport](crate::passport).

pub mod file;
pub mod kernel;
pub mod xm;

use crate::id::{GuestId, GuestName};
use crate::units::Bytes;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Most disks a guest can have.
pub const DISKS_MAX: usize = 24;
/// Most network cards a guest can have.
pub const NETWORKS_MAX: usize = 8;
/// Most virtual CPUs a guest can have.
pub const VCPUS_MAX: u32 = 255;

/// A guest as its owner described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    pub name: GuestName,
    /// Given by the file, or drawn when the guest is defined.
    pub id: Option<GuestId>,
    pub memory: Memory,
    pub cpus: Cpus,
    /// A versioned machine type, or none: the engine's default, frozen at the first start.
    pub machine: Option<String>,
    pub boot: Boot,
    pub disks: Vec<Disk>,
    pub networks: Vec<Network>,
    pub devices: Devices,
    pub on: Policies,
    pub autostart: bool,
    /// Whether hosts that the guest leaves may keep its (sealed) memory for its return.
    pub keep_memory: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What the guest boots with.
    pub size: Bytes,
    /// What a balloon may squeeze it down to, if at all.
    pub min: Option<Bytes>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus {
    pub count: u32,
    /// What may be plugged in later; at least `count`.
    pub count_max: u32,
    /// An engine's CPU model with flags (`Skylake-Server,-hle`), or none: the host's named model.
    pub model: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    /// The engine loads the kernel itself.
    Kernel { kernel: PathBuf, ramdisk: Option<PathBuf>, command_line: String },
    /// The guest's firmware boots a disk or a CD.
    Firmware { firmware: Firmware, from: BootFrom },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    Bios,
    Uefi,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootFrom {
    Disk,
    Cdrom,
}

/// A disk, named by its place: the first is `vda` in the guest, the second `vdb`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    pub source: DiskSource,
    pub format: DiskFormat,
    pub is_read_only: bool,
    pub device: DiskDevice,
    /// The name the guest sees, where an engine lets us choose (Xen: `xvda1`). Others go by place.
    pub name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DiskSource {
    /// An image file or a block device, by absolute path.
    Path(PathBuf),
    /// `nfs://server/export/image`, read by the engine itself.
    Nfs(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFormat {
    Raw,
    Qcow2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskDevice {
    Disk,
    Cdrom,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    pub mac: Option<Mac>,
    pub kind: NetworkKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkKind {
    /// A tap on a bridge of the host.
    Bridge { bridge: String },
    /// The engine's own address translation: needs no privilege, breaks connections on a move.
    User { forwards: Vec<Forward> },
}

/// A port of the host that leads into a guest with user networking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    pub protocol: Protocol,
    pub host: SocketAddr,
    pub guest_port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Small devices that are there unless switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Devices {
    pub has_balloon: bool,
    pub has_rng: bool,
    pub has_serial: bool,
}

/// What happens when the guest ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policies {
    pub poweroff: Policy,
    pub reboot: Policy,
    pub crash: Policy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The engine ends; the guest is stopped.
    Destroy,
    /// The guest starts again.
    Restart,
    /// The engine keeps the dead guest for a look.
    Preserve,
}
