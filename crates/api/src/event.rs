// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Events: one stream for terminal, scripts and web UI.

use crate::guest::GuestSummary;
use crate::host::Peer;
use crate::log::LogLine;
use crate::migration::Migration;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something happened. In the stream, the `event:` field is `kind` and the `data:` field is the
/// whole as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// A guest came, or its state changed; this is it now.
    Guest(GuestSummary),
    /// A guest is no longer here: it moved, or its definition was forgotten.
    GuestGone(GuestGone),
    /// A migration began, went on or ended; this is it now.
    Migration(Box<Migration>),
    /// A line was written to the log.
    Log(LogLine),
    /// A host was paired with this one.
    Paired(Peer),
    /// The reader was too slow and this many events are missing; ask again for what matters.
    Missed(Missed),
}

impl Event {
    /// The names of all events that this version knows.
    pub const KINDS: [&'static str; 6] =
        ["guest", "guest-gone", "migration", "log", "paired", "missed"];

    /// Returns the name of the event in the stream.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Guest(_) => "guest",
            Self::GuestGone(_) => "guest-gone",
            Self::Migration(_) => "migration",
            Self::Log(_) => "log",
            Self::Paired(_) => "paired",
            Self::Missed(_) => "missed",
        }
    }
}

/// A guest that is no longer here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GuestGone {
    /// Its uuid.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// The host it moved to, if it moved.
    pub moved_to: Option<String>,
}

/// Events that a slow reader did not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Missed {
    /// How many.
    pub event_count: u64,
}

/// Which events to send.
///
/// A stream for one migration begins with the migration as it stands, also if it has ended
/// already, and closes after the event that carries its outcome. A stream for one guest begins
/// with the guest and with its current migration, if any. Otherwise only what happens from now on
/// is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventQuery {
    /// Only of this guest: name, number or uuid.
    pub guest: Option<String>,
    /// Only of this migration.
    pub migration: Option<String>,
}
