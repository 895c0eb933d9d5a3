// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a launched QEMU leaves for the daemons to come: `launch.json` beside its sockets.

use crate::contract::{Process, Start};
use crate::error::EngineError;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use whimbrel_model::id::GuestId;

const FILE: &str = "launch.json";
const RECORD_BYTES_MAX: u64 = 64 << 10;
const VERSION: u32 = 1;

/// The process of a guest, as its launcher wrote it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) process: Process,
    pub(super) id: GuestId,
    pub(super) name: String,
    pub(super) binary: PathBuf,
    pub(super) has_console: bool,
    /// Whether the vCPUs may have run here. A guest that arrived paused has not.
    pub(super) has_run: bool,
}

#[derive(Serialize, Deserialize)]
struct RecordV1 {
    version: u32,
    pid: u32,
    start_ticks: u64,
    guest: String,
    name: String,
    binary: PathBuf,
    has_console: bool,
    has_run: bool,
}

impl Record {
    pub(super) fn new(
        process: Process,
        launch: &crate::contract::Launch,
        binary: &Path,
        has_console: bool,
    ) -> Record {
        Record {
            process,
            id: launch.passport.guest,
            name: launch.guest.name.to_string(),
            binary: binary.to_owned(),
            has_console,
            has_run: launch.start == Start::Boot,
        }
    }

    /// Writes the record; the file is whole or the old one.
    pub(super) fn write(&self, directory: &Path) -> Result<(), EngineError> {
        let path = directory.join(FILE);
        let failed = |source| EngineError::File { action: "write", path: path.clone(), source };
        let raw = RecordV1 {
            version: VERSION,
            pid: self.process.pid,
            start_ticks: self.process.start_ticks,
            guest: self.id.to_string(),
            name: self.name.clone(),
            binary: self.binary.clone(),
            has_console: self.has_console,
            has_run: self.has_run,
        };
        let text = serde_json::to_vec_pretty(&raw).map_err(|error| failed(error.into()))?;
        let fresh = directory.join("launch.json.new");
        remove_if_there(&fresh).map_err(failed)?;
        let mut options = std::fs::OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(0o600).open(&fresh);
        opened.and_then(|mut file| file.write_all(&text)).map_err(failed)?;
        std::fs::rename(&fresh, &path).map_err(failed)
    }

    /// Reads the record; none if there is none.
    ///
    /// The directory belongs to the unprivileged user of the engine, and what stands in the record
    /// is a process that we may kill: only a file of our own user is believed.
    pub(super) fn read(directory: &Path) -> Result<Option<Record>, EngineError> {
        let path = directory.join(FILE);
        let failed = |source| EngineError::File { action: "read", path: path.clone(), source };
        let broken =
            |what: &str| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
        let mut options = std::fs::OpenOptions::new();
        let file = match options.read(true).custom_flags(nix::libc::O_NOFOLLOW).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let owner = file.metadata().map_err(failed)?.uid();
        if owner != nix::unistd::geteuid().as_raw() {
            return Err(broken("it is not a file of this daemon's user"));
        }
        let mut text = Vec::new();
        file.take(RECORD_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
        let raw: RecordV1 =
            serde_json::from_slice(&text).map_err(|error| broken(&error.to_string()))?;
        if raw.version != VERSION {
            return Err(broken(&format!("it has the version {}", raw.version)));
        }
        Ok(Some(Record {
            process: Process { pid: raw.pid, start_ticks: raw.start_ticks },
            id: raw.guest.parse().map_err(|_| broken("the guest's id is not a uuid"))?,
            name: raw.name,
            binary: raw.binary,
            has_console: raw.has_console,
            has_run: raw.has_run,
        }))
    }

    pub(super) fn remove(directory: &Path) -> std::io::Result<()> {
        remove_if_there(&directory.join(FILE))
    }
}

pub(super) fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::samples;

    fn record() -> Record {
        Record {
            process: Process { pid: 17, start_ticks: 4242 },
            id: samples::ID,
            name: "web1".to_owned(),
            binary: PathBuf::from("/usr/bin/qemu-system-x86_64"),
            has_console: true,
            has_run: false,
        }
    }

    #[test]
    fn what_was_written_is_read_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(directory.path()).unwrap(), None);
        record().write(directory.path()).unwrap();
        record().write(directory.path()).unwrap();
        assert_eq!(Record::read(directory.path()).unwrap(), Some(record()));
        Record::remove(directory.path()).unwrap();
        Record::remove(directory.path()).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    /// A link planted by the engine's user, a newer version and half a file are errors, never
    /// "no guest": the guest might live.
    #[test]
    fn what_cannot_be_believed_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(Record::read(directory.path()).is_err());
        std::fs::remove_file(&path).unwrap();
        record().write(directory.path()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
        assert!(Record::read(directory.path()).is_err());
        std::fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(Record::read(directory.path()).is_err());
    }
}
