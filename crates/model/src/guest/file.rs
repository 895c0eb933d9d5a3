// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The guest file: TOML, version 1. People write it, the store keeps it, hosts send it.

use super::Guest;
use crate::text_file::{Fault, FileError, TextFile};

/// The version this Whimbrel reads and writes.
pub const VERSION: u32 = 1;

/// Reads a guest file and checks everything that can be checked without the host.
pub fn parse(file: &TextFile<'_>) -> Result<Guest, FileError> {
    let text = "not built yet".to_owned();
    Err(FileError::whole(file, Fault::Syntax { text }))
}

/// Returns the guest as a guest file: the same text for the same guest, complete and readable.
pub fn render(guest: &Guest) -> String {
    format!("name = \"{}\"\n", guest.name)
}

/// Returns the reference page of the format, `docs/reference/guest-file.md`.
pub fn reference() -> String {
    String::new()
}
