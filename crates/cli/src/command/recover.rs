// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel recover`

use super::GuestArg;
use crate::Done;
use crate::codes;
use crate::context::{Context, End};
use whimbrel_api::recover::{RecoverRequest, Recovery};
use whimbrel_api::{Kind, Problem};

/// Settle which host owns a guest in doubt, or explain what each host knows.
///
/// Without a statement the hosts are asked, and the doubt is settled if they can settle it. A
/// statement that is false corrupts the guest's disks.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    guest: GuestArg,
    /// The host to start the guest on [default: this one].
    #[arg(long, value_name = "HOST")]
    on: Option<String>,
    /// State that this host is off, and will not come back with the guest running.
    #[arg(long, value_name = "HOST", conflicts_with = "fence")]
    is_off: Option<String>,
    /// Have the configured fence command switch this host off first.
    #[arg(long, value_name = "HOST")]
    fence: Option<String>,
    /// State that no damaged record says anything newer than what can still be read.
    #[arg(long)]
    despite_damage: bool,
    /// Do not ask for a name to be typed once more.
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let GuestArg { guest } = args.guest;
    cx.about(&guest);
    let is_statement = args.is_off.is_some() || args.fence.is_some() || args.despite_damage;
    let recovery = match cx.client.recovery(&guest).await {
        Ok(recovery) => Some(recovery),
        Err(_) if is_statement => None,
        Err(problem) => return Err(problem),
    };
    if let Some(recovery) = recovery.as_ref().filter(|known| !known.is_in_doubt && !is_statement) {
        explain(cx, recovery);
        return Ok(End::Done);
    }
    let Args { on, is_off, fence, despite_damage, yes, .. } = args;
    if let Some(host) = &is_off {
        let question = format!(
            "If `{host}` still runs the guest, its disks will be corrupted. Is it off for certain?"
        );
        confirm(cx, &question, host, yes)?;
    }
    if despite_damage {
        let question = format!(
            "If any other host runs `{guest}`, its disks will be corrupted. Does none, for certain?"
        );
        confirm(cx, &question, &guest.to_string(), yes)?;
    }
    let request = RecoverRequest { on, is_off, fence, despite_damage };
    match (cx.client.recover(&guest, &request).await, recovery) {
        (Ok(recovered), _) if cx.printer.is_json => {
            cx.printer.json(&recovered);
            Ok(End::Done)
        }
        (Ok(recovered), _) => {
            cx.printer.say(&recovered.text);
            Ok(End::Done)
        }
        (Err(problem), Some(recovery)) if is_about_knowledge(&problem) => {
            explain(cx, &recovery);
            Err(problem)
        }
        (Err(problem), _) => Err(problem),
    }
}

/// Wants a name typed once more, by a person who has read what follows from it.
fn confirm(cx: &mut Context, question: &str, name: &str, is_sure: bool) -> Result<(), Problem> {
    if is_sure || !cx.printer.io.is_input_terminal {
        return Ok(());
    }
    cx.printer.ask(&format!("{question}\nType `{name}` to say so: "));
    let typed = cx.printer.read_line().unwrap_or_default();
    if typed.trim() == name {
        return Ok(());
    }
    Err(Problem::new(
        Kind::Refused,
        codes::RECOVER_NOT_CONFIRMED,
        format!("`{name}` was not typed, so nothing was done"),
        "make sure that it is so, then say it again",
    ))
}

fn is_about_knowledge(problem: &Problem) -> bool {
    matches!(problem.kind, Kind::InDoubt | Kind::Refused)
}

fn explain(cx: &mut Context, recovery: &Recovery) {
    if cx.printer.is_json {
        return cx.printer.json(recovery);
    }
    let text = render(recovery);
    cx.printer.data(&text);
}

fn render(recovery: &Recovery) -> String {
    let mut text = format!("{}\n", recovery.text);
    if !recovery.hosts.is_empty() {
        let silent = |is_reachable: bool| if is_reachable { "" } else { " (does not answer)" };
        text.push_str("\nWhat each host knows:\n");
        for host in &recovery.hosts {
            text.push_str(&format!(
                "  {}{}: {}\n",
                host.host,
                silent(host.is_reachable),
                host.text
            ));
        }
    }
    if !recovery.choices.is_empty() {
        text.push_str("\nWhat you can do:\n");
        for choice in &recovery.choices {
            text.push_str(&format!("  {}\n      {}\n", choice.command, choice.consequence));
        }
    }
    text
}
