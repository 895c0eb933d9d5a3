// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel list`

use crate::context::{Context, End};
use crate::table::Align::{Left, Right};
use crate::table::Table;
use crate::{Done, format};
use whimbrel_api::guest::{GuestState, GuestSummary, HostSilent};
use whimbrel_model::units::Bytes;

/// List guests: where they are, what they are doing, what they use.
///
/// Time is the processor time a guest has used on its host, in seconds. A guest that was started
/// with the engine's own tool (Xen's `xl`) is there, too: `not adopted`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ask all paired hosts, too.
    #[arg(short, long)]
    all_hosts: bool,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let list = cx.client.guests(args.all_hosts).await?;
    if cx.printer.is_json {
        cx.printer.json(&list);
        return Ok(End::Done);
    }
    cx.printer.data(&render(&list.guests));
    for HostSilent { host, reason } in &list.hosts_silent {
        cx.printer.warning(&format!("the guests of `{host}` are missing: {reason}"));
    }
    Ok(End::Done)
}

fn render(guests: &[GuestSummary]) -> String {
    let mut table = Table::new(&[
        ("Name", Left),
        ("ID", Right),
        ("Mem(MiB)", Right),
        ("VCPUs", Right),
        ("State", Left),
        ("Time(s)", Right),
        ("Host", Left),
    ]);
    for guest in guests {
        let way = if guest.state == GuestState::Arriving { "from" } else { "moving to" };
        let moving = guest.moving_with.as_ref().map(|host| format!(", {way} {host}"));
        let foreign = if guest.is_foreign { ", not adopted" } else { "" };
        table.row(vec![
            guest.name.clone(),
            guest.id.map(|id| id.to_string()).unwrap_or_default(),
            Bytes(guest.memory_bytes).as_mib_ceil().to_string(),
            guest.cpu_count.to_string(),
            format!("{}{}{foreign}", guest.state, moving.unwrap_or_default()),
            format::seconds(guest.cpu_time_ms),
            guest.host.clone(),
        ]);
    }
    table.render()
}
