// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Guests for the tests of this room.

use std::path::PathBuf;
use whimbrel_model::guest::{
    Boot, Cpus, Devices, Disk, DiskDevice, DiskFormat, DiskSource, Forward, Guest, Mac, Memory,
    Network, NetworkKind, Policies, Policy, Protocol,
};
use whimbrel_model::id::{GuestId, GuestName};
use whimbrel_model::units::Bytes;

pub(super) const ID: GuestId =
    GuestId(uuid::Uuid::from_u128(0x6ba7_b810_9dad_41d1_80b4_00c0_4fd4_30c8));

/// A guest with one of everything.
pub(super) fn everything() -> Guest {
    let path = |path: &str| DiskSource::Path(PathBuf::from(path));
    let disk =
        |source, format, device| Disk { source, format, is_read_only: false, device, name: None };
    let forward = Forward {
        protocol: Protocol::Tcp,
        host: "127.0.0.1:2222".parse().unwrap(),
        guest_port: 22,
    };
    Guest {
        name: GuestName::new("web1").unwrap(),
        id: Some(ID),
        memory: Memory { size: Bytes::mib(512), min: None },
        cpus: Cpus { count: 2, count_max: 4, model: None },
        machine: None,
        boot: Boot::Kernel {
            kernel: PathBuf::from("/boot/vmlinuz, the best"),
            ramdisk: Some(PathBuf::from("/boot/initrd")),
            command_line: "root=/dev/vda console=ttyS0,115200".to_owned(),
        },
        disks: vec![
            disk(path("/images/a,b \"c\".img"), DiskFormat::Raw, DiskDevice::Disk),
            disk(path("/images/swap.qcow2"), DiskFormat::Qcow2, DiskDevice::Disk),
            disk(path("/images/install.iso"), DiskFormat::Raw, DiskDevice::Cdrom),
            disk(path("/dev/vg/data"), DiskFormat::Raw, DiskDevice::Disk),
            Disk {
                is_read_only: true,
                ..disk(
                    DiskSource::Nfs("nfs://10.0.0.1/xen/guest.img".to_owned()),
                    DiskFormat::Raw,
                    DiskDevice::Disk,
                )
            },
        ],
        networks: vec![
            Network { mac: None, kind: NetworkKind::Bridge { bridge: "br0".to_owned() } },
            Network {
                mac: Some(Mac([2, 0, 0, 0, 0, 1])),
                kind: NetworkKind::User { forwards: vec![forward] },
            },
        ],
        devices: Devices { has_balloon: true, has_rng: true, has_serial: true },
        on: Policies {
            poweroff: Policy::Destroy,
            reboot: Policy::Restart,
            crash: Policy::Preserve,
        },
        autostart: false,
        keep_memory: true,
    }
}
