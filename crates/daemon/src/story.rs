// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What happened on this host: told once, kept in the store, sent to whoever listens.
//!
//! Every line goes three ways: into the store (`whimbrel log`), to the subscribers of the event
//! stream, and to the daemon's own output. A line that cannot be stored is still printed; nothing
//! waits for it.

use crate::http::Caller;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast;
use whimbrel_api::event::Event;
use whimbrel_api::log::{Level, LogLine};
use whimbrel_host::store::{EventFilter, EventRow, Store, StoreError};
use whimbrel_model::id::{GuestId, GuestName, HandoffId, HostName};
use whimbrel_model::problem::Problem;

/// Events kept for a subscriber that is slow; what is beyond is counted and left out.
const EVENTS_WAITING_MAX: usize = 1024;

/// The storyteller of one host. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    store: Store,
    host: HostName,
    events: broadcast::Sender<Event>,
}

/// Whom a line is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    pub(crate) guest: Option<(GuestId, GuestName)>,
    pub(crate) handoff: Option<HandoffId>,
    pub(crate) caller: Option<Caller>,
}

impl Story {
    pub(crate) fn new(store: Store, host: HostName) -> Self {
        Self { store, host, events: broadcast::Sender::new(EVENTS_WAITING_MAX) }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Sends an event that is not a line of the log.
    pub(crate) fn send(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    pub(crate) fn info(&self, about: &About, text: impl Into<String>) {
        self.tell(about, Level::Info, None, text.into());
    }

    pub(crate) fn warn(&self, about: &About, text: impl Into<String>) {
        self.tell(about, Level::Warning, None, text.into());
    }

    pub(crate) fn problem(&self, about: &About, problem: &Problem) {
        self.tell(about, Level::Error, Some(problem.code.clone()), problem.text.clone());
    }

    fn tell(&self, about: &About, level: Level, code: Option<String>, text: String) {
        let guest_name = about.guest.as_ref().map(|(_, name)| name.to_string());
        tracing::info!(guest = guest_name, level = %level, code, "{text}");
        let row = EventRow {
            id: 0,
            at: SystemTime::now(),
            guest: about.guest.as_ref().map(|(id, _)| *id),
            guest_name,
            handoff: about.handoff,
            host: self.host.to_string(),
            actor_uid: about.caller.map(|caller| caller.uid),
            level: level.to_string(),
            code,
            text,
        };
        self.send(Event::Log(line(&row)));
        let store = self.store.clone();
        tokio::spawn(async move {
            if let Err(error) = store.call(move |tables| tables.add_event(&row)).await {
                tracing::error!(%error, "a line of the log could not be stored");
            }
        });
    }

    /// Returns old lines, oldest first.
    pub(crate) async fn read(&self, filter: EventFilter) -> Result<Vec<LogLine>, StoreError> {
        let rows = self.store.call(move |tables| tables.events(&filter)).await?;
        Ok(rows.iter().map(line).collect())
    }
}

/// Returns a stored line as the API shows it.
pub(crate) fn line(row: &EventRow) -> LogLine {
    LogLine {
        at_ms: unix_ms(row.at),
        host: row.host.clone(),
        level: level(&row.level),
        guest: row.guest_name.clone(),
        guest_uuid: row.guest.map(|guest| guest.to_string()),
        migration: row.handoff.map(|handoff| handoff.to_string()),
        code: row.code.clone(),
        caller_uid: row.actor_uid,
        text: row.text.clone(),
    }
}

fn level(text: &str) -> Level {
    match text {
        "debug" => Level::Debug,
        "warning" => Level::Warning,
        "error" => Level::Error,
        _ => Level::Info,
    }
}

/// Returns a time as the API writes it: milliseconds since 1970.
pub(crate) fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the time that the API wrote as milliseconds since 1970.
pub(crate) fn from_unix_ms(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}
