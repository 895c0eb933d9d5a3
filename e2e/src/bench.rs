// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `./x bench NAME`: what a person waits for, measured beside what others do, in one run.

mod command;
mod forecast;
mod migrate;
mod table;
mod xen;

use crate::lab::guard;
use crate::setting::Setting;
use anyhow::{Result, bail};
use std::path::Path;

/// Which part of a benchmark to run.
pub struct Options {
    /// What can be told within ten minutes.
    pub quick: bool,
    /// Forgets what earlier runs have measured.
    pub fresh: bool,
    /// Only what has one of these names: `visit`, `idle`, `1gbit`, `Qx`; `visit/idle` has both.
    pub only: Vec<String>,
}

pub fn bench(name: &str, options: &Options) -> Result<()> {
    guard();
    match name {
        "command" => command::command(&Setting::find()?),
        "forecast" => forecast::forecast(&Setting::find()?),
        "migrate" => migrate::migrate(&Setting::find()?, options),
        "xen" => xen::xen(&Setting::find()?, options),
        other => {
            bail!(
                "there is no benchmark `{other}`; there are `command`, `forecast`, `migrate` and \
                 `xen`"
            )
        }
    }
}

/// Draws the plots of the documentation anew, from the figures in `project`, below `into`.
pub fn plots(project: &Path, into: &Path) -> Result<()> {
    migrate::references(project, into)
}
