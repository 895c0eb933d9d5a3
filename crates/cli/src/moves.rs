// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Migrations as their user sees them: followed, cancelled, concluded.

use crate::command::{finding_text, pause_parts};
use crate::context::{Context, End};
use crate::format;
use crate::progress::Progress;
use crate::{Done, codes};
use std::time::Duration;
use tokio::time::Instant;
use whimbrel_api::client::Events;
use whimbrel_api::event::{Event, EventQuery};
use whimbrel_api::migration::{Migration, MigrationResult, Mode, Report};
use whimbrel_api::plan::Severity;
use whimbrel_api::{Client, Kind, Problem};

/// Longest to look for a daemon that went away in the middle.
const AGAIN_TIME_MAX: Duration = Duration::from_secs(60);
/// Between two tries.
const AGAIN_TIME_BETWEEN: Duration = Duration::from_millis(500);

/// What Ctrl-C means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnInterrupt {
    /// The migration is cancelled.
    Cancel,
    /// Only the watching ends.
    Leave,
}

/// Shows a migration until it has ended, and says how.
pub(crate) async fn follow(
    cx: &mut Context,
    migration: Migration,
    on_interrupt: OnInterrupt,
) -> Done {
    let guest = migration.guest.clone();
    let mut progress = Progress::default();
    let mut updates = Updates::new(&cx.client, migration);
    let mut is_cancelling = false;
    let ended = loop {
        tokio::select! {
            update = updates.next() => {
                let migration = update?;
                progress.show(&migration, &mut cx.printer);
                if migration.outcome.is_some() {
                    break migration;
                }
            }
            () = cx.interrupts.next() => {
                if on_interrupt == OnInterrupt::Leave || is_cancelling {
                    cx.printer.progress_end();
                    let text = format!("The migration goes on: `whimbrel watch {guest}`.");
                    cx.printer.say(&text);
                    return Ok(End::Told(Kind::Failed));
                }
                is_cancelling = true;
                cancel(cx, updates.migration()).await;
            }
        }
    };
    cx.printer.progress_end();
    conclude(cx, &ended)
}

async fn cancel(cx: &mut Context, migration: &Migration) {
    let Migration { guest, source, .. } = migration;
    cx.printer.say(&format!("Cancelling: {guest} stays on {source}, unless it has just moved."));
    // By uuid: the name could be another guest's by now.
    if let Err(problem) = cx.client.cancel(&migration.guest_uuid).await {
        cx.printer.warning(&format!("it was not cancelled: {}", problem.text));
    }
}

/// Waits until a migration has ended, and shows nothing.
pub(crate) async fn wait(cx: &mut Context, migration: Migration) -> Result<Migration, Problem> {
    let mut updates = Updates::new(&cx.client, migration);
    loop {
        if updates.migration().outcome.is_some() {
            return Ok(updates.migration().clone());
        }
        updates.next().await?;
    }
}

/// Says how a migration has ended.
pub(crate) fn conclude(cx: &mut Context, migration: &Migration) -> Done {
    let outcome = migration.outcome.as_ref().expect("called with one that has ended");
    if cx.printer.is_json {
        cx.printer.json(&outcome.report);
    }
    let stays = format!("{} stays on {}.", migration.guest, migration.source);
    match outcome.result {
        MigrationResult::Done => {
            if !cx.printer.is_json {
                cx.printer.data(&success(&outcome.report));
            }
            return Ok(End::Done);
        }
        MigrationResult::Rehearsed => {
            if !cx.printer.is_json {
                cx.printer.data(&rehearsed(&outcome.report));
            }
            return Ok(End::Done);
        }
        MigrationResult::Cancelled => {
            cx.printer.say(&format!("Cancelled: {stays}"));
            return Ok(End::Told(Kind::Failed));
        }
        MigrationResult::Refused => other_blockers(cx, migration),
        MigrationResult::Failed => cx.printer.say(&stays),
        MigrationResult::InDoubt => {}
    }
    Err(outcome.problem.clone().unwrap_or_else(|| unexplained(migration, outcome.result)))
}

/// Tells the blockers besides the one that becomes the command's problem.
fn other_blockers(cx: &mut Context, migration: &Migration) {
    let outcome = migration.outcome.as_ref();
    let told = outcome.and_then(|outcome| outcome.problem.as_ref());
    let is_other = |code: &str, text: &str| {
        told.is_none_or(|problem| problem.code != code || problem.text != text)
    };
    for finding in &migration.findings {
        if finding.severity == Severity::Blocker && is_other(&finding.code, &finding.text) {
            let text = finding_text(cx, finding);
            cx.printer.say(text.trim_end());
        }
    }
}

/// Returns `web1 now runs on beta. Pause 84 ms (last pages 41, device state 22); total 11.2 s.`
fn success(report: &Report) -> String {
    let Report { guest, target, .. } = report;
    let total = format!("total {}", format::ms(report.total_ms));
    match (report.mode, report.pause_ms) {
        (Mode::Definition, _) => format!("{guest} is now defined on {target}; {total}."),
        (_, None) => format!("{guest} is now on {target}; {total}."),
        (_, Some(pause_ms)) => {
            let parts = pause_parts(report.pause, |ms| ms.to_string());
            let parts = if parts.is_empty() { parts } else { format!(" ({parts})") };
            let pause = format::ms(pause_ms);
            format!("{guest} now runs on {target}. Pause {pause}{parts}; {total}.")
        }
    }
}

/// Returns what would have happened, and that it did not.
fn rehearsed(report: &Report) -> String {
    let Report { guest, source, target, .. } = report;
    let pause =
        report.rehearsed_pause_ms.map(|pause_ms| format!(", pause {}", format::ms(pause_ms)));
    format!(
        "Rehearsed: {guest} would have moved to {target} in {}{}, {} on the wire. It stays on \
         {source}, and nothing of the rehearsal stays on either host.",
        format::ms(report.total_ms),
        pause.unwrap_or_default(),
        format::size(report.wire_bytes),
    )
}

fn unexplained(migration: &Migration, result: MigrationResult) -> Problem {
    let kind = match result {
        MigrationResult::Refused => Kind::Refused,
        MigrationResult::InDoubt => Kind::InDoubt,
        MigrationResult::Failed
        | MigrationResult::Cancelled
        | MigrationResult::Rehearsed
        | MigrationResult::Done => Kind::Failed,
    };
    let Migration { guest, target, .. } = migration;
    let text = format!("the migration of `{guest}` to `{target}` ended as {result}");
    Problem::new(kind, codes::MIGRATION_UNEXPLAINED, text, format!("see `whimbrel log {guest}`"))
}

/// The states of one migration, also across restarts of the daemon.
struct Updates {
    client: Client,
    migration: Migration,
    events: Option<Events>,
}

impl Updates {
    fn new(client: &Client, migration: Migration) -> Self {
        Self { client: client.clone(), migration, events: None }
    }

    fn migration(&self) -> &Migration {
        &self.migration
    }

    /// Returns the next state. May be dropped at any time.
    async fn next(&mut self) -> Result<Migration, Problem> {
        loop {
            let events = match &mut self.events {
                Some(events) => events,
                None => {
                    let events = self.subscribe().await?;
                    self.events.insert(events)
                }
            };
            match events.next().await {
                Some(Ok(Event::Migration(migration))) if migration.id == self.migration.id => {
                    self.migration = (*migration).clone();
                    return Ok(*migration);
                }
                Some(Ok(_)) => {}
                // The next stream begins with the migration as it stands.
                Some(Err(_)) | None => {
                    self.events = None;
                    tokio::time::sleep(AGAIN_TIME_BETWEEN).await;
                }
            }
        }
    }

    async fn subscribe(&self) -> Result<Events, Problem> {
        let query = EventQuery { guest: None, migration: Some(self.migration.id.clone()) };
        let deadline = Instant::now() + AGAIN_TIME_MAX;
        loop {
            match self.client.events(&query).await {
                Err(problem) if is_passing(&problem) && Instant::now() < deadline => {
                    tokio::time::sleep(AGAIN_TIME_BETWEEN).await;
                }
                result => return result,
            }
        }
    }
}

/// Whether the daemon may be back soon: guests and their migrations go on without it.
fn is_passing(problem: &Problem) -> bool {
    use whimbrel_api::problem::code::{CONNECTION_LOST, DAEMON_NOT_REACHABLE};
    [CONNECTION_LOST, DAEMON_NOT_REACHABLE].contains(&problem.code.as_str())
}
