// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Follows the log of a libvirtd, line by line as it is written: where we have fault points in our
//! program, this is how far another one can be known to be.

use anyhow::{Context as _, Result};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// What libvirtd is told: its steps of a migration, and all that is said to and by QEMU.
pub(super) fn config(path: &Path) -> String {
    format!(
        "log_filters = \"1:qemu.qemu_migration 1:qemu.qemu_monitor\"\n\
         log_outputs = \"1:file:{}\"",
        path.display()
    )
}

/// A log from a moment on.
pub(super) struct Log {
    file: File,
    /// The beginning of a line that is not finished yet.
    begun: Vec<u8>,
}

impl Log {
    /// Follows a log from its present end on.
    pub(super) fn from_now(path: &Path) -> Result<Log> {
        let mut file = File::open(path).with_context(|| format!("no log {}", path.display()))?;
        file.seek(SeekFrom::End(0))?;
        Ok(Log { file, begun: Vec::new() })
    }

    /// Returns whether one of the lines that have come since the last look contains `text`.
    pub(super) fn has(&mut self, text: &str) -> Result<bool> {
        self.file.read_to_end(&mut self.begun)?;
        let end = self.begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let whole: Vec<u8> = self.begun.drain(..end).collect();
        Ok(String::from_utf8_lossy(&whole).lines().any(|line| line.contains(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// Only new lines count, and only when they are whole.
    #[test]
    fn lines_are_seen_once_they_are_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"Begin3 of before\n").unwrap();
        let mut log = Log::from_now(&path).unwrap();
        assert!(!log.has("Begin3").unwrap());
        file.write_all(b"debug : Beg").unwrap();
        assert!(!log.has("Beg").unwrap());
        file.write_all(b"in3 0x7f\nmore").unwrap();
        assert!(log.has("Begin3").unwrap());
        assert!(!log.has("Begin3").unwrap());
    }
}
