// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a host says of itself and of one guest's things, for a plan.
//!
//! The `host` and `engine` crates measure, the daemon sends it to the peer (as the versioned JSON
//! of [`wire`]), and [`plan`](crate::plan) judges. Facts are measurements, never opinions: a fact
//! that could not be had is `None` or carries the reason as text.

pub mod wire;

use crate::guest::{DiskSource, Forward, Mac};
use crate::id::{GuestId, GuestName, HostName};
use crate::passport::{Accelerator, BootRole, EngineKind};
use crate::plan::Span;
use crate::plan::reach::Unreachable;
use crate::problem::Problem;
use crate::units::Bytes;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What a host says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    pub name: HostName,
    /// Whimbrel's version there: `0.1.0`.
    pub version: String,
    /// The range of peer protocols it speaks.
    pub protocol: ProtocolRange,
    pub memory: MemoryFacts,
    pub cpu: HostCpu,
    pub engines: Vec<EngineFacts>,
    pub bridges: Vec<BridgeFacts>,
    /// The user the engine runs as; disks must be open to this user.
    pub engine_user: UserFacts,
    pub relocation: RelocationFacts,
    pub security: SecurityFacts,
    /// The clock when the facts were taken, in milliseconds since 1970.
    pub clock_unix_ms: u64,
    /// Guests that are just now on their way to this host.
    pub incoming_count: u32,
    /// An operator has asked that nothing comes here.
    pub is_in_maintenance: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolRange {
    pub min: u32,
    pub max: u32,
}

/// Memory of a host. What a guest may take is
/// `free + reclaimable - promised - host_min_memory`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryFacts {
    pub total: Bytes,
    /// What can be had without swapping (`MemAvailable`).
    pub free: Bytes,
    /// Promised to guests that are on their way here, and not yet taken by them.
    pub promised: Bytes,
    /// What the host keeps for itself, from its configuration.
    pub host_min_memory: Bytes,
    /// What ballooning the guests that allow it would give.
    pub reclaimable: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCpu {
    /// As the processor names itself.
    pub model: String,
    pub count: u32,
}

/// What an engine is and can do on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFacts {
    pub kind: EngineKind,
    pub version: String,
    pub accelerator: Accelerator,
    /// Why this accelerator was chosen, for `doctor`.
    pub accelerator_reason: String,
    /// Versioned machine types it can start.
    pub machines: Vec<String>,
    /// The machine type behind the default alias.
    pub machine_default: String,
    /// The named CPU model that fits this host best.
    pub cpu_model: String,
    /// Every named CPU model that is wholly available here, the one that gives most first.
    pub cpu_models: Vec<String>,
    /// Features a guest can be given here, sorted, by the engine's names.
    pub cpu_features: Vec<String>,
    pub has_multifd: bool,
    pub has_multifd_zstd: bool,
    /// In post-copy the pages that a guest waits for can have a channel of their own.
    pub has_urgent_channel: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeFacts {
    pub name: String,
    pub mtu: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserFacts {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// The relocation settings in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelocationFacts {
    pub is_enabled: bool,
    pub port: u16,
    /// As written in the configuration; empty allows every paired host.
    pub hosts_allow: Vec<String>,
    /// Whether the host that asked for these facts may send guests here.
    pub is_asker_allowed: bool,
    /// Folders (and `nfs://` prefixes) that disks of an arriving guest may lie in.
    pub allow_paths: Vec<String>,
    /// Bridges that an arriving guest may join.
    pub allow_bridges: Vec<String>,
}

/// What may stand in the way of an engine or of a connection, apart from permissions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityFacts {
    pub is_selinux_enforcing: bool,
    pub is_apparmor_enabled: bool,
    /// The firewall that seems to be in charge, for the remedy's command.
    pub firewall: Option<Firewall>,
    /// Whoever is not privileged may handle the page faults of a process of its own (userfaultfd).
    pub may_handle_faults: bool,
    /// The engine's user may open `/dev/userfaultfd`, which is for the same.
    pub has_fault_device: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firewall {
    Nftables,
    Firewalld,
    Ufw,
    Iptables,
}

/// What a host says about one guest: everything that the plan compares between the two hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestFacts {
    /// One for each disk of the definition, in its order.
    pub disks: Vec<DiskFacts>,
    /// One for each boot file of the passport, in its order.
    pub boot_files: Vec<BootFileFacts>,
    pub name: NameFacts,
    /// Port forwards of the guest whose host port is taken here.
    pub forwards_taken: Vec<ForwardTaken>,
    /// Sizes of the option ROMs that the engine here would give the passport's devices.
    pub roms: Vec<RomFacts>,
    /// Hardware addresses of the guest that other guests have here.
    pub macs_taken: Vec<MacTaken>,
    /// Bridges of the guest on which the other host was listened for, or spoken to.
    pub segments: Vec<SegmentFacts>,
    /// What came of starting an engine for the guest here; none: it was not asked for.
    pub proof: Option<Proof>,
    /// What came of calling the asker back; none: it was not asked for.
    pub way_back: Option<WayBack>,
    /// Why the guest's engine here would not let it go, in the engine's words.
    pub hindrances: Vec<String>,
    /// The UEFI variables that the guest has here, or would begin with; none: it has no UEFI.
    pub uefi: Option<UefiFacts>,
}

/// A disk image as one host sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFacts {
    pub source: DiskSource,
    pub state: DiskState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskState {
    Missing,
    /// It may be there; the reason is why nobody can tell (`stat` failed, server silent).
    Unknown {
        reason: String,
    },
    Present(Box<DiskPresent>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskPresent {
    pub kind: FileKind,
    /// Size of the image as the guest sees the file: its length.
    pub size: Bytes,
    /// Free space of its file system.
    pub space: Option<Bytes>,
    /// How much more of that space it takes once the guest has written all of it.
    pub grows: Option<Bytes>,
    /// Whether an engine can go past this host's page cache.
    pub is_direct: Option<bool>,
    /// Where the path leads once symbolic links are resolved.
    pub resolved: PathBuf,
    pub file_system: FileSystem,
    /// The file's number on its file system: equal on every host that mounts the same one.
    pub inode: Option<u64>,
    /// What lies beside the image, where the source host has just left a mark for this plan.
    pub mark: Mark,
    /// Whether the engine's user may open it for reading, and for writing. The source's answers
    /// do not matter: its engine has the disk open.
    pub read: Access,
    pub write: Access,
}

/// A mark that one host leaves beside an image and both hosts look for: whoever finds the same
/// one sees the same folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// There is no "beside" (a block device), or nobody looked.
    NotTried,
    Absent,
    Found {
        /// Drawn for this plan.
        text: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    File,
    BlockDevice,
    /// Read by the engine over the network.
    Nfs,
    Other,
}

/// The file system under a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// `nfs4`, `ext4`; empty where unknown.
    pub kind: String,
    /// What is mounted there: `192.168.1.10:/xen`.
    pub source: String,
    pub mount_point: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    Granted,
    Denied(Denial),
    /// It was not tried, or could not be.
    Unknown {
        reason: String,
    },
}

/// Why the engine's user may not open a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    ReadOnlyMount,
    /// An NFS server that the engine itself talks to says no.
    Server {
        reason: String,
    },
    /// The permission bits say no.
    Mode {
        uid: u32,
        gid: u32,
        mode: u32,
    },
    /// A folder above it may not be entered.
    Folder {
        path: PathBuf,
    },
    /// The server maps root to nobody: the seed's missing `no_root_squash`.
    RootSquash,
    /// SELinux said no; the record as the audit log has it.
    Selinux {
        record: String,
    },
    /// AppArmor said no; the record as the kernel log has it.
    Apparmor {
        record: String,
    },
    Other {
        reason: String,
    },
}

/// A file that the guest's next reboot needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFileFacts {
    pub role: BootRole,
    pub path: PathBuf,
    pub state: BootFileState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootFileState {
    Missing,
    Unreadable { reason: String },
    Present { bytes: u64, blake3: [u8; 32] },
}

/// Whether the guest's name and id are free on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameFacts {
    /// Another guest there has the same name.
    pub name_taken_by: Option<GuestId>,
    /// The guest is known there already, under this name.
    pub known_as: Option<GuestName>,
    /// ... and has an engine there.
    pub is_active: bool,
    /// ... or is on its way to or from there.
    pub is_moving: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardTaken {
    pub forward: Forward,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RomFacts {
    /// The device's id in the passport.
    pub device: String,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MacTaken {
    pub mac: Mac,
    pub guest: GuestName,
}

/// A bridge, and what was heard on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    pub bridge: String,
    pub heard: Heard,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The listener has heard the other host's frames; the speaker has sent some.
    Frames,
    Silence {
        waited_ms: u64,
    },
    /// It could not be tried.
    NotTried {
        reason: String,
    },
}

/// An engine was started for the guest, paused and with its exact passport, and ended again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    Given { took_ms: u64 },
    Failed { problem: Problem },
}

/// The host that was asked for these facts has called the one that asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WayBack {
    Open {
        took_ms: u64,
    },
    Closed {
        /// Where it was looked for: `10.0.0.1:8002`.
        address: Option<String>,
        why: Unreachable,
    },
}

/// What a guest's UEFI keeps its variables in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UefiFacts {
    /// A file of so many bytes; the guest's own, or else what each new guest begins with.
    Variables { bytes: u64, is_own: bool },
    /// There is nothing to begin with.
    Missing { reason: String },
}

/// What the source knows of its way to the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFacts {
    pub address: Option<IpAddr>,
    pub round_trip: Option<Duration>,
    /// Bytes a second that fit through, if it was measured.
    pub rate: Option<Bytes>,
    /// How far the target's clock is ahead, and how far that may be off.
    pub clock_ahead_ms: Option<i64>,
}

/// What is known of the guest's habits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadFacts {
    /// Bytes a second the guest dirties.
    pub dirty_rate: Option<Bytes>,
    /// Memory that holds anything but zeroes, where the engine can tell.
    pub used: Option<Bytes>,
    /// What stopping, handing over and starting took the last times, without the pages.
    pub switchover: Option<Duration>,
    /// Whether the target holds memory of the guest from an earlier visit.
    pub is_held: bool,
    /// What its earlier migrations between these two hosts took.
    pub learned: Learned,
}

/// What earlier migrations of a guest between two hosts took, from the least to the most; none:
/// there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Learned {
    pub count: usize,
    /// Everything but the time in which memory travels.
    pub around: Option<Span<Duration>>,
    /// What stopping, handing over and starting took, without the pages.
    pub switchover: Option<Span<Duration>>,
    /// What the whole pause took.
    pub pause: Option<Span<Duration>>,
    /// How many times its memory the engine sent.
    pub sent_times: Option<Span<f64>>,
    /// What crossed the network of that, as a share, where it went the same way.
    pub wire_share: Option<Span<f64>>,
    /// Bytes a second that the engine sent where no link was in its way: of the fastest.
    pub engine_rate: Option<Bytes>,
}
