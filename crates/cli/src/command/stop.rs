// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel stop`

use super::GuestArg;
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
pub(crate) struct Args {
    #[command(flatten)]
    guest: GuestArg,
    /// End it at once, without asking it.
    #[arg(long, conflicts_with = "timeout")]
    now: bool,
    /// How long to wait for it: `90s`, `5m` [default: 2m].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let timeout_ms = args.timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    stop(cx, &args.guest.guest, StopGuest { is_now: args.now, timeout_ms }).await
}

pub(super) async fn stop(cx: &mut Context, guest: &str, request: StopGuest) -> Done {
    cx.about(guest);
    let summary = cx.client.stop(guest, &request).await?;
    let text = format!("{} is {}.", summary.name, summary.state);
    cx.tell_guest(&summary, &text)
}
