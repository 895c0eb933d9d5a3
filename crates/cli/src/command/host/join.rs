// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel host join`

use crate::context::{Context, End};
use crate::{Done, codes};
use whimbrel_api::host::JoinRequest;
use whimbrel_api::limits::TOKEN_BYTES_MAX;
use whimbrel_api::{Kind, Problem};

/// Accept another host's invitation: reads the token from the prompt, or from standard input.
///
/// Not from the command line, where every user of this host could read it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(super) async fn run(cx: &mut Context, _: Args) -> Done {
    if cx.printer.io.is_input_terminal {
        cx.printer.ask("Token of the other host's `whimbrel host invite`: ");
    }
    let line = cx.printer.read_line().unwrap_or_default();
    let token = line.trim().to_owned();
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        let text = "no token was given";
        let remedy = "paste what `whimbrel host invite` printed on the other host";
        return Err(Problem::new(Kind::Usage, codes::HOST_NO_TOKEN, text, remedy));
    }
    let peer = cx.client.join(&JoinRequest { token }).await?;
    if cx.printer.is_json {
        cx.printer.json(&peer);
        return Ok(End::Done);
    }
    super::say_paired(cx, &peer);
    Ok(End::Done)
}
