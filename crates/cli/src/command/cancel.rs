// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel cancel`

use super::GuestArg;
use crate::context::{Context, End};
use crate::{Done, moves};
use whimbrel_api::Kind;
use whimbrel_api::migration::MigrationResult;

/// Give up a guest's migration: the guest stays where it is.
///
/// A migration that has passed the point of no return is finished instead, and that is said.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    guest: GuestArg,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let GuestArg { guest } = args.guest;
    cx.about(&guest);
    let migration = cx.client.cancel(&guest).await?;
    let ended = moves::wait(cx, migration).await?;
    let outcome = ended.outcome.as_ref().expect("waited for it");
    match outcome.result {
        MigrationResult::Cancelled
        | MigrationResult::Rehearsed
        | MigrationResult::Failed
        | MigrationResult::Refused => {
            let text = format!("Cancelled: {} stays on {}.", ended.guest, ended.source);
            if cx.printer.is_json {
                cx.printer.json(&outcome.report);
            } else {
                cx.printer.say(&text);
            }
            Ok(End::Done)
        }
        MigrationResult::Done => {
            let text = format!("Too late: {} has just moved to {}.", ended.guest, ended.target);
            cx.printer.say(&text);
            Ok(End::Told(Kind::Refused))
        }
        MigrationResult::InDoubt => moves::conclude(cx, &ended),
    }
}
