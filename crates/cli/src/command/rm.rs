// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel rm`

use super::GuestArg;
use crate::Done;
use crate::context::{Context, End};

/// Forget the definition of a stopped guest. Disks are never touched.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    guest: GuestArg,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let GuestArg { guest } = args.guest;
    cx.about(&guest);
    cx.client.remove(&guest).await?;
    cx.printer.say(&format!("{guest} is forgotten; its disks are where they were."));
    Ok(End::Done)
}
