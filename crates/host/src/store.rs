// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Definitions, peers, events and reports, in one SQLite file.
//!
//! Ownership is not here: SQLite cannot promise what ownership needs (see
//! [`ownership`](crate::ownership)). What is here is durable when a call returns (WAL with full
//! sync), bounded, and of a schema with a version; a newer one is refused, not guessed at.
//!
//! [`Store`] is for the daemon: it runs each piece of work on a blocking thread, one at a time.
//! [`Tables`] is the store itself, also for reading it while no daemon runs.

/// Passes a fault point before a durable write; nothing in what is shipped.
macro_rules! fault_point {
    ($tables:ident, $name:literal, $action:literal) => {
        #[cfg(feature = "fault-points")]
        $tables.pass_fault_point(concat!("store/", $name), $action)?;
    };
}

mod guests;
mod kept;
mod log;
mod peers;
mod schema;

use rusqlite::{Connection, OpenFlags};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use whimbrel_model::id::{Epoch, GuestId, HandoffId, HostId, LocalId};
use whimbrel_model::problem::{Kind, Remedy};

/// Most events one call returns.
pub const EVENTS_READ_MAX: usize = 10_000;
/// Events kept; older ones go.
pub const EVENTS_KEPT_MAX: u64 = 100_000;
/// Longest text of an event, in bytes; what is longer is cut.
pub const EVENT_TEXT_BYTES_MAX: usize = 4096;
/// Reports kept; older ones go.
pub const REPORTS_KEPT_MAX: u64 = 1_000;

/// How long a call waits for another process that has the store locked.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The store, for the daemon. Cheap to clone; calls run on blocking threads.
#[derive(Clone, Debug)]
pub struct Store {
    tables: Arc<Mutex<Tables>>,
}

/// The store's tables, blocking.
#[derive(Debug)]
pub struct Tables {
    path: PathBuf,
    connection: Connection,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "the store `{}` was written by a newer Whimbrel (schema {found}; this one knows {known})",
        .path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("`{}` is a database, but not one of Whimbrel", .path.display())]
    Foreign { path: PathBuf },
    #[error("a guest named `{name}` exists already")]
    NameTaken { name: String },
    #[error("the guest `{guest}` exists already")]
    GuestTaken { guest: GuestId },
    #[error("there is no guest `{guest}`")]
    NoGuest { guest: GuestId },
    #[error("the {what} `{value}` in the store `{}` cannot be read",
        .path.display()
    )]
    Unreadable { path: PathBuf, what: &'static str, value: String },
    #[error("failed to {action} the store `{}`", .path.display())]
    Sqlite {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("failed to create the store `{}`", .path.display())]
    Create {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl Remedy for StoreError {
    fn code(&self) -> &'static str {
        match self {
            StoreError::Newer { .. } => "store/newer",
            StoreError::Foreign { .. } => "store/foreign",
            StoreError::NameTaken { .. } => "guest/name-taken",
            StoreError::GuestTaken { .. } => "guest/id-taken",
            StoreError::NoGuest { .. } => "guest/unknown",
            StoreError::Unreadable { .. } => "store/unreadable",
            StoreError::Sqlite { .. } | StoreError::Create { .. } => "store/unusable",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            StoreError::Newer { .. }
            | StoreError::Foreign { .. }
            | StoreError::NameTaken { .. }
            | StoreError::GuestTaken { .. }
            | StoreError::NoGuest { .. } => Kind::Refused,
            StoreError::Unreadable { .. }
            | StoreError::Sqlite { .. }
            | StoreError::Create { .. } => Kind::Failed,
        }
    }

    fn remedy(&self) -> String {
        match self {
            StoreError::Newer { .. } => "install the newer Whimbrel again".into(),
            StoreError::Foreign { .. } => "choose another state directory in the config".into(),
            StoreError::NameTaken { .. } => {
                "choose another name, or remove the other guest with `whimbrel rm`".into()
            }
            StoreError::GuestTaken { .. } => {
                "remove `uuid` from the guest file to get a new one; `whimbrel list` shows the \
                 other guest"
                    .into()
            }
            StoreError::NoGuest { .. } => "see `whimbrel list` for the guests there are".into(),
            StoreError::Unreadable { path, .. } | StoreError::Sqlite { path, .. } => {
                format!("check `{}` with `sqlite3`: `PRAGMA integrity_check`", path.display())
            }
            StoreError::Create { path, .. } => {
                format!("make the directory of `{}` writable for the daemon", path.display())
            }
        }
    }
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
    /// `debug`, `info`, `warning` or `error`.
    pub level: String,
    /// The code of the problem it tells, if it tells one.
    pub code: Option<String>,
    pub text: String,
}

/// Which events to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub guest: Option<GuestId>,
    pub since: Option<SystemTime>,
    /// Only events after this one.
    pub after: Option<u64>,
    /// The newest so many; none: as many as [`EVENTS_READ_MAX`].
    pub limit: Option<usize>,
}

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

/// The papers of a guest that another host owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRow {
    /// The owner, when it was last asked.
    pub host: HostId,
    pub guest: GuestId,
    pub name: String,
    /// What it owned the guest with.
    pub epoch: Epoch,
    /// The guest file, TOML.
    pub definition: String,
    /// JSON, once there is one.
    pub passport: Option<String>,
    /// Forgotten when it stops.
    pub transient: bool,
    pub kept_at: SystemTime,
}

impl Store {
    /// Opens the store, creating it or bringing its schema up to date.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { tables: Arc::new(Mutex::new(Tables::open(path)?)) })
    }

    /// Runs `work` on the tables, alone, on a blocking thread.
    pub async fn call<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables) -> Result<T, StoreError> + Send + 'static,
    {
        let tables = Arc::clone(&self.tables);
        let done = tokio::task::spawn_blocking(move || {
            work(&mut tables.lock().expect("a panic while holding this lock ends the daemon"))
        });
        done.await.expect("blocking work is not cancelled, and a panic in it ends the daemon")
    }
}

impl Tables {
    /// Opens the store, creating it or bringing its schema up to date.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        // SQLite gives its other files the mode of this one.
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|source| StoreError::Create { path: path.to_owned(), source })?;
        let failed = |source| StoreError::Sqlite { action: "open", path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        schema::check(&connection, path)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        schema::migrate(&mut connection).map_err(failed)?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// Opens the store for reading only, whether a daemon has it open or not.
    pub fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Sqlite { action: "open", path: path.to_owned(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_URI;
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        if schema::version(&connection).is_err() && !sibling(path, "-wal").exists() {
            // The write-ahead log is gone with a daemon that ended well, and here it cannot be
            // made anew (a read-only file system). So nobody writes, and the file is all there is.
            let uri = immutable_uri(path);
            connection = Connection::open_with_flags(uri, flags).map_err(failed)?;
        }
        schema::check(&connection, path)?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// Names the file and the action that failed.
    fn failed(&self, action: &'static str) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        let path = self.path.clone();
        move |source| StoreError::Sqlite { action, path: path.clone(), source }
    }

    #[cfg(feature = "fault-points")]
    fn pass_fault_point(&self, point: &str, action: &'static str) -> Result<(), StoreError> {
        use rusqlite::ffi::{Error, SQLITE_FULL, SQLITE_IOERR};
        crate::faults::pass_blocking(point);
        let full = crate::faults::write().map_err(|_| SQLITE_FULL);
        let failed = full.and_then(|()| crate::faults::sync().map_err(|_| SQLITE_IOERR));
        let source = |code| rusqlite::Error::SqliteFailure(Error::new(code), None);
        failed.map_err(source).map_err(self.failed(action))
    }

    fn unreadable(&self, what: &'static str, value: impl ToString) -> StoreError {
        StoreError::Unreadable { path: self.path.clone(), what, value: value.to_string() }
    }

    /// Settings that outlive a restart, such as `relocation.enabled`.
    pub fn setting(&self, key: &str) -> Result<Option<String>, StoreError> {
        use rusqlite::OptionalExtension;
        self.connection
            .query_row("SELECT value FROM settings WHERE key = ?1", [key], |row| row.get(0))
            .optional()
            .map_err(self.failed("read a setting from"))
    }

    pub fn put_setting(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        self.connection
            .execute("INSERT OR REPLACE INTO settings (key, value) VALUES (?1, ?2)", [key, value])
            .map_err(self.failed("write a setting to"))?;
        Ok(())
    }
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Returns `path` as a URI that tells SQLite that nobody will change the file.
fn immutable_uri(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    uri
}

fn to_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn from_ms(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
mod tests;
