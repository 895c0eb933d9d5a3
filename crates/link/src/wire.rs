// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What hosts may say to each other, checked.
//!
//! The types of this module are what the rest of the program sees; the generated ones stay in
//! `proto`. Whatever comes from a peer passes through a conversion here, and each text and list
//! has a limit of its own below that of the frame.

use crate::proto;
use std::time::Duration;
use whimbrel_handoff::ownership::Answer;
use whimbrel_model::id::{Epoch, GuestId, HandoffId, HostId, HostName};
use whimbrel_model::problem::{Kind, Problem};
use whimbrel_model::units::Bytes;

pub(crate) mod convert;
mod handoff;
#[cfg(test)]
mod tests;

/// The versions of the peer protocol this program speaks.
pub const VERSIONS: std::ops::RangeInclusive<u32> = 1..=1;

/// Longest definition of a guest, in bytes of TOML.
pub const DEFINITION_BYTES_MAX: usize = 256 << 10;
/// Longest JSON document: a passport, facts, a list of guests, a line of the log.
pub const DOCUMENT_BYTES_MAX: usize = 768 << 10;
/// Longest text of a problem.
pub const TEXT_BYTES_MAX: usize = 16 << 10;
/// Most data channels a migration may have.
pub const CHANNELS_MAX: u32 = 64;

/// Who speaks, and in which versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub version_min: u32,
    pub version_max: u32,
    /// For people: `whimbrel 0.1.0`.
    pub software: String,
    pub host_name: HostName,
}

impl Hello {
    /// The hello of this program on the host `host_name`.
    pub fn ours(host_name: HostName) -> Self {
        Self {
            version_min: *VERSIONS.start(),
            version_max: *VERSIONS.end(),
            software: concat!("whimbrel ", env!("CARGO_PKG_VERSION")).to_owned(),
            host_name,
        }
    }

    /// Returns the highest version both speak.
    pub fn common_version(&self, other: &Hello) -> Option<u32> {
        let highest = self.version_max.min(other.version_max);
        (highest >= self.version_min.max(other.version_min)).then_some(highest)
    }
}

/// What one host asks of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Ping,
    Facts(FactsQuery),
    WhoOwns(WhoOwns),
    Handoff(Opening),
    Log(LogQuery),
    Guests,
    Console(ConsoleQuery),
    /// The peer has forgotten this host.
    Unpair,
    /// What came of a migration between the two.
    Report(ReportQuery),
    /// The papers of every guest that the peer owns.
    Papers,
    /// How fast is the way to you?
    Measure,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FactsQuery {
    /// TOML; empty: only what the host says of itself is asked for.
    pub definition: String,
    /// JSON; empty where the guest has no passport yet.
    pub passport: Vec<u8>,
    /// What is in the frames that the asker sends on the guest's bridges; none: it sends none.
    pub token: Option<[u8; 16]>,
    /// Start an engine with the passport, paused, and end it again.
    pub is_proved: bool,
    /// Call the asker, and say what came of it.
    pub is_called_back: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WhoOwns {
    pub guest: GuestId,
    pub handoff: Option<HandoffId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportQuery {
    pub handoff: HandoffId,
    /// From the target: how long its guest took to be heard on the network.
    pub first_packet_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// None: every guest's and the host's own.
    pub guest: Option<GuestId>,
    /// Unix time in milliseconds; 0 is the beginning.
    pub since_ms: u64,
    pub follow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsoleQuery {
    pub guest: GuestId,
    /// Take the keyboard from whoever has it.
    pub takes_over: bool,
    pub is_read_only: bool,
    /// How much of what was shown before to send first; none: as the host likes.
    pub scrollback_bytes: Option<u32>,
}

/// Opens the conversation about a handoff, or takes it up again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub handoff: HandoffId,
    pub guest: GuestId,
    /// The epoch that is offered.
    pub epoch: Epoch,
    /// None where the conversation is taken up again after a lost connection.
    pub offer: Option<Offer>,
}

/// What the target needs to start the guest's engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// TOML.
    pub definition: String,
    /// JSON.
    pub passport: Vec<u8>,
    pub channels: u32,
    pub is_compressed: bool,
    pub is_stop_and_copy: bool,
    /// Bytes a second; none: no limit.
    pub bandwidth: Option<Bytes>,
    pub pause_max: Duration,
    /// The guest is forgotten when it stops.
    pub is_transient: bool,
    pub carrier: CarrierKind,
    /// In post-copy, the pages that the guest waits for have a channel of their own.
    pub has_urgent_channel: bool,
}

/// How memory travels between the two carrying processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarrierKind {
    /// The engine's channels, untouched.
    Tunnel,
    /// One channel, looked into for the guest's pages.
    Pages,
}

impl CarrierKind {
    pub const ALL: [CarrierKind; 2] = [CarrierKind::Tunnel, CarrierKind::Pages];

    /// Returns what people call it.
    pub fn name(self) -> &'static str {
        match self {
            CarrierKind::Tunnel => "tunnel",
            CarrierKind::Pages => "pages",
        }
    }
}

/// How a host is, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    pub software: String,
    /// For people: `QEMU 7.2.22, TCG`.
    pub engine: String,
    pub memory_free: Bytes,
    pub memory_total: Bytes,
    pub guest_count: u32,
    /// It takes no guests for now.
    pub is_in_maintenance: bool,
}

/// What a host answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    Problem(Problem),
    Status(PeerStatus),
    Document(Vec<u8>),
    Owner(Answer),
    Done,
    Line(Vec<u8>),
}

/// Why a message of a peer was not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("`{field}` is missing")]
    Missing { field: &'static str },
    #[error("`{field}` has {length} bytes, and at most {max} are allowed")]
    TooLong { field: &'static str, length: usize, max: usize },
    #[error("`{field}` has {length} bytes instead of {expected}")]
    Length { field: &'static str, length: usize, expected: usize },
    #[error("`{field}` is {found}, which is not allowed")]
    Value { field: &'static str, found: String },
}

pub use handoff::HandoffFrame;
