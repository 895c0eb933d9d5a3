// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The `xm` front: the same program, spoken to as in 2008.
//!
//! Called through a link named `xm`, it takes `xm`'s own syntax and shows `xm`'s own columns.
//! Guests made here are transient, as they were there, and a migration is live only with `-l`.

mod list;

use crate::command::{self, ConsoleArgs, Global};
use crate::context::{Context, End};
use crate::printer::Printer;
use crate::{Done, Hooks, Io, codes, in_runtime, moves};
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use whimbrel_api::guest::StopGuest;
use whimbrel_api::log::LogQuery;
use whimbrel_api::migration::MigrateRequest;
use whimbrel_api::{Kind, Problem};

/// Manages guests in the words of Xen 3's `xm`.
#[derive(Debug, Parser)]
#[command(name = "xm", version, max_term_width = 100)]
#[command(after_help = "This is Whimbrel: `whimbrel --help` shows everything it can do.")]
struct Xm {
    /// The daemon's configuration [default: /etc/whimbrel/whimbrel.toml].
    #[arg(long, value_name = "FILE", env = "WHIMBREL_CONFIG", hide = true)]
    config: Option<PathBuf>,
    /// The daemon's socket [default: as configured].
    #[arg(long, value_name = "PATH", env = "WHIMBREL_SOCKET", hide = true)]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a guest from a file and start it. It is forgotten when it stops.
    Create {
        /// The guest file; without a `/` it is looked for in /etc/xen, too.
        file: PathBuf,
        /// Keys of the file to replace: `memory=256`.
        #[arg(value_name = "KEY=VALUE")]
        overrides: Vec<String>,
        /// Attach to its console at once; Ctrl+] leaves it.
        #[arg(short, long = "console_autoconnect")]
        console: bool,
        /// Say nothing.
        #[arg(short, long)]
        quiet: bool,
    },
    /// List guests.
    List {
        /// Show everything about them.
        #[arg(short, long)]
        long: bool,
        /// Only these: names or ids.
        domains: Vec<String>,
    },
    /// Attach to a guest's console; Ctrl+] leaves it.
    Console { domain: String },
    /// Ask a guest to shut down.
    Shutdown {
        domain: String,
        /// Accepted for old scripts: this waits anyway.
        #[arg(short, long)]
        wait: bool,
    },
    /// End a guest at once.
    Destroy { domain: String },
    /// Ask a guest to shut down, and start it again.
    Reboot { domain: String },
    /// Stop a guest's virtual CPUs where they are.
    Pause { domain: String },
    /// Let a paused guest go on.
    Unpause { domain: String },
    /// Move a guest to another host.
    Migrate {
        domain: String,
        /// The paired host: its name, or one of its addresses.
        host: String,
        /// Move it while it runs; without this it is stopped first.
        #[arg(short, long)]
        live: bool,
        /// Refused: the port is known from the pairing.
        #[arg(short, long)]
        port: Option<String>,
    },
    /// Show the log.
    Log,
    /// Show what this host is and has.
    Info,
    #[command(external_subcommand)]
    Other(Vec<String>),
}

pub(crate) fn run(args: &[OsString], hooks: Hooks, io: Io) -> u8 {
    let mut printer = Printer::new(io);
    let xm = match crate::command::parse::<Xm>(args, &printer) {
        Ok(xm) => xm,
        Err(error) => return printer.usage(&error),
    };
    let global = Global { is_json: false, socket: xm.socket, config: xm.config };
    let place = match global.place() {
        Ok(place) => place,
        Err(problem) => return printer.end(Err(problem)),
    };
    in_runtime(async move {
        let mut cx = Context::new(place, hooks, printer);
        let result = dispatch(&mut cx, xm.command).await;
        let result = cx.with_hints(result).await;
        cx.printer.end(result)
    })
}

async fn dispatch(cx: &mut Context, command: Command) -> Done {
    match command {
        Command::Create { file, overrides, console, quiet } => {
            create(cx, &file, overrides, console, quiet).await
        }
        Command::List { long, domains } => list::run(cx, &domains, long).await,
        Command::Console { domain } => {
            crate::console::run(cx, ConsoleArgs::from_start(domain)).await
        }
        Command::Shutdown { domain, wait: _ } => stop(cx, &domain, false).await,
        Command::Destroy { domain } => stop(cx, &domain, true).await,
        Command::Reboot { domain } => {
            cx.about(&domain);
            cx.client.reboot(&domain).await.map(|_| End::Done)
        }
        Command::Pause { domain } => {
            cx.about(&domain);
            cx.client.pause(&domain).await.map(|_| End::Done)
        }
        Command::Unpause { domain } => {
            cx.about(&domain);
            cx.client.unpause(&domain).await.map(|_| End::Done)
        }
        Command::Migrate { port: Some(port), .. } => Err(no_port(&port)),
        Command::Migrate { domain, host, live, port: None } => {
            migrate(cx, &domain, &host, live).await
        }
        Command::Log => command::print_log(cx, LogQuery::default()).await,
        Command::Info => {
            let host = cx.client.host().await?;
            cx.printer.data(&command::render_host(&host));
            Ok(End::Done)
        }
        Command::Other(words) => Err(unknown(&words)),
    }
}

async fn create(
    cx: &mut Context,
    file: &Path,
    overrides: Vec<String>,
    is_console: bool,
    is_quiet: bool,
) -> Done {
    let is_bare = file.parent() == Some(Path::new(""));
    let elsewhere = Path::new("/etc/xen").join(file);
    let file = if is_bare && !file.exists() && elsewhere.exists() { &elsewhere } else { file };
    let mut request = command::read_guest_file(&mut cx.printer, file, None)?;
    request.overrides = overrides;
    request.is_transient = true;
    if !is_quiet {
        cx.printer.say(&format!("Using config file \"{}\".", file.display()));
    }
    command::create_guest(cx, &request, is_console).await
}

async fn stop(cx: &mut Context, domain: &str, is_now: bool) -> Done {
    cx.about(domain);
    let request = StopGuest { is_now, timeout_ms: None };
    cx.client.stop(domain, &request).await.map(|_| End::Done)
}

async fn migrate(cx: &mut Context, domain: &str, host: &str, is_live: bool) -> Done {
    cx.about(domain);
    let target = cx.host_meant(host).await?;
    let request =
        MigrateRequest { target, is_stop_and_copy: !is_live, ..MigrateRequest::default() };
    let migration = cx.client.migrate(domain, &request).await?;
    moves::follow(cx, migration, moves::OnInterrupt::Cancel).await
}

fn no_port(port: &str) -> Problem {
    Problem::new(
        Kind::Usage,
        codes::XM_NO_PORT,
        format!("a port cannot be chosen for one migration, so `-p {port}` has no meaning here"),
        "set `port` in `[relocation]` of the other host's whimbrel.toml, and pair again",
    )
}

fn unknown(words: &[String]) -> Problem {
    let word = words.first().map(String::as_str).unwrap_or_default();
    let remedy = match word {
        "new" | "add" => "define it with `whimbrel create FILE --no-start`",
        "start" => "start it with `whimbrel start GUEST`",
        "delete" => "forget it with `whimbrel rm GUEST`",
        "top" | "uptime" | "vcpu-list" => "see `xm list`, or `whimbrel show GUEST`",
        "dmesg" => "see `whimbrel console GUEST --read-only`, or `xm log`",
        "save" | "restore" | "suspend" | "resume" => {
            "pause it with `whimbrel pause GUEST`; saving to a file is not built yet"
        }
        _ => "see `xm help`, and `whimbrel --help` for everything else",
    };
    let text = format!("`xm {word}` is not known here");
    Problem::new(Kind::Usage, codes::XM_UNKNOWN_COMMAND, text, remedy)
}
