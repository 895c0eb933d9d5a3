// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What happened: events, and the reports of migrations. Both bounded.

use super::{
    EVENT_TEXT_BYTES_MAX, EVENTS_KEPT_MAX, EVENTS_READ_MAX, EventFilter, EventRow,
    REPORTS_KEPT_MAX, ReportRow, StoreError, Tables, from_ms, to_ms,
};
use rusqlite::{Row, params};
use whimbrel_model::id::{GuestId, HandoffId};

/// The oldest events go once in so many, not with each new one.
const PRUNE_EVERY: u64 = 256;

impl Tables {
    /// Adds an event and returns its id. The oldest beyond the bound go, sooner or later.
    pub fn add_event(&mut self, event: &EventRow) -> Result<u64, StoreError> {
        let failed = self.failed("add an event to");
        self.connection
            .execute(
                "INSERT INTO events (at_ms, guest, guest_name, handoff, host, actor_uid, level,
                 code, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    to_ms(event.at),
                    event.guest.map(|guest| guest.to_string()),
                    event.guest_name,
                    event.handoff.map(|handoff| handoff.to_string()),
                    event.host,
                    event.actor_uid,
                    event.level,
                    event.code,
                    cut(&event.text, EVENT_TEXT_BYTES_MAX),
                ],
            )
            .map_err(&failed)?;
        let id = self.connection.last_insert_rowid();
        let id = u64::try_from(id).map_err(|_| self.unreadable("event id", id))?;
        if id % PRUNE_EVERY == 0 {
            self.prune_events(EVENTS_KEPT_MAX)?;
        }
        Ok(id)
    }

    /// Keeps the newest `kept` events.
    pub(super) fn prune_events(&mut self, kept: u64) -> Result<(), StoreError> {
        self.connection
            .execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?1", [kept])
            .map_err(self.failed("prune the events of"))?;
        Ok(())
    }

    /// Returns the newest events that match, oldest first.
    pub fn events(&self, filter: &EventFilter) -> Result<Vec<EventRow>, StoreError> {
        let failed = self.failed("read the events from");
        let limit = filter.limit.unwrap_or(EVENTS_READ_MAX).min(EVENTS_READ_MAX);
        let mut statement = self
            .connection
            .prepare(
                "SELECT id, at_ms, guest, guest_name, handoff, host, actor_uid, level, code, text
                 FROM events
                 WHERE (?1 IS NULL OR guest = ?1) AND at_ms >= ?2 AND id > ?3
                 ORDER BY id DESC LIMIT ?4",
            )
            .map_err(&failed)?;
        let rows = statement
            .query_map(
                params![
                    filter.guest.map(|guest| guest.to_string()),
                    filter.since.map_or(0, to_ms),
                    filter.after.unwrap_or(0),
                    limit,
                ],
                raw_event,
            )
            .map_err(&failed)?;
        let mut events = rows
            .map(|row| {
                let (guest, handoff, event) = row.map_err(&failed)?;
                let guest = self.parsed("guest", guest)?;
                Ok(EventRow { guest, handoff: self.parsed("handoff", handoff)?, ..event })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        events.reverse();
        Ok(events)
    }

    /// Keeps a report; a second one of the same handoff replaces the first.
    pub fn put_report(&mut self, report: &ReportRow) -> Result<(), StoreError> {
        fault_point!(self, "put_report", "write a report to");
        let failed = self.failed("write a report to");
        self.connection
            .execute(
                "INSERT INTO reports (handoff, guest, guest_name, at_ms, report)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (handoff) DO UPDATE SET report = ?5, guest_name = ?3",
                params![
                    report.handoff.to_string(),
                    report.guest.to_string(),
                    report.guest_name,
                    to_ms(report.at),
                    report.report,
                ],
            )
            .map_err(&failed)?;
        self.connection
            .execute(
                "DELETE FROM reports WHERE id <= (SELECT max(id) FROM reports) - ?1",
                [REPORTS_KEPT_MAX],
            )
            .map_err(&failed)?;
        Ok(())
    }

    /// Returns the newest reports of a guest, or of all, newest first.
    pub fn reports(
        &self,
        guest: Option<GuestId>,
        limit: usize,
    ) -> Result<Vec<ReportRow>, StoreError> {
        self.reports_where("guest", guest.map(|guest| guest.to_string()), limit)
    }

    pub fn report(&self, handoff: HandoffId) -> Result<Option<ReportRow>, StoreError> {
        Ok(self.reports_where("handoff", Some(handoff.to_string()), 1)?.pop())
    }

    fn reports_where(
        &self,
        column: &'static str,
        value: Option<String>,
        limit: usize,
    ) -> Result<Vec<ReportRow>, StoreError> {
        let failed = self.failed("read the reports from");
        let sql = format!(
            "SELECT handoff, guest, guest_name, at_ms, report FROM reports
             WHERE ?1 IS NULL OR {column} = ?1 ORDER BY id DESC LIMIT ?2"
        );
        let mut statement = self.connection.prepare(&sql).map_err(&failed)?;
        let rows = statement
            .query_map(params![value, limit], |row| {
                let (handoff, guest): (String, String) = (row.get(0)?, row.get(1)?);
                Ok((handoff, guest, row.get(2)?, row.get(3)?, row.get(4)?))
            })
            .map_err(&failed)?;
        rows.map(|row| {
            let (handoff, guest, guest_name, at_ms, report) = row.map_err(&failed)?;
            Ok(ReportRow {
                handoff: handoff.parse().map_err(|_| self.unreadable("handoff", &handoff))?,
                guest: guest.parse().map_err(|_| self.unreadable("guest", &guest))?,
                guest_name,
                at: from_ms(at_ms),
                report,
            })
        })
        .collect()
    }

    fn parsed<T: std::str::FromStr>(
        &self,
        what: &'static str,
        text: Option<String>,
    ) -> Result<Option<T>, StoreError> {
        text.map(|text| text.parse().map_err(|_| self.unreadable(what, &text))).transpose()
    }
}

type RawEvent = (Option<String>, Option<String>, EventRow);

fn raw_event(row: &Row<'_>) -> rusqlite::Result<RawEvent> {
    let event = EventRow {
        id: row.get(0)?,
        at: from_ms(row.get(1)?),
        guest: None,
        guest_name: row.get(3)?,
        handoff: None,
        host: row.get(5)?,
        actor_uid: row.get(6)?,
        level: row.get(7)?,
        code: row.get(8)?,
        text: row.get(9)?,
    };
    Ok((row.get(2)?, row.get(4)?, event))
}

/// Cuts a text to at most `bytes_max`, at a character.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
