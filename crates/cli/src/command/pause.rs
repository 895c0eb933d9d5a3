// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel pause`

use super::GuestArg;
use crate::Done;
use crate::context::Context;

/// Stop a guest's virtual CPUs where they are. It keeps its memory.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    guest: GuestArg,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let GuestArg { guest } = args.guest;
    cx.about(&guest);
    let summary = cx.client.pause(&guest).await?;
    let text = format!("{} is paused.", summary.name);
    cx.tell_guest(&summary, &text)
}
