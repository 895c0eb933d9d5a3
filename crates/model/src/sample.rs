// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Two hosts and the seed's guest, for tests: everything is well, until a test spoils one fact.

use crate::facts::{
    Access, BootFileFacts, BootFileState, BridgeFacts, DiskFacts, DiskPresent, DiskState,
    EngineFacts, FileKind, FileSystem, GuestFacts, Heard, HostCpu, HostFacts, Mark, MemoryFacts,
    NameFacts, ProtocolRange, RelocationFacts, RomFacts, SecurityFacts, SegmentFacts, UserFacts,
    WayBack,
};
use crate::guest::Mac;
use crate::id::{GuestId, HostName};
use crate::passport::{
    Accelerator, BootFile, BootRole, Cpu, Device, DeviceKind, EngineKind, Passport,
};
use crate::units::Bytes;

pub(crate) const GUEST_FILE: &str = r#"
name = "web1"
uuid = "bd0c2520-1094-0b71-a3ed-c6a5f917f235"
memory = "512 MiB"
vcpus = 1
vcpus_max = 2
[boot]
kernel = "/xen/vmlinuz"
command_line = "root=/dev/vda ro"
[[disk]]
path = "/xen/web1.img"
[[network]]
bridge = "br0"
mac = "52:54:00:01:02:03"
"#;

pub(crate) fn guest_id() -> GuestId {
    "bd0c2520-1094-0b71-a3ed-c6a5f917f235".parse().unwrap()
}

pub(crate) fn passport() -> Passport {
    let network = DeviceKind::Network { index: 0, mac: Mac([0x52, 0x54, 0, 1, 2, 3]) };
    let device = |id: &str, kind, pci_slot, rom_bytes| Device {
        id: id.to_owned(),
        kind,
        pci_slot,
        rom_bytes,
    };
    Passport {
        guest: guest_id(),
        engine: EngineKind::Qemu,
        engine_version: "7.2.22".to_owned(),
        accelerator: Accelerator::Tcg,
        machine: "pc-q35-7.2".to_owned(),
        cpu: Cpu {
            model: "qemu64,+ssse3".to_owned(),
            features: vec!["sse2".to_owned(), "ssse3".to_owned()],
        },
        memory: Bytes::mib(512),
        cpu_count: 1,
        cpu_count_max: 2,
        devices: vec![
            device("disk0", DeviceKind::Disk { index: 0 }, Some(2), None),
            device("net0", network, Some(3), Some(262_144)),
            device("serial0", DeviceKind::Serial, None, None),
        ],
        boot_files: vec![BootFile {
            role: BootRole::Kernel,
            path: "/xen/vmlinuz".into(),
            bytes: 12,
            blake3: [0xab; 32],
        }],
    }
}

pub(crate) fn host_facts(name: &str) -> HostFacts {
    HostFacts {
        name: HostName::new(name).unwrap(),
        version: "0.1.0".to_owned(),
        protocol: ProtocolRange { min: 1, max: 1 },
        memory: MemoryFacts {
            total: Bytes::mib(4096),
            free: Bytes::mib(2048),
            promised: Bytes(0),
            host_min_memory: Bytes::mib(256),
            reclaimable: Bytes(0),
        },
        cpu: HostCpu { model: "Intel Xeon".to_owned(), count: 2 },
        engines: vec![engine_facts()],
        bridges: vec![BridgeFacts { name: "br0".to_owned(), mtu: 1500 }],
        engine_user: UserFacts { name: "whimbrel".to_owned(), uid: 990, gid: 990 },
        relocation: RelocationFacts {
            is_enabled: true,
            port: 8002,
            hosts_allow: Vec::new(),
            is_asker_allowed: true,
            allow_paths: vec!["/xen".to_owned()],
            allow_bridges: vec!["br0".to_owned()],
        },
        security: SecurityFacts::default(),
        clock_unix_ms: 1_700_000_000_000,
        incoming_count: 0,
        is_in_maintenance: false,
    }
}

pub(crate) fn engine_facts() -> EngineFacts {
    EngineFacts {
        kind: EngineKind::Qemu,
        version: "7.2.22".to_owned(),
        accelerator: Accelerator::Tcg,
        accelerator_reason: "/dev/kvm is missing".to_owned(),
        machines: vec!["pc-q35-7.1".to_owned(), "pc-q35-7.2".to_owned()],
        machine_default: "pc-q35-7.2".to_owned(),
        cpu_model: "qemu64".to_owned(),
        cpu_models: vec!["Nehalem-v1".to_owned(), "Westmere-v1".to_owned()],
        cpu_features: vec!["sse2".to_owned(), "sse4.1".to_owned(), "ssse3".to_owned()],
        has_multifd: true,
        has_multifd_zstd: true,
        has_urgent_channel: true,
    }
}

pub(crate) fn disk_present() -> DiskPresent {
    DiskPresent {
        kind: FileKind::File,
        size: Bytes::mib(1024),
        space: Some(Bytes::mib(10_240)),
        grows: Some(Bytes::mib(512)),
        is_direct: Some(true),
        resolved: "/xen/web1.img".into(),
        file_system: FileSystem {
            kind: "nfs4".to_owned(),
            source: "10.0.0.9:/xen".to_owned(),
            mount_point: "/xen".into(),
        },
        inode: Some(4711),
        mark: Mark::Found { text: "c0ffee".to_owned() },
        read: Access::Granted,
        write: Access::Granted,
    }
}

pub(crate) fn guest_facts() -> GuestFacts {
    let guest = crate::guest::file::parse(&crate::text_file::TextFile {
        name: "web1.toml",
        text: GUEST_FILE,
        base: None,
    });
    GuestFacts {
        disks: vec![DiskFacts {
            source: guest.unwrap().disks[0].source.clone(),
            state: DiskState::Present(Box::new(disk_present())),
        }],
        boot_files: vec![BootFileFacts {
            role: BootRole::Kernel,
            path: "/xen/vmlinuz".into(),
            state: BootFileState::Present { bytes: 12, blake3: [0xab; 32] },
        }],
        name: NameFacts::default(),
        forwards_taken: Vec::new(),
        roms: vec![RomFacts { device: "net0".to_owned(), bytes: 262_144 }],
        macs_taken: Vec::new(),
        segments: vec![SegmentFacts { bridge: "br0".to_owned(), heard: Heard::Frames }],
        proof: None,
        way_back: Some(WayBack::Open { took_ms: 3 }),
        hindrances: Vec::new(),
        uefi: None,
    }
}
