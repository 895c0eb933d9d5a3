// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Which file system is under a path: `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use whimbrel_model::facts::FileSystem;

/// Returns the file system of a path without symbolic links, or an unknown one.
pub(super) fn file_system_of(path: &Path) -> FileSystem {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    find(&mounts, path).unwrap_or_else(|| FileSystem {
        kind: String::new(),
        source: String::new(),
        mount_point: PathBuf::from("/"),
    })
}

/// Returns the mount with the longest mount point above the path; of several at one point, the
/// last: it covers the others.
fn find(mounts: &str, path: &Path) -> Option<FileSystem> {
    let above =
        mounts.lines().filter_map(parse).filter(|mount| path.starts_with(&mount.mount_point));
    above.max_by_key(|mount| mount.mount_point.components().count())
}

/// Reads `36 35 98:0 / /srv rw,noatime master:1 - ext4 /dev/sda1 rw`.
fn parse(line: &str) -> Option<FileSystem> {
    let (front, back) = line.split_once(" - ")?;
    let mut back = back.split(' ');
    Some(FileSystem {
        mount_point: unescape(front.split(' ').nth(4)?).into(),
        kind: back.next()?.to_owned(),
        source: unescape(back.next()?).to_string_lossy().into_owned(),
    })
}

/// Undoes `\040` and its like.
fn unescape(text: &str) -> OsString {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digits =
            tail.get(..3).filter(|_| byte == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &tail[3..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:50 / /xen rw,relatime shared:1 master:2 - nfs4 10.0.0.1:/xen rw,vers=4.2
31 22 0:51 / /srv/my\\040disks rw - ext4 /dev/sdb rw
32 30 0:52 / /xen rw - tmpfs tmpfs rw
broken line
";

    /// The nearest mount counts, the last of those at one point, and escaped names are read.
    #[test]
    fn mounts_are_found() {
        let check = |path: &str, kind: &str, source: &str| {
            let found = find(MOUNTS, Path::new(path)).unwrap();
            assert_eq!((&*found.kind, &*found.source), (kind, source), "{path}");
        };
        check("/xen/web1.img", "tmpfs", "tmpfs");
        check("/xen2/web1.img", "ext4", "/dev/vda");
        check("/srv/my disks/a", "ext4", "/dev/sdb");
        let before = MOUNTS.lines().take(2).collect::<Vec<_>>().join("\n");
        assert_eq!(
            find(&before, Path::new("/xen/web1.img")).unwrap(),
            FileSystem {
                kind: "nfs4".into(),
                source: "10.0.0.1:/xen".into(),
                mount_point: "/xen".into()
            }
        );
        assert_eq!(find("", Path::new("/")), None);
        assert!(!file_system_of(Path::new("/proc")).kind.is_empty());
    }
}
