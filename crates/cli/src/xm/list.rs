// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `xm list`, column for column.

use crate::Done;
use crate::context::{Context, End};
use crate::format;
use whimbrel_api::Problem;
use whimbrel_api::guest::{GuestState, GuestSummary};
use whimbrel_api::host::HostInfo;
use whimbrel_model::units::Bytes;

/// What the host itself is called, and its number.
const HOST_NAME: &str = "Domain-0";
const HOST_ID: &str = "0";

pub(super) async fn run(cx: &mut Context, domains: &[String], is_long: bool) -> Done {
    let guests = cx.client.guests(false).await?.guests;
    let is_meant = |guest: &GuestSummary, domain: &str| {
        let id = guest.id.map(|id| id.to_string());
        guest.name == domain || guest.uuid == domain || id.as_deref() == Some(domain)
    };
    if let Some(domain) = domains
        .iter()
        .find(|domain| !is_host(domain) && !guests.iter().any(|guest| is_meant(guest, domain)))
    {
        cx.about(domain);
        return Err(Problem::guest_not_found(domain));
    }
    let is_shown = |guest: &&GuestSummary| {
        domains.is_empty() || domains.iter().any(|domain| is_meant(guest, domain))
    };
    let shown: Vec<_> = guests.iter().filter(is_shown).collect();
    if is_long {
        for guest in shown {
            let detail = cx.client.guest(&guest.uuid).await?;
            cx.printer.data(&crate::command::render_guest(&detail));
        }
        return Ok(End::Done);
    }
    let host = cx.client.host().await?;
    let mut text = head();
    if domains.is_empty() || domains.iter().any(|domain| is_host(domain)) {
        text.push_str(&host_row(&host, &guests));
    }
    shown.into_iter().for_each(|guest| text.push_str(&row(guest)));
    cx.printer.data(&text);
    Ok(End::Done)
}

fn is_host(domain: &str) -> bool {
    [HOST_NAME, HOST_ID].contains(&domain)
}

fn head() -> String {
    let [name, id, memory, cpus, state, time] =
        ["Name", "ID", "Mem(MiB)", "VCPUs", "State", "Time(s)"];
    format!("{name:<40} {id:>3} {memory:>8} {cpus:>5} {state:>5} {time:>9}\n")
}

/// The host's memory is what its guests do not have.
fn host_row(host: &HostInfo, guests: &[GuestSummary]) -> String {
    let of_guests = guests.iter().filter(|guest| has_engine(guest)).map(|guest| guest.memory_bytes);
    let memory = Bytes(host.memory_total_bytes.saturating_sub(of_guests.sum())).0 / Bytes::MIB;
    let (cpus, time) = (host.cpu_count, format::seconds(host.cpu_time_ms));
    format!("{HOST_NAME:<40} {HOST_ID:>3} {memory:>8} {cpus:>5} r----- {time:>8}\n")
}

fn has_engine(guest: &GuestSummary) -> bool {
    guest.state != GuestState::Stopped
}

fn row(guest: &GuestSummary) -> String {
    let GuestSummary { name, cpu_count, .. } = guest;
    // As there: a guest that is only defined has no number.
    let id = guest.id.filter(|_| has_engine(guest)).map(|id| id.to_string()).unwrap_or_default();
    let memory = Bytes(guest.memory_bytes).as_mib_ceil();
    let (state, time) = (flags(guest.state), format::seconds(guest.cpu_time_ms));
    format!("{name:<40} {id:>3} {memory:>8} {cpu_count:>5} {state} {time:>8}\n")
}

/// `rbpscd`: running, blocked, paused, shut down, crashed, dying.
fn flags(state: GuestState) -> &'static str {
    match state {
        GuestState::Running | GuestState::Stopping => "r-----",
        GuestState::Suspended => "-b----",
        GuestState::Paused
        | GuestState::Starting
        | GuestState::Arriving
        | GuestState::Leaving
        | GuestState::IoError
        | GuestState::InDoubt => "--p---",
        GuestState::ShutDown => "---s--",
        GuestState::Crashed => "----c-",
        GuestState::Stopped => "------",
    }
}
