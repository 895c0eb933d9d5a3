// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The one program: the commands, the daemon, the carrying process, the `xm` front.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use whimbrel_api::Problem;
use whimbrel_cli::Hooks;
use whimbrel_engine::xen::hotplug::HotplugError;
use whimbrel_engine::xen::pipe::{self, Side};

/// Runs what this process was started as.
pub fn run() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    // Xen's tools wait for it while a guest stands still: before everything else.
    if let Some(plugged) = whimbrel_daemon::plug(&arguments) {
        return end_plugging(plugged);
    }
    let hooks = Hooks {
        daemon: whimbrel_daemon::run,
        carry,
        xl_pipe,
        stored_log: whimbrel_daemon::stored_log,
    };
    whimbrel_cli::run(arguments, hooks)
}

/// What is said is read by Xen's tools, and by people in their logs.
fn end_plugging(plugged: Result<(), HotplugError>) -> ExitCode {
    let Err(error) = plugged else { return ExitCode::SUCCESS };
    let text = format!("xen-hotplug: {}\n", error.text());
    // Nobody is left who could be told.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::FAILURE
}

/// Carries one migration. Started by a daemon, never by people.
fn carry(directory: &Path) -> Result<(), Problem> {
    whimbrel_link::carrier::run(directory).map_err(|error| Problem::of(&error))
}

/// Stands between xl and the carrying process. Started by a daemon, never by people.
fn xl_pipe(side: &str, directory: &Path) -> Result<(), Problem> {
    let side = match side {
        "send" => Side::Send,
        "save" => Side::Save,
        _ => Side::Receive,
    };
    pipe::run(side, directory).map_err(|error| Problem::of(&error))
}
