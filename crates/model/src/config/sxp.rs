// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The old `xend-config.sxp`, carried over into a `whimbrel.toml`.

use crate::text_file::{Fault, FileError, TextFile};

/// A new configuration made from an old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The text of a `whimbrel.toml`.
    pub toml: String,
    /// What was carried over, one line each.
    pub notes: Vec<String>,
    /// What could not be carried over, and why.
    pub left_out: Vec<String>,
}

/// Converts a `xend-config.sxp`.
pub fn convert(file: &TextFile<'_>) -> Result<Converted, FileError> {
    let text = "not built yet".to_owned();
    Err(FileError::whole(file, Fault::Syntax { text }))
}
