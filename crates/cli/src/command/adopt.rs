// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel adopt`

use super::GuestArg;
use crate::Done;
use crate::context::{Context, End};

/// Take over a guest that was started with the engine's own tool (Xen's `xl`).
///
/// It runs on and does not notice. From then on it is a guest like any other: its definition is
/// kept, it can be moved, and what follows its end is for the daemon to decide.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    guest: GuestArg,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let GuestArg { guest } = args.guest;
    cx.about(&guest);
    let adopted = cx.client.adopt(&guest).await?;
    if cx.printer.is_json {
        cx.printer.json(&adopted);
    } else {
        let guest = &adopted.guest;
        cx.printer.notes(&adopted.notes);
        cx.printer
            .say(&format!("{} is adopted, and {} on {}.", guest.name, guest.state, guest.host));
    }
    Ok(End::Done)
}
