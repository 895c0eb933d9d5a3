// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Denials in the words of the audit system. Pure.
//!
//! ```text
//! type=AVC msg=audit(1700000000.123:45): avc:  denied  { write } for  pid=7 comm="qemu-system-x86"
//!   name="web1.img" dev="sda1" ino=42 scontext=… tcontext=… tclass=file permissive=0
//! audit: type=1400 audit(1700000000.123:46): apparmor="DENIED" operation="open" profile="qemu"
//!   name="/srv/web1.img" pid=7 comm="qemu-system-x86" requested_mask="wr" denied_mask="wr" …
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use whimbrel_model::facts::Denial;

/// Longest record that is shown to a person, in bytes.
const RECORD_BYTES_MAX: usize = 600;

/// What was denied.
pub(super) enum Subject<'a> {
    File { path: &'a Path, inode: Option<u64> },
    Port(u16),
}

/// Returns the newest denial of the subject in a log, if it is not older than `since`.
pub(super) fn newest(log: &str, subject: &Subject<'_>, since: SystemTime) -> Option<Denial> {
    let fresh = log.lines().rev().filter(|line| time(line).is_some_and(|time| time >= since));
    fresh.into_iter().find_map(|line| denial(line, subject))
}

fn denial(line: &str, subject: &Subject<'_>) -> Option<Denial> {
    if let Some(at) = line.find("apparmor=\"DENIED\"") {
        let record = &line[at..];
        return is_about(record, subject).then(|| Denial::Apparmor { record: short(record) });
    }
    let record = &line[line.find("avc:  denied")?..];
    // Permissive: it was written down, and allowed.
    let is_denied = field(record, "permissive").as_deref() != Some("1");
    (is_denied && is_about(record, subject)).then(|| Denial::Selinux { record: short(record) })
}

fn is_about(record: &str, subject: &Subject<'_>) -> bool {
    match subject {
        Subject::Port(port) => {
            let is_port = |key| field(record, key).is_some_and(|value| value == port.to_string());
            is_port("src") || is_port("dest")
        }
        Subject::File { path, inode } => {
            let whole = ["path", "name"].into_iter().filter_map(|key| field(record, key));
            if whole.into_iter().any(|name| PathBuf::from(name) == *path) {
                return true;
            }
            // SELinux often knows the last part of the name only, and the inode.
            let name = field(record, "name").map(PathBuf::from);
            let has_name = name.is_some() && name.as_deref() == path.file_name().map(Path::new);
            let found = field(record, "ino").and_then(|number| number.parse().ok());
            has_name && inode.is_some() && found == *inode
        }
    }
}

/// Returns the value of `key=value`, `key="value"` or, for names with strange characters,
/// `key=` and hexadecimal digits.
fn field(record: &str, key: &str) -> Option<String> {
    let mut rest = record;
    loop {
        let at = rest.find(key)?;
        let is_whole = at == 0 || rest.as_bytes()[at - 1] == b' ';
        rest = &rest[at + key.len()..];
        if is_whole && rest.starts_with('=') {
            break;
        }
    }
    let value = &rest[1..];
    if let Some(quoted) = value.strip_prefix('"') {
        return quoted.split('"').next().map(str::to_owned);
    }
    let value = value.split_ascii_whitespace().next()?;
    let is_name = matches!(key, "name" | "path");
    is_name.then(|| from_hex(value)).flatten().or_else(|| Some(value.to_owned()))
}

fn from_hex(text: &str) -> Option<String> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let bytes = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16));
    String::from_utf8(bytes.collect::<Result<_, _>>().ok()?).ok()
}

/// Reads `audit(1700000000.123:45)`.
fn time(line: &str) -> Option<SystemTime> {
    let (_, rest) = line.split_once("audit(")?;
    let (seconds, rest) = rest.split_once('.')?;
    let (ms, _) = rest.split_once(':')?;
    let since = Duration::from_secs(seconds.parse().ok()?)
        .checked_add(Duration::from_millis(ms.parse().ok()?))?;
    UNIX_EPOCH.checked_add(since)
}

fn short(record: &str) -> String {
    let record = record.trim_end();
    record[..record.floor_char_boundary(RECORD_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"
type=AVC msg=audit(1700000000.100:1): avc:  denied  { write } for  name="web1.img" ino=42
type=AVC msg=audit(1700000001.100:2): avc:  denied  { read } for  path="/srv/web2.img" permissive=1
5,9,1,-;audit: audit(1700000002.100:3): apparmor="DENIED" operation="open" name="/srv/web3.img"
5,9,2,-;audit: audit(1700000003.100:4): apparmor="ALLOWED" operation="open" name="/srv/web4.img"
5,9,3,-;audit: audit(1700000004.100:5): apparmor="DENIED" name=2F7372762F6D79206469736B pid=7
type=AVC msg=audit(1700000005.100:6): avc:  denied  { name_bind } for  pid=9 src=8002 permissive=0
type=AVC msg=audit(broken
"#;

    fn file(path: &str, inode: Option<u64>, since: u64) -> Option<Denial> {
        let since = UNIX_EPOCH + Duration::from_secs(since);
        newest(LOG, &Subject::File { path: Path::new(path), inode }, since)
    }

    fn is_selinux(denial: Option<Denial>) -> bool {
        matches!(denial, Some(Denial::Selinux { .. }))
    }

    fn is_apparmor(denial: Option<Denial>) -> bool {
        matches!(denial, Some(Denial::Apparmor { .. }))
    }

    /// A denial is found by path, or by name and inode together; allowed and older ones are not.
    #[test]
    fn denials_of_files_are_found() {
        assert!(is_selinux(file("/srv/web1.img", Some(42), 0)));
        assert_eq!(file("/srv/web1.img", Some(41), 0), None);
        assert_eq!(file("/srv/web1.img", None, 0), None);
        assert_eq!(file("/srv/web1.img", Some(42), 1_700_000_001), None);
        assert_eq!(file("/srv/web2.img", Some(43), 0), None, "permissive");
        assert!(is_apparmor(file("/srv/web3.img", None, 0)));
        assert_eq!(file("/srv/web4.img", None, 0), None, "allowed");
        assert!(is_apparmor(file("/srv/my disk", None, 0)));
    }

    /// A port is found whoever asked for it, and its record is shown from where it matters.
    #[test]
    fn denials_of_ports_are_found() {
        let port = |port| newest(LOG, &Subject::Port(port), UNIX_EPOCH);
        let Some(Denial::Selinux { record }) = port(8002) else { panic!("not found") };
        assert!(record.starts_with("avc:  denied  { name_bind }"), "{record}");
        assert_eq!(port(800), None);
    }
}
