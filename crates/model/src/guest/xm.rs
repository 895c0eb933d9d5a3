// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The classic `xm`/`xl` guest file: read as data, never executed.

use super::Guest;
use crate::passport::EngineKind;
use crate::text_file::{Fault, FileError, Place, TextFile};

/// Where an imported guest will run.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// On Xen a guest keeps the names of its disks; on QEMU they become `vda`, `vdb` …
    pub engine: EngineKind,
    /// The bridge of a `vif` that names none; without one it is `xenbr0`, as with `xl`.
    pub bridge: Option<&'a str>,
}

/// A guest read from a classic file, and what happened to it on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    pub guest: Guest,
    /// What was translated, one line each, to be printed.
    pub notes: Vec<String>,
    /// What has no meaning here, or needs a look inside the guest.
    pub warnings: Vec<Warning>,
}

/// Something in the file that was left out, or that the guest's owner should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub place: Option<Place>,
    pub key: String,
    pub text: String,
}

/// Reads a classic guest file.
pub fn parse(file: &TextFile<'_>, options: Options<'_>) -> Result<Imported, FileError> {
    let text = format!("not built yet for {:?}", options.engine);
    Err(FileError::whole(file, Fault::Syntax { text }))
}

/// Tells a classic file from a TOML one, by its name and, failing that, by its text.
pub fn is_classic(file: &TextFile<'_>) -> bool {
    file.name.ends_with(".cfg")
}
