// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel start`

use super::{ConsoleArgs, GuestArg};
use crate::Done;
use crate::context::Context;

/// Start a guest that was defined before.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    guest: GuestArg,
    /// Attach to its console at once.
    #[arg(short, long)]
    console: bool,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let GuestArg { guest } = args.guest;
    cx.about(&guest);
    let summary = cx.client.start(&guest).await?;
    let text = format!("{} is {} on {}.", summary.name, summary.state, summary.host);
    let done = cx.tell_guest(&summary, &text);
    if args.console {
        return crate::console::run(cx, ConsoleArgs::from_start(summary.name)).await;
    }
    done
}
