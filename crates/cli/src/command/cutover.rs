// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel cutover`

use super::GuestArg;
use crate::context::Context;
use crate::{Done, moves};

/// Tell a migration that is held to cut over, and wait for its end.
///
/// Ctrl-C only stops watching.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    guest: GuestArg,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let GuestArg { guest } = args.guest;
    cx.about(&guest);
    let migration = cx.client.cut_over(&guest).await?;
    moves::follow(cx, migration, moves::OnInterrupt::Leave).await
}
