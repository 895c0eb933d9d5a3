// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel info`

use crate::context::{Context, End};
use crate::table::fields;
use crate::{Done, format};
use whimbrel_api::host::{EngineInfo, HostInfo, Relocation};

/// Show what this host is and has.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(super) async fn run(cx: &mut Context, _: Args) -> Done {
    let host = cx.client.host().await?;
    if cx.printer.is_json {
        cx.printer.json(&host);
    } else {
        cx.printer.data(&render(&host));
    }
    Ok(End::Done)
}

pub(crate) fn render(host: &HostInfo) -> String {
    let engines: Vec<String> = host.engines.iter().map(engine).collect();
    let guests = format!(
        "{}, {} of them with an engine",
        format::count(host.guest_count.into(), "guest"),
        host.guest_running_count
    );
    let memory = format!(
        "{}; {} for new guests, {} kept for the host",
        format::size(host.memory_total_bytes),
        format::size(host.memory_free_bytes),
        format::size(host.host_min_memory_bytes),
    );
    let cpu = format!("{} x {}", host.cpu_count, host.cpu_model);
    fields(&[
        ("host", host.name.clone()),
        ("fingerprint", host.fingerprint_words.clone()),
        ("version", host.version.clone()),
        ("system", host.system.clone()),
        ("kernel", host.kernel.clone()),
        ("processors", cpu),
        ("memory", memory),
        ("engines", engines.join("\n")),
        ("guests", guests),
        ("relocation", relocation_text(&host.relocation)),
        ("daemon since", format::date(host.started_at_ms)),
        ("state", host.state_directory.clone()),
        ("configuration", host.config_file.clone()),
    ])
}

fn engine(engine: &EngineInfo) -> String {
    format!("{} {} ({})", engine.kind, engine.version, engine.accelerator)
}

/// Returns whether and where guests may come in, in words.
pub(super) fn relocation_text(relocation: &Relocation) -> String {
    if !relocation.is_enabled {
        return "disabled".to_owned();
    }
    let addresses = match relocation.addresses.as_slice() {
        [] => "all addresses".to_owned(),
        addresses => addresses.join(", "),
    };
    let hosts = match relocation.hosts_allow.as_slice() {
        [] => "any paired host".to_owned(),
        hosts => hosts.join(", "),
    };
    format!("enabled on port {} of {addresses}, for {hosts}", relocation.port)
}
