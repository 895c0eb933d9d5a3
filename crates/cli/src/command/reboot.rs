// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel reboot`

use super::GuestArg;
use crate::Done;
use crate::context::Context;

/// Reset a guest, as its reset button would.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    guest: GuestArg,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let GuestArg { guest } = args.guest;
    cx.about(&guest);
    let summary = cx.client.reboot(&guest).await?;
    let text = format!("{} was reset.", summary.name);
    cx.tell_guest(&summary, &text)
}
