// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `./x bench NAME`: what a person waits for, measured beside what others do, in one run.

mod command;
mod table;

use crate::lab::guard;
use crate::setting::Setting;
use anyhow::{Result, bail};

pub fn bench(name: &str) -> Result<()> {
    guard();
    match name {
        "command" => command::command(&Setting::find()?),
        other => bail!("there is no benchmark `{other}`; there is `command`"),
    }
}
