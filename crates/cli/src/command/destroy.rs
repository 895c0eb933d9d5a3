// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel destroy`, the old name of `stop --now`.

use super::{GuestArg, stop};
use crate::Done;
use crate::context::Context;
use whimbrel_api::guest::StopGuest;

/// End a guest at once: the same as `stop --now`. Disks are never touched.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    guest: GuestArg,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    stop::stop(cx, &args.guest.guest, StopGuest { is_now: true, timeout_ms: None }).await
}
