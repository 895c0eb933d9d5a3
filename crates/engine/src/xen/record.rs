// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What is written down about a guest for the daemons to come: `xen.json` in its directory, which
//! on a Xen host belongs to root.

use crate::contract::Process;
use crate::error::EngineError;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::path::Path;
use whimbrel_model::id::GuestId;

const FILE: &str = "xen.json";
const RECORD_BYTES_MAX: u64 = 64 << 10;
const VERSION: u32 = 1;

/// A guest that this host has given a domain, or is about to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: GuestId,
    pub(super) name: String,
    /// Whether the guest may have run here.
    pub(super) has_run: bool,
    pub(super) moving: Option<Moving>,
}

/// The process that moves the guest: `xl migrate` where it leaves, the pipe where it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moving {
    pub(super) process: Process,
    pub(super) is_leaving: bool,
}

#[derive(Serialize, Deserialize)]
struct RecordV1 {
    version: u32,
    guest: String,
    name: String,
    has_run: bool,
    moving: Option<MovingV1>,
}

#[derive(Serialize, Deserialize)]
struct MovingV1 {
    pid: u32,
    start_ticks: u64,
    is_leaving: bool,
}

impl Record {
    /// Writes the record; the file is whole or the old one.
    pub(super) fn write(&self, directory: &Path) -> Result<(), EngineError> {
        let path = directory.join(FILE);
        let failed = |source| EngineError::File { action: "write", path: path.clone(), source };
        let raw = RecordV1 {
            version: VERSION,
            guest: self.id.to_string(),
            name: self.name.clone(),
            has_run: self.has_run,
            moving: self.moving.map(|moving| MovingV1 {
                pid: moving.process.pid,
                start_ticks: moving.process.start_ticks,
                is_leaving: moving.is_leaving,
            }),
        };
        let text = serde_json::to_vec_pretty(&raw).map_err(|error| failed(error.into()))?;
        let fresh = directory.join("xen.json.new");
        let mut file = std::fs::File::create(&fresh).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_data()).map_err(failed)?;
        std::fs::rename(&fresh, &path).map_err(failed)
    }

    /// Reads the record; none if there is none.
    pub(super) fn read(directory: &Path) -> Result<Option<Record>, EngineError> {
        let path = directory.join(FILE);
        let failed = |source| EngineError::File { action: "read", path: path.clone(), source };
        let broken =
            |what: String| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut text = Vec::new();
        file.take(RECORD_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
        let raw: RecordV1 =
            serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
        if raw.version != VERSION {
            return Err(broken(format!("it has the version {}", raw.version)));
        }
        Ok(Some(Record {
            id: raw.guest.parse().map_err(|_| broken("the id is not a uuid".to_owned()))?,
            name: raw.name,
            has_run: raw.has_run,
            moving: raw.moving.map(|moving| Moving {
                process: Process { pid: moving.pid, start_ticks: moving.start_ticks },
                is_leaving: moving.is_leaving,
            }),
        }))
    }

    pub(super) fn remove(directory: &Path) -> Result<(), EngineError> {
        let path = directory.join(FILE);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(EngineError::File { action: "remove", path, source })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let record = Record {
            id: "6f3f7a52-61c2-4b7e-9f3e-0a4f0f6a0001".parse().unwrap(),
            name: "web1".to_owned(),
            has_run: false,
            moving: Some(Moving {
                process: Process { pid: 17, start_ticks: 4242 },
                is_leaving: true,
            }),
        };
        assert_eq!(Record::read(directory.path()).unwrap(), None);
        record.write(directory.path()).unwrap();
        assert_eq!(Record::read(directory.path()).unwrap(), Some(record));
        std::fs::write(directory.path().join(FILE), "{").unwrap();
        assert!(Record::read(directory.path()).is_err());
        Record::remove(directory.path()).unwrap();
        Record::remove(directory.path()).unwrap();
        assert_eq!(Record::read(directory.path()).unwrap(), None);
    }
}
