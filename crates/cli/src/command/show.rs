// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel show`

use super::GuestArg;
use crate::context::{Context, End};
use crate::table::fields;
use crate::{Done, format};
use whimbrel_api::guest::{DiskInfo, Fit, GuestDetail, NetworkInfo};

/// Show what a guest is, where it is, and which paired hosts could take it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    guest: GuestArg,
    /// Print its definition instead, as a guest file.
    #[arg(long)]
    toml: bool,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let GuestArg { guest } = args.guest;
    cx.about(&guest);
    let detail = cx.client.guest(&guest).await?;
    if args.toml {
        cx.printer.data(&detail.definition);
    } else if cx.printer.is_json {
        cx.printer.json(&detail);
    } else {
        cx.printer.data(&render(&detail));
    }
    Ok(End::Done)
}

pub(crate) fn render(detail: &GuestDetail) -> String {
    let guest = &detail.summary;
    let frozen = detail.frozen.as_ref();
    let state = match &detail.remark {
        Some(remark) => format!("{}: {remark}", guest.state),
        None => guest.state.to_string(),
    };
    let definition = match (guest.is_transient, detail.is_definition_pending) {
        (true, _) => "forgotten when it stops",
        (false, true) => "edited; the next start brings it",
        (false, false) => "",
    };
    fields(&[
        ("name", guest.name.clone()),
        ("id", guest.id.map(|id| id.to_string()).unwrap_or_default()),
        ("uuid", guest.uuid.clone()),
        ("state", state),
        ("host", guest.host.clone()),
        ("moving", moving(detail)),
        ("memory", format::size(guest.memory_bytes)),
        ("vcpus", guest.cpu_count.to_string()),
        ("boot", detail.boot.clone()),
        ("disks", lines(&detail.disks, disk)),
        ("networks", lines(&detail.networks, network)),
        (
            "engine",
            frozen
                .map(|f| format!("{} {} ({})", f.engine, f.engine_version, f.accelerator))
                .unwrap_or_default(),
        ),
        ("machine", frozen.map(|f| f.machine.clone()).unwrap_or_default()),
        ("cpu", frozen.map(|f| f.cpu.clone()).unwrap_or_default()),
        ("autostart", if guest.is_autostarted { "yes" } else { "no" }.to_owned()),
        ("definition", definition.to_owned()),
        ("started", detail.started_at_ms.map(format::date).unwrap_or_default()),
        ("process", detail.pid.map(|pid| pid.to_string()).unwrap_or_default()),
        ("kept memory", kept(detail)),
        ("could go to", lines(&detail.fits, fit)),
    ])
}

fn kept(detail: &GuestDetail) -> String {
    let Some(kept) = &detail.kept else { return String::new() };
    let (memory, at) = (format::size(kept.memory_bytes), format::date(kept.kept_at_ms));
    format!("{memory} on {}, of {at}", kept.host)
}

fn moving(detail: &GuestDetail) -> String {
    let Some(migration) = &detail.migration else { return String::new() };
    format!("from {} to {}, {}", migration.source, migration.target, migration.phase)
}

fn lines<T>(items: &[T], line: impl Fn(&T) -> String) -> String {
    items.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn disk(disk: &DiskInfo) -> String {
    let device = if disk.device == "cdrom" { ", cdrom" } else { "" };
    let access = if disk.is_read_only { ", read-only" } else { "" };
    format!("{}  {} ({}{device}{access})", disk.name, disk.source, disk.format)
}

fn network(network: &NetworkInfo) -> String {
    let place = match &network.bridge {
        Some(bridge) => format!("bridge {bridge}"),
        None => network.kind.clone(),
    };
    let mac = network.mac.as_deref().map(|mac| format!("  {mac}")).unwrap_or_default();
    let forwards: String = network.forwards.iter().map(|forward| format!("  {forward}")).collect();
    format!("{place}{mac}{forwards}")
}

fn fit(fit: &Fit) -> String {
    match (&fit.reason, fit.is_fit) {
        (Some(reason), false) => format!("{}: no, {reason}", fit.host),
        (Some(reason), true) => format!("{}: {reason}", fit.host),
        (None, true) => fit.host.clone(),
        (None, false) => format!("{}: no", fit.host),
    }
}
