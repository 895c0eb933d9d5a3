// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel edit`

use super::GuestArg;
use super::create::read_text;
use crate::context::{Context, End};
use crate::{Done, codes};
use std::path::{Path, PathBuf};
use whimbrel_api::guest::{EditGuest, GuestState};
use whimbrel_api::{Kind, Problem};

/// Change the definition of a guest. A running guest keeps the old one until its next start.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    guest: GuestArg,
    /// Take the new definition from a file instead of opening `$EDITOR`; `-`: standard input.
    #[arg(long)]
    file: Option<PathBuf>,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let GuestArg { guest } = args.guest;
    cx.about(&guest);
    if let Some(file) = args.file {
        let (_, text) = read_text(&mut cx.printer, &file)?;
        return replace(cx, &guest, &text, None).await;
    }
    let old = cx.client.guest(&guest).await?.definition;
    let mut text = old.clone();
    loop {
        text = crate::editor::edit(&cx.printer, &guest, &text)?;
        if text == old {
            cx.printer.say("Nothing was changed.");
            return Ok(End::Done);
        }
        match replace(cx, &guest, &text, Some(&old)).await {
            Err(problem) if problem.code.starts_with("file/") && wants_again(cx, &problem) => {}
            result => return result,
        }
    }
}

/// Shows what is wrong with the text, and asks whether to go on with it.
fn wants_again(cx: &mut Context, problem: &Problem) -> bool {
    cx.printer.problem(problem);
    cx.printer.ask("Edit it again? [Y/n] ");
    let answer = cx.printer.read_line().unwrap_or_default();
    !answer.trim().eq_ignore_ascii_case("n")
}

async fn replace(cx: &mut Context, guest: &str, text: &str, old: Option<&str>) -> Done {
    let base = std::path::absolute(Path::new(".")).map_err(|error| {
        let text = format!("the current folder cannot be found: {error}");
        Problem::new(Kind::Usage, codes::FILE_UNREADABLE, text, "change to a folder that exists")
    })?;
    let request = EditGuest {
        text: text.to_owned(),
        base_directory: base.display().to_string(),
        replaces: old.map(str::to_owned),
    };
    let edited = cx.client.edit(guest, &request).await?;
    if cx.printer.is_json {
        cx.printer.json(&edited);
        return Ok(End::Done);
    }
    cx.printer.notes(&edited.notes);
    let when = match edited.guest.state {
        GuestState::Stopped => "",
        _ => " Its next start brings the change.",
    };
    cx.printer.say(&format!("{} is redefined.{when}", edited.guest.name));
    Ok(End::Done)
}
