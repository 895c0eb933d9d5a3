// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Guests: what they are, and what can be done to them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;
use whimbrel_model::id::{GuestId, GuestName, LocalId, NameError};
use whimbrel_model::run_state::RunState;

/// How a caller names a guest: by name, by its number on this host, or by its uuid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GuestRef {
    /// All digits: the number that `list` shows.
    Number(LocalId),
    /// The uuid, the same on every host.
    Uuid(GuestId),
    /// Anything else that can be a name.
    Name(GuestName),
}

impl FromStr for GuestRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // A number no guest can have is found by nobody; it must not become a name.
            return Ok(Self::Number(LocalId(text.parse().unwrap_or(u32::MAX))));
        }
        match text.parse() {
            Ok(id) => Ok(Self::Uuid(id)),
            Err(_) => GuestName::new(text).map(Self::Name),
        }
    }
}

impl fmt::Display for GuestRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(id) => id.fmt(f),
            Self::Uuid(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// What a guest is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GuestState {
    /// Defined, and no engine holds it.
    Stopped,
    /// Its engine is being started.
    Starting,
    /// Its virtual CPUs run.
    Running,
    /// Paused by a person.
    Paused,
    /// Asleep (ACPI S3) by its own wish.
    Suspended,
    /// Was asked to shut down and has not done so yet.
    Stopping,
    /// Has powered itself off; its engine keeps it for a look.
    ShutDown,
    /// Its kernel has crashed; its engine keeps it for a look.
    Crashed,
    /// Stopped by its engine because a disk failed.
    IoError,
    /// Is arriving from another host, and does not run here yet.
    Arriving,
    /// Is leaving: stopped here, and the other host has not said yet that it runs.
    Leaving,
    /// Paused, because which host owns it is not known: `whimbrel recover` explains.
    InDoubt,
}

impl From<RunState> for GuestState {
    fn from(state: RunState) -> Self {
        match state {
            RunState::Running => Self::Running,
            RunState::Paused => Self::Paused,
            RunState::Suspended => Self::Suspended,
            RunState::ShutDown => Self::ShutDown,
            RunState::Panicked => Self::Crashed,
            RunState::IoError => Self::IoError,
        }
    }
}

impl fmt::Display for GuestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Suspended => "suspended",
            Self::Stopping => "stopping",
            Self::ShutDown => "shut down",
            Self::Crashed => "crashed",
            Self::IoError => "I/O error",
            Self::Arriving => "arriving",
            Self::Leaving => "leaving",
            Self::InDoubt => "in doubt",
        })
    }
}

/// A guest in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GuestSummary {
    /// The same on every host, for all its life.
    pub uuid: String,
    /// Its number on the host that answers; never used twice there. Absent for a guest that
    /// another host answered for, and for one that is not ours.
    pub id: Option<u32>,
    /// The name it was defined with.
    pub name: String,
    /// What it is doing.
    pub state: GuestState,
    /// The host it is on.
    pub host: String,
    /// Memory it has now, in bytes.
    pub memory_bytes: u64,
    /// Virtual CPUs it has now.
    pub cpu_count: u32,
    /// Processor time it has used since its engine was started on this host, in milliseconds.
    pub cpu_time_ms: u64,
    /// Whether its definition is forgotten when it stops.
    pub is_transient: bool,
    /// Whether it is started when its host starts.
    pub is_autostarted: bool,
    /// Whether it was started with the engine's own tool and not by this program: it can be looked
    /// at and adopted, and nothing else.
    #[serde(default)]
    pub is_foreign: bool,
    /// The host it is moving to or arriving from, while it does.
    pub moving_with: Option<String>,
}

/// All guests that were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GuestList {
    /// Ordered by host, then by number.
    pub guests: Vec<GuestSummary>,
    /// Paired hosts that were asked and did not answer, with the reason.
    pub hosts_silent: Vec<HostSilent>,
}

/// A paired host that did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostSilent {
    /// Its name.
    pub host: String,
    /// Why, as far as it is known.
    pub reason: String,
}

/// Everything about one guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GuestDetail {
    /// As in the list.
    pub summary: GuestSummary,
    /// Its definition: the text of its guest file, in TOML.
    pub definition: String,
    /// Whether the definition was edited since its engine was started, so that the next start
    /// brings something new.
    pub is_definition_pending: bool,
    /// How it boots, in words: the kernel, or firmware and disk.
    pub boot: String,
    /// Its disks, in their order.
    pub disks: Vec<DiskInfo>,
    /// Its network cards, in their order.
    pub networks: Vec<NetworkInfo>,
    /// What was frozen at its first start; absent before that.
    pub frozen: Option<Frozen>,
    /// When its engine was started on this host.
    pub started_at_ms: Option<u64>,
    /// The engine's process on this host.
    pub pid: Option<u32>,
    /// Which paired hosts could take it, by what they last said of themselves.
    pub fits: Vec<Fit>,
    /// The migration that goes on now, if any.
    pub migration: Option<crate::migration::Migration>,
    /// Memory of it that the host it came from keeps for its return.
    pub kept: Option<crate::pages::KeptElsewhere>,
    /// Why it is in the state it is in, where that is not plain.
    pub remark: Option<String>,
}

/// A disk of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskInfo {
    /// Its name in the guest: `vda`.
    pub name: String,
    /// An absolute path, or `nfs://server/export/image`.
    pub source: String,
    /// `raw` or `qcow2`.
    pub format: String,
    /// `disk` or `cdrom`.
    pub device: String,
    /// Whether the guest may only read it.
    pub is_read_only: bool,
}

/// A network card of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkInfo {
    /// Its hardware address, once it is known.
    pub mac: Option<String>,
    /// `bridge` or `user`.
    pub kind: String,
    /// The bridge, where it is on one.
    pub bridge: Option<String>,
    /// Ports of the host that lead into the guest: `tcp 127.0.0.1:2222 -> 22`.
    pub forwards: Vec<String>,
}

/// What was derived from the host at the guest's first start, and travels with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Frozen {
    /// `qemu` or `xen`.
    pub engine: String,
    /// The version of the engine that first started it.
    pub engine_version: String,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Versioned machine type.
    pub machine: String,
    /// CPU model with flags.
    pub cpu: String,
    /// CPU features the guest sees, by the engine's names, sorted.
    pub cpu_features: Vec<String>,
}

/// Whether a paired host could take a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fit {
    /// The paired host.
    pub host: String,
    /// Whether nothing is known that speaks against it. `plan` checks for certain.
    pub is_fit: bool,
    /// What speaks against it.
    pub reason: Option<String>,
}

/// How a guest file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DefinitionFormat {
    /// Our own.
    Toml,
    /// The classic file of `xm` and `xl`.
    Cfg,
}

/// Defines a guest, and starts it unless told otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateGuest {
    /// The text of the guest file.
    pub text: String,
    /// How it is written.
    pub format: DefinitionFormat,
    /// The file's name, for messages.
    pub file_name: String,
    /// Absolute; paths in the file are relative to it.
    pub base_directory: String,
    /// `key=value`, each replacing a key of the file.
    #[serde(default)]
    pub overrides: Vec<String>,
    /// Whether to forget the definition when the guest stops.
    #[serde(default)]
    pub is_transient: bool,
    /// Whether to define it only.
    #[serde(default)]
    pub is_left_stopped: bool,
}

/// A guest that was defined, edited or adopted, and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Created {
    /// The guest, after it was started.
    pub guest: GuestSummary,
    /// What was mapped, ignored or chosen; in the order to be read.
    pub notes: Vec<Note>,
}

/// Something to tell the person at the terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Note {
    /// How much it matters.
    pub level: NoteLevel,
    /// One sentence or a few.
    pub text: String,
}

/// How much a note matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NoteLevel {
    /// Good to know.
    Note,
    /// Probably not what was wanted.
    Warning,
}

/// Replaces a guest's definition; a running guest keeps the old one until its next start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EditGuest {
    /// The new text, in TOML.
    pub text: String,
    /// Absolute; paths in the text are relative to it.
    pub base_directory: String,
    /// The text the edit began from; refused if that is no longer the definition.
    pub replaces: Option<String>,
}

/// Stops a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StopGuest {
    /// Whether to end its engine at once instead of asking the guest to shut down.
    #[serde(default)]
    pub is_now: bool,
    /// How long to wait for the guest, in milliseconds; then the request fails and the guest
    /// runs on. Absent: two minutes.
    pub timeout_ms: Option<u64>,
}

/// Whose guests to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GuestQuery {
    /// Whether to ask all paired hosts, too.
    #[serde(default)]
    pub all_hosts: bool,
}
