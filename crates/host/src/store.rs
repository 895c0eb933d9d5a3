// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Definitions, peers, events and reports, in one SQLite file.
//!
//! Ownership is not here: SQLite cannot promise what ownership needs.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use whimbrel_model::id::{GuestId, HandoffId, HostId, LocalId};

/// The store, for the daemon. Cheap to clone; calls run on blocking threads.
#[derive(Clone, Debug)]
pub struct Store {}

/// The store's tables, blocking.
#[derive(Debug)]
pub struct Tables {
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store `{}` was written by a newer Whimbrel (schema {found}; this one knows {known})", .path.display())]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("a guest named `{name}` exists already")]
    NameTaken { name: String },
    #[error("the guest `{guest}` exists already")]
    GuestTaken { guest: GuestId },
    #[error("failed to {action} the store `{}`", .path.display())]
    Sqlite {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
}

/// What the daemon should make of a guest that has no engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Desired {
    Running,
    Stopped,
}

/// A guest that this host knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestRow {
    pub guest: GuestId,
    pub local_id: LocalId,
    pub name: String,
    /// The guest file, TOML.
    pub definition: String,
    /// The passport, JSON, from the first start on.
    pub passport: Option<String>,
    pub autostart: bool,
    /// Forgotten when it stops.
    pub transient: bool,
    pub desired: Desired,
    pub created_at: SystemTime,
}

/// A guest to be known; its local id is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewGuest {
    pub guest: GuestId,
    pub name: String,
    pub definition: String,
    pub passport: Option<String>,
    pub autostart: bool,
    pub transient: bool,
    pub desired: Desired,
}

/// A host that was paired with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRow {
    pub host: HostId,
    pub name: String,
    /// `address:port`, best first.
    pub addresses: Vec<String>,
    /// The named network that migrations prefer.
    pub network: Option<String>,
    pub certificate: Vec<u8>,
    pub pinned_at: SystemTime,
    /// Kept after `host forget`, so that its next knock is refused by name.
    pub is_forgotten: bool,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Grows with every event of this host; 0 for one that is not stored yet.
    pub id: u64,
    pub at: SystemTime,
    pub guest: Option<GuestId>,
    pub guest_name: Option<String>,
    pub handoff: Option<HandoffId>,
    /// The name of the host it happened on.
    pub host: String,
    /// The uid of the person who asked for it.
    pub actor_uid: Option<u32>,
    /// `created`, `started`, `migration/ready`, …
    pub kind: String,
    pub text: String,
}

/// Which events to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub guest: Option<GuestId>,
    pub since: Option<SystemTime>,
    /// Only events after this one.
    pub after: Option<u64>,
    /// The newest so many; none: [`EVENTS_READ_MAX`].
    pub limit: Option<usize>,
}

/// Most events one call returns.
pub const EVENTS_READ_MAX: usize = 10_000;

/// The report of one migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRow {
    pub handoff: HandoffId,
    pub guest: GuestId,
    pub guest_name: String,
    pub at: SystemTime,
    /// JSON, of the version it says itself.
    pub report: String,
}

impl Store {
    /// Opens the store, creating or migrating it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Err(unsupported(path))
    }

    /// Runs `work` on the tables on a blocking thread, alone.
    pub async fn call<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables) -> Result<T, StoreError> + Send + 'static,
    {
        let _ = work;
        Err(unsupported(Path::new("")))
    }
}

impl Tables {
    /// Opens the store for reading only, for `log` while the daemon is down.
    pub fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        Err(unsupported(path))
    }

    /// Adds a guest and draws its local id, which no other guest of this host ever had.
    pub fn add_guest(&mut self, guest: &NewGuest) -> Result<GuestRow, StoreError> {
        let _ = guest;
        Err(unsupported(&self.path))
    }

    pub fn guests(&self) -> Result<Vec<GuestRow>, StoreError> {
        Err(unsupported(&self.path))
    }

    pub fn guest(&self, guest: GuestId) -> Result<Option<GuestRow>, StoreError> {
        let _ = guest;
        Err(unsupported(&self.path))
    }

    /// Replaces what may change of a guest: everything but its ids and its time of creation.
    pub fn update_guest(&mut self, guest: &NewGuest) -> Result<(), StoreError> {
        let _ = guest;
        Err(unsupported(&self.path))
    }

    pub fn set_desired(&mut self, guest: GuestId, desired: Desired) -> Result<(), StoreError> {
        let _ = (guest, desired);
        Err(unsupported(&self.path))
    }

    pub fn remove_guest(&mut self, guest: GuestId) -> Result<(), StoreError> {
        let _ = guest;
        Err(unsupported(&self.path))
    }

    pub fn put_peer(&mut self, peer: &PeerRow) -> Result<(), StoreError> {
        let _ = peer;
        Err(unsupported(&self.path))
    }

    pub fn peers(&self) -> Result<Vec<PeerRow>, StoreError> {
        Err(unsupported(&self.path))
    }

    pub fn peer(&self, host: HostId) -> Result<Option<PeerRow>, StoreError> {
        let _ = host;
        Err(unsupported(&self.path))
    }

    /// Adds an event and returns its id. The oldest beyond the bound go.
    pub fn add_event(&mut self, event: &EventRow) -> Result<u64, StoreError> {
        let _ = event;
        Err(unsupported(&self.path))
    }

    /// Returns the newest events that match, oldest first.
    pub fn events(&self, filter: &EventFilter) -> Result<Vec<EventRow>, StoreError> {
        let _ = filter;
        Err(unsupported(&self.path))
    }

    /// Keeps a report; a second one of the same handoff replaces the first.
    pub fn put_report(&mut self, report: &ReportRow) -> Result<(), StoreError> {
        let _ = report;
        Err(unsupported(&self.path))
    }

    /// Returns the newest reports of a guest, newest first.
    pub fn reports(&self, guest: GuestId, limit: usize) -> Result<Vec<ReportRow>, StoreError> {
        let _ = (guest, limit);
        Err(unsupported(&self.path))
    }

    pub fn report(&self, handoff: HandoffId) -> Result<Option<ReportRow>, StoreError> {
        let _ = handoff;
        Err(unsupported(&self.path))
    }

    /// Settings that outlive a restart: `relocation.enabled`.
    pub fn setting(&self, key: &str) -> Result<Option<String>, StoreError> {
        let _ = key;
        Err(unsupported(&self.path))
    }

    pub fn put_setting(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        let _ = (key, value);
        Err(unsupported(&self.path))
    }
}

fn unsupported(path: &Path) -> StoreError {
    let source = rusqlite::Error::InvalidQuery;
    StoreError::Sqlite { action: "use", path: path.to_owned(), source }
}
