// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel host`

mod invite;
mod join;

use crate::context::{Context, End};
use crate::table::Align::{Left, Right};
use crate::table::Table;
use crate::{Done, format};
use whimbrel_api::host::Peer;

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
    List,
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
        Command::List => list(cx).await,
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
