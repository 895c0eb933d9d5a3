// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Facts between hosts: JSON, versioned and bounded.
//!
//! An unknown key is skipped: a newer host may say more than we ask. A known one that is missing
//! is refused.

use super::{
    Access, BootFileFacts, BootFileState, BridgeFacts, Denial, DiskFacts, DiskPresent, DiskState,
    EngineFacts, FileKind, FileSystem, Firewall, ForwardTaken, GuestFacts, Heard, HostCpu,
    HostFacts, MacTaken, Mark, MemoryFacts, NameFacts, Proof, ProtocolRange, RelocationFacts,
    RomFacts, SecurityFacts, SegmentFacts, UefiFacts, UserFacts, WayBack,
};
use crate::guest::{DiskSource, Forward, Mac};
use crate::id::{GuestId, GuestName, HostName};
use crate::json::{Format, JsonError, raw_enum, raw_struct};
use crate::passport::{Accelerator, BootRole, EngineKind};
use crate::plan::reach::Unreachable;
use crate::problem::Problem;
use crate::units::Bytes;
use std::path::PathBuf;

/// The version this Whimbrel writes.
pub const VERSION: u32 = 1;
/// Longest text that is looked at, in bytes.
pub const FACTS_BYTES_MAX: usize = 1024 * 1024;

const HOST: Format = Format { what: "host's facts", version: VERSION, bytes_max: FACTS_BYTES_MAX };
const GUEST: Format =
    Format { what: "guest's facts", version: VERSION, bytes_max: FACTS_BYTES_MAX };

/// Returns the facts of a host as JSON.
pub fn host_to_json(facts: &HostFacts) -> String {
    HOST.write(facts)
}

/// Reads what [`host_to_json`] wrote on another host.
pub fn host_from_json(text: &str) -> Result<HostFacts, JsonError> {
    HOST.read(text)
}

/// Returns what a host says about a guest as JSON.
pub fn guest_to_json(facts: &GuestFacts) -> String {
    GUEST.write(facts)
}

/// Reads what [`guest_to_json`] wrote on another host.
pub fn guest_from_json(text: &str) -> Result<GuestFacts, JsonError> {
    GUEST.read(text)
}

raw_struct! {
    HostFacts as RawHostFacts {
        name: HostName,
        version: String,
        protocol: ProtocolRange,
        memory: MemoryFacts,
        cpu: HostCpu,
        engines: Vec<EngineFacts>,
        bridges: Vec<BridgeFacts>,
        engine_user: UserFacts,
        relocation: RelocationFacts,
        security: SecurityFacts,
        clock_unix_ms: u64,
        incoming_count: u32,
        is_in_maintenance: bool,
    }
}

raw_struct! { ProtocolRange as RawProtocolRange { min: u32, max: u32, } }

raw_struct! {
    MemoryFacts as RawMemoryFacts {
        total: Bytes,
        free: Bytes,
        promised: Bytes,
        host_min_memory: Bytes,
        reclaimable: Bytes,
    }
}

raw_struct! { HostCpu as RawHostCpu { model: String, count: u32, } }

raw_struct! {
    EngineFacts as RawEngineFacts {
        kind: EngineKind,
        version: String,
        accelerator: Accelerator,
        accelerator_reason: String,
        machines: Vec<String>,
        machine_default: String,
        cpu_model: String,
        cpu_models: Vec<String>,
        cpu_features: Vec<String>,
        has_multifd: bool,
        has_multifd_zstd: bool,
        // Earlier releases know of none.
        #[serde(default)]
        has_urgent_channel: bool,
    }
}

raw_struct! { BridgeFacts as RawBridgeFacts { name: String, mtu: u32, } }
raw_struct! { UserFacts as RawUserFacts { name: String, uid: u32, gid: u32, } }

raw_struct! {
    RelocationFacts as RawRelocationFacts {
        is_enabled: bool,
        port: u16,
        hosts_allow: Vec<String>,
        is_asker_allowed: bool,
        allow_paths: Vec<String>,
        allow_bridges: Vec<String>,
    }
}

raw_struct! {
    SecurityFacts as RawSecurityFacts {
        is_selinux_enforcing: bool,
        is_apparmor_enabled: bool,
        firewall: Option<Firewall>,
        may_handle_faults: bool,
        has_fault_device: bool,
    }
}

raw_enum! { Firewall as RawFirewall { Nftables, Firewalld, Ufw, Iptables, } }

raw_struct! {
    GuestFacts as RawGuestFacts {
        disks: Vec<DiskFacts>,
        boot_files: Vec<BootFileFacts>,
        name: NameFacts,
        forwards_taken: Vec<ForwardTaken>,
        roms: Vec<RomFacts>,
        macs_taken: Vec<MacTaken>,
        segments: Vec<SegmentFacts>,
        proof: Option<Proof>,
        way_back: Option<WayBack>,
        #[serde(default)]
        hindrances: Vec<String>,
        uefi: Option<UefiFacts>,
    }
}

raw_struct! { DiskFacts as RawDiskFacts { source: DiskSource, state: DiskState, } }

raw_enum! {
    DiskState as RawDiskState {
        Missing,
        Unknown { reason: String },
        Present(disk: Box<DiskPresent>),
    }
}

raw_struct! {
    DiskPresent as RawDiskPresent {
        kind: FileKind,
        size: Bytes,
        space: Option<Bytes>,
        grows: Option<Bytes>,
        is_direct: Option<bool>,
        resolved: PathBuf,
        file_system: FileSystem,
        inode: Option<u64>,
        mark: Mark,
        read: Access,
        write: Access,
    }
}

raw_enum! { Mark as RawMark { NotTried, Absent, Found { text: String }, } }
raw_enum! { FileKind as RawFileKind { File, BlockDevice, Nfs, Other, } }

raw_struct! {
    FileSystem as RawFileSystem { kind: String, source: String, mount_point: PathBuf, }
}

raw_enum! {
    Access as RawAccess {
        Granted,
        Denied(denial: Denial),
        Unknown { reason: String },
    }
}

raw_enum! {
    Denial as RawDenial {
        ReadOnlyMount,
        Server { reason: String },
        Mode { uid: u32, gid: u32, mode: u32 },
        Folder { path: PathBuf },
        RootSquash,
        Selinux { record: String },
        Apparmor { record: String },
        Other { reason: String },
    }
}

raw_struct! {
    BootFileFacts as RawBootFileFacts { role: BootRole, path: PathBuf, state: BootFileState, }
}

raw_enum! {
    BootFileState as RawBootFileState {
        Missing,
        Unreadable { reason: String },
        Present { bytes: u64, blake3: [u8; 32] },
    }
}

raw_struct! {
    NameFacts as RawNameFacts {
        name_taken_by: Option<GuestId>,
        known_as: Option<GuestName>,
        is_active: bool,
        is_moving: bool,
    }
}

raw_struct! { ForwardTaken as RawForwardTaken { forward: Forward, reason: String, } }
raw_struct! { MacTaken as RawMacTaken { mac: Mac, guest: GuestName, } }
raw_struct! { SegmentFacts as RawSegmentFacts { bridge: String, heard: Heard, } }

raw_enum! {
    Heard as RawHeard { Frames, Silence { waited_ms: u64 }, NotTried { reason: String }, }
}

raw_enum! {
    Proof as RawProof { Given { took_ms: u64 }, Failed { problem: Problem }, }
}

raw_enum! {
    WayBack as RawWayBack {
        Open { took_ms: u64 },
        Closed { address: Option<String>, why: Unreachable },
    }
}

raw_enum! {
    Unreachable as RawUnreachable {
        Refused,
        NoRoute,
        TimedOut { seconds: u64 },
        Denied { denial: Option<Denial> },
        NameUnknown,
        Tls { reason: String },
        Other { reason: String },
    }
}

raw_enum! {
    UefiFacts as RawUefiFacts {
        Variables { bytes: u64, is_own: bool },
        Missing { reason: String },
    }
}

raw_struct! { RomFacts as RawRomFacts { device: String, bytes: u64, } }

#[cfg(test)]
mod tests {
    //! Facts come back as they were, whatever is denied or missing, and a peer's paths, names and
    //! versions are checked.

    use super::*;
    use crate::sample;

    #[test]
    fn host_facts_come_back() {
        let mut facts = sample::host_facts("beta");
        assert_eq!(host_from_json(&host_to_json(&facts)), Ok(facts.clone()));
        for firewall in [Firewall::Nftables, Firewall::Firewalld, Firewall::Ufw, Firewall::Iptables]
        {
            facts.security.firewall = Some(firewall);
            assert_eq!(host_from_json(&host_to_json(&facts)), Ok(facts.clone()));
        }
    }

    #[test]
    fn guest_facts_come_back() {
        let reason = || "because".to_owned();
        let denials = [
            Denial::ReadOnlyMount,
            Denial::Mode { uid: 1, gid: 2, mode: 0o600 },
            Denial::Folder { path: "/xen".into() },
            Denial::RootSquash,
            Denial::Server { reason: reason() },
            Denial::Selinux { record: reason() },
            Denial::Apparmor { record: reason() },
            Denial::Other { reason: reason() },
        ];
        let accesses = denials.into_iter().map(Access::Denied);
        let mut states: Vec<_> = accesses
            .chain([Access::Granted, Access::Unknown { reason: reason() }])
            .map(|write| {
                DiskState::Present(Box::new(DiskPresent { write, ..sample::disk_present() }))
            })
            .collect();
        states.extend([DiskState::Missing, DiskState::Unknown { reason: reason() }]);
        for state in states {
            let mut facts = sample::guest_facts();
            facts.disks[0].state = state;
            let forward = "tcp:2222->22".parse().unwrap();
            facts.forwards_taken = vec![ForwardTaken { forward, reason: reason() }];
            facts.name.name_taken_by = Some(sample::guest_id());
            let heards = [
                Heard::Frames,
                Heard::Silence { waited_ms: 1 },
                Heard::NotTried { reason: reason() },
            ];
            facts.segments =
                heards.map(|heard| SegmentFacts { bridge: "br0".to_owned(), heard }).into();
            facts.macs_taken =
                vec![MacTaken { mac: Mac([2; 6]), guest: GuestName::new("web2").unwrap() }];
            facts.proof = Some(Proof::Given { took_ms: 7 });
            facts.hindrances = vec![reason()];
            facts.uefi = Some(UefiFacts::Variables { bytes: 540_672, is_own: true });
            assert_eq!(guest_from_json(&guest_to_json(&facts)), Ok(facts));
        }
    }

    #[test]
    fn ways_back_come_back() {
        let reason = || "because".to_owned();
        let whys = [
            Unreachable::Refused,
            Unreachable::NoRoute,
            Unreachable::TimedOut { seconds: 1 },
            Unreachable::Denied { denial: Some(Denial::Selinux { record: reason() }) },
            Unreachable::NameUnknown,
            Unreachable::Tls { reason: reason() },
            Unreachable::Other { reason: reason() },
        ];
        let address = || Some("10.0.0.1:8002".to_owned());
        let closed = whys.map(|why| WayBack::Closed { address: address(), why });
        let uefi = Some(UefiFacts::Missing { reason: reason() });
        for way in closed.into_iter().chain([WayBack::Open { took_ms: 3 }]) {
            let way_back = Some(way);
            let facts = GuestFacts { way_back, uefi: uefi.clone(), ..sample::guest_facts() };
            assert_eq!(guest_from_json(&guest_to_json(&facts)), Ok(facts));
        }
    }

    /// What earlier releases do not say is not there.
    #[test]
    fn an_older_host_has_no_urgent_channel() {
        let text = host_to_json(&sample::host_facts("beta"));
        let said = ",\"has_urgent_channel\":true";
        assert!(text.contains(said), "{text}");
        let older = host_from_json(&text.replace(said, "")).unwrap();
        assert!(!older.engines[0].has_urgent_channel);
    }

    #[test]
    fn what_a_peer_says_is_checked() {
        let text = guest_to_json(&sample::guest_facts());
        let refuse = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            guest_from_json(&text.replace(from, to)).expect_err(to);
        };
        refuse("\"version\":1", "\"version\":3");
        refuse("\"/xen/vmlinuz\"", "\"/xen/../vmlinuz\"");
        refuse("\"present\"", "\"gone\"");
        refuse("\"disks\"", "\"disk\"");
        // A newer host may say more.
        let more = text.replace("\"disks\"", "\"moods\":[1],\"disks\"");
        assert_eq!(guest_from_json(&more), Ok(sample::guest_facts()));
        assert!(guest_from_json(&" ".repeat(FACTS_BYTES_MAX + 1)).is_err());
        assert!(guest_from_json(&"[".repeat(100_000)).is_err());
    }
}
