// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The machine itself: its memory, its processors, its system, its boot.
//!
//! What cannot be read is reported as nothing at all (no memory, an unknown model): a plan then
//! refuses with the value it was given, which is more use than a daemon that does not start. Only
//! the boot must be known.

use std::io;
use std::net::IpAddr;
use whimbrel_model::facts::{HostCpu, MemoryFacts};
use whimbrel_model::units::Bytes;

/// What the operating system says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub name: String,
    /// The kernel's release.
    pub kernel: String,
    /// Processor time the whole machine has spent since it was started, in milliseconds.
    pub cpu_time_ms: u64,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Returns the memory of the machine, with what the daemon keeps and has promised.
pub fn memory(kept: Bytes, promised: Bytes) -> MemoryFacts {
    let text = read("/proc/meminfo");
    MemoryFacts {
        total: meminfo(&text, "MemTotal"),
        free: meminfo(&text, "MemAvailable"),
        promised,
        host_min_memory: kept,
        reclaimable: Bytes(0),
    }
}

/// Returns whether something (an NTP client) keeps the clock right; None: the kernel does not say.
pub fn is_clock_kept() -> Option<bool> {
    crate::sys::is_clock_kept().ok()
}

/// Returns how much of the host's memory a process takes just now.
pub fn resident(pid: u32) -> Option<Bytes> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(meminfo(&text, "VmRSS"))
}

fn meminfo(text: &str, key: &str) -> Bytes {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Bytes(kib.unwrap_or(0).saturating_mul(1024))
}

pub fn cpu() -> HostCpu {
    let text = read("/proc/cpuinfo");
    let value = |key: &str| {
        let mut values = text.lines().filter_map(|line| line.split_once(':'));
        values.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
    };
    let count = text.lines().filter(|line| line.starts_with("processor")).count();
    HostCpu {
        model: value("model name").unwrap_or_else(|| "unknown".to_owned()),
        count: u32::try_from(count).unwrap_or(u32::MAX),
    }
}

/// Returns the addresses other hosts could reach this one at: neither loopback nor link-local.
pub fn addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let found = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = || address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
        v4.or_else(v6)
    });
    found
        .filter(|ip| match ip {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        })
        .collect()
}

/// Returns the machine's own host name.
pub fn host_name() -> String {
    read("/proc/sys/kernel/hostname").trim().to_owned()
}

/// Where the kernel says which boot this is.
pub const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// Returns the identity of this boot, new with each. Never a guess: whether a host was off in
/// between decides who may go on with a guest.
pub fn boot_id() -> io::Result<[u8; 16]> {
    parse_boot_id(&std::fs::read_to_string(BOOT_ID_PATH)?)
}

fn parse_boot_id(text: &str) -> io::Result<[u8; 16]> {
    let id = uuid::Uuid::parse_str(text.trim()).map_err(io::Error::other)?;
    if id.is_nil() { Err(io::Error::other("it is all zeros")) } else { Ok(id.into_bytes()) }
}

pub fn system() -> System {
    let release = read("/etc/os-release");
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    System {
        name: name.unwrap_or("Linux").trim_matches('"').to_owned(),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        cpu_time_ms: cpu_time_ms(&read("/proc/stat")),
    }
}

/// The busy columns of the first line of `/proc/stat`: user, nice, system, irq, softirq; in ticks
/// of 10 ms. Time of guests is part of `user`.
fn cpu_time_ms(stat: &str) -> u64 {
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> =
        first.split_whitespace().skip(1).filter_map(|column| column.parse().ok()).collect();
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|column| ticks.get(*column));
    busy.sum::<u64>().saturating_mul(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's own formats are read, and a missing line is nothing rather than a panic.
    #[test]
    fn proc_files_are_read() {
        let text = "MemTotal:       24000000 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(meminfo(text, "MemAvailable"), Bytes::mib(1));
        assert_eq!(meminfo(text, "MemFree"), Bytes(0));
        assert!(resident(std::process::id()).unwrap() > Bytes(0));
        assert_eq!(cpu_time_ms("cpu  10 0 5 1000 7 1 2 0 0 0\ncpu0 1"), 180);
        assert!(memory(Bytes(0), Bytes(0)).total > Bytes::mib(64));
        assert!(cpu().count > 0);
    }

    /// A boot is known, or that it is not: nothing stands in for it.
    #[test]
    fn a_boot_is_never_guessed() {
        assert_ne!(boot_id().unwrap(), [0; 16]);
        assert!(parse_boot_id("").is_err());
        assert!(parse_boot_id("no uuid\n").is_err());
        assert!(parse_boot_id("00000000-0000-0000-0000-000000000000\n").is_err());
    }
}
