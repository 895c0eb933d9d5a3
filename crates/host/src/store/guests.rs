// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Guests that this host knows.

use super::{Desired, GuestRow, NewGuest, StoreError, Tables, from_ms, to_ms};
use rusqlite::{OptionalExtension, Row, params};
use std::time::SystemTime;
use whimbrel_model::id::{GuestId, LocalId};

const COLUMNS: &str =
    "guest, local_id, name, definition, passport, autostart, transient, desired, created_ms";

fn desired_word(desired: Desired) -> &'static str {
    match desired {
        Desired::Running => "running",
        Desired::Stopped => "stopped",
    }
}

/// A row as SQLite has it; its words are checked afterwards.
struct Raw {
    row: GuestRow,
    guest: String,
    local_id: i64,
    desired: String,
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        guest: row.get(0)?,
        local_id: row.get(1)?,
        desired: row.get(7)?,
        row: GuestRow {
            guest: GuestId(uuid::Uuid::nil()),
            local_id: LocalId(0),
            name: row.get(2)?,
            definition: row.get(3)?,
            passport: row.get(4)?,
            autostart: row.get(5)?,
            transient: row.get(6)?,
            desired: Desired::Stopped,
            created_at: from_ms(row.get(8)?),
        },
    })
}

impl Tables {
    fn checked(&self, raw: Raw) -> Result<GuestRow, StoreError> {
        let Raw { row, guest, local_id, desired } = raw;
        Ok(GuestRow {
            guest: guest.parse().map_err(|_| self.unreadable("guest", &guest))?,
            local_id: LocalId(
                u32::try_from(local_id).map_err(|_| self.unreadable("id", local_id))?,
            ),
            desired: match desired.as_str() {
                "running" => Desired::Running,
                "stopped" => Desired::Stopped,
                _ => return Err(self.unreadable("desired state", desired)),
            },
            ..row
        })
    }

    /// Adds a guest and draws its local id, which no other guest of this host ever had.
    pub fn add_guest(&mut self, guest: &NewGuest) -> Result<GuestRow, StoreError> {
        fault_point!(self, "add_guest", "add a guest to");
        self.refuse_taken_name(guest)?;
        if self.guest(guest.guest)?.is_some() {
            return Err(StoreError::GuestTaken { guest: guest.guest });
        }
        self.connection
            .execute(
                "INSERT INTO guests (guest, name, definition, passport, autostart, transient,
                 desired, created_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    guest.guest.to_string(),
                    guest.name,
                    guest.definition,
                    guest.passport,
                    guest.autostart,
                    guest.transient,
                    desired_word(guest.desired),
                    to_ms(SystemTime::now()),
                ],
            )
            .map_err(self.failed("add a guest to"))?;
        self.guest(guest.guest)?.ok_or(StoreError::NoGuest { guest: guest.guest })
    }

    /// Replaces what may change of a guest: everything but its ids and its time of creation.
    pub fn update_guest(&mut self, guest: &NewGuest) -> Result<(), StoreError> {
        fault_point!(self, "update_guest", "change a guest in");
        self.refuse_taken_name(guest)?;
        let changed = self
            .connection
            .execute(
                "UPDATE guests SET name = ?2, definition = ?3, passport = ?4, autostart = ?5,
                 transient = ?6, desired = ?7 WHERE guest = ?1",
                params![
                    guest.guest.to_string(),
                    guest.name,
                    guest.definition,
                    guest.passport,
                    guest.autostart,
                    guest.transient,
                    desired_word(guest.desired),
                ],
            )
            .map_err(self.failed("change a guest in"))?;
        one(changed, guest.guest)
    }

    pub fn set_desired(&mut self, guest: GuestId, desired: Desired) -> Result<(), StoreError> {
        fault_point!(self, "set_desired", "change a guest in");
        let changed = self
            .connection
            .execute(
                "UPDATE guests SET desired = ?2 WHERE guest = ?1",
                params![guest.to_string(), desired_word(desired)],
            )
            .map_err(self.failed("change a guest in"))?;
        one(changed, guest)
    }

    pub fn guests(&self) -> Result<Vec<GuestRow>, StoreError> {
        let failed = self.failed("read the guests from");
        let sql = format!("SELECT {COLUMNS} FROM guests ORDER BY local_id");
        let mut statement = self.connection.prepare(&sql).map_err(&failed)?;
        let rows = statement.query_map([], raw).map_err(&failed)?;
        rows.map(|row| self.checked(row.map_err(&failed)?)).collect()
    }

    pub fn guest(&self, guest: GuestId) -> Result<Option<GuestRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM guests WHERE guest = ?1");
        let row = self.connection.query_row(&sql, [guest.to_string()], raw).optional();
        let row = row.map_err(self.failed("read a guest from"))?;
        row.map(|row| self.checked(row)).transpose()
    }

    /// Forgets a guest. Unknown already: fine.
    pub fn remove_guest(&mut self, guest: GuestId) -> Result<(), StoreError> {
        fault_point!(self, "remove_guest", "remove a guest from");
        self.connection
            .execute("DELETE FROM guests WHERE guest = ?1", [guest.to_string()])
            .map_err(self.failed("remove a guest from"))?;
        Ok(())
    }

    fn refuse_taken_name(&self, guest: &NewGuest) -> Result<(), StoreError> {
        let taken = self
            .connection
            .query_row(
                "SELECT 1 FROM guests WHERE name = ?1 AND guest <> ?2",
                params![guest.name, guest.guest.to_string()],
                |_| Ok(()),
            )
            .optional()
            .map_err(self.failed("read the guests from"))?;
        match taken {
            Some(()) => Err(StoreError::NameTaken { name: guest.name.clone() }),
            None => Ok(()),
        }
    }
}

fn one(changed: usize, guest: GuestId) -> Result<(), StoreError> {
    match changed {
        0 => Err(StoreError::NoGuest { guest }),
        _ => Ok(()),
    }
}
