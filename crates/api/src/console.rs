// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Consoles: what travels after the upgrade.
//!
//! `GET /v1/guests/{guest}/console` with `Upgrade: whimbrel-console` turns the connection into two
//! streams of frames: a kind (one byte), the length of the payload (four bytes, big endian, at
//! most [`FRAME_BYTES_MAX`]), the payload. Raw bytes alone could not say why a console ended, nor
//! that the guest has moved and where it can be found.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The protocol named in the `Upgrade` header.
pub const PROTOCOL: &str = "whimbrel-console";
/// Largest payload of a frame, in bytes.
pub const FRAME_BYTES_MAX: usize = 64 << 10;

/// How to attach to a console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsoleQuery {
    /// Whether to watch only.
    #[serde(default)]
    pub read_only: bool,
    /// Whether to take over from whoever types now.
    #[serde(default)]
    pub force: bool,
    /// How much of what was shown before to send first, in bytes.
    pub scrollback_bytes: Option<u32>,
}

/// One frame, in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Bytes of the console (from the daemon) or typed (to it).
    Data(bytes::Bytes),
    /// Something about the console (from the daemon only).
    Notice(Notice),
}

/// Something about the console, told beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Notice {
    /// The scrollback is over; what follows is live.
    Live {
        /// Whether this client may type.
        is_writer: bool,
    },
    /// Somebody else took over typing; this client only reads now.
    WriterLost {
        /// The user who took over.
        by_uid: u32,
    },
    /// The guest moved; attach again. The stream ends.
    Moved {
        /// The host it moved to.
        host: String,
    },
    /// The guest's engine is gone. The stream ends.
    Ended {
        /// Why, in words.
        reason: String,
    },
    /// This client did not read fast enough. The stream ends.
    TooSlow,
}
