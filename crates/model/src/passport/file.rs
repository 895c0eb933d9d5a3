// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The passport as it is stored and sent: JSON, versioned and bounded.

use super::Passport;

/// The version this Whimbrel writes.
pub const VERSION: u32 = 1;
/// Longest text that is looked at, in bytes.
pub const PASSPORT_BYTES_MAX: usize = 256 * 1024;

/// Why a passport was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PassportError {
    #[error("the passport has {bytes} bytes, and at most {PASSPORT_BYTES_MAX} are allowed")]
    TooLong { bytes: usize },
    #[error("the passport has version {found}, and this Whimbrel reads version {VERSION}")]
    Version { found: u64 },
    #[error("the passport cannot be read: {reason}")]
    Malformed { reason: String },
}

/// Returns the passport as JSON, the same text for the same passport.
pub fn to_json(passport: &Passport) -> String {
    format!("{{\"version\":{VERSION},\"guest\":\"{}\"}}", passport.guest)
}

/// Reads what [`to_json`] wrote, here or on another host.
pub fn from_json(text: &str) -> Result<Passport, PassportError> {
    Err(PassportError::Malformed { reason: format!("not built yet ({} bytes)", text.len()) })
}
