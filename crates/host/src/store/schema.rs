// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The tables and their versions.

use super::StoreError;
use rusqlite::Connection;
use std::path::Path;

/// "WBRL": tells our stores from other people's databases.
const APPLICATION_ID: i64 = 0x5742_524c;

/// One step for each version of the schema; the store's `user_version` counts those done. Steps
/// are only ever added.
const STEPS: &[&str] = &[
    "
    CREATE TABLE guests (
        local_id   INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice, also after a removal
        guest      TEXT NOT NULL UNIQUE,
        name       TEXT NOT NULL UNIQUE,
        definition TEXT NOT NULL,
        passport   TEXT,
        autostart  INTEGER NOT NULL,
        transient  INTEGER NOT NULL,
        desired    TEXT NOT NULL,
        created_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE peers (
        host        BLOB NOT NULL PRIMARY KEY,
        name        TEXT NOT NULL,
        addresses   TEXT NOT NULL, -- a JSON list
        network     TEXT,
        certificate BLOB NOT NULL,
        pinned_ms   INTEGER NOT NULL,
        forgotten   INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE events (
        id         INTEGER PRIMARY KEY AUTOINCREMENT,
        at_ms      INTEGER NOT NULL,
        guest      TEXT,
        guest_name TEXT,
        handoff    TEXT,
        host       TEXT NOT NULL,
        actor_uid  INTEGER,
        level      TEXT NOT NULL,
        code       TEXT,
        text       TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_of_guest ON events (guest, id);
    CREATE TABLE reports (
        id         INTEGER PRIMARY KEY AUTOINCREMENT,
        handoff    TEXT NOT NULL UNIQUE,
        guest      TEXT NOT NULL,
        guest_name TEXT NOT NULL,
        at_ms      INTEGER NOT NULL,
        report     TEXT NOT NULL
    ) STRICT;
    CREATE INDEX reports_of_guest ON reports (guest, id);
    CREATE TABLE settings (
        key   TEXT NOT NULL PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT;
",
    "
    CREATE TABLE kept (
        host       BLOB NOT NULL,
        guest      TEXT NOT NULL,
        name       TEXT NOT NULL,
        epoch      INTEGER NOT NULL,
        definition TEXT NOT NULL,
        passport   TEXT,
        transient  INTEGER NOT NULL,
        kept_ms    INTEGER NOT NULL,
        PRIMARY KEY (host, guest)
    ) STRICT;
",
];

/// Returns how many steps the store has behind it.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Refuses what is not ours, and what is ours but from the future.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Sqlite { action: "read", path: path.to_owned(), source };
    let application: i64 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(failed)?;
    let found = version(connection).map_err(failed)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    let is_empty = application == 0 && found == 0 && tables == 0;
    if application != APPLICATION_ID && !is_empty {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    let known = known();
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    Ok(())
}

fn known() -> i64 {
    i64::try_from(STEPS.len()).expect("there are few steps")
}

/// Takes the steps that are missing, all of them or none.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let done = version(&transaction)?;
    for step in STEPS.iter().skip(usize::try_from(done).unwrap_or(0)) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", known())?;
    transaction.commit()
}
