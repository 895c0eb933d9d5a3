// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel host invite`

use crate::context::{Context, End};
use crate::{Done, codes, format};
use std::time::Duration;
use whimbrel_api::event::{Event, EventQuery};
use whimbrel_api::host::InviteRequest;
use whimbrel_api::{Kind, Problem};

/// Invite another host: prints a token for `whimbrel host join` there.
///
/// Whoever has the token can pair once, within ten minutes. At a terminal this waits until the
/// other host has joined; Ctrl-C withdraws the invitation.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An address of this host to put into the token; may be repeated [default: all it has].
    #[arg(long = "address", value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// Do not wait for the other host.
    #[arg(long)]
    no_wait: bool,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    // Before the invitation, so that nobody can join unseen.
    let mut events = cx.client.events(&EventQuery::default()).await?;
    let invitation = cx.client.invite(&InviteRequest { addresses: args.addresses }).await?;
    if cx.printer.is_json {
        cx.printer.json(&invitation);
        return Ok(End::Done);
    }
    cx.printer.say("On the other host, run `whimbrel host join` and give it this token:\n");
    cx.printer.data(&invitation.token);
    let left_ms = invitation.expires_at_ms.saturating_sub(format::now_ms());
    let left = Duration::from_millis(left_ms);
    cx.printer.say(&format!(
        "\nIt can be used once, within {}. This host's fingerprint is\n  {}",
        format::ms(left_ms.div_ceil(1000) * 1000),
        invitation.fingerprint_words
    ));
    let is_watched = cx.printer.io.is_out_terminal && cx.printer.io.is_err_terminal;
    if args.no_wait || !is_watched {
        return Ok(End::Done);
    }
    cx.printer.say("\nWaiting for it; Ctrl-C withdraws the invitation.");
    let joined = async {
        loop {
            match events.next().await.transpose()? {
                Some(Event::Paired(peer)) => return Ok(Some(peer)),
                Some(_) => {}
                None => return Ok::<_, Problem>(None),
            }
        }
    };
    tokio::select! {
        joined = tokio::time::timeout(left, joined) => match joined {
            Ok(Ok(Some(peer))) => {
                super::say_paired(cx, &peer);
                Ok(End::Done)
            }
            Ok(Ok(None)) => Err(nobody("the daemon has ended")),
            Ok(Err(problem)) => Err(problem),
            Err(_) => Err(nobody("nobody joined in time")),
        },
        () = cx.interrupts.next() => {
            cx.client.close_invitation().await?;
            cx.printer.say("The invitation is withdrawn.");
            Ok(End::Told(Kind::Refused))
        }
    }
}

fn nobody(text: &str) -> Problem {
    Problem::new(
        Kind::Refused,
        codes::HOST_NOT_JOINED,
        text,
        "invite again: `whimbrel host invite`",
    )
}
