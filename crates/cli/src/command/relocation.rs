// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel relocation`

use super::info::relocation_text;
use crate::Done;
use crate::context::{Context, End};
use whimbrel_api::host::SetRelocation;

/// Open or close this host for moving guests. Kept over restarts of the daemon.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What it shall be [default: only show what it is].
    change: Option<Change>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Change {
    /// Let guests come and go.
    Enable,
    /// Close the port.
    Disable,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let relocation = match args.change {
        None => cx.client.relocation().await?,
        Some(change) => {
            let is_enabled = matches!(change, Change::Enable);
            cx.client.set_relocation(SetRelocation { is_enabled }).await?
        }
    };
    if cx.printer.is_json {
        cx.printer.json(&relocation);
    } else {
        let text = relocation_text(&relocation);
        match args.change {
            None => cx.printer.data(&text),
            Some(_) => cx.printer.say(&format!("Relocation is {text}.")),
        }
    }
    Ok(End::Done)
}
