// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel stop`

mod all;

use crate::Done;
use crate::context::Context;
use std::time::Duration;
use whimbrel_api::guest::StopGuest;
use whimbrel_model::units::parse_duration;

/// Ask a guest to shut down, and wait until it has.
///
/// A guest that has not shut down in time runs on; `--now` ends it like pulling the plug. Disks
/// are never touched.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["guest", "all"]))]
pub(crate) struct Args {
    /// The guest's name, its number on this host, or its uuid.
    guest: Option<String>,
    /// Stop every guest of this host, all of them at once.
    #[arg(long)]
    all: bool,
    /// End it at once, without asking it.
    #[arg(long, conflicts_with_all = ["timeout", "force"])]
    now: bool,
    /// How long to wait for it: `90s`, `5m` [default: 2m].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// With `--all`: end what has not shut down in time, or cannot be asked, like pulling the
    /// plug. A migration out of this host that is not past its point of no return is cancelled.
    #[arg(long, conflicts_with = "guest")]
    force: bool,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let Args { guest, now: is_now, timeout, force: is_forced, .. } = args;
    match guest {
        Some(guest) => stop(cx, &guest, request(is_now, timeout)).await,
        None => all::run(cx, all::How { is_now, timeout, is_forced }).await,
    }
}

fn request(is_now: bool, timeout: Option<Duration>) -> StopGuest {
    let timeout_ms = timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    StopGuest { is_now, timeout_ms }
}

pub(super) async fn stop(cx: &mut Context, guest: &str, request: StopGuest) -> Done {
    cx.about(guest);
    let summary = cx.client.stop(guest, &request).await?;
    let text = format!("{} is {}.", summary.name, summary.state);
    cx.tell_guest(&summary, &text)
}
