// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Runs programs of the system, with errors that say what was run and what it said.

use anyhow::{Context as _, Result, bail};
use std::process::{Command, Output, Stdio};

/// Runs a command to its end; its output is shown only if it fails.
pub fn run(command: &mut Command) -> Result<()> {
    output_of(command).map(drop)
}

/// Runs a command and returns what it wrote to its standard output.
pub fn stdout_of(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&output_of(command)?.stdout).into_owned())
}

fn output_of(command: &mut Command) -> Result<Output> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start {:?}", command.get_program()))?;
    if !output.status.success() {
        let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&said).trim());
    }
    Ok(output)
}
