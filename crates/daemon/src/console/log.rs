// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The engine's log file of the console: read for the scrollback, and kept below a limit.
//!
//! The engine appends to the file and cannot be told to open another one, so it is copied away
//! and truncated; what the engine writes in between is lost to the log (not to the clients). The
//! directory belongs to the engine's user, who is not trusted: nothing here follows a link, and
//! only regular files with a single name are touched.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use whimbrel_api::limits::SCROLLBACK_BYTES_MAX;

/// Largest log file; with the copy of the one before, twice this is used.
const LOG_BYTES_MAX: u64 = 4 << 20;
/// How many bytes of console are shown between two looks at the file.
const LOOK_EVERY_BYTES: usize = 256 << 10;

/// The log file of one console.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    written_since_look: usize,
}

impl Log {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, written_since_look: 0 }
    }

    /// Returns the end of the log; nothing if there is none.
    pub(super) async fn read_end(&mut self) -> Vec<u8> {
        let path = self.path.clone();
        let reading = tokio::task::spawn_blocking(move || read_end(&path));
        let read = reading.await.expect("reading a file does not panic");
        self.look();
        match read {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %self.path.display(), %error, "console log not read");
                }
                Vec::new()
            }
        }
    }

    /// Says that the engine has written, so that the file is looked at now and then.
    pub(super) fn note_written(&mut self, count: usize) {
        self.written_since_look += count;
        if self.written_since_look >= LOOK_EVERY_BYTES {
            self.look();
        }
    }

    fn look(&mut self) {
        self.written_since_look = 0;
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || match rotate(&path, LOG_BYTES_MAX) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "console log not rotated");
            }
        });
    }
}

/// Opens the file if it is what the engine was given, and not something put in its place.
fn open(path: &Path, is_written: bool) -> io::Result<File> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).write(is_written).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(io::Error::other("not a regular file with a single name"));
    }
    Ok(file)
}

fn read_end(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = open(path, false)?;
    let length = file.metadata()?.len();
    let wanted = u64::from(SCROLLBACK_BYTES_MAX);
    file.seek(SeekFrom::Start(length.saturating_sub(wanted)))?;
    let mut bytes = Vec::new();
    file.take(wanted).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Copies the log to `….1` and empties it, if it is over `limit`.
fn rotate(path: &Path, limit: u64) -> io::Result<()> {
    let mut file = open(path, true)?;
    if file.metadata()?.len() <= limit {
        return Ok(());
    }
    let old = path.with_added_extension("1");
    let new = path.with_added_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&new)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    io::copy(&mut (&mut file).take(limit), &mut copy)?;
    file.set_len(0)?;
    std::fs::rename(&new, &old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// A log over the limit is moved away, and the engine, which still holds the file open for
    /// appending, goes on at its beginning.
    #[test]
    fn a_large_log_is_rotated_under_the_engine() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let mut engine = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        engine.write_all(&[b'a'; 100]).unwrap();

        rotate(&path, 100).unwrap();
        assert_eq!(std::fs::read(&path).unwrap().len(), 100);

        engine.write_all(b"b").unwrap();
        rotate(&path, 100).unwrap();
        engine.write_all(b"after").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"after");
        let old = std::fs::read(directory.path().join("console.log.1")).unwrap();
        assert_eq!((old.len(), old.last()), (100, Some(&b'b')));
    }

    /// An engine that was taken over cannot have the daemon read, empty or overwrite another file.
    #[test]
    fn links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("secret");
        std::fs::write(&secret, [b's'; 100]).unwrap();
        let soft = directory.path().join("soft.log");
        std::os::unix::fs::symlink(&secret, &soft).unwrap();
        assert!(read_end(&soft).is_err());
        assert!(rotate(&soft, 10).is_err());
        let hard = directory.path().join("hard.log");
        std::fs::hard_link(&secret, &hard).unwrap();
        assert!(read_end(&hard).is_err());
        assert!(rotate(&hard, 10).is_err());
        std::fs::remove_file(&hard).unwrap();
        assert_eq!(std::fs::read(&secret).unwrap().len(), 100);

        let log = directory.path().join("console.log");
        std::fs::write(&log, [b'l'; 100]).unwrap();
        std::os::unix::fs::symlink(&secret, directory.path().join("console.log.new")).unwrap();
        std::os::unix::fs::symlink(&secret, directory.path().join("console.log.1")).unwrap();
        rotate(&log, 10).unwrap();
        assert_eq!(std::fs::read(&secret).unwrap(), [b's'; 100]);
    }
}
