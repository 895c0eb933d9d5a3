// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The program people type: commands, printer, progress, and the `xm` front.
//!
//! A command is one file in [`command`]: its arguments, and a function that calls the API and says
//! what came of it. It never prints by itself: [`printer`] does, so that what is data (standard
//! output) and what is conversation (standard error) is decided in one place. Nothing here knows
//! the daemon; what only the whole program can do comes in through [`Hooks`].

mod codes;
mod command;
mod console;
mod context;
mod editor;
mod format;
mod moves;
mod printer;
mod progress;
mod reference;
mod table;
mod xm;

pub use printer::Io;
pub use reference::{completions, man_pages, reference};

use crate::context::{Context, End};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use whimbrel_api::Problem;
use whimbrel_api::log::{LogPage, LogQuery};

/// What the whole program can do and this part of it cannot.
#[derive(Clone, Copy, Debug)]
pub struct Hooks {
    /// Runs the daemon until it is told to end. None: the configuration file at its usual place,
    /// if there is one.
    pub daemon: fn(config: Option<&Path>) -> Result<(), Problem>,
    /// Runs the carrying process of a migration.
    pub carry: fn(directory: &Path) -> Result<(), Problem>,
    /// Stands between xl and the carrying process, at one end of a migration on Xen.
    pub xl_pipe: fn(side: &str, directory: &Path) -> Result<(), Problem>,
    /// Reads the log of the daemon with this state directory while that daemon does not run.
    pub stored_log: fn(state_directory: &Path, query: &LogQuery) -> Result<LogPage, Problem>,
}

/// Runs the program with the arguments of `main`, the first being its name.
pub fn run(args: impl IntoIterator<Item = OsString>, hooks: Hooks) -> ExitCode {
    ExitCode::from(run_with(args, hooks, Io::of_process()))
}

/// Like [`run`], with other ends than the process's own, and the exit code as a number.
pub fn run_with(args: impl IntoIterator<Item = OsString>, hooks: Hooks, io: Io) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let is_xm = args.first().is_some_and(|name| Path::new(name).file_name() == Some("xm".as_ref()));
    if is_xm {
        return xm::run(&args, hooks, io);
    }
    let mut printer = printer::Printer::new(io);
    let cli = match command::parse::<command::Cli>(&args, &printer) {
        Ok(cli) => cli,
        Err(error) => return printer.usage(&error),
    };
    printer.is_json = cli.global.is_json;
    let cli = match cli.command.without_daemon(&cli.global, hooks, &mut printer) {
        command::Rest::Done(result) => return printer.end(result),
        command::Rest::NeedsClient(command) => (command, cli.global),
    };
    let (command, global) = cli;
    let place = match global.place() {
        Ok(place) => place,
        Err(problem) => return printer.end(Err(problem)),
    };
    in_runtime(async move {
        let mut context = Context::new(place, hooks, printer);
        let result = command.run(&mut context).await;
        let result = context.with_hints(result).await;
        context.printer.end(result)
    })
}

/// Where the daemon is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) socket: PathBuf,
    pub(crate) state_directory: PathBuf,
}

fn in_runtime(future: impl Future<Output = u8>) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime of one thread needs a few descriptors only");
    let code = runtime.block_on(future);
    // A console may have a thread waiting for a key that nobody will press.
    runtime.shutdown_background();
    code
}

/// What a command returns.
pub(crate) type Done = Result<End, Problem>;
