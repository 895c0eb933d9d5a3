// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel watch`

use crate::context::{Context, End};
use crate::{Done, codes, format, moves};
use std::collections::HashMap;
use whimbrel_api::event::{Event, EventQuery};
use whimbrel_api::{Kind, Problem};

/// Watch a guest's migration, or everything that happens. Ctrl-C leaves; nothing is cancelled.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The guest whose migration to watch [default: everything on this host].
    guest: Option<String>,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    let Some(guest) = args.guest else { return everything(cx).await };
    cx.about(&guest);
    let detail = cx.client.guest(&guest).await?;
    match detail.migration {
        Some(migration) => moves::follow(cx, migration, moves::OnInterrupt::Leave).await,
        None => Err(not_moving(&detail.summary.name)),
    }
}

fn not_moving(guest: &str) -> Problem {
    Problem::new(
        Kind::Refused,
        codes::MIGRATION_NONE,
        format!("guest `{guest}` is not moving"),
        format!("see how its last move went with `whimbrel report {guest}`"),
    )
}

async fn everything(cx: &mut Context) -> Done {
    let mut events = cx.client.events(&EventQuery::default()).await?;
    let mut phases = HashMap::new();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = cx.interrupts.next() => return Ok(End::Done),
        };
        let Some(event) = event.transpose()? else { return Ok(End::Done) };
        if cx.printer.is_json {
            cx.printer.json_line(&event);
        } else if let Some(line) = line(&event, &mut phases) {
            cx.printer.data(&format!("{}  {line}", format::date(format::now_ms())));
        }
        if cx.printer.is_out_closed() {
            return Ok(End::Done);
        }
    }
}

/// Returns an event as a line; migrations only when their phase changes.
fn line(event: &Event, phases: &mut HashMap<String, String>) -> Option<String> {
    Some(match event {
        Event::Guest(guest) => format!("{} is {} on {}", guest.name, guest.state, guest.host),
        Event::GuestGone(gone) => match &gone.moved_to {
            Some(host) => format!("{} has moved to {host}", gone.name),
            None => format!("{} is forgotten", gone.name),
        },
        Event::Migration(migration) => {
            let phase = match &migration.outcome {
                Some(outcome) => outcome.result.to_string(),
                None => migration.phase.to_string(),
            };
            let old = phases.insert(migration.id.clone(), phase.clone());
            if migration.outcome.is_some() {
                phases.remove(&migration.id);
            }
            if old.as_ref() == Some(&phase) {
                return None;
            }
            let (guest, source, target) = (&migration.guest, &migration.source, &migration.target);
            format!("{guest}: {source} -> {target}: {phase}")
        }
        // `whimbrel log -f` shows these.
        Event::Log(_) => return None,
        Event::Paired(host) => format!("paired with {}", host.name),
        Event::Missed(missed) => format!("{} missed", format::count(missed.event_count, "event")),
    })
}
