// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel reboot`

use super::GuestArg;
use crate::Done;
use crate::context::Context;

/// Ask a guest to shut down, and start it again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    guest: GuestArg,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let GuestArg { guest } = args.guest;
    cx.about(&guest);
    let summary = cx.client.reboot(&guest).await?;
    let text = format!("{} was rebooted.", summary.name);
    cx.tell_guest(&summary, &text)
}
