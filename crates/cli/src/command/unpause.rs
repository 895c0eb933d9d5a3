// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel unpause`

use super::GuestArg;
use crate::Done;
use crate::context::Context;

/// Let a paused guest go on.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    guest: GuestArg,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let GuestArg { guest } = args.guest;
    cx.about(&guest);
    let summary = cx.client.unpause(&guest).await?;
    let text = format!("{} goes on.", summary.name);
    cx.tell_guest(&summary, &text)
}
