// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The commands, one file each, and what they have in common.

mod adopt;
mod cancel;
mod completions;
mod console;
mod create;
mod cutover;
mod destroy;
mod doctor;
mod edit;
mod host;
mod import;
mod info;
mod list;
mod log;
mod man;
mod migrate;
mod pages;
mod pause;
mod plan;
mod reboot;
mod recover;
mod reload;
mod relocation;
mod report;
mod rm;
mod show;
mod start;
mod stop;
mod unpause;
mod watch;

pub(crate) use console::Args as ConsoleArgs;
pub(crate) use create::{create as create_guest, read_file as read_guest_file};
pub(crate) use info::render as render_host;
pub(crate) use log::print as print_log;
pub(crate) use plan::finding_text;
pub(crate) use report::pause_parts;
pub(crate) use show::render as render_guest;

use crate::context::{Context, End};
use crate::printer::Printer;
use crate::{Done, Hooks, Place, codes};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use whimbrel_api::{Kind, Problem};
use whimbrel_model::config::{self, Config, PATH_DEFAULT};
use whimbrel_model::text_file::TextFile;

/// Runs virtual machines on Linux hosts and moves them between hosts while they run.
#[derive(Debug, Parser)]
#[command(name = "whimbrel", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 done, 1 refused and nothing changed, 2 not understood, \
    3 failed and the guest is where it was, 4 in doubt (run `whimbrel recover`).")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Reads the arguments of one of the two programs this is.
pub(crate) fn parse<T: Parser>(args: &[OsString], printer: &Printer) -> Result<T, clap::Error> {
    let mut command = T::command();
    if !printer.io.is_out_terminal {
        // Help that is kept or compared must not depend on a terminal that happens to be near.
        command = command.term_width(100);
    }
    T::from_arg_matches_mut(&mut command.try_get_matches_from(args)?)
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Print data and problems as JSON.
    #[arg(long = "json", global = true, display_order = 900)]
    pub(crate) is_json: bool,
    /// The daemon's socket [default: as configured].
    #[arg(long, global = true, value_name = "PATH", env = "WHIMBREL_SOCKET", display_order = 901)]
    #[arg(hide_env_values = true)]
    pub(crate) socket: Option<PathBuf>,
    /// The daemon's configuration [default: /etc/whimbrel/whimbrel.toml].
    #[arg(long, global = true, value_name = "FILE", env = "WHIMBREL_CONFIG", display_order = 902)]
    #[arg(hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Create(create::Args),
    Start(start::Args),
    #[command(visible_alias = "shutdown")]
    Stop(stop::Args),
    #[command(hide = true)]
    Destroy(destroy::Args),
    Reboot(reboot::Args),
    Pause(pause::Args),
    Unpause(unpause::Args),
    #[command(visible_aliases = ["ls", "ps"])]
    List(list::Args),
    Show(show::Args),
    Edit(edit::Args),
    Adopt(adopt::Args),
    Rm(rm::Args),
    Console(console::Args),
    Plan(plan::Args),
    Migrate(migrate::Args),
    Watch(watch::Args),
    Cancel(cancel::Args),
    Cutover(cutover::Args),
    Report(report::Args),
    Recover(recover::Args),
    Log(log::Args),
    Info(info::Args),
    Doctor(doctor::Args),
    Host(host::Args),
    Relocation(relocation::Args),
    Pages(pages::Args),
    Reload(reload::Args),
    Import(import::Args),
    /// Run the daemon, in the foreground.
    Daemon,
    #[command(hide = true)]
    Carry {
        directory: PathBuf,
    },
    #[command(hide = true)]
    XlPipe {
        side: String,
        directory: PathBuf,
    },
    Completions(completions::Args),
    Man(man::Args),
}

/// What is left to do once the commands that need no daemon are done.
#[derive(Debug)]
pub(crate) enum Rest {
    Done(Done),
    NeedsClient(Command),
}

impl Command {
    pub(crate) fn without_daemon(
        self,
        global: &Global,
        hooks: Hooks,
        printer: &mut Printer,
    ) -> Rest {
        let done = |()| End::Done;
        Rest::Done(match self {
            Self::Daemon => (hooks.daemon)(global.config.as_deref()).map(done),
            Self::Carry { directory } => (hooks.carry)(&directory).map(done),
            Self::XlPipe { side, directory } => (hooks.xl_pipe)(&side, &directory).map(done),
            Self::Completions(args) => completions::run(printer, &args),
            Self::Man(args) => man::run(printer, &args),
            Self::Import(args) => import::run(printer, &args),
            command => return Rest::NeedsClient(command),
        })
    }

    pub(crate) async fn run(self, cx: &mut Context) -> Done {
        match self {
            Self::Create(args) => create::run(cx, args).await,
            Self::Start(args) => start::run(cx, args).await,
            Self::Stop(args) => stop::run(cx, args).await,
            Self::Destroy(args) => destroy::run(cx, args).await,
            Self::Reboot(args) => reboot::run(cx, args).await,
            Self::Pause(args) => pause::run(cx, args).await,
            Self::Unpause(args) => unpause::run(cx, args).await,
            Self::List(args) => list::run(cx, args).await,
            Self::Show(args) => show::run(cx, args).await,
            Self::Edit(args) => edit::run(cx, args).await,
            Self::Adopt(args) => adopt::run(cx, args).await,
            Self::Rm(args) => rm::run(cx, args).await,
            Self::Console(args) => console::run(cx, args).await,
            Self::Plan(args) => plan::run(cx, args).await,
            Self::Migrate(args) => migrate::run(cx, args).await,
            Self::Watch(args) => watch::run(cx, args).await,
            Self::Cancel(args) => cancel::run(cx, args).await,
            Self::Cutover(args) => cutover::run(cx, args).await,
            Self::Report(args) => report::run(cx, args).await,
            Self::Recover(args) => recover::run(cx, args).await,
            Self::Log(args) => log::run(cx, args).await,
            Self::Info(args) => info::run(cx, args).await,
            Self::Doctor(args) => doctor::run(cx, args).await,
            Self::Host(args) => host::run(cx, args).await,
            Self::Relocation(args) => relocation::run(cx, args).await,
            Self::Pages(args) => pages::run(cx, args).await,
            Self::Reload(args) => reload::run(cx, args).await,
            Self::Import(_)
            | Self::Daemon
            | Self::Carry { .. }
            | Self::XlPipe { .. }
            | Self::Completions(_)
            | Self::Man(_) => unreachable!("these need no daemon"),
        }
    }
}

impl Global {
    /// Finds the daemon: by the socket named, or else by its configuration.
    pub(crate) fn place(&self) -> Result<Place, Problem> {
        let config = self.read_config();
        let config = match (&self.socket, config) {
            // A configuration that cannot be read does not stand in the way of a known socket.
            (Some(_), Err(_)) => Config::default(),
            (_, config) => config?,
        };
        let configured = || config.api.socket.clone();
        let default = || config.state_dir.join("api.sock");
        let socket = self.socket.clone().or_else(configured).unwrap_or_else(default);
        Ok(Place { socket, state_directory: config.state_dir })
    }

    fn read_config(&self) -> Result<Config, Problem> {
        let path = self.config.clone().unwrap_or_else(|| PathBuf::from(PATH_DEFAULT));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.config.is_none() => {
                return Ok(Config::default());
            }
            Err(error) => {
                let remedy = "check the path, or leave `--config` out and name the daemon's \
                              socket with `--socket`";
                return Err(cannot_read(&path.display().to_string(), &error, remedy));
            }
        };
        let name = path.display().to_string();
        let file = TextFile { name: &name, text: &text, base: path.parent() };
        config::parse(&file).map_err(|error| Problem::of(&error))
    }
}

/// Returns the problem of a file that the user named and that cannot be read.
pub(crate) fn cannot_read(path: &str, error: &std::io::Error, remedy: &str) -> Problem {
    Problem::new(
        Kind::Usage,
        codes::FILE_UNREADABLE,
        format!("cannot read `{path}`: {error}"),
        remedy,
    )
}

/// Returns the problem of a file that the user named and that cannot be written.
pub(crate) fn cannot_write(path: &str, error: &std::io::Error) -> Problem {
    let text = format!("cannot write `{path}`: {error}");
    Problem::new(Kind::Usage, codes::FILE_UNWRITABLE, text, "choose another place for it")
}

/// A guest, as every command takes it.
#[derive(Debug, Args)]
pub(crate) struct GuestArg {
    /// The guest's name, its number on this host, or its uuid.
    pub(crate) guest: String,
}
