// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel reload`

use crate::Done;
use crate::context::{Context, End};

/// Have the daemon read its configuration again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(super) async fn run(cx: &mut Context, _: Args) -> Done {
    let reloaded = cx.client.reload().await?;
    if cx.printer.is_json {
        cx.printer.json(&reloaded);
    } else {
        cx.printer.notes(&reloaded.notes);
        cx.printer.say("The configuration was read again.");
    }
    Ok(End::Done)
}
