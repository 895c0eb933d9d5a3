// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What QEMU writes when something is wrong, and what we make of it.

use crate::error::EngineError;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Of what an engine wrote, this much is looked at.
const TAIL_BYTES_MAX: u64 = 8 << 10;
/// Of that, this much is repeated in an error.
const LINES_TOLD_MAX: usize = 6;
/// A log that has grown to this size is cut.
pub(super) const LOG_BYTES_MAX: u64 = 4 << 20;
/// What is kept of a log that is cut.
const LOG_BYTES_KEPT: u64 = 1 << 20;

/// Who could not be started, for the errors.
pub(super) struct Subject<'a> {
    pub(super) program: &'a str,
    pub(super) guest: &'a str,
    pub(super) user: &'a str,
}

/// Makes an error of what QEMU said when it did not start.
pub(super) fn classify(subject: &Subject<'_>, said: &str) -> EngineError {
    let guest = subject.guest.to_owned();
    if let Some(error) = lock_conflict(subject.guest, said) {
        return error;
    }
    if let Some(path) = quoted_before(said, "Could not open", "Permission denied") {
        return EngineError::PermissionDenied {
            guest,
            user: subject.user.to_owned(),
            path: PathBuf::from(path),
        };
    }
    if said.contains("Unknown driver 'nfs'") {
        let what = "disks at `nfs://`, because QEMU's driver for them is not installed (Debian: \
                    `apt install qemu-block-extra`)";
        return EngineError::Unsupported { what: what.to_owned() };
    }
    let reason = if said.is_empty() { "it ended at once and said nothing" } else { said };
    EngineError::Start { program: subject.program.to_owned(), guest, reason: reason.to_owned() }
}

/// Recognises that another process holds an image.
///
/// QEMU says: `Failed to get "write" lock`, and on the next line
/// `Is another process using the image [/images/a.img]?`
pub(super) fn lock_conflict(guest: &str, said: &str) -> Option<EngineError> {
    if !(said.contains("Failed to get") && said.contains("lock")) {
        return None;
    }
    let image = said
        .split_once("using the image [")
        .and_then(|(_, rest)| rest.split_once("]?"))
        .map_or("one of its disks", |(image, _)| image);
    let reason = said.lines().find(|line| line.contains("Failed to get")).unwrap_or(said);
    let reason = reason.rsplit_once("}: ").map_or(reason, |(_, reason)| reason);
    Some(EngineError::ImageLocked {
        guest: guest.to_owned(),
        image: image.to_owned(),
        reason: reason.trim().to_owned(),
    })
}

/// Returns `PATH` of a line `… before 'PATH': after`.
fn quoted_before<'a>(said: &'a str, before: &str, after: &str) -> Option<&'a str> {
    said.lines().filter(|line| line.contains(after)).find_map(|line| {
        let (_, rest) = line.split_once(&format!("{before} '"))?;
        let (path, _) = rest.rsplit_once("': ")?;
        Some(path)
    })
}

/// Returns the last lines of an engine's log, without times and its own name.
pub(super) fn last_words(log: &Path) -> Option<String> {
    let tail = tail(log, TAIL_BYTES_MAX).ok()?;
    let text = String::from_utf8_lossy(&tail);
    let lines: Vec<&str> = text.lines().map(bare).filter(|line| !line.is_empty()).collect();
    let told = &lines[lines.len().saturating_sub(LINES_TOLD_MAX)..];
    (!told.is_empty()).then(|| told.join("\n"))
}

/// Takes `2026-01-02T03:04:05.678Z qemu-system-x86_64: ` off a line.
fn bare(line: &str) -> &str {
    let line = match line.split_once("Z ") {
        Some((time, rest)) if time.starts_with(|c: char| c.is_ascii_digit()) => rest,
        _ => line,
    };
    match line.split_once(": ") {
        Some((program, rest)) if program.contains("qemu") && !program.contains(' ') => rest.trim(),
        _ => line.trim(),
    }
}

/// Reads at most the last `bytes_max` bytes. Follows no link and waits for no pipe: the folder is
/// the engine user's.
fn tail(path: &Path, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Cuts a log that has become too long; its last part goes on as `LOG.old`.
///
/// The engine appends to it, so after the cut it goes on at the beginning. What it writes between
/// the copy and the cut is lost.
pub(super) fn cut(log: &Path) -> std::io::Result<()> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = match OpenOptions::new().write(true).custom_flags(flags).open(log) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    // A second name would be somebody else's file, linked here to have us cut it.
    if metadata.len() <= LOG_BYTES_MAX || metadata.nlink() != 1 || !metadata.is_file() {
        return Ok(());
    }
    let kept = tail(log, LOG_BYTES_KEPT)?;
    let mut old = log.as_os_str().to_owned();
    old.push(".old");
    super::record::remove_if_there(Path::new(&old))?;
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&old)?;
    copy.write_all(&kept)?;
    file.set_len(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use whimbrel_model::problem::Remedy;

    const SUBJECT: Subject<'_> = Subject { program: "qemu", guest: "web1", user: "whimbrel" };

    /// The three kinds of complaint, in QEMU's own words (7.2), become errors that say what to do.
    #[test]
    fn complaints_are_understood() {
        let check = |said: &str, code, text: &str, remedy: &str| {
            let error = classify(&SUBJECT, said);
            assert_eq!(error.code(), code);
            assert_eq!(error.to_string(), text);
            assert!(error.remedy().contains(remedy), "{}", error.remedy());
        };
        check(
            "-device {\"driver\":\"virtio-blk-pci\"}: Failed to get \"write\" lock\n\
             Is another process using the image [/images/a.img]?",
            "engine/image-locked",
            "the image `/images/a.img` of guest `web1` is in use by another process: \
             Failed to get \"write\" lock",
            "fuser -v /images/a.img",
        );
        check(
            "-blockdev {\"driver\":\"raw\"}: Could not open '/images/a's.img': Permission denied",
            "engine/permission-denied",
            "the engine of guest `web1`, running as whimbrel, may not open `/images/a's.img`",
            "setfacl -m u:whimbrel:rw /images/a's.img",
        );
        check(
            "Could not set up host forwarding rule 'tcp:127.0.0.1:22-:22'",
            "engine/start-failed",
            "failed to start `qemu` for guest `web1`: \
             Could not set up host forwarding rule 'tcp:127.0.0.1:22-:22'",
            "start the guest again",
        );
        check(
            "-blockdev {\"driver\":\"raw\"}: Unknown driver 'nfs'",
            "engine/unsupported",
            "the engine cannot do this: disks at `nfs://`, because QEMU's driver for them is not \
             installed (Debian: `apt install qemu-block-extra`)",
            "change the guest's definition",
        );
    }

    #[test]
    fn last_words_are_bare_and_few() {
        let log = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(last_words(log.path()), None);
        let lines: String = (0..9)
            .map(|n| format!("2026-01-02T03:04:05.6Z qemu-system-x86_64: no {n}\n"))
            .collect();
        std::fs::write(log.path(), lines + "a second line: with colon\n").unwrap();
        let words = last_words(log.path()).unwrap();
        assert_eq!(words, "no 4\nno 5\nno 6\nno 7\nno 8\na second line: with colon");
    }

    /// A long log is cut and its end kept; a short one, and a link to someone else's, are left.
    #[test]
    fn long_logs_are_cut() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("console.log");
        cut(&log).unwrap();
        let length = |path: &Path| std::fs::metadata(path).unwrap().len();
        let long = vec![b'x'; usize::try_from(LOG_BYTES_MAX).unwrap() + 1];
        std::fs::write(&log, &long[1..]).unwrap();
        cut(&log).unwrap();
        assert_eq!(length(&log), LOG_BYTES_MAX);
        std::fs::write(&log, &long).unwrap();
        let second = directory.path().join("second");
        std::fs::hard_link(&log, &second).unwrap();
        cut(&log).unwrap();
        assert_eq!(length(&log), LOG_BYTES_MAX + 1);
        std::fs::remove_file(second).unwrap();
        cut(&log).unwrap();
        assert_eq!(length(&log), 0);
        assert_eq!(length(&directory.path().join("console.log.old")), LOG_BYTES_KEPT);
    }
}
