// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel console`

use super::GuestArg;
use crate::Done;
use crate::console::Escape;
use crate::context::Context;
use whimbrel_api::limits::{SCROLLBACK_BYTES_DEFAULT, SCROLLBACK_BYTES_MAX};

/// Attach to a guest's console. Ctrl+] leaves it.
///
/// One client types, others read. The console follows its guest to another host.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    guest: GuestArg,
    /// The key that leaves the console: `^]`, `^A`, a character, or `none`.
    #[arg(long, value_name = "KEY", default_value = "^]")]
    pub(crate) escape: Escape,
    /// Take over from whoever types now.
    #[arg(long, conflicts_with = "read_only")]
    pub(crate) force: bool,
    /// Watch only; works without a terminal, too.
    #[arg(long)]
    pub(crate) read_only: bool,
    /// How much of what was shown before to see first, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = SCROLLBACK_BYTES_DEFAULT)]
    pub(crate) scrollback: u32,
}

impl Args {
    /// The console of a guest that has just been started: from its first line.
    pub(crate) fn from_start(guest: String) -> Self {
        Self {
            guest: GuestArg { guest },
            escape: Escape::default(),
            force: false,
            read_only: false,
            scrollback: SCROLLBACK_BYTES_MAX,
        }
    }

    pub(crate) fn guest(&self) -> &str {
        &self.guest.guest
    }
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    crate::console::run(cx, args).await
}
