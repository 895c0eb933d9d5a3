// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Hosts: this one, and those paired with it.

use crate::guest::Note;
use crate::plan::Finding;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// This host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostInfo {
    /// Its name, as paired hosts know it.
    pub name: String,
    /// The SHA-256 of its certificate, in hexadecimal.
    pub fingerprint: String,
    /// The same as words, to compare by eye.
    pub fingerprint_words: String,
    /// The version of Whimbrel.
    pub version: String,
    /// The kernel's release.
    pub kernel: String,
    /// The operating system's name for people.
    pub system: String,
    /// Since when the daemon runs.
    pub started_at_ms: u64,
    /// Processors.
    pub cpu_count: u32,
    /// The processors' model name.
    pub cpu_model: String,
    /// Processor time that all but the guests has used since the host started, in milliseconds.
    pub cpu_time_ms: u64,
    /// Memory of the machine, in bytes.
    pub memory_total_bytes: u64,
    /// Memory that a new guest could have now, in bytes: what is available, less
    /// `host_min_memory` and what arriving guests were promised.
    pub memory_free_bytes: u64,
    /// What is kept for the host itself, in bytes.
    pub host_min_memory_bytes: u64,
    /// What guests on their way here were promised, in bytes.
    pub memory_promised_bytes: u64,
    /// Guests defined here.
    pub guest_count: u32,
    /// Guests with an engine here.
    pub guest_running_count: u32,
    /// The engines it has.
    pub engines: Vec<EngineInfo>,
    /// Whether and where guests may come in.
    pub relocation: Relocation,
    /// Where the daemon keeps its state.
    pub state_directory: String,
    /// The configuration file it read.
    pub config_file: String,
    /// Whether the host is fit: everything that was checked.
    pub checks: Vec<Finding>,
}

/// An engine of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EngineInfo {
    /// `qemu` or `xen`.
    pub kind: String,
    /// As it names itself.
    pub version: String,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Why this accelerator was chosen.
    pub accelerator_reason: String,
    /// The machine type behind the default alias.
    pub machine_default: String,
    /// The named CPU model that fits this host best.
    pub cpu_model: String,
}

/// Whether and where guests may come in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Relocation {
    /// Whether guests may come in and go out.
    pub is_enabled: bool,
    /// The addresses and port it listens on while it does; empty: all addresses.
    pub addresses: Vec<String>,
    /// The TCP port.
    pub port: u16,
    /// Which paired hosts may come; empty: all of them.
    pub hosts_allow: Vec<String>,
}

/// Opens or closes the port for paired hosts. Kept over restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetRelocation {
    /// What it shall be.
    pub is_enabled: bool,
}

/// What reading the configuration again did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// What changed, and what needs a restart.
    pub notes: Vec<Note>,
}

/// A host paired with this one, or this one itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Whether it is the host that answers.
    pub is_this_host: bool,
    /// The SHA-256 of its certificate, in hexadecimal.
    pub fingerprint: String,
    /// The same as words, to compare by eye.
    pub fingerprint_words: String,
    /// Words for this pair of hosts: both show the same, unless somebody is in between. Absent for
    /// this host itself.
    pub pair_words: Option<String>,
    /// Where it can be reached, best first: `192.0.2.1:8002`.
    pub addresses: Vec<String>,
    /// Whether it answered just now.
    pub is_reachable: bool,
    /// Why it did not.
    pub problem: Option<String>,
    /// Whether it lets guests in, by its own word.
    pub is_relocation_enabled: Option<bool>,
    /// Its version of Whimbrel.
    pub version: Option<String>,
    /// Its engine: `qemu 7.2.22 (tcg)`.
    pub engine: Option<String>,
    /// Memory that a new guest could have there, in bytes.
    pub memory_free_bytes: Option<u64>,
    /// Guests with an engine there.
    pub guest_running_count: Option<u32>,
    /// The time of one exchange with it, in microseconds.
    pub round_trip_us: Option<u64>,
}

/// The hosts that are paired, this one first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerList {
    /// This one first, then by name.
    pub hosts: Vec<Peer>,
}

/// The CPU model and the machine type that fit a set of hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Baseline {
    /// The hosts that were compared: this one and those paired with it that answered.
    pub hosts: Vec<String>,
    /// The named CPU model that gives a guest the most and is whole on each; absent: there is none.
    pub cpu_model: Option<String>,
    /// The newest machine type that each knows; absent: there is none.
    pub machine: Option<String>,
    /// CPU features that a guest can be given on each.
    pub features: Vec<String>,
    /// What single hosts have beyond that.
    pub beyond: Vec<Beyond>,
    /// Why no guest fits all of them, where that is so.
    pub differ: Option<String>,
    /// Hosts that did not answer, and are not part of it.
    pub hosts_silent: Vec<crate::guest::HostSilent>,
}

/// What one host has beyond others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Beyond {
    /// The host.
    pub host: String,
    /// CPU features that some other host of the set lacks.
    pub features: Vec<String>,
}

/// Opens an invitation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InviteRequest {
    /// Addresses to put into the token. Absent: those this host has.
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// An open invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Invitation {
    /// What the other host's `whimbrel host join` reads. Secret: whoever has it can pair.
    pub token: String,
    /// When it ends, if nobody used it before.
    pub expires_at_ms: u64,
    /// The addresses in the token.
    pub addresses: Vec<String>,
    /// This host's fingerprint as words; the other side shows them, too.
    pub fingerprint_words: String,
}

/// Accepts an invitation.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinRequest {
    /// What the other host's `whimbrel host invite` showed.
    pub token: String,
}

impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinRequest").finish_non_exhaustive()
    }
}
