// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel host`

mod invite;
mod join;

use crate::context::{Context, End};
use crate::table::Align::{Left, Right};
use crate::table::Table;
use crate::{Done, format};
use whimbrel_api::Kind;
use whimbrel_api::host::{Baseline, Beyond, Peer};

/// Pair hosts, and see those that are paired.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Invite(invite::Args),
    Join(join::Args),
    /// List this host and those paired with it.
    #[command(visible_alias = "ls")]
    List {
        /// Show the CPU model and the machine type that fit all of them instead.
        #[arg(long)]
        baseline: bool,
    },
    /// End the pairing with a host.
    Forget {
        /// The name of a paired host.
        host: String,
    },
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    match args.command {
        Command::Invite(args) => invite::run(cx, args).await,
        Command::Join(args) => join::run(cx, args).await,
        Command::List { baseline: true } => baseline(cx).await,
        Command::List { baseline: false } => list(cx).await,
        Command::Forget { host } => {
            let host = cx.host_meant(&host).await?;
            cx.client.forget(&host).await?;
            cx.printer.say(&format!("{host} is forgotten; forget this host there, too."));
            Ok(End::Done)
        }
    }
}

/// Says that two hosts know each other now; the other side says the same.
fn say_paired(cx: &mut Context, peer: &Peer) {
    let words = peer.pair_words.as_deref().unwrap_or_default();
    cx.printer.say(&format!(
        "Paired with {}. Both sides show the same words, unless somebody is in between:\n  {words}",
        peer.name
    ));
}

async fn list(cx: &mut Context) -> Done {
    let list = cx.client.hosts().await?;
    if cx.printer.is_json {
        cx.printer.json(&list);
        return Ok(End::Done);
    }
    cx.printer.data(&render(&list.hosts));
    for host in &list.hosts {
        if let Some(problem) = &host.problem {
            cx.printer.warning(&format!("`{}` does not answer: {problem}", host.name));
        }
    }
    Ok(End::Done)
}

async fn baseline(cx: &mut Context) -> Done {
    let found = cx.client.baseline().await?;
    if cx.printer.is_json {
        cx.printer.json(&found);
    } else {
        cx.printer.data(&baseline_text(&found));
        for silent in &found.hosts_silent {
            let text = format!("`{}` does not answer, and was left out", silent.host);
            cx.printer.warning(&text);
        }
    }
    let fits = found.differ.is_none() && found.cpu_model.is_some() && found.machine.is_some();
    Ok(if fits { End::Done } else { End::Told(Kind::Refused) })
}

/// Returns lines for a guest file, with what speaks for and against them as comments.
fn baseline_text(found: &Baseline) -> String {
    let hosts = found.hosts.join(", ");
    let count = found.features.len();
    let mut text = format!("# Fits {hosts}: {count} CPU features that all of them have.\n");
    for Beyond { host, features } in &found.beyond {
        let features = features.join(" ");
        text.push_str(&format!("# {host} has more, which a guest is not given then: {features}\n"));
    }
    if let Some(differ) = &found.differ {
        text.push_str(&format!("# No guest fits all of them: {differ}\n"));
    }
    match &found.cpu_model {
        Some(model) => text.push_str(&format!("cpu = \"{model}\"\n")),
        None => text.push_str("# There is no named CPU model that all of them can give.\n"),
    }
    match &found.machine {
        Some(machine) => text.push_str(&format!("machine = \"{machine}\"\n")),
        None => text.push_str("# There is no machine type that all of them know.\n"),
    }
    text
}

fn render(hosts: &[Peer]) -> String {
    let mut table = Table::new(&[
        ("Host", Left),
        ("State", Left),
        ("Takes guests", Left),
        ("Engine", Left),
        ("Free", Right),
        ("Guests", Right),
        ("Version", Left),
        ("Addresses", Left),
    ]);
    for host in hosts {
        let state = match (host.is_this_host, host.is_reachable, host.round_trip_us) {
            (true, _, _) => "this host".to_owned(),
            (false, true, Some(us)) => format!("up, {}.{} ms", us / 1000, us % 1000 / 100),
            (false, true, None) => "up".to_owned(),
            (false, false, _) => "no answer".to_owned(),
        };
        let takes = match host.is_relocation_enabled {
            Some(true) => "yes",
            Some(false) => "no",
            None => "?",
        };
        table.row(vec![
            host.name.clone(),
            state,
            takes.to_owned(),
            host.engine.clone().unwrap_or_default(),
            host.memory_free_bytes.map(format::size).unwrap_or_default(),
            host.guest_running_count.map(|count| count.to_string()).unwrap_or_default(),
            host.version.clone().unwrap_or_default(),
            host.addresses.join(" "),
        ]);
    }
    table.render()
}
