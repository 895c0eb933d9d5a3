// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Papers of guests that other hosts own, kept for the day such a host is gone.

use super::{KeptRow, StoreError, Tables, from_ms, to_ms};
use rusqlite::{Row, params};
use whimbrel_model::id::{Epoch, GuestId, HostId};

/// A row as SQLite has it; its words are checked afterwards.
type Raw = (Vec<u8>, String, i64, KeptRow);

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    let kept = KeptRow {
        host: HostId([0; 32]),
        guest: GuestId(uuid::Uuid::nil()),
        epoch: Epoch(0),
        name: row.get(2)?,
        definition: row.get(4)?,
        passport: row.get(5)?,
        transient: row.get(6)?,
        kept_at: from_ms(row.get(7)?),
    };
    Ok((row.get(0)?, row.get(1)?, row.get(3)?, kept))
}

impl Tables {
    /// Replaces everything that is kept of a host's guests.
    pub fn replace_kept(&mut self, host: HostId, rows: &[KeptRow]) -> Result<(), StoreError> {
        let failed = self.failed("write kept papers to");
        let transaction = self.connection.transaction().map_err(&failed)?;
        transaction
            .execute("DELETE FROM kept WHERE host = ?1", [host.0.as_slice()])
            .map_err(&failed)?;
        for row in rows {
            transaction
                .execute(
                    "INSERT INTO kept (host, guest, name, epoch, definition, passport, transient,
                     kept_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    params![
                        host.0.as_slice(),
                        row.guest.to_string(),
                        row.name,
                        i64::try_from(row.epoch.0).unwrap_or(i64::MAX),
                        row.definition,
                        row.passport,
                        row.transient,
                        to_ms(row.kept_at),
                    ],
                )
                .map_err(&failed)?;
        }
        transaction.commit().map_err(failed)
    }

    /// Returns what is kept of guests, the newest owner of a guest first.
    pub fn kept(&self) -> Result<Vec<KeptRow>, StoreError> {
        let failed = self.failed("read kept papers from");
        let mut statement = self
            .connection
            .prepare(
                "SELECT host, guest, name, epoch, definition, passport, transient, kept_ms
                 FROM kept ORDER BY epoch DESC, guest, host",
            )
            .map_err(&failed)?;
        let rows = statement.query_map([], raw).map_err(&failed)?;
        rows.map(|row| {
            let (host, guest, epoch, kept) = row.map_err(&failed)?;
            let host: [u8; 32] =
                host.try_into().map_err(|_| self.unreadable("host", "of another length"))?;
            Ok(KeptRow {
                host: HostId(host),
                guest: guest.parse().map_err(|_| self.unreadable("guest", &guest))?,
                epoch: Epoch(u64::try_from(epoch).map_err(|_| self.unreadable("epoch", epoch))?),
                ..kept
            })
        })
        .collect()
    }
}
