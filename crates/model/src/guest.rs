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
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Why a MAC address was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    #[error("`{text}` is not a MAC address; write six bytes: `52:54:00:12:34:56`")]
    Malformed { text: String },
    #[error("`{text}` is a group address; the first byte of a card's own address is even")]
    Group { text: String },
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let malformed = || MacError::Malformed { text: text.to_owned() };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| matches!(part.len(), 1 | 2));
            let part = part.filter(|part| part.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = part.and_then(|p| u8::from_str_radix(p, 16).ok()).ok_or_else(malformed)?;
        }
        if parts.next().is_some() || bytes == [0; 6] {
            return Err(malformed());
        }
        if bytes[0] & 1 == 1 {
            return Err(MacError::Group { text: text.to_owned() });
        }
        Ok(Self(bytes))
    }
}

/// Why a port forward was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a port forward; write `tcp:127.0.0.1:2222->22` or `udp:5353->53`")]
pub struct ForwardError {
    pub text: String,
}

impl FromStr for Forward {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        let wrong = || ForwardError { text: text.to_owned() };
        let (protocol, rest) = text.split_once(':').ok_or_else(wrong)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(wrong()),
        };
        let (host, guest_port) = rest.split_once("->").ok_or_else(wrong)?;
        // A port alone means this machine only: opening it to others must be asked for.
        let host = match host.parse::<u16>() {
            Ok(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            Err(_) => host.parse().map_err(|_| wrong())?,
        };
        let guest_port = guest_port.parse().map_err(|_| wrong())?;
        if host.port() == 0 || guest_port == 0 {
            return Err(wrong());
        }
        Ok(Self { protocol, host, guest_port })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}->{}", self.protocol, self.host, self.guest_port)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

impl fmt::Display for DiskSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskSource::Path(path) => path.display().fmt(f),
            DiskSource::Nfs(url) => f.write_str(url),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_read_and_printed() {
        let check = |text: &str, expected: Option<&str>| {
            let read = text.parse::<Mac>().ok().map(|mac| mac.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        };
        check("52:54:00:12:34:56", Some("52:54:00:12:34:56"));
        check("0:16:3E:1:2:3", Some("00:16:3e:01:02:03"));
        check("01:00:5e:00:00:01", None);
        check("00:00:00:00:00:00", None);
        check("52:54:00:12:34", None);
        check("52:54:00:12:34:56:78", None);
        check("52:54:00:12:34:+5", None);
        check("", None);
    }

    #[test]
    fn forwards_are_read_and_printed() {
        let check = |text: &str, expected: Option<&str>| {
            let read = text.parse::<Forward>().ok().map(|forward| forward.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        };
        check("tcp:127.0.0.1:2222->22", Some("tcp:127.0.0.1:2222->22"));
        check("udp:5353->53", Some("udp:127.0.0.1:5353->53"));
        check("tcp:[::1]:80->8080", Some("tcp:[::1]:80->8080"));
        check("tcp:0->22", None);
        check("tcp:2222->0", None);
        check("sctp:1->2", None);
        check("tcp:2222", None);
        check("tcp:somewhere:2222->22", None);
    }
}
